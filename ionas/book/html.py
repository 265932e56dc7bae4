"""Stage the book, then build it: prose and chapters in one folder, warnings as errors.

Sphinx builds again only the pages whose files are newer, so a staged file is written only where its
content differs from what is there.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from ionas.book import answer, execute, provenance, publish
from ionas.book import run as runner
from ionas.book.about import about, times
from ionas.book.chapter import BookRun, page, slug_of
from ionas.book.configure import STAGES
from ionas.book.folders import RunFolder, find_run, locked, project_root, read_json, write_text

CONFIGURATION = ("_config.yml", "_toc.yml")
PROSE = (".md", ".bib", ".svg", ".png", ".css", ".js")
# What a page gets no minus sign in: scripts, code, tags. What gets one: a hyphen before a number.
NO_MINUS = r"<(script|style|pre|code)\b.*?</\1>|<[^>]*>"
MINUS = re.compile(rf"{NO_MINUS}|(?<![\w.)}}{{^-])-(?=\d)", re.DOTALL)
PRELOADED_FONT = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')


class BookError(ValueError):
    """The book cannot be built; the message says what is wrong and the mend."""


def build(runs: Sequence[str] = ("digits",), output: Path | None = None) -> Path:
    """Build the book of runs (by name) and publications (by path), every warning an error.

    The first is the main text. The book is made in `_build` in the folder `output`, by default that
    of the sources. A publication is drawn by the notebooks of today; if it is partial, pages say
    what has not been run. Returns the first page. Raises BookError if a notebook of a run is
    missing or is not what the run wrote, if runs do not fit together, or if Sphinx warns;
    PublicationError or RunError if a publication is damaged or cannot be drawn; TimeoutError if
    another process builds a book there.
    """
    folder = (output or project_root()) / "_build"
    index, log = folder / "html" / "index.html", folder / "book.log"
    with locked(folder):
        stage = stage_book([find_run(run) for run in runs], folder)
        _clear_if_outdated(folder)
        print(f"building the book of {', '.join(runs)} ...", flush=True)
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
            kept = MINUS.sub(lambda m: "\u2212" if m[0] == "-" else m[0], before)
            if (kept := PRELOADED_FONT.sub("", kept)) != before:
                page.write_text(kept, "utf-8")
    return index


def read_runs(folders: Sequence[RunFolder], folder: Path) -> list[BookRun]:
    """Runs with their executed notebooks; publications are drawn in `folder/drawn`.

    Raises BookError if a notebook is missing, unfinished, or is not the one that its run wrote, or
    if runs have the same name or notebooks of other code.
    """
    sources = {stem: execute.read(path) for stem, path in _sources().items()}
    runs = [
        BookRun(label, run, _executed(run, folder, sources))
        for label, run in zip(labels(folders), folders, strict=True)
    ]
    for stem in sources:
        _check_code([run for run in runs if stem in run.notebooks], stem)
    return runs


def stage_book(folders: Sequence[RunFolder], folder: Path) -> Path:
    """Write prose and chapters to `folder/stage`, ready for `jupyter-book build`.

    Raises what `read_runs` does.
    """
    root, runs = project_root(), read_runs(folders, folder)
    wanted = {name: (root / name).read_bytes() for name in CONFIGURATION}
    for path in sorted((root / "book").rglob("*")):
        if path.is_file() and path.suffix in PROSE:
            wanted[path.relative_to(root).as_posix()] = path.read_bytes()
    given, files = substitutions(runs)
    wanted |= files
    for name in [name for name in wanted if name.endswith(".md")]:
        wanted[name] = fill(wanted[name].decode(), given, name).encode()
    for stem, path in _sources().items():
        text, files = page(stem, execute.read(path), runs)
        wanted |= files | {f"notebooks/{stem}.md": text.encode()}
    _write_changed(folder / "stage", wanted)
    return folder / "stage"


def _sources() -> dict[str, Path]:
    folder = project_root() / "notebooks"
    return {notebook.stem: folder / f"{notebook.stem}.ipynb" for notebook in STAGES.values()}


def substitutions(runs: Sequence[BookRun]) -> tuple[dict[str, str], dict[str, bytes]]:
    """What the pages take from runs: texts that stand for a name in braces, and staged files.

    `about`, a table of what the runs rest on; `times`, one of what each notebook took;
    `digits_NAME`, facts of the embedded benchmark; `explorer_scripts`, which load its data; and the
    texts of `ionas.book.answer`.
    """
    from ionas.benchmark.table import load_table, signal

    table = load_table("digits")
    accuracy = table.values("test_accuracy")
    facts = {"least": accuracy.min(), "most": accuracy.max(), **signal(table)}
    given, files = answer.pages(runs)
    scripts, data = _explorer(runs)
    given |= {"about": about(runs), "times": times(runs), "explorer_scripts": scripts}
    given["digits_cells"] = f"{len(table):,}"
    given |= {f"digits_{name}": f"{value:.4f}" for name, value in facts.items()}
    return given, files | data


def fill(text: str, given: Mapping[str, str], page: str) -> str:
    """Put the texts of `substitutions` where their names stand in double braces, or BookError."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in given:
            raise BookError(f"{page}: {match[0]} is not one of {', '.join(given)}")
        return given[match[1]]

    return re.sub(r"\{\{ (\w+) \}\}", value, text)


