"""Stage the book, then build it: prose and executed notebooks in one folder, warnings as errors.

Sphinx builds again only the pages whose files are newer, so a staged file is written only where its
content differs from what is there.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ionas.book import execute, provenance, publish
from ionas.book import run as runner
from ionas.book.configure import STAGES, profiles, resolve
from ionas.book.folders import RunFolder, find_run, locked, project_root, read_json, write_text

CONFIGURATION = ("_config.yml", "_toc.yml")
PROSE = (".md", ".bib", ".svg", ".png", ".css", ".js")
DOWNLOADS = "downloads"  # beside the staged pages: sources and executed notebooks, as they are
SOURCE = f"{{download}}`its source <../{DOWNLOADS}/source/%s.ipynb>`"
EXECUTED = f"{{download}}`as it was executed <../{DOWNLOADS}/executed/%s.ipynb>`"
PRELOADED_FONT = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')
FINDING = "> **Paper:**"  # how the output of `ionas.book.stage.finding` begins
IMAGES = {"digits": "scikit-learn's digits", "cifar10": "CIFAR-10"}
CIFAR10_JPEG = "cifar10-images"  # the file that holds CIFAR-10 encoded anew


class BookError(ValueError):
    """The book cannot be built; the message says what is wrong and the mend."""


def build(run: str = "digits", output: Path | None = None) -> Path:
    """Build the book of a run (its name) or a publication (its path), every warning an error.

    It is made in `_build` in the folder `output`, by default that of the book. A publication is
    drawn by the notebooks of today; if it is partial, pages say what has not been run. Returns the
    first page. Raises BookError if a notebook of the run is missing or is not what the run wrote,
    or if Sphinx warns; PublicationError or RunError if a publication is damaged or cannot be drawn;
    TimeoutError if another process builds a book there.
    """
    folder = (output or project_root()) / "_build"
    index, log = folder / "html" / "index.html", folder / "book.log"
    with locked(folder):
        stage = stage_book(find_run(run), folder)
        _clear_if_outdated(folder)
        print(f"building the book of the run {Path(run).name!r} ...", flush=True)
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
        options = ["--path-output", str(folder.parent), "-W", "-n", "--keep-going", "-q"]
        done = subprocess.run(
            [*command, str(stage), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env=execute.environment(folder / ".settings"),
        )
        log.write_text(text := execute.plain(done.stdout), "utf-8")
        if done.returncode or not index.is_file():
            # Pages that were read stay read: without this the next build would not warn again.
            shutil.rmtree(folder / ".doctrees", ignore_errors=True)
            wrong = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
            shown = "\n".join(wrong or text.splitlines()[-15:])
            raise BookError(f"the book has faults, all of them in {log}:\n{shown}")
        # A browser refuses to preload fonts for pages of a file system; the style sheet loads them.
        for page in index.parent.rglob("*.html"):
            before = page.read_text("utf-8")
            if (kept := PRELOADED_FONT.sub("", before)) != before:
                page.write_text(kept, "utf-8")
    return index


def stage_book(run: RunFolder, folder: Path) -> Path:
    """Copy prose and executed notebooks into `folder/stage`, ready for `jupyter-book build`.

    Raises BookError if a notebook is missing, unfinished, or is not the one that the run wrote.
    """
    root = project_root()
    if run.is_publication:
        publish.check_publication(run.path)
        notebooks = runner.draw(run, folder / "drawn" / run.name)
    else:
        _check(run)
        notebooks = run.path / "notebooks"
    wanted = {name: (root / name).read_bytes() for name in CONFIGURATION}
    for path in sorted((root / "book").rglob("*")):
        if path.is_file() and path.suffix in PROSE:
            wanted[path.relative_to(root).as_posix()] = path.read_bytes()
    executed: dict[str, NotebookNode] = {}
    for stem in (notebook.stem for notebook in STAGES.values()):
        path, source = notebooks / f"{stem}.ipynb", root / "notebooks" / f"{stem}.ipynb"
        wanted[f"{DOWNLOADS}/source/{stem}.ipynb"] = source.read_bytes()
        if path.is_file():
            executed[stem] = execute.with_prose(_whole(path), execute.read(source))
            wanted[f"{DOWNLOADS}/executed/{stem}.ipynb"] = path.read_bytes()
            shown, data = page(executed[stem], stem, of_publication(run))
            wanted |= data
        else:
            shown = not_run(execute.read(source), stem, run)
        wanted[f"notebooks/{stem}.ipynb"] = execute.text(shown).encode()
    given = substitutions(run, executed)
    for name in [name for name in wanted if name.endswith(".md")]:
        wanted[name] = fill(wanted[name].decode(), given, name).encode()
    _write_changed(folder / "stage", wanted)
    return folder / "stage"


def substitutions(run: RunFolder, executed: Mapping[str, NotebookNode]) -> dict[str, str]:
    """What the pages take from a run: the texts that stand for a name in braces.

    `note`, on a publication; `about`, a table of what the run rests on; `times`, one of what each
    notebook took; `findings_STEM`, those of a notebook; `digits_NAME`, facts of the embedded
    benchmark.
    """
    from ionas.benchmark.table import load_table, signal

    table = load_table("digits")
    accuracy = table.values("test_accuracy")
    facts = {"least": accuracy.min(), "most": accuracy.max(), **signal(table)}
    said = of_publication(run)
    given = {"note": _note(said) if said else "", "about": about(run), "times": _times(run)}
    given["digits_cells"] = f"{len(table):,}"
    given |= {f"digits_{name}": f"{value:.4f}" for name, value in facts.items()}
    for stem in (notebook.stem for notebook in STAGES.values()):
        found = _findings(executed[stem], stem) if stem in executed else ""
        none = "states no finding" if stem in executed else "has not been run"
        given[f"findings_{stem}"] = found or f"This notebook {none}."
    return given


def fill(text: str, given: Mapping[str, str], page: str) -> str:
    """Put the texts of `substitutions` where their names stand in double braces, or BookError."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in given:
            raise BookError(f"{page}: {match[0]} is not one of {', '.join(given)}")
        return given[match[1]]

    return re.sub(r"\{\{ (\w+) \}\}", value, text)


