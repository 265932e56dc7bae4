"""The page of a chapter: the prose of a notebook once, and what came out of it in each run."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nbformat import NotebookNode

from ionas.book import execute
from ionas.book.findings import MIME, WORDS, Finding, anchor, findings_of, literal, with_headings
from ionas.book.folders import RunFolder

DOWNLOADS = "downloads"  # beside the staged pages: notebooks, and data of charts
FRAME = ("imports", "parameters", execute.INJECTED, "start", "finish")  # cells whose code is hidden
SLUG = 60  # characters; the end of a label tells apart those that begin alike
SYMBOLS = {True: "✓", False: "✗", None: "?"}
MARKED = '<span class="ionas-verdict {0}"><span aria-hidden="true">{1}</span> {0}</span>'
RULE = re.compile(r" \(Rule: [^()]*\)$")
SCROLLS = '<div class="cell_output ionas-scroll" tabindex="0" role="region" aria-label="Table">'


class BookRun(NamedTuple):
    """A run in the book: its name for readers, its folder, its executed notebooks by stem."""

    label: str
    folder: RunFolder
    notebooks: Mapping[str, NotebookNode]

    @property
    def slug(self) -> str:
        """The label as a part of the name of a file."""
        return slug_of(self.label)


def page(stem: str, source: NotebookNode, runs: Sequence[BookRun]) -> tuple[str, dict[str, bytes]]:
    """Make the page of a notebook in MyST.

    The prose is that of the first run that has the notebook. What a cell shows stands in a tab per
    run, or once where it is the same in all of them. If no run has the notebook, the page is the
    question of the source. Returns the page, and its files by their path among the staged pages.
    """
    having = [run for run in runs if stem in run.notebooks]
    files = {f"{DOWNLOADS}/source/{stem}.ipynb": execute.text(source).encode()}
    for run in having:
        files[f"{DOWNLOADS}/{run.slug}/{stem}.ipynb"] = execute.text(run.notebooks[stem]).encode()
    found = {r.label: {f.name: f for f in findings_of(r.notebooks[stem], stem)} for r in having}
    (_, title), *cells = with_headings(having[0].notebooks[stem] if having else source)
    parts = [title.source, *(_not_run(run, having) for run in runs if run not in having)]
    if not having:  # so there are no sections to link to
        parts[0] = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", parts[0])
        cells = []
    if any(found.values()):
        parts.append(fenced("{admonition} What came out", _came_out(found), "ionas-came-out"))
    for heading, cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        if cell.id not in FRAME:
            parts.append(fenced("{code-block} python", cell.source, "ionas-code"))
        if cell.id == "finish":
            parts.append("## Where these results come from")
        if any(cell.id in of_run for of_run in found.values()):
            parts.append(_finding(cell.id, found))
        text, its_files = _shown(cell.id, stem, heading, having)
        parts.append(text)
        files |= its_files
    links = [f"[as it is written](path:../{DOWNLOADS}/source/{stem}.ipynb)"]
    for run in having:
        to = f"path:../{DOWNLOADS}/{run.slug}/{stem}.ipynb"
        links.append(f"[as it ran on {literal(run.label)}]({to})")
    said = f"The notebook of this chapter: {', '.join(links)}."
    return "\n\n".join([*filter(None, parts), fenced("{div} ionas-downloads", said)]) + "\n", files


def slug_of(label: str) -> str:
    """A label as a part of the name of a file; others may become the same."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower())[-SLUG:].strip("-") or "run"


def inline(label: str) -> str:
    """A label within a sentence, where a plain word loses its capital: digits, NAS-Bench-101."""
    return literal(label.lower() if label[1:].isalpha() and label[1:].islower() else label)


def fenced(opening: str, body: str, classes: str = "", **options: str) -> str:
    """A directive around a text, which may hold directives itself."""
    ticks = "`" * max([3, *(len(found) + 1 for found in re.findall("`{3,}", body))])
    given = {"class": classes, **options}
    head = "".join(f":{key}: {value}\n" for key, value in given.items() if value)
    return f"{ticks}{opening}\n{head}\n{body}\n{ticks}"


def verdict(shows: bool | None) -> str:
    """The word for whether a run shows a finding, coloured and with a symbol."""
    return MARKED.format(WORDS[shows], SYMBOLS[shows])


def _not_run(run: BookRun, having: Sequence[BookRun]) -> str:
    said = f"The run {literal(run.folder.name)} on {inline(run.label)} has not come this far."
    if having:
        said += f" This chapter shows {' and '.join(inline(r.label) for r in having)} alone."
    return fenced("{admonition} Not run yet", said, "warning")


