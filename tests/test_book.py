"""The book: staged, built with warnings as errors, and opened page by page in a browser."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ionas.book import execute, publish
from ionas.book import html as book
from ionas.book.configure import STAGES, find_stage, resolve
from ionas.book.folders import (
    RunFolder,
    locked,
    project_root,
    sealed,
    write_json,
    write_text,
)
from ionas.book.provenance import artifact_hash, file_hash

WIDTHS = {"desktop": 1280, "phone": 390}


# --- what a staged page is -------------------------------------------------------------------


def a_notebook(**changes: Any) -> NotebookNode:
    picture = new_output(
        "display_data",
        {"image/png": ""},
        metadata={"image/png": {"width": 640, "height": 400, **changes.pop("image", {})}},
    )
    code = {"source": "draw()", "execution_count": 1, "outputs": [picture], **changes}
    cells = [
        new_markdown_cell("# One\n\n## Figure 9", id="a"),
        new_code_cell(id="b", metadata={"tags": ["hide-input"]}, **code),
    ]
    return new_notebook(cells=cells)


def an_error() -> NotebookNode:
    return new_output("error", ename="ValueError", evalue="too small", traceback=[])


@pytest.fixture
def small_run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "small")
    for stage in STAGES.values():
        put(run, stage.stem, a_notebook())
    return run


def put(run: RunFolder, stem: str, notebook: NotebookNode) -> None:
    """Make a stage as `ionas run` leaves it."""
    stage = find_stage(stem)
    folder = run.stage(stage.name)
    write_text(run.path / "notebooks" / f"{stem}.ipynb", execute.text(notebook))
    write_text(folder / "executed.ipynb", execute.text(notebook))
    parameters = resolve("tiny", run="small")[stage.name]
    manifest = {
        "parameters": parameters.model_dump(mode="json"),
        "seeds": {},
        "peak_memory_mb": 100.0,
        "machine": "M",
        "device": "cpu",
        "outputs": {},
        "inputs": {"upstream": dict.fromkeys(stage.upstream, artifact_hash({}))},
        "notebook": {"executed.ipynb": {"sha256": file_hash(folder / "executed.ipynb")}},
    }
    write_json(folder / "manifest.json", sealed(manifest))


def test_the_page_gives_pictures_their_size_and_offers_both_files() -> None:
    page, _ = book.page(a_notebook(), "06_reinforce")
    image = page["cells"][1]["metadata"]["mystnb"]["image"]
    assert image == {"width": "640px", "alt": "Chart: Figure 9"}
    assert page["cells"][1]["metadata"]["tags"] == ["hide-input"]
    last = page["cells"][-1]["source"]
    assert "source/06_reinforce.ipynb" in last
    assert "executed/06_reinforce.ipynb" in last


def test_a_picture_that_says_what_it_shows_is_read_so() -> None:
    page, _ = book.page(a_notebook(image={"alt": "r's rise"}), "06_reinforce")
    assert page["cells"][1]["metadata"]["mystnb"]["image"]["alt"] == "r's rise"


def test_the_data_of_a_chart_are_offered() -> None:
    notebook = a_notebook()
    notebook.cells[1].outputs[0].data["text/csv"] = "x,y\n1,2\n"
    page, files = book.page(notebook, "06_reinforce")
    assert files == {"downloads/data/06_reinforce_1.csv": b"x,y\n1,2\n"}
    assert list(page["cells"][1]["outputs"][0]["data"]) == ["image/png"]
    assert "../downloads/data/06_reinforce_1.csv" in page["cells"][2]["source"]


def test_findings_stand_under_a_link_to_their_section(small_run: RunFolder) -> None:
    said = "> **Paper:** up.\n>\n> **This run:** down."
    found = new_output("display_data", {"text/markdown": said})
    given = book.substitutions(small_run, {"01_search_space": a_notebook(outputs=[found])})
    text = book.fill("before\n\n{{ findings_01_search_space }}\n\nafter", given, "page.md")
    link = "[Figure 9](../notebooks/01_search_space.ipynb#figure-9)"
    assert text == f"before\n\n{link}\n\n{said}\n\nafter"
    assert given["findings_06_reinforce"] == "This notebook has not been run."
    with pytest.raises(book.BookError, match=r"page.md: \{\{ abuot \}\} is not one of note, about"):
        book.fill("{{ abuot }}", given, "page.md")


def test_the_page_of_the_benchmark_is_about_the_shipped_table(small_run: RunFolder) -> None:
    from ionas.benchmark.table import load_table

    table = load_table("digits")
    text = book.fill("{{ digits_cells }} {{ digits_most }}", book.substitutions(small_run, {}), "p")
    assert text == f"{len(table):,} {table.values('test_accuracy').max():.4f}"


def test_times_are_those_of_the_run(small_run: RunFolder) -> None:
    path = small_run.stage("io_dataset") / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["outputs"] = {"a.json": {"processor_s": 2.4}, "b.json": {"processor_s": 0.4}}
    write_json(path, sealed(manifest))
    text = book.substitutions(small_run, {})["times"]
    assert "| {doc}`../notebooks/03_io_dataset` | 3 | 100 |" in text
    assert "| **all together** | **3** | |" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"execution_count": None}, "stopped in cell 2: the cell did not run to its end"),
        ({"outputs": [an_error()]}, "stopped in cell 2: ValueError: too small"),
    ],
)
def test_an_unfinished_notebook_is_refused(
    small_run: RunFolder, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    put(small_run, "03_io_dataset", a_notebook(**changes))
    with pytest.raises(book.BookError, match=message):
        book.stage_book(small_run, tmp_path / "_build")


def test_a_missing_notebook_is_named_with_the_mend(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.rmtree(small_run.stage("io_dataset"))
    with pytest.raises(book.BookError, match=r"03_io_dataset; .*ionas run --name small"):
        book.stage_book(small_run, tmp_path / "_build")


def test_a_notebook_that_was_cut_off_is_named(small_run: RunFolder, tmp_path: Path) -> None:
    (small_run.path / "notebooks" / "03_io_dataset.ipynb").write_text('{"cells": [')
    with pytest.raises(book.BookError, match=r"io_dataset.ipynb is no notebook that can be read"):
        book.stage_book(small_run, tmp_path / "_build")


@pytest.mark.parametrize("where", ["notebooks/03_io_dataset.ipynb", "io_dataset/executed.ipynb"])
def test_results_that_the_run_did_not_write_are_refused(
    small_run: RunFolder, tmp_path: Path, where: str
) -> None:
    write_text(small_run.path / where, execute.text(a_notebook(source="draw(better=True)")))
    with pytest.raises(book.BookError, match=f"{Path(where).name} is not"):
        book.stage_book(small_run, tmp_path / "_build")


def test_two_books_are_not_built_in_one_place(small_run: RunFolder, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "_build"),
        pytest.raises(TimeoutError, match="another process is writing"),
    ):
        book.build(small_run.name, tmp_path)


def test_staging_writes_only_what_changed(small_run: RunFolder, tmp_path: Path) -> None:
    stage = book.stage_book(small_run, tmp_path / "_build")
    (stage / "book" / "stale.md").write_text("# Old")
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*") if path.is_file()}
    put(small_run, "06_reinforce", a_notebook(source="draw(2)"))
    book.stage_book(small_run, tmp_path / "_build")
    after = {path: path.stat().st_mtime_ns for path in stage.rglob("*") if path.is_file()}
    assert set(before) - set(after) == {stage / "book" / "stale.md"}
    newer = {path.relative_to(stage).as_posix() for path in after if after[path] != before[path]}
    assert newer == {"notebooks/06_reinforce.ipynb", "downloads/executed/06_reinforce.ipynb"}


def test_the_table_of_contents_names_files_that_are_there() -> None:
    toc = yaml.safe_load((project_root() / "_toc.yml").read_text())
    names = [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]
    endings = {"book": ".md", "notebooks": ".ipynb"}
    missing = [n for n in names if not (project_root() / (n + endings[n.split("/")[0]])).is_file()]
    assert not missing
    assert {f"notebooks/{stage.stem}" for stage in STAGES.values()} <= set(names)


# --- the built book --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def html(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built book of the tiny run; the build itself is a check.

    After `make test` it stays beside the tiny run, to be looked at.
    """
    given = os.environ.get("IONAS_TEST_RUNS")
    output = Path(given).parent if given else tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IONAS_RUNS", str(tiny_run.parent))
        return book.build(tiny_run.name, output).parent


