"""One look for every chart: the table of styles by model, and the figure that shows itself.

Charts are PNG at twice the screen's resolution on a white card, the same in print, on a phone and
in both themes of the book. They are drawn without pyplot, in matplotlib's own defaults with `LOOK`
on top, so that no backend and no setting of the user's takes part in them.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
from matplotlib import font_manager, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

WIDTH = 5.6  # inches: the width of every full figure
TEXT = 10.5  # points
SMALL = 10.4  # points: the smallest text; nine pixels of 350 are 1.85 * WIDTH points
DPI = 100  # pixels per inch on the page; the PNG has twice as many

INK = "#1f2933"  # text, and the main marks of charts that are not about models
MUTED = "#6b7280"  # axes, baselines
SLATE = "#7b8794"  # marks of charts that are not about models
PALE = "#cbd2d9"  # the same in the background
CHANCE = "#8a6d1d"  # what chance alone would give
CARD = "#ffffff"  # background, in the dark theme too


class Style(NamedTuple):
    """How one model, embedding or reference looks in every chart and is called in every table."""

    label: str
    color: str
    line: Any = "-"
    marker: str = "o"


DASHED, _DOTTED = (0, (5, 1.5)), (0, (1, 1))

# The order of the rows is the order everywhere. One hue belongs to one model, and to nothing else:
# blue to the IO model, orange to the Accuracy model, green and purple to the two arch2vec; what is
# no model is grey. Contrast with the white card and with the page of the dark theme is 3:1 or more.
STYLES: dict[str, Style] = {
    "io": Style("IO model", "#1470bd"),
    "io_flatten": Style("IO model, flatten", "#1470bd"),
    "io_mean": Style("IO model, mean", "#3f93dd", DASHED, "s"),
    "accuracy": Style("Accuracy model", "#b84a00", marker="^"),
    "accuracy_flatten": Style("Accuracy model, flatten", "#b84a00", marker="^"),
    "accuracy_mean": Style("Accuracy model, mean", "#dd7a1f", DASHED, "v"),
    "arch2vec": Style("arch2vec, trained jointly", "#00906b", marker="D"),
    "arch2vec_original": Style("arch2vec, original", "#a14a97", marker="P"),
    "arch2vec_original_eval": Style("arch2vec, evaluation mode", "#c979bf", DASHED, "p"),
    "latent": Style("arch2vec, latent matrix", "#a14a97", _DOTTED, "X"),
    "encoding": Style("Plain encoding of the cell", "#66707c", _DOTTED, "*"),
    "random": Style("Random search", "#8a8f98", (0, (3, 1, 1, 1)), "."),
    "evolution": Style("Regularised evolution", "#8a7a00", marker="<"),
    "local": Style("Local search", "#c24d86", marker=">"),
    "bananas": Style("BANANAS, path encoding", "#0b8a8f", marker="h"),
    "guided": Style("Predictor-guided, structure", "#c8372d", marker="d"),
    "guided_believed": Style("Predictor-guided, by belief", "#c8372d", _DOTTED, "d"),
}
# A search in an embedding looks like the embedding.
STYLES |= {
    f"{search}_{name}": STYLES[name]._replace(label=f"{label} · {STYLES[name].label}", line=line)
    for search, label, line in (("bo", "Bayesian", "-"), ("reinforce", "REINFORCE", DASHED))
    for name in ("io_flatten", "io_mean", "arch2vec", "arch2vec_original")
}
MODEL_LABELS: dict[str, str] = {name: look.label for name, look in STYLES.items()}

LOOK: Any = {  # matplotlib's settings
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), CARD),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), TEXT),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALL),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "figure.dpi": DPI,
    "savefig.dpi": 2 * DPI,
    "legend.loc": "upper right",  # "best" takes long on many points, and then warns
    "axes.edgecolor": MUTED,
    "text.parse_math": False,  # a class named $x_$ is called $x_$
    "grid.color": "#e3e7ec",
    "lines.linewidth": 1.8,
    "image.cmap": "cividis",
    **dict.fromkeys(("boxplot.boxprops.color", "boxplot.whiskerprops.color"), MUTED),
    "boxplot.capprops.color": MUTED,
    "boxplot.medianprops.color": INK,
    "boxplot.medianprops.linewidth": 2,
}
# Fonts that are asked for what DejaVu Sans, which comes with matplotlib, cannot write.
FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Source Han Sans",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC",
    "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Noto Sans", "Noto Sans Devanagari", "Arial Unicode MS", "Segoe UI Symbol",
)  # fmt: skip


class Chart(Figure):
    """A figure that shows itself in a notebook, with a sentence (`alt`) and its `data` as CSV."""

    alt: str = ""
    data: pd.DataFrame = pd.DataFrame()

    def tell(self, alt: str, data: pd.DataFrame) -> "Chart":
        """Say in one sentence what the chart shows, and by which values; returns the chart."""
        self.alt, self.data = alt, data
        return self

    def png(self) -> bytes:
        """The picture, at twice the resolution of the page."""
        buffer = BytesIO()
        with own_style():
            self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        width, height = (int(inches * DPI) for inches in self.get_size_inches())
        data = {
            "image/png": b64encode(self.png()).decode(),
            "text/plain": self.alt,
            "text/csv": self.data.to_csv(index=False, float_format="%.6g"),
        }
        return data, {"image/png": {"width": width, "height": height, "alt": self.alt}}


def show(chart: Chart, alt: str = "") -> None:
    """Display a chart in a notebook; `alt` replaces the sentence that it has of itself."""
    from IPython.display import display

    chart.alt = alt or chart.alt
    display(chart)


def use_style() -> None:
    """Set the look of figures and of tables, whatever the user's settings; once in a notebook."""
    style.use(["default", LOOK | {"font.family": fonts()}])
    with catch_warnings():  # of options that pandas is about to drop
        simplefilter("ignore")
        pd.reset_option("all")