def about(run: RunFolder) -> str:
    """Markdown table of what a run rests on, and which of its notebooks have been run."""
    manifests = {stage: m for stage in STAGES if (m := run.manifest(stage))}
    parameters = {stage: m["parameters"] for stage, m in manifests.items()}
    space, trained = parameters.get("search_space", {}), parameters.get("pretraining", {})
    table: dict[str, Any] = {"name": "", "cells": 0, "known": {}}
    table |= read_json(run.stage("search_space") / "about.json") or {}
    known = [f"{name.replace('_', ' ')} of {n:,}" for name, n in table["known"].items()]
    labeled = []
    for part in ("train", "validation"):
        count = trained.get(f"{part}_networks")
        of_them = f" ({count} of them trained)" if count else ""
        labeled.append(f"{space.get(f'labeled_{part}', 'none')} {part}{of_them}")
    seeds = [
        f"{STAGES[stage].number} {name} {value}"
        for stage, manifest in manifests.items()
        for name, value in manifest["seeds"].items()
    ]
    rows = {
        "Run": f"**{literal(run.name)}**" + ", published" * run.is_publication,
        "Profile": _nearest_profile(parameters),
        "Table": literal(f"{table['name']}, {table['cells']:,} cells; {', '.join(known)}"),
        "Images": literal(images_title(trained)) if trained else "none",
        "Labeled networks": ", ".join(labeled),
        "Seeds": ", ".join(seeds),
        "Not run": ", ".join(_missing(run)) or "nothing",
    }
    head, *others = [f"| {name} | {text} |" for name, text in rows.items()]
    return "\n".join([head, "|---|---|", *others])