@pytest.fixture(scope="session")
def partial_html(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built book of a publication that lacks all notebooks from 05 on."""
    folder = tmp_path_factory.mktemp("partial")
    shutil.copytree(tiny_run, folder / "runs" / "tiny")
    for name in list(STAGES)[4:]:
        shutil.rmtree(folder / "runs" / "tiny" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IONAS_RUNS", str(folder / "runs"))
        patch.setenv("IONAS_RESULTS", str(folder / "results"))
        publication = publish.publish("tiny", "some", partial=True)
        shutil.rmtree(folder / "runs")
        return book.build(str(publication), folder).parent


class Page(HTMLParser):
    """Links, sources and anchors of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") not in ("search", "canonical"):
            self.sources.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.sources.append(values["src"])


def pages(html: Path) -> Iterator[Path]:
    yield from (path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts)


def broken_links(html: Path) -> list[str]:
    parsed = {path.resolve(): Page(path) for path in pages(html)}
    broken = []
    for path, page in parsed.items():
        for link in [*page.links, *page.sources]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data", "javascript"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            there = target.is_file() and target.is_relative_to(html.resolve())
            if not there or (anchor and target in parsed and anchor not in parsed[target].anchors):
                broken.append(f"{path.relative_to(html.resolve())}: {link}")
    return broken


@pytest.mark.slow
def test_every_notebook_is_in_the_book_with_its_downloads(html: Path) -> None:
    for stage in STAGES.values():
        page = html / "notebooks" / f"{stage.stem}.html"
        files = [link for link in Page(page).links if link.endswith(f"{stage.stem}.ipynb")]
        contents = {
            (page.parent / unquote(link)).resolve().read_text("utf-8")
            for link in files
            if "_downloads" in link
        }
        assert len(contents) == 2
        outputs = sorted('"execution_count": 1' in content for content in contents)
        assert outputs == [False, True]


@pytest.mark.slow
def test_no_link_image_or_anchor_is_broken(html: Path) -> None:
    assert not broken_links(html)


@pytest.mark.slow
def test_a_partial_publication_says_everywhere_what_it_lacks(partial_html: Path) -> None:
    assert not broken_links(partial_html)
    index = (partial_html / "book" / "index.html").read_text("utf-8")
    lacks = ", ".join(stage.stem for stage in list(STAGES.values())[4:])
    assert f"It is partial, without {lacks}" in index
    assert "scikit-learn" in index
    for stage in STAGES.values():
        path = partial_html / "notebooks" / f"{stage.stem}.html"
        text = path.read_text("utf-8")
        lacking = stage.stem in lacks
        assert ("has not been run at the scale of the published run" in text) == lacking
        assert (f"It is partial, without {lacks}" in text) != lacking
        links = Page(path).links
        downloads = {x for x in links if "_downloads" in x and x.endswith(".ipynb")}
        assert len(downloads) == (1 if lacking else 2)
    times = (partial_html / "book" / "running.html").read_text("utf-8")
    assert times.count("<p>not run</p>") == 3


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(html: Path) -> None:
    found = {
        f"{path.relative_to(html)}: {source}"
        for path in pages(html)
        for source in Page(path).sources
        if urlsplit(source).scheme in ("http", "https") or source.startswith("//")
    }
    assert not found


@pytest.mark.slow
def test_no_page_shows_an_error_or_an_empty_mark(html: Path) -> None:
    wrong = re.compile(r"Traceback \(most recent|Execution Failed|system-message|\{glue|\{\{ ")
    shown = [path for path in pages(html) if "_modules" not in path.parts]
    found = {str(p.relative_to(html)): m[0] for p in shown if (m := wrong.search(p.read_text()))}
    assert not found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(names)})")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("device", sorted(WIDTHS))
