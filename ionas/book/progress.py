"""The progress of a run: one line per notebook, live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ionas.book.folders import read_json

MARKS = {
    "waiting": "[dim]·[/]",
    "fresh": "[green]=[/]",
    "done": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "skipped": "[dim]-[/]",
}


@dataclass
class Line:
    """What is shown of one notebook.

    Attributes
    ----------
    state
        waiting, running, fresh, done, failed or skipped.
    note
        A few words beside it.
    why
        Why it runs.
    expected
        Seconds it took the last time, if known.
    progress
        JSON file that `ionas.parallel` keeps up to date while the notebook runs.
    """

    title: str
    state: str = "waiting"
    note: str = ""
    why: str = ""
    expected: float | None = None
    progress: Path | None = None
    started: float = 0.0
    _part: str = ""
    _part_started: float = 0.0
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def row(self) -> tuple[Text | Spinner, Text]:
        """Mark and text of the line now."""
        if self.state != "running":
            words = " · ".join(word for word in (self.note, self.why) if word)
            note = f"  [dim]{escape(words)}[/]" if words else ""
            return Text.from_markup(MARKS[self.state]), Text.from_markup(f"{self.title}{note}")
        elapsed = time.monotonic() - self.started
        parts = [duration(elapsed)]
        left = None if self.expected is None else max(self.expected - elapsed, 0.0)
        if text := self._step():
            parts.append(text[0])
            left = left or text[1]
        if left and left >= 1:
            parts.append(f"about {duration(left)} left")
        return self._spinner, Text.from_markup(
            f"{self.title}  [cyan]{escape(' · '.join(parts))}[/]"
        )

    def _step(self) -> tuple[str, float | None] | None:
        """What the notebook itself reports, and the seconds left of that part."""
        report = read_json(self.progress) if self.progress else None
        if not report:
            return None
        part, done, total = report["description"], report["done"], report["total"]
        if part != self._part:
            self._part, self._part_started = part, time.monotonic()
        spent = time.monotonic() - self._part_started
        return f"{part} {done}/{total}", spent * (total - done) / done if done else None


class Progress:
    """Shows the lines of all notebooks; a context manager."""

    def __init__(self, titles: dict[str, str], console: Console) -> None:
        self.lines = {name: Line(title) for name, title in titles.items()}
        self.console = console
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=8, transient=False
        )

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def start(self, name: str, expected: float | None, progress: Path, why: str) -> None:
        """Say that a notebook runs now, and why."""
        line = self.lines[name]
        line.state, line.expected, line.progress = "running", expected, progress
        line.started, line.why = time.monotonic(), why
        words = f" (about {duration(expected)})" if expected else ""
        self._say(f"{line.title}  runs{words}: {why}")

    def end(self, name: str, state: str, note: str = "") -> None:
        """Say how a notebook ended."""
        line = self.lines[name]
        line.state, line.note = state, note
        self._say(f"{line.title}  {'up to date' if state == 'fresh' else state}  {note}".rstrip())

    def warn(self, text: str) -> None:
        """Print a warning above the lines."""
        self.console.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(escape(text), highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 1))
        for line in self.lines.values():
            table.add_row(*line.row())
        return Group(table)


def duration(seconds: float) -> str:
    """Write a duration as people say it: 7 s, 2 min 30 s, 3 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def titles(stems: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pad the file names of notebooks to one width."""
    pairs = list(stems)
    width = max(len(stem) for _, stem in pairs)
    return {name: stem.ljust(width) for name, stem in pairs}