def literal(text: str) -> str:
    """A text as it is, whatever Markdown or HTML would make of it."""
    return re.sub(r"[^\w\s,.;:()=]", lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def images_title(parameters: Mapping[str, Any]) -> str:
    """Name of the images that parameters of notebook 02 choose."""
    name = Path(parameters["images_path"]).stem
    folder = "CIFAR-10 (JPEG re-encoded)" if name == CIFAR10_JPEG else name
    return IMAGES.get(parameters["images"], folder)


def of_publication(run: RunFolder) -> str:
    """Say that a run is a publication and what it lacks; nothing of another run."""
    if not run.is_publication:
        return ""
    missing = ", ".join(_missing(run))
    lacks = f" It is partial, without {missing}." if missing else ""
    return f"Results from the published run {{ref}}`{run.name} <about-the-run>`.{lacks}"


def not_run(source: NotebookNode, stem: str, run: RunFolder) -> NotebookNode:
    """Make the page of a notebook that a publication lacks: its question, and a word on that."""
    said = (
        f"```{{admonition}} Not run\n:class: warning\nThis notebook has not been run at the scale "
        f"of the published run {{ref}}`{run.name} <about-the-run>`.\n```"
    )
    question = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", source.cells[0].source)  # no such sections
    texts = [question, said, f"This notebook as a file: {SOURCE % stem}"]
    cells = [_text(f"text-{number}", text) for number, text in enumerate(texts)]
    return nbformat.from_dict({**source, "cells": cells})


def page(
    notebook: NotebookNode, stem: str, said: str = ""
) -> tuple[NotebookNode, dict[str, bytes]]:
    """Make the page of an executed notebook: sizes and texts for pictures, links to files.

    What is said of the notebook stands under its title, a link to its data under each chart.
    Returns the page and the files of data by their path among the staged pages.
    """
    cells: list[Any] = []
    files: dict[str, bytes] = {}
    for heading, cell in _with_headings(notebook):
        links = []
        for output in cell.get("outputs", []):
            picture = output.get("metadata", {}).get("image/png", {})
            if "width" in picture:  # pictures have twice the pixels of their size
                alt = picture.get("alt") or f"Chart: {heading}"
                own = cell.metadata.get("mystnb", {})
                image = {"width": f"{picture['width']}px", "alt": alt, **own.get("image", {})}
                cell.metadata["mystnb"] = {**own, "image": image}
            if data := output.get("data", {}).pop("text/csv", None):
                name = f"{DOWNLOADS}/data/{stem}_{len(files) + 1}.csv"
                files[name] = data.encode()
                links.append(f"{{download}}`data of this chart (CSV) <../{name}>`")
        cells.append(cell)
        if links:
            cells.append(_aside(f"data-{len(files)}", " · ".join(links)))
    both = f"{SOURCE % stem} · {EXECUTED % stem}"
    cells.append(_aside("downloads", f"This notebook as a file: {both}"))
    if said:
        cells.insert(1, _text("said", _note(said)))
    return nbformat.from_dict({**notebook, "cells": cells}), files


def _note(said: str) -> str:
    return f"```{{note}}\n{said}\n```"


def _text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _aside(name: str, source: str) -> dict[str, Any]:
    return _text(name, f":::{{div}} ionas-downloads\n{source}\n:::")


def _with_headings(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Cells, each with the last heading down to it."""
    heading = ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            found = re.findall(r"^#{1,4} +(.+?) *$", cell["source"], re.MULTILINE)
            heading = [heading, *found][-1]
        yield heading, cell


def _check(run: RunFolder) -> None:
    """Refuse a run that is not finished, or whose results are damaged or do not belong together."""
    mend = f"ionas run {'--profile' if run.name in profiles() else '--name'} {run.name}"
    try:
        publish.check_run(run)
    except publish.PublicationError as error:
        raise BookError(f"{error}: {mend}") from error
    for stage, notebook in STAGES.items():
        path = run.path / "notebooks" / f"{notebook.stem}.ipynb"
        executed = _whole(run.stage(stage) / "executed.ipynb")
        if not path.is_file() or _results(_whole(path)) != _results(executed):
            raise BookError(f"{path} is not the notebook that the run executed; {mend}")


def _whole(path: Path) -> NotebookNode:
    """Read a notebook; every cell must have run."""
    try:
        notebook = execute.read(path)
    except (ValueError, OSError) as error:
        raise BookError(f"{path} is no notebook that can be read; run the study again") from error
    if failure := execute.first_failure(notebook):
        raise BookError(f"{path} stopped in cell {failure.cell}: {failure.error}")
    return notebook


def _results(notebook: NotebookNode) -> list[tuple[str, Any]]:
    """Code and outputs of a notebook, without the prose around them."""
    return [(cell.source, cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def _missing(run: RunFolder) -> list[str]:
    return [notebook.stem for stage, notebook in STAGES.items() if run.manifest(stage) is None]


def _nearest_profile(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Profile from which the parameters of a run differ least, and those that differ."""
    free = {"table", "images", "images_path", *provenance.NOT_INPUTS}
    found: dict[str, list[str]] = {}
    for profile in profiles():
        there = {name: p.model_dump(mode="json") for name, p in resolve(profile).items()}
        found[profile] = [
            f"{stage}.{name} = {value!r}"
            for stage, values in parameters.items()
            for name, value in values.items()
            if name not in free and value != there[stage].get(name, value)
        ]
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest + (f", but {literal(', '.join(found[nearest]))}" if found[nearest] else "")


def _findings(notebook: NotebookNode, stem: str) -> str:
    """The findings of a notebook as Markdown, each under a link to its section."""
    parts = []
    for heading, cell in _with_headings(notebook):
        for output in cell.get("outputs", []):
            found = output.get("data", {}).get("text/markdown", "")
            if found.startswith(FINDING):
                anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                parts.append(f"[{heading}](../notebooks/{stem}.ipynb#{anchor})\n\n{found}")
    return "\n\n".join(parts)


def _times(run: RunFolder) -> str:
    """What each notebook of the run took, as a Markdown table."""
    lines = ["| Notebook | Processor seconds | Peak memory of a process, MB |", "|---|--:|--:|"]
    total, machines = 0.0, set()
    for stage in STAGES.values():
        took = "not run | "
        if manifest := run.manifest(stage.name):
            seconds = sum(entry["processor_s"] for entry in manifest["outputs"].values())
            took, total = f"{seconds:.0f} | {manifest['peak_memory_mb']:.0f}", total + seconds
            machines.add(f"{manifest['machine']}, device {manifest['device']}")
        lines.append(f"| {{doc}}`../notebooks/{stage.stem}` | {took} |")
    lines.append(f"| **all together** | **{total:.0f}** | |")
    return "\n".join(lines) + f"\n\nMachine: {'; '.join(sorted(machines))}."


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


def _clear_if_outdated(folder: Path) -> None:
    """Start from nothing where Sphinx would leave pages or style sheets as they were.

    That is if configuration, contents, looks or Sphinx differ from the last build's, or if the
    clock has been set back since: Sphinx goes by the times of files.
    """
    content = [(folder / "stage" / name).read_text("utf-8") for name in CONFIGURATION]
    looks = provenance.data_hash(folder / "stage" / "book" / "_static")
    now = provenance.json_hash([*content, looks, version("jupyter-book"), version("sphinx")])
    stamp = folder / "html" / ".configuration"
    before = stamp.read_text("utf-8").split() if stamp.is_file() else ["", "0"]
    if before[0] != now or float(before[1]) > time.time():
        shutil.rmtree(folder / "html", ignore_errors=True)
        shutil.rmtree(folder / ".doctrees", ignore_errors=True)
    write_text(stamp, f"{now} {time.time()}")