def labels(folders: Sequence[RunFolder]) -> list[str]:
    """Names of runs for readers: those of their tables, with more where these are equal."""
    tables = [read_json(run.stage("search_space") / "about.json") or {} for run in folders]
    names = [str(t.get("name", run.name)) for t, run in zip(tables, folders, strict=True)]
    names = [re.sub(r"^nasbench(?=\d)", "NAS-Bench-", name) for name in names]
    if len({run.path.resolve() for run in folders}) < len(folders):
        raise BookError(f"a run is given twice: {', '.join(str(run.path) for run in folders)}")
    found: list[str] = []
    for form in ("{0}", "{0} ({1.name})", "{0} ({1.path.parent.name}/{1.name})", "{0} ({2})"):
        found = [
            form.format(name[:1].upper() + name[1:], run, number)
            for number, (name, run) in enumerate(zip(names, folders, strict=True), 1)
        ]
        if len(set(map(slug_of, found))) == len(found):
            break
    return found


def _executed(
    run: RunFolder, folder: Path, sources: Mapping[str, NotebookNode]
) -> dict[str, NotebookNode]:
    """The notebooks of a run by stem, with the prose of today; a publication is drawn."""
    if run.is_publication:
        publish.check_publication(run.path)
        notebooks = runner.draw(run, folder / "drawn" / run.name)
    else:
        _check(run)
        notebooks = run.path / "notebooks"
    paths = {stem: notebooks / f"{stem}.ipynb" for stem in sources}
    return {
        stem: execute.with_prose(_whole(path), sources[stem])
        for stem, path in paths.items()
        if path.is_file()
    }


def _check_code(runs: Sequence[BookRun], stem: str) -> None:
    """Refuse runs of different notebooks: what they show would stand under the same code."""
    codes = [execute.code(run.notebooks[stem]) for run in runs]
    for run, code in zip(runs, codes, strict=True):
        if code != codes[0]:
            raise BookError(
                f"{stem} has other code in {run.folder.path} than in {runs[0].folder.path}; "
                f"bring the runs up to date: {run.folder.command}"
            )


def _check(run: RunFolder) -> None:
    """Refuse a run that is not finished, or whose results are damaged or do not belong together."""
    try:
        publish.check_run(run)
    except publish.PublicationError as error:
        raise BookError(f"{error}; the command is: {run.command}") from error
    for stage, notebook in STAGES.items():
        path = run.path / "notebooks" / f"{notebook.stem}.ipynb"
        executed = _whole(run.stage(stage) / "executed.ipynb")
        if not path.is_file() or _results(_whole(path)) != _results(executed):
            raise BookError(f"{path} is not the notebook that the run executed; {run.command}")


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


def _explorer(runs: Sequence[BookRun]) -> tuple[str, dict[str, bytes]]:
    """Tags of the scripts that hand the page `explorer` its data of each run, and these scripts."""
    files: dict[str, bytes] = {}
    for run in runs:
        if data := read_json(run.folder.stage("performance_prediction") / "explorer.json"):
            one = json.dumps(
                {"label": run.label, "slug": run.slug, "data": data}, separators=(",", ":")
            )
            text = f"window.IONAS_RUNS = window.IONAS_RUNS || [];\nwindow.IONAS_RUNS.push({one});\n"
            files[f"book/_static/explorer_{run.slug}.js"] = text.encode()
    tags = [f'<script defer src="../_static/{Path(name).name}"></script>' for name in files]
    return "\n".join(tags), files


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