def test_every_page_opens_clean(html: Path, browser: Any, device: str, theme: str) -> None:
    width = WIDTHS[device]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.add_init_script(f"localStorage.mode = localStorage.theme = '{theme}'")
    context.set_default_timeout(60_000)
    faults: list[str] = []
    name = ""

    def note(fault: str) -> None:
        faults.append(f"{name}: {fault}")

    page = context.new_page()
    page.on("console", lambda m: note(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: note(str(error)))
    # Aborted is what the browser itself no longer wants, being on its way to the next page.
    page.on(
        "requestfailed",
        lambda r: (
            note(f"failed: {r.url}, {r.failure}") if "ABORTED" not in str(r.failure) else None
        ),
    )
    page.on("request", lambda r: note(f"asks {r.url}") if _leaves(r.url) else None)
    assert "Refresh" in (html / "index.html").read_text("utf-8")  # it only leads to the first page
    for path in [path for path in pages(html) if path != html / "index.html"]:
        name = str(path.relative_to(html))
        page.goto(path.resolve().as_uri(), wait_until="load")
        page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            note(f"{wide} pixels wider than the window")
        unseen = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        if pictures := page.evaluate(unseen):
            note(f"pictures without content: {pictures}")
        if page.evaluate("document.querySelectorAll('mjx-merror, merror').length"):
            note("a formula that cannot be set")
    context.close()
    assert not faults


def _leaves(url: str) -> bool:
    return urlsplit(url).scheme not in ("file", "data", "blob")
