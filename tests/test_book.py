"""The book: staged, built with warnings as errors, and opened page by page in a browser."""

import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ionas.book import about, chapter, execute, publish
from ionas.book import html as book
from ionas.book.chapter import BookRun
from ionas.book.configure import STAGES, find_stage, resolve
from ionas.book.findings import display_data
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


# --- what a chapter is -----------------------------------------------------------------------


def picture(content: str = "one", **said: Any) -> NotebookNode:
    """A displayed chart; its `content` stands for the picture, `csv` are its data."""
    data = {"image/png": b64encode(content.encode()).decode()}
    data |= {"text/csv": csv} if (csv := said.pop("csv", "")) else {}
    size = {"width": 640, "height": 400}
    return new_output("display_data", data, metadata={"image/png": {**size, **said}})


def a_finding(shows: bool | None = False, here: str = "down.", **more: Any) -> NotebookNode:
    return new_output("display_data", display_data("up.", shows, here, **more))


def a_notebook(**changes: Any) -> NotebookNode:
    code = {"source": "draw()", "execution_count": 1, "outputs": [picture()], **changes}
    cells = [new_markdown_cell("# One\n\nSee [that](#figure-9).\n\n## Figure 9", id="a")]
    return new_notebook(cells=[*cells, new_code_cell(id="b", **code)])


def a_run(label: str = "Digits", notebook: NotebookNode | None = None) -> BookRun:
    """A run in the book that has one notebook, or none of it."""
    notebooks = {"06_reinforce": notebook} if notebook else {}
    return BookRun(label, RunFolder(Path("runs") / label.lower()), notebooks)


def chapter_of(*runs: BookRun) -> str:
    return chapter.page("06_reinforce", a_notebook(), runs)[0]


def an_error() -> NotebookNode:
    return new_output("error", ename="ValueError", evalue="too small", traceback=[])


def test_a_chart_has_a_size_a_caption_and_its_data() -> None:
    notebook = a_notebook(outputs=[picture("P", alt='r\'s "rise"', csv="x,y\n1,2\n")])
    text, files = chapter.page("06_reinforce", a_notebook(), [a_run(notebook=notebook)])
    name = "06_reinforce_b_1_digits"
    figure = text[text.index("```{figure}") : text.index("```\n\n", text.index("{figure}"))]
    assert figure.splitlines() == [
        f"```{{figure}} pictures/{name}.png",
        ':alt: "r\'s \\"rise\\""',
        ":width: 640px",
        "",
        "r&#39;s &#34;rise&#34;",
        "",
        f"[Data of this chart (CSV)](path:../downloads/data/{name}.csv)",
    ]
    assert files[f"notebooks/pictures/{name}.png"] == b"P"
    assert files[f"downloads/data/{name}.csv"] == b"x,y\n1,2\n"


def test_a_chart_without_a_sentence_is_named_by_its_section() -> None:
    text = chapter_of(a_run(notebook=a_notebook()))
    assert ':alt: "Chart: Figure 9"' in text


def test_only_what_differs_between_runs_stands_in_tabs() -> None:
    one, other = (a_run(name, a_notebook()) for name in ("One", "Other"))
    assert "tab-set" not in chapter_of(one)
    alike = chapter_of(one, other)
    assert "tab-set" not in alike
    assert alike.count("{figure}") == 1
    other = a_run("Other", a_notebook(outputs=[picture("two")], execution_count=2))
    text = chapter_of(one, other)
    assert [text.count(word) for word in ("{tab-set}", "{tab-item}", "{figure}")] == [1, 2, 2]
    assert text.index("{tab-item} One") < text.index("_one.png") < text.index("{tab-item} Other")
    silent = a_run("Silent", a_notebook(outputs=[]))
    text = chapter_of(silent, other)
    assert "tab-set" not in text
    assert text.index("**Other**") < text.index("_other.png")


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        (
            new_output("display_data", {"text/markdown": "*so*", "text/plain": "<M>"}),
            "\n\n*so*\n\n",
        ),
        (new_output("stream", name="stdout", text="```said```"), "````{code-block} text\n"),
        (new_output("execute_result", {"text/plain": "7"}), ":class: ionas-printed\n\n7\n```"),
        (
            new_output("execute_result", {"text/html": "<b>7</b>", "text/plain": "7"}),
            "<b>7</b>\n</div>",
        ),
    ],
)
def test_an_output_is_shown_in_its_richest_form(output: NotebookNode, wanted: str) -> None:
    progress = new_output("stream", name="stderr", text="50 %")
    text = chapter_of(a_run(notebook=a_notebook(outputs=[progress, output])))
    assert wanted in text
    assert "50 %" not in text
    assert "<M>" not in text


