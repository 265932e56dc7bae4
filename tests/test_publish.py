"""Publications: what goes in, what is refused, drawing and going on from one; the tiny study."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from ionas.benchmark.table import load_table
from ionas.book import about, publish
from ionas.book import html as book
from ionas.book import run as runner
from ionas.book.chapter import BookRun
from ionas.book.configure import STAGES, InvalidParameters, resolve
from ionas.book.findings import literal
from ionas.book.folders import RECORD, RunFolder, find_run, locked, read_json, sealed, write_json
from ionas.book.provenance import file_hash

pytestmark = pytest.mark.slow
LARGE = {
    "search_space/table.parquet",
    "embedding_training/embeddings.safetensors",
    "label_value/models.safetensors",
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IONAS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def publication(tiny_copy: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny study, published as if the files that are large elsewhere were large here."""
    run = RunFolder(tiny_copy)
    for stage in STAGES:
        path = run.stage(stage) / "manifest.json"
        manifest = read_json(path) or {}
        for file, entry in manifest["outputs"].items():
            entry["size"] = 10**9 if f"{stage}/{file}" in LARGE else entry["size"]
        write_json(path, sealed(manifest))
    return publish.publish("tiny")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_hash(p) for p in folder.rglob("*") if p.is_file()}


# --- publishing ------------------------------------------------------------------------------


def test_what_is_small_is_published(tiny_copy: Path, publication: Path) -> None:
    run, there = RunFolder(tiny_copy), set(files(publication))
    for stage in STAGES:
        results = {f"{stage}/{file}" for file in (run.manifest(stage) or {})["outputs"]}
        assert results - there <= LARGE
        assert f"{stage}/manifest.json" in there
    assert not LARGE & there
    assert "io_dataset/targets.safetensors" in there
    assert not any("networks/" in name or "checkpoints/" in name for name in there)
    record = read_json(publication / RECORD) or {}
    assert set(record["files"]) | {RECORD} == there


def test_no_path_of_this_machine_is_published(tiny_copy: Path, results: Path) -> None:
    path = tiny_copy / "search_space" / "manifest.json"
    manifest = json.loads(path.read_text())
    for parameters in (manifest["parameters"], manifest["inputs"]["parameters"]):
        parameters["table"] = "/home/somewhere/private/table.parquet"
    write_json(path, sealed(manifest))
    publication = publish.publish("tiny")
    texts = [p.read_text() for p in publication.rglob("*") if p.suffix in (".json", ".yaml")]
    assert not any("somewhere" in text for text in texts)
    assert "table: table.parquet" in (publication / "params.yaml").read_text()


@pytest.mark.parametrize("file", ["io_dataset/targets.safetensors", "reinforce/executed.ipynb"])
def test_a_damaged_run_is_refused(tiny_copy: Path, results: Path, file: str) -> None:
    flip(tiny_copy / file)
    for partial in (False, True):
        with pytest.raises(
            publish.PublicationError, match=f"{file} is not the file that was written"
        ):
            publish.publish("tiny", partial=partial)
    assert not results.exists() or not any(results.iterdir())


def test_an_unfinished_run_is_refused_unless_partial(tiny_copy: Path, results: Path) -> None:
    shutil.rmtree(tiny_copy / "performance_prediction")
    with pytest.raises(
        publish.PublicationError, match=r"no finished 07_performance_prediction; .*--partial"
    ):
        publish.publish("tiny")
    partial = RunFolder(publish.publish("tiny", partial=True))
    missing = yaml.safe_load(partial.parameters.read_text())["performance_prediction"]
    assert missing == resolve("tiny")["performance_prediction"].model_dump(exclude={"run"})
    assert "| Chapters not run yet | 7 |" in about.about([BookRun("Digits", partial, {})])


def test_results_that_do_not_belong_together_are_refused(tiny_copy: Path, results: Path) -> None:
    path = tiny_copy / "reinforce" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"]["upstream"]["embedding_training"] = "0" * 64
    write_json(path, sealed(manifest))
    with pytest.raises(publish.PublicationError, match="06_reinforce was made from other results"):
        publish.publish("tiny")
    with pytest.raises(book.BookError, match="06_reinforce was made from other results"):
        book.stage_book([RunFolder(tiny_copy)], tiny_copy.parent / "_build")


def test_a_changed_letter_of_a_manifest_is_noticed(tiny_copy: Path, results: Path) -> None:
    path = tiny_copy / "reinforce" / "manifest.json"
    path.write_text(path.read_text().replace('"hidden"', '"hiddem"'))
    with pytest.raises(publish.PublicationError, match="no finished 06_reinforce"):
        publish.publish("tiny")


def test_what_cannot_be_published_is_named(tiny_copy: Path, results: Path) -> None:
    with pytest.raises(publish.PublicationError, match="no run 'tinyy'; did you mean 'tiny'"):
        publish.publish("tinyy")
    with pytest.raises(publish.PublicationError, match="cannot name a folder"):
        publish.publish("tiny", "../elsewhere")
    (results / "mine").mkdir(parents=True)
    with pytest.raises(publish.PublicationError, match=r"is no publication; give another --name"):
        publish.publish("tiny", "mine")
    with locked(tiny_copy), pytest.raises(publish.PublicationError, match="another process"):
        publish.publish("tiny")