@contextmanager
def own_style() -> Iterator[None]:
    """Draw in this style for a while; as a decorator, for the time of a call."""
    with style.context(["default", LOOK | {"font.family": fonts()}]):
        yield


def chart(
    rows: int = 1, columns: int = 1, *, height: float, width: float = WIDTH, **subplots: Any
) -> tuple[Chart, np.ndarray]:
    """Make an empty chart of a size in inches, and its (rows, columns) axes."""
    figure = Chart(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


@cache
def fonts() -> list[str]:
    """Names of the fonts that text is written in, the first that has a character writes it."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FONTS if name in installed)]


@cache
def _glyphs() -> frozenset[int]:
    paths = [font_manager.findfont(name, fallback_to_default=False) for name in fonts()]
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))


def literal(text: object) -> str:
    """A user's text as it can be written: characters that no font has become ``\\uXXXX``."""
    return "".join(
        char if char.isprintable() and ord(char) in _glyphs() else ascii(char)[1:-1]
        for char in str(text)
    )


def in_order(names: Iterable[str]) -> list[str]:
    """The different names among these in the order of `STYLES`; ValueError names an unknown one."""
    given = set(names)
    if unknown := sorted(given - set(STYLES)):
        raise ValueError(f"no style for {', '.join(unknown)}; add a row to STYLES in plots/style")
    return [name for name in STYLES if name in given]


def columns_of(frame: pd.DataFrame, *wanted: str) -> pd.DataFrame:
    """These columns of a frame, which a chart holds as its data; ValueError names missing ones."""
    if missing := [name for name in wanted if name not in frame]:
        there = ", ".join(map(str, frame.columns))
        raise ValueError(f"the chart needs the columns {', '.join(missing)}; there are: {there}")
    return frame[list(wanted)]


def number(value: float) -> str:
    """A number for an axis: plain digits, thousands apart, no exponent where it can be read."""
    if value and abs(value) < 1e-5:
        return f"{value:.0e}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def plain_ticks(ax: Axes, axes: str = "y") -> None:
    """Write plain numbers at axes, on a log axis at eight places or less; call after drawing."""
    for which in (getattr(ax, f"{name}axis") for name in axes):
        if which.get_scale() == "log":
            low, high = sorted(which.get_view_interval())
            for steps in (range(1, 10), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                ticks = LogLocator(subs=steps, numticks=99).tick_values(low, high)
                if sum(seen := (ticks >= low) & (ticks <= high)) <= 8:
                    break
            which.set_major_locator(FixedLocator(ticks[seen]))
            which.set_minor_locator(NullLocator())
        which.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