def test_the_frame_of_a_notebook_is_not_shown_as_code() -> None:
    notebook = a_notebook()
    notebook.cells += [new_code_cell(f"in_{name}()", id=name) for name in chapter.FRAME]
    notebook.cells[-1].outputs = [new_output("display_data", {"text/html": "<table>"})]
    assert chapter.FRAME[-1] == "finish"
    text = chapter_of(a_run(notebook=notebook))
    assert "```{code-block} python\n:class: ionas-code\n\ndraw()\n```" in text
    assert "in_" not in text
    assert text.index("## Where these results come from") < text.index("<table>")


def test_a_finding_stands_once_with_what_each_run_shows() -> None:
    one = a_run("One", a_notebook(outputs=[a_finding(True, "down.")]))
    other = a_run("Other", a_notebook(outputs=[a_finding(None, "level.", own=True)]))
    text = chapter_of(one, other)
    yes, undecided = (
        f'<span class="ionas-verdict {word}"><span aria-hidden="true">{symbol}</span> {word}</span>'
        for word, symbol in (("yes", "✓"), ("undecided", "?"))
    )
    assert (
        f"| Claim | One | Other |\n|---|---|---|\n| [up.](#figure-9) | {yes} | {undecided} |"
        in text
    )
    box = f"**The paper:** up.\n\n- **One** {yes} down.\n- **Other** {undecided} level."
    assert box in text
    assert "tab-set" not in text
    assert "**Asked here:** up." in chapter_of(other)
    silent = a_run("Silent", a_notebook(outputs=[]))
    assert f"| [up.](#figure-9) | not run yet | {undecided} |" in chapter_of(silent, other)
    assert "What came out" not in chapter_of(silent)


def test_a_run_that_lacks_a_chapter_is_named() -> None:
    have, lack = a_run("Digits", a_notebook()), a_run("NAS-Bench-101")
    text = chapter_of(lack, have)
    lacks = "The run nas-bench-101 on NAS-Bench-101 has not come this far."
    assert text.count(lacks) == 1
    assert "{figure}" in text
    assert "tab-set" not in text
    text, files = chapter.page("06_reinforce", a_notebook(), [lack])
    assert lacks in text
    assert "See that.\n" in text  # no section to link to
    assert "draw()" not in text
    assert list(files) == ["downloads/source/06_reinforce.ipynb"]


# --- what the pages take from runs -----------------------------------------------------------


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
    beside = pd.DataFrame({"labeled": ["train"] * 2, "here": [0.5, 0.6], "table": [0.6, 0.8]})
    beside.to_parquet(folder / "beside_table.parquet")
    parameters = resolve("tiny", run="small")[stage.name]
    manifest = {
        "parameters": parameters.model_dump(mode="json"),
        "seeds": {},
        "peak_memory_mb": 100.0,
        "machine": "M",
        "device": "cpu",
        "outputs": {},
        "inputs": {"upstream": dict.fromkeys(stage.reads, artifact_hash({}))},
        "notebook": {"executed.ipynb": {"sha256": file_hash(folder / "executed.ipynb")}},
    }
    write_json(folder / "manifest.json", sealed(manifest))


def of_table(run: RunFolder, name: str) -> RunFolder:
    write_json(run.stage("search_space") / "about.json", {"name": name})
    return run


def test_an_unknown_mark_of_a_page_is_named(small_run: RunFolder) -> None:
    given, _ = book.substitutions([BookRun("Digits", small_run, {})])
    with pytest.raises(book.BookError, match=r"page.md: \{\{ abuot \}\} is not one of answer, "):
        book.fill("{{ abuot }}", given, "page.md")


def test_the_page_of_the_benchmark_is_about_the_shipped_table(small_run: RunFolder) -> None:
    from ionas.benchmark.table import load_table

    table = load_table("digits")
    given, _ = book.substitutions([BookRun("Digits", small_run, {})])
    text = book.fill("{{ digits_cells }} {{ digits_most }}", given, "p")
    assert text == f"{len(table):,} {table.values('test_accuracy').max():.4f}"


def test_tables_have_a_column_per_run(small_run: RunFolder, tmp_path: Path) -> None:
    path = small_run.stage("io_dataset") / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["outputs"] = {"a.json": {"processor_s": 2.4}, "b.json": {"processor_s": 0.4}}
    write_json(path, sealed(manifest))
    runs = [BookRun("One", small_run, {}), BookRun("None", RunFolder(tmp_path / "none"), {})]
    text = about.times(runs)
    assert "|   | One | None |" in text
    assert "| {doc}`../notebooks/03_io_dataset` | 3 s, 100 MB | not run |" in text
    assert "| All together | 3 s | 0 s |" in text
    text = about.about(runs)
    assert "| Run | **small** | **none** |" in text
    assert "| Chapters not run yet | none | 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 |" in text