def test_a_publication_is_complete_or_as_it_was(
    publication: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(publication)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "sealed", stop)
        for name in ("tiny", "other"):
            with pytest.raises(KeyboardInterrupt):
                publish.publish("tiny", name)
    assert [path.name for path in results.glob("[!.]*")] == ["tiny"]
    assert files(publication) == before
    for use in (lambda: publish.publish("tiny"), lambda: find_run(str(publication))):
        publication.replace(publication.with_name(".tiny.old"))  # killed between the two renames
        use()
    assert files(publication) == before


# --- reading, drawing, going on ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: flip(next(p.glob("reinforce/*.parquet"))), "parquet has changed since"),
        (lambda p: (p / "params.yaml").unlink(), "params.yaml is missing since"),
        (lambda p: (p / "search_space" / "more.json").write_text("{}"), "more.json does not bel"),
        (
            lambda p: (p / RECORD).write_text((p / RECORD).read_text().replace("tiny", "tint")),
            "publication.json has changed since",
        ),
    ],
)
def test_a_changed_publication_is_refused(
    publication: Path, change: Callable[[Path], object], message: str
) -> None:
    publish.check_publication(publication)
    change(publication)
    with pytest.raises(publish.PublicationError, match=message):
        publish.check_publication(publication)


def test_facts_are_those_of_the_run(publication: Path) -> None:
    text = about.about([BookRun("Digits", RunFolder(publication), {})])
    assert "| Run | **tiny**, published |" in text
    assert "| Profile | tiny |" in text
    assert f"digits, {len(load_table('digits')):,} cells" in text
    assert "| Labeled networks | 14 train (12 of them trained), 5 validation |" in text
    assert "| Chapters not run yet | none |" in text


def test_reencoded_images_are_called_so() -> None:
    for path in ("../data/cifar10-images.zip", "/data/cifar10-images"):
        title = about.images_title({"images": "folder", "images_path": path})
        assert title == "CIFAR-10 (JPEG re-encoded)"
    assert about.images_title({"images": "folder", "images_path": "my/birds"}) == "birds"
    assert about.images_title({"images": "cifar10", "images_path": "data"}) == "CIFAR-10"


def test_a_name_is_no_markup() -> None:
    assert "<b>" not in literal("<b>&`x`|*y*")
    assert literal("NAS-Bench-101, a_b (c)") == "NAS-Bench-101, a_b (c)"
    assert literal("- a\n---\n_b_ c--d") == "&#45; a &#45;&#45;&#45; &#95;b&#95; c&#45;&#45;d"


def test_a_publication_is_drawn_from_its_small_results_alone(
    publication: Path, tiny_run: Path, tmp_path: Path
) -> None:
    before = files(publication)
    shutil.rmtree(tmp_path / "runs")
    drawn = runner.draw(RunFolder(publication), tmp_path / "drawn")
    for notebook in STAGES.values():
        path = drawn / f"{notebook.stem}.ipynb"
        there = json.loads((tiny_run / "notebooks" / path.name).read_text())
        assert _shown(json.loads(path.read_text())) == _shown(there)
    assert files(publication) == before
    assert [path.name for path in publication.parent.iterdir()] == [publication.name]
    times = {path: path.stat().st_mtime_ns for path in drawn.glob("*.ipynb")}
    runner.draw(RunFolder(publication), drawn)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def _shown(notebook: dict) -> list[object]:
    """Outputs of the cells whose outputs do not tell times and revisions."""
    return [
        {**output, "execution_count": None}
        for cell in notebook["cells"]
        if "nbval-ignore-output" not in cell["metadata"].get("tags", [])
        for output in cell.get("outputs", [])
    ]


def test_a_publication_is_not_run(publication: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(publication, tmp_path / "runs" / "mine")
    before = files(mine)
    with pytest.raises(InvalidParameters, match=rf"is a publication; .* remove .*{RECORD}"):
        runner.run(str(mine / "params.yaml"), name="mine")
    assert files(mine) == before


def test_a_copy_of_a_publication_goes_on_and_trains_only_what_it_lacks(
    publication: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "runs" / "mine"
    shutil.copytree(publication, mine)
    (mine / RECORD).unlink()
    runner.run(str(mine / "params.yaml"), name="mine", only=["01", "02", "03", "04"])
    assert not (mine / "pretraining" / "networks").exists()
    for file in ("search_space/table.parquet", "output_features/distances.parquet"):
        if (tiny_run / file).is_file():
            assert file_hash(mine / file) == file_hash(tiny_run / file)
    given = pd.read_parquet(mine / "pretraining" / "networks.parquet")
    more = ["pretraining.train_networks=0"]  # all that are labeled
    runner.run(str(mine / "params.yaml"), more, name="mine", only=["02", "03"])
    networks = pd.read_parquet(mine / "pretraining" / "networks.parquet").set_index("hash")
    assert len(networks) == len(given) + 2
    known = networks.loc[given["hash"]]
    pd.testing.assert_frame_equal(known, given.set_index("hash"), check_dtype=False)
    trained = {path.name for path in (mine / "pretraining" / "networks").iterdir()}
    assert {name for name in trained if "." not in name} == set(networks.index) - set(given["hash"])
    targets = {
        run: load_file(run / "io_dataset" / "targets.safetensors") for run in (mine, tiny_run)
    }
    assert len(targets[mine]["train_test"]) == len(targets[tiny_run]["train_test"]) + 2
    for name in ("train_test", "validation_validation"):
        count = len(targets[tiny_run][name])
        np.testing.assert_array_equal(targets[mine][name][:count], targets[tiny_run][name])
    seconds = pd.read_parquet(mine / "pretraining" / "times.parquet")["seconds"]
    assert seconds.notna().all()