def _came_out(found: Mapping[str, Mapping[str, Finding]]) -> str:
    """A table of the findings of a notebook: a row each, a verdict per run."""
    lines = [
        f"| Claim | {' | '.join(map(literal, found))} |",
        "|---" * (len(found) + 1) + "|",
    ]
    for name, one in {n: f for of_run in found.values() for n, f in of_run.items()}.items():
        marks = [verdict(f[name].shows) if name in f else "not run yet" for f in found.values()]
        claim = " ".join(one.paper.split()).replace("|", r"\|")
        lines.append(f"| [{claim}](#{anchor(one.heading)}) | {' | '.join(marks)} |")
    return "\n".join(lines)


def _finding(name: str, found: Mapping[str, Mapping[str, Finding]]) -> str:
    """The box of a finding: what the paper found, and what each run shows."""
    here = {label: of_run[name] for label, of_run in found.items() if name in of_run}
    first = next(iter(here.values()))
    ask = "Asked here" if first.own else "The paper"
    lines = [f"- **{literal(label)}** {verdict(f.shows)} {f.here}" for label, f in here.items()]
    rules = {rule[0] for f in here.values() if (rule := RULE.search(f.here))}
    if len(rules) == 1 < len(lines):  # the same in all runs, so it is said once
        lines = [*(RULE.sub("", line) for line in lines), "", rules.pop().strip(" ()") + "."]
        lines[-1] = lines[-1].replace("..", ".")
    return fenced("{div} ionas-finding", "\n".join([f"**{ask}:** {first.paper}", "", *lines]))


def _shown(
    name: str, stem: str, heading: str, runs: Sequence[BookRun]
) -> tuple[str, dict[str, bytes]]:
    """What a cell shows, and its files: in a tab per run, or once where it is the same in all."""
    outputs = {run.slug: _outputs(run.notebooks[stem], name) for run in runs}
    first = outputs[runs[0].slug]
    same = all(of_run == first for of_run in outputs.values())
    files: dict[str, bytes] = {}
    items = []
    for run in [run for run in (runs[:1] if same else runs) if outputs[run.slug]]:
        texts = []
        for number, (data, metadata) in enumerate(outputs[run.slug], 1):
            file = f"{stem}_{name}_{number}_{run.slug}"
            text, its_files = _output(data, metadata, file, heading)
            texts.append(text)
            files |= its_files
        items.append((run, "\n\n".join(texts)))
    if same:
        return "".join(text for _, text in items), files
    if len(items) == 1:
        ((run, text),) = items
        return fenced("{div} ionas-alone", f"**{literal(run.label)}**\n\n{text}"), files
    if all(_is_text(of_run) for of_run in outputs.values()):
        return "\n".join(f"- **{literal(run.label)}.** {text}" for run, text in items), files
    tabs = [
        fenced(f"{{tab-item}} {literal(run.label)}", text, sync=run.slug) for run, text in items
    ]
    return fenced("{tab-set}", "\n\n".join(tabs), "ionas-runs"), files


def _outputs(notebook: NotebookNode, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What a cell displays, by MIME type, with its metadata; without messages and findings."""
    cell: Any = next((cell for cell in notebook.cells if cell.get("id") == name), {})
    shown = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    both = [
        (o.get("data", {"text/plain": o.get("text", "")}), o.get("metadata", {})) for o in shown
    ]
    return [(data, metadata) for data, metadata in both if MIME not in data]


def _is_text(outputs: Sequence[tuple[Mapping[str, Any], Any]]) -> bool:
    """Whether outputs are one paragraph, for which a tab is too much."""
    return [[*data] for data, _ in outputs] in (
        [["text/markdown"]],
        [["text/markdown", "text/plain"]],
        [["text/plain", "text/markdown"]],
    ) and "\n" not in str(outputs[0][0]["text/markdown"])


def _output(
    data: Mapping[str, Any], metadata: Mapping[str, Any], name: str, heading: str
) -> tuple[str, dict[str, bytes]]:
    """One output in MyST, and its files: a chart has its sentence as caption, and its data."""
    if "text/markdown" in data:
        return data["text/markdown"], {}
    if "image/png" in data:
        picture = metadata.get("image/png", {})  # of twice the pixels of this size
        alt = picture.get("alt") or f"Chart: {heading}"
        files = {f"notebooks/pictures/{name}.png": base64.b64decode(data["image/png"])}
        body = literal(alt)
        if "text/csv" in data:
            file = f"{DOWNLOADS}/data/{name}.csv"
            files[file] = data["text/csv"].encode()
            body += f"\n\n[Data of this chart (CSV)](path:../{file})"
        width = f"{picture['width']}px" if "width" in picture else ""
        options = {"alt": json.dumps(alt, ensure_ascii=False), "width": width}
        return fenced(f"{{figure}} pictures/{name}.png", body, **options), files
    if "text/html" in data:
        return fenced("{raw} html", f"{SCROLLS}\n{data['text/html']}\n</div>"), {}
    return fenced("{code-block} text", data.get("text/plain", ""), "ionas-printed"), {}