def test_the_explorer_gets_the_data_of_each_run(small_run: RunFolder) -> None:
    runs = [BookRun("NAS-Bench-101", small_run, {})]
    assert book.substitutions(runs)[0]["explorer_scripts"] == ""
    write_json(small_run.stage("performance_prediction") / "explorer.json", {"cells": [1]})
    given, files = book.substitutions(runs)
    script = "explorer_nas-bench-101.js"
    assert given["explorer_scripts"] == f'<script defer src="../_static/{script}"></script>'
    said = files[f"book/_static/{script}"].decode()
    assert said.endswith(
        '.push({"label":"NAS-Bench-101","slug":"nas-bench-101","data":{"cells":[1]}});\n'
    )


def test_runs_are_named_by_their_tables(small_run: RunFolder, tmp_path: Path) -> None:
    put(other := RunFolder(tmp_path / "runs" / "other"), "01_search_space", a_notebook())
    put(same := RunFolder(tmp_path / "results" / "other"), "01_search_space", a_notebook())

    def labels(*runs: RunFolder) -> list[str]:
        return book.labels(runs)

    assert labels(small_run) == ["Small"]
    assert labels(of_table(other, "nasbench101"), of_table(small_run, "digits")) == [
        "NAS-Bench-101",
        "Digits",
    ]
    assert labels(of_table(other, "digits"), small_run) == ["Digits (other)", "Digits (small)"]
    assert labels(of_table(same, "digits"), other) == [
        "Digits (results/other)",
        "Digits (runs/other)",
    ]
    with pytest.raises(book.BookError, match="a run is given twice"):
        labels(other, other)
    again = RunFolder(other.path.parent / ".." / "runs" / "other")
    with pytest.raises(book.BookError, match="a run is given twice"):
        labels(other, again)


@pytest.mark.parametrize(
    "names", [("表一", "表二"), ("a_b", "a-b"), ("A b", "a B"), (200 * "x", 200 * "y" + 200 * "x")]
)
def test_runs_whose_names_are_nearly_alike_have_files_of_their_own(
    small_run: RunFolder, tmp_path: Path, names: tuple[str, str]
) -> None:
    put(other := RunFolder(tmp_path / "runs" / "small_"), "01_search_space", a_notebook())
    runs = [of_table(run, name) for run, name in zip((small_run, other), names, strict=True)]
    slugs = [BookRun(label, small_run, {}).slug for label in book.labels(runs)]
    assert len(set(slugs)) == 2
    assert all(0 < len(slug) < 100 for slug in slugs)


# --- what is staged --------------------------------------------------------------------------


def test_runs_of_other_notebooks_do_not_share_a_book(small_run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "runs" / "other")
    for stage in STAGES.values():
        put(other, stage.stem, a_notebook())
    book.stage_book([small_run, other], tmp_path / "_build")
    put(other, "03_io_dataset", a_notebook(source="draw(2)"))
    with pytest.raises(book.BookError, match=r"03_io_dataset has other code .* --name other"):
        book.stage_book([small_run, other], tmp_path / "_build")


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
        book.stage_book([small_run], tmp_path / "_build")


def test_a_missing_notebook_is_named_with_the_mend(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.rmtree(small_run.stage("io_dataset"))
    with pytest.raises(book.BookError, match=r"03_io_dataset; .*ionas run --name small"):
        book.stage_book([small_run], tmp_path / "_build")


@pytest.mark.parametrize(
    "content", ['{"cells": [', "", "[]", "{}", '{"cells": null, "nbformat": 4}', "[" * 100_000]
)
def test_a_notebook_that_was_cut_off_is_named(
    small_run: RunFolder, tmp_path: Path, content: str
) -> None:
    (small_run.path / "notebooks" / "03_io_dataset.ipynb").write_text(content)
    with pytest.raises(book.BookError, match=r"io_dataset.ipynb is no notebook that can be read"):
        book.stage_book([small_run], tmp_path / "_build")


@pytest.mark.parametrize("where", ["notebooks/03_io_dataset.ipynb", "io_dataset/executed.ipynb"])
def test_results_that_the_run_did_not_write_are_refused(
    small_run: RunFolder, tmp_path: Path, where: str
) -> None:
    write_text(small_run.path / where, execute.text(a_notebook(source="draw(better=True)")))
    with pytest.raises(book.BookError, match=f"{Path(where).name} is not"):
        book.stage_book([small_run], tmp_path / "_build")


def test_two_books_are_not_built_in_one_place(small_run: RunFolder, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "_build"),
        pytest.raises(TimeoutError, match="another process is writing"),
    ):
        book.build([small_run.name], tmp_path)


