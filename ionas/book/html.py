"""Stage the book, then build it: prose and executed notebooks in one folder, warnings as errors.

Sphinx builds again only the pages whose files are newer, so a staged file is written only where its
content differs from what is there.
"""

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ionas.book import execute, facts, provenance, publish
from ionas.book.folders import (
    RECORD,
    RunFolder,
    find_publication,
    project_root,
    runs_folder,
    write_text,
)
from ionas.book.parameters import STAGES, Notebook, find_stage, profiles

CONFIGURATION = ("_config.yml", "_toc.yml")
PROSE = (".md", ".bib", ".svg", ".png", ".css", ".js")
DOWNLOADS = "downloads"  # beside the staged pages: sources and executed notebooks, as they are
PRELOADED_FONT = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')
FINDING = "> **Paper:**"  # how the output of `ionas.book.stage.finding` begins


class BookError(ValueError):
    """The book cannot be built; the message says what is wrong and the mend."""


def build(run: str = "digits", output: Path | None = None) -> Path:
    """Build the book of a run, every warning being an error.

    Parameters
    ----------
    run
        Name of a run whose notebooks are all executed, or path of a publication.
    output
        Folder in which `_build` is made; by default the folder of the book.

    Returns
    -------
    Path
        The first page, `_build/html/index.html`.

    Raises
    ------
    BookError
        If a notebook of the run is missing or is not what the run wrote, or if Sphinx warns.
    PublicationError
        If a publication is damaged. One that is partial has pages that say what has not been run.
    """
    folder = (output or project_root()) / "_build"
    stage = stage_book(find_publication(run) or runs_folder() / run, folder)
    _wipe_if_configured_anew(folder)
    print(f"building the book of the run {run!r} ...", flush=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    options = ["--path-output", str(folder.parent), "-W", "-n", "--keep-going", "-q"]
    log = folder / "book.log"
    done = subprocess.run(
        [*command, str(stage), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    log.write_text(text, "utf-8")
    index = folder / "html" / "index.html"
    if done.returncode or not index.is_file():
        # Pages that were read stay read: without this the next build would not warn of them again.
        shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        wrong = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
        shown = "\n".join(wrong or text.splitlines()[-15:])
        raise BookError(f"the book has faults, all of them in {log}:\n{shown}")
    _drop_preloads(folder / "html")
    return index


def stage_book(run_folder: Path, build_folder: Path) -> Path:
    """Copy prose and executed notebooks into one folder, ready for `jupyter-book build`.

    Parameters
    ----------
    run_folder
        `runs/NAME`, or `results/NAME`.
    build_folder
        `_build`; the pages go to its folder `stage`.

    Returns
    -------
    Path
        The folder of the pages.

    Raises
    ------
    BookError
        If a notebook is missing, unfinished, or is not the one that the run wrote.
    """
    root, run = project_root(), RunFolder(run_folder)
    if (run_folder / RECORD).is_file():
        publish.read(run_folder)
        read = published_notebook
    else:
        read = executed_notebook
    executed = {notebook.stem: read(run, notebook) for notebook in STAGES.values()}
    wanted: dict[str, bytes] = {name: (root / name).read_bytes() for name in CONFIGURATION}
    for path in sorted((root / "book").rglob("*")):
        if path.is_file() and path.suffix in PROSE:
            wanted[path.relative_to(root).as_posix()] = path.read_bytes()
    for name in [name for name in wanted if name.endswith(".md")]:
        text = wanted[name].decode()
        wanted[name] = fill(text, run, executed).encode()
    for stem, notebook in executed.items():
        source = root / "notebooks" / f"{stem}.ipynb"
        wanted[f"{DOWNLOADS}/source/{stem}.ipynb"] = source.read_bytes()
        if notebook is None:
            shown = not_run(execute.read(source), stem, run)
        else:
            shown = page(notebook, stem, note(run, find_stage(stem), source))
            wanted[f"{DOWNLOADS}/executed/{stem}.ipynb"] = execute.text(notebook).encode()
        wanted[f"notebooks/{stem}.ipynb"] = execute.text(shown).encode()
    plotly = files("plotly").joinpath("package_data", "plotly.min.js")
    wanted["book/_static/plotly.min.js"] = plotly.read_bytes()
    stage = build_folder / "stage"
    _write_changed(stage, wanted)
    return stage


def executed_notebook(run: RunFolder, stage: Notebook) -> NotebookNode:
    """Read one executed notebook of a run; it must be whole and the one that the run wrote.

    Raises
    ------
    BookError
        Naming the notebook and the command that mends it.
    """
    path = run.notebooks / f"{stage.stem}.ipynb"
    option = "--profile" if run.name in profiles() else "--name"
    mend = f"run the study first: ionas run {option} {run.name}"
    manifest = run.manifest(stage.name)
    if manifest is None or not path.is_file():
        raise BookError(f"the run {run.name!r} has no finished {stage.stem}; {mend}")
    folder = run.stage(stage.name)
    if broken := provenance.damaged(folder, {**manifest["outputs"], **manifest["notebook"]}):
        raise BookError(f"{folder / broken[0]} is not the file that the run wrote; {mend}")
    notebook = execute.read(path)
    if failure := execute.first_failure(notebook):
        raise BookError(f"{path} stopped in cell {failure.cell}: {failure.error}; {mend}")
    if _results(notebook) != _results(execute.read(folder / "executed.ipynb")):
        raise BookError(f"{path} is not the notebook that the run executed; {mend}")
    return notebook


def published_notebook(run: RunFolder, stage: Notebook) -> NotebookNode | None:
    """Read one executed notebook of a publication, with the prose that its source has now.

    None if it is not in the publication.
    """
    if run.manifest(stage.name) is None:
        return None
    source = execute.read(project_root() / "notebooks" / f"{stage.stem}.ipynb")
    executed = execute.read(run.stage(stage.name) / "executed.ipynb")
    return execute.with_prose(executed, source)


def note(run: RunFolder, stage: Notebook, source: Path) -> str:
    """What must be said above a notebook that was not simply run here; mostly nothing."""
    manifest, parts = run.manifest(stage.name) or {}, []
    if published := of_publication(run):
        parts.append(published)
        code = provenance.json_hash(provenance.notebook_code(source))
        if manifest["inputs"]["notebook"] != code:
            parts.append("The code of this notebook has changed since; what was run is shown.")
    if restored := manifest.get("restored"):
        origin = f"Restored from the publication {restored['name']}; it was not run here."
        parts += [origin, *(f"Note: {text}." for text in restored["notes"])]
    return " ".join(parts)


def of_publication(run: RunFolder) -> str:
    """Say that a run is a publication and what it lacks; nothing of another run."""
    if not (run.path / RECORD).is_file():
        return ""
    missing = facts.missing_notebooks(run)
    lacks = f" It is partial, without {', '.join(missing)}." if missing else ""
    return f"Of the published run {{ref}}`{run.name} <about-the-run>`.{lacks}"


def not_run(source: NotebookNode, stem: str, run: RunFolder) -> NotebookNode:
    """Make the page of a notebook that a publication lacks: its question, and a word on that."""
    said = (
        f"```{{admonition}} Not run\n:class: warning\nThis notebook has not been run at the scale "
        f"of the published run {{ref}}`{run.name} <about-the-run>`.\n```"
    )
    link = f"{{download}}`its source <../{DOWNLOADS}/source/{stem}.ipynb>`"
    question = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", source.cells[0].source)  # no such sections
    texts = [question, said, f"This notebook as a file: {link}"]
    cells = [
        {"cell_type": "markdown", "id": f"text-{number}", "metadata": {}, "source": text}
        for number, text in enumerate(texts)
    ]
    return nbformat.from_dict({**source, "cells": cells})


def _results(notebook: NotebookNode) -> list[tuple[str, Any]]:
    """Code and outputs of a notebook, without the prose around them."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(cell.source, cell.outputs) for cell in cells]


def page(notebook: NotebookNode, stem: str, said: str = "") -> NotebookNode:
    """Make the page of an executed notebook: sizes and texts for pictures, links to files.

    What is said of the notebook stands under its title.
    """
    heading, cells = "", []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            heading = _last_heading(cell) or heading
        else:
            outputs = [_for_page(output) for output in cell["outputs"]]
            cell = {**cell, "outputs": outputs, "metadata": _with_image(cell, heading)}
        cells.append(cell)
    links = (
        f"{{download}}`its source <../{DOWNLOADS}/source/{stem}.ipynb>` · "
        f"{{download}}`as it was executed <../{DOWNLOADS}/executed/{stem}.ipynb>`"
    )
    text = f":::{{div}} ionas-downloads\nThis notebook as a file: {links}\n:::"
    cells.append({"cell_type": "markdown", "id": "downloads", "metadata": {}, "source": text})
    if said:
        cells.insert(
            1, {"cell_type": "markdown", "id": "said", "metadata": {}, "source": _note(said)}
        )
    return nbformat.from_dict({**notebook, "cells": cells})


def fill(text: str, run: RunFolder, executed: Mapping[str, NotebookNode | None]) -> str:
    """Replace the marks of a prose page by what the run gives.

    `<!-- findings: STEM -->` becomes the findings of a notebook, `<!-- times of the run -->` a
    table of what each notebook took, `<!-- about the run -->` one of what the run rests on,
    `<!-- note on the run -->` a note if it is a publication, `<!-- numbers beside the paper -->`
    the comparison of all published runs, and `<!-- digits: NAME FORMAT -->` a fact of the embedded
    benchmark. What is glued from a notebook that has not been run becomes these words.
    """

    def findings(match: re.Match[str]) -> str:
        stem = match[1]
        if stem not in executed:
            raise BookError(f"the mark {match[0]} names no notebook; there are: {list(executed)}")
        notebook = executed[stem]
        return _findings(notebook, stem) if notebook else "This notebook has not been run."

    def glued(match: re.Match[str]) -> str:
        return "(not run)" if executed.get(match[1], True) is None else match[0]

    text = re.sub(r"<!-- findings: (\w+) -->", findings, text)
    text = re.sub(r"\{glue:\w*\}`[^`]*?(\w+)\.ipynb::[^`]*`", glued, text)
    text = re.sub(r"<!-- digits: (\w+) (\S+) -->", _digits, text)
    for mark, make in MARKS.items():
        if mark in text:
            text = text.replace(mark, make(run))
    return text


def _digits(match: re.Match[str]) -> str:
    """One fact of the embedded benchmark, in a format."""
    return format(_digits_facts()[match[1]], match[2])


@cache
def _digits_facts() -> dict[str, Any]:
    from ionas.benchmark.table import embedded, signal

    table = embedded("digits")
    accuracy = table.values("test_accuracy")
    return {"cells": len(table), "least": accuracy.min(), "most": accuracy.max(), **signal(table)}


def _note(said: str) -> str:
    return f"```{{note}}\n{said}\n```" if said else ""


def _beside_the_paper(_: RunFolder) -> str:
    from ionas.book.compare import beside_the_paper

    return beside_the_paper(publish.published())


def _findings(notebook: NotebookNode, stem: str) -> str:
    """The findings of a notebook as Markdown, each under a link to its section."""
    parts, heading = [], ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            heading = _last_heading(cell) or heading
            continue
        for output in cell["outputs"]:
            found = "".join(output.get("data", {}).get("text/markdown", ""))
            if found.startswith(FINDING):
                parts.append(
                    f"[{heading}](../notebooks/{stem}.ipynb#{_anchor(heading)})\n\n{found}"
                )
    return "\n\n".join(parts) or "This notebook states no finding."


def _times(run: RunFolder) -> str:
    """What each notebook of the run took, as a Markdown table."""
    lines = ["| Notebook | Seconds | Peak memory of a process, MB |", "|---|--:|--:|"]
    total, machines = 0.0, set()
    for stage in STAGES.values():
        manifest = run.manifest(stage.name)
        if manifest is None:
            lines.append(f"| {{doc}}`../notebooks/{stage.stem}` | not run | |")
            continue
        seconds, memory = manifest["wall_time_s"], manifest["peak_memory_mb"]
        total += seconds
        machines.add(f"{manifest['machine']}, device {manifest['device']}")
        going_on = " (going on with what was there)" * manifest.get("continued", False)
        lines.append(
            f"| {{doc}}`../notebooks/{stage.stem}`{going_on} | {seconds:.0f} | {memory:.0f} |"
        )
    lines.append(f"| **all, one after the other** | **{total:.0f}** | |")
    return "\n".join(lines) + f"\n\nMachine: {'; '.join(sorted(machines))}."


MARKS = {
    "<!-- note on the run -->": lambda run: _note(of_publication(run)),
    "<!-- times of the run -->": _times,
    "<!-- about the run -->": facts.about,
    "<!-- numbers beside the paper -->": _beside_the_paper,
}


def _last_heading(cell: Mapping[str, Any]) -> str:
    found = re.findall(r"^#{1,4} +(.+?) *$", "".join(cell["source"]), re.MULTILINE)
    return found[-1] if found else ""


def _anchor(heading: str) -> str:
    """The anchor that MyST gives a heading (the rule of GitHub)."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _for_page(output: Mapping[str, Any]) -> Mapping[str, Any]:
    """An output without what only JupyterLab shows; a published chart gets its HTML again."""
    from ionas.plots import PLOTLY, chart_html

    if PLOTLY not in output.get("data", {}):
        return output
    data = dict(output["data"])
    chart = data.pop(PLOTLY)
    if chart and "text/html" not in data:
        data["text/html"] = chart_html(chart)
    return {**output, "data": data}


def _with_image(cell: Mapping[str, Any], heading: str) -> dict[str, Any]:
    """Metadata of a cell, with size and text of its picture: pictures have twice their size."""
    metadata = dict(cell["metadata"])
    for output in cell["outputs"]:
        width = output.get("metadata", {}).get("image/png", {}).get("width")
        if width:
            image = {"width": f"{width}px", "alt": f"Chart: {html.escape(heading)}"}
            own = metadata.get("mystnb", {})
            metadata["mystnb"] = {**own, "image": {**image, **own.get("image", {})}}
    return metadata


def _write_changed(folder: Path, wanted: Mapping[str, bytes]) -> None:
    """Make a folder hold exactly these files; leave alone those that are right already."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _drop_preloads(folder: Path) -> None:
    """Take the theme's preloading of fonts out of the pages.

    A browser refuses it for pages of a file system; the style sheet loads the same fonts.
    """
    for path in folder.rglob("*.html"):
        text = path.read_text("utf-8")
        if (kept := PRELOADED_FONT.sub("", text)) != text:
            path.write_text(kept, "utf-8")


def _wipe_if_configured_anew(folder: Path) -> None:
    """Start from nothing if configuration, contents, looks or Sphinx differ from the last build's.

    Sphinx alone would leave pages behind that are no longer in the book, and style sheets as they
    were.
    """
    content = [(folder / "stage" / name).read_text("utf-8") for name in CONFIGURATION]
    looks = provenance.data_hash(folder / "stage" / "book" / "_static")
    now = provenance.json_hash([*content, looks, version("jupyter-book"), version("sphinx")])
    stamp = folder / "html" / ".configuration"
    if not stamp.is_file() or stamp.read_text("utf-8") != now:
        shutil.rmtree(folder / "html", ignore_errors=True)
        shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        write_text(stamp, now)