def test_staging_writes_only_what_changed(small_run: RunFolder, tmp_path: Path) -> None:
    stage = book.stage_book([small_run], tmp_path / "_build")
    (stage / "book" / "stale.md").write_text("# Old")
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*") if path.is_file()}
    put(small_run, "06_reinforce", a_notebook(source="draw(2)"))
    book.stage_book([small_run], tmp_path / "_build")
    after = {path: path.stat().st_mtime_ns for path in stage.rglob("*") if path.is_file()}
    assert set(before) - set(after) == {stage / "book" / "stale.md"}
    newer = {path.relative_to(stage).as_posix() for path in after if after[path] != before[path]}
    assert newer == {"notebooks/06_reinforce.md", "downloads/small/06_reinforce.ipynb"}


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
    """The folder of the built book of a publication of notebooks 01 to 04, and of the tiny run.

    The build itself is a check. After `make test` the book stays beside the tiny run.
    """
    folder = tmp_path_factory.mktemp("book")
    given = os.environ.get("IONAS_TEST_RUNS")
    shutil.copytree(tiny_run, folder / "runs" / "tiny")
    for name in list(STAGES)[4:]:
        shutil.rmtree(folder / "runs" / "tiny" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IONAS_RUNS", str(folder / "runs"))
        patch.setenv("IONAS_RESULTS", str(folder / "results"))
        publication = publish.publish("tiny", "some", partial=True)
        shutil.rmtree(folder / "runs")
        patch.setenv("IONAS_RUNS", str(tiny_run.parent))
        output = Path(given).parent if given else folder
        return book.build([str(publication), tiny_run.name], output).parent


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
            link: (page.parent / unquote(link)).resolve().read_text("utf-8")
            for link in files
            if "_downloads" in link
        }
        executed = [False, True] if int(stage.number) > 4 else [False, True, True]
        found = sorted('"execution_count": 1' in content for content in contents.values())
        assert found == executed


@pytest.mark.slow
def test_no_link_image_or_anchor_is_broken(html: Path) -> None:
    assert not broken_links(html)


@pytest.mark.slow
def test_a_book_of_two_runs_says_everywhere_what_one_lacks(html: Path) -> None:
    index = (html / "book" / "index.html").read_text("utf-8")
    assert "<p>5, 6, 7, 8, 9, 10</p>" in index
    for stage in STAGES.values():
        text = (html / "notebooks" / f"{stage.stem}.html").read_text("utf-8")
        lacking = int(stage.number) > 4
        assert ("The run some on Digits (some) has not come this far." in text) == lacking
        assert ("sd-tab-set" in text) != lacking  # where results come from always differs
    times = (html / "book" / "running.html").read_text("utf-8")
    assert times.count("<p>not run</p>") == 6


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


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("device", sorted(WIDTHS))
def test_every_page_opens_clean(html: Path, browser: Any, device: str, theme: str) -> None:
    width = WIDTHS[device]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    if theme == "dark":  # in the light one nothing is stored, as for who comes the first time
        context.add_init_script("localStorage.mode = localStorage.theme = 'dark'")
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
    for path in pages(html):
        if path == html / "index.html" or "_modules" in path.parts:
            continue
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


@pytest.mark.slow
def test_one_button_shows_all_code_and_is_remembered(html: Path, browser: Any) -> None:
    first, second = (
        (html / "notebooks" / f"{stem}.html").resolve().as_uri()
        for stem in ("01_search_space", "02_pretraining")
    )
    context = browser.new_context()
    page = context.new_page()

    def seen() -> list[bool]:
        return [code.is_visible() for code in page.locator(".ionas-code").all()]

    page.goto(first)
    assert len(seen()) > 3
    assert not any(seen())
    page.get_by_role("button", name="Show code").press("Enter")
    assert all(seen())
    page.goto(second)
    assert all(seen())
    page.get_by_role("button", name="Hide code").click()
    page.reload()
    assert not any(seen())
    context.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(first)
    assert all(seen())
    context.close()


@pytest.mark.slow
def test_a_tab_chosen_once_is_chosen_in_the_whole_page(html: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((html / "notebooks" / "01_search_space.html").resolve().as_uri())
    tabs = page.locator(".ionas-runs")
    assert tabs.count() >= 1
    for name in ("Digits (tiny)", "Digits (some)"):
        tabs.last.get_by_text(name, exact=True).click()
        shown = page.locator(".ionas-runs > .sd-tab-content:visible").count()
        chosen = page.locator(".ionas-runs > input:checked + label").all_inner_texts()
        assert (shown, chosen) == (tabs.count(), [name] * tabs.count())
    page.close()


def _leaves(url: str) -> bool:
    return urlsplit(url).scheme not in ("file", "data", "blob")
