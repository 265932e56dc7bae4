"""Publications: what goes in, what is refused, and going on from one, on the tiny study."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from ionas.benchmark.table import embedded
from ionas.book import execute, publish, restore
from ionas.book import html as book
from ionas.book import run as runner
from ionas.book.facts import about, images_title, nearest_profile
from ionas.book.folders import RECORD, RunFolder, project_root, read_json, write_json
from ionas.book.parameters import FIRST, STAGES, InvalidParameters, resolve
from ionas.book.provenance import file_hash, json_hash
from ionas.plots import PLOTLY

pytestmark = pytest.mark.slow


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IONAS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def publication(tiny_copy: Path, results: Path) -> Path:
    """The tiny study, published with nothing that is not always in a publication."""
    return publish.publish("tiny", limit=0.02)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_hash(p) for p in folder.rglob("*") if p.is_file()}


# --- publishing ------------------------------------------------------------------------------


def test_every_artifact_is_published_or_listed(tiny_copy: Path, publication: Path) -> None:
    record, run = publish.read(publication).record, RunFolder(tiny_copy)
    for stage in STAGES:
        manifest = run.manifest(stage)
        assert manifest is not None
        assert f"{stage}/executed.ipynb" in record["files"]
        for file, entry in manifest["outputs"].items():
            unit = f"{stage}/{file.partition('/')[0]}"
            if unit in record["left_out"]:
                assert not (publication / stage / file).exists()
                assert record["left_out"][unit]["size"] >= entry["size"]
            elif unit in record["compact"]:
                assert (publication / stage / file).stat().st_size < entry["size"]
            else:
                assert file_hash(publication / stage / file) == entry["sha256"]
    left_out = set(record["left_out"])
    assert left_out > {"pretraining/networks", "embedding_training/checkpoints"}
    assert {"search_space/table.parquet", "pretraining/images.safetensors"} < left_out
    table = record["left_out"]["search_space/table.parquet"]
    assert table["sha256"] == file_hash(tiny_copy / "search_space" / "table.parquet")
    endings = {Path(name).suffix for name in record["files"]}
    assert endings <= {".parquet", ".safetensors", ".npy", ".json", ".ipynb", ".yaml"}


def test_small_data_go_in_and_models_never(tiny_copy: Path, results: Path) -> None:
    record = publish.read(publish.publish("tiny", limit=100)).record
    assert set(record["left_out"]) == {"pretraining/networks", "embedding_training/checkpoints"}
    half = load_file(results / "tiny" / "embedding_training" / "embeddings.safetensors")
    assert {values.dtype for values in half.values()} == {np.dtype(np.float16)}


def test_targets_are_kept_as_float16(tiny_copy: Path, publication: Path) -> None:
    whole, half = (load_file(folder / publish.TARGETS) for folder in (tiny_copy, publication))
    assert set(whole) == set(half)
    for name, values in whole.items():
        assert half[name].dtype == np.float16
        np.testing.assert_array_equal(half[name], values.astype(np.float16))


def test_values_beyond_float16_stay_whole(tmp_path: Path) -> None:
    save_file({"train_validation": np.float32([[[1.0, 7e4, np.nan]]])}, tmp_path / "whole")
    said = publish._compact(publish.TARGETS, tmp_path / "whole", tmp_path / "half")
    assert "beyond float16" in said
    assert (tmp_path / "half").read_bytes() == (tmp_path / "whole").read_bytes()


def test_charts_are_kept_once_and_shown_again(tiny_copy: Path, publication: Path) -> None:
    """The published notebook has a chart's data alone, and the book makes the same HTML of them."""
    drawn = 0
    for stage in ("embedding_training", "reinforce"):
        live, kept = (
            execute.read(folder / stage / "executed.ipynb") for folder in (tiny_copy, publication)
        )
        page = book.page(kept, stage)
        shown = [o for c in page.cells for o in c.get("outputs", [])]
        for cell, again in zip(live.cells, kept.cells, strict=True):
            outputs = zip(cell.get("outputs", []), again.get("outputs", []), strict=True)
            for one, other in outputs:
                if PLOTLY not in one.get("data", {}):
                    assert one == other
                    continue
                drawn += 1
                assert "text/html" not in other["data"]
                assert any(
                    o.get("data", {}).get("text/html") == one.data["text/html"] for o in shown
                )
    assert drawn >= 2


def test_parameters_are_a_profile(tiny_copy: Path, publication: Path) -> None:
    assert resolve(str(publication / "params.yaml"), run="tiny") == resolve("tiny")
    shutil.rmtree(tiny_copy / "reinforce")
    partial = publish.publish("tiny", "partial", partial=True)
    assert resolve(str(partial / "params.yaml"), run="tiny") == resolve("tiny")


def test_no_path_of_this_machine_is_published(tiny_copy: Path, results: Path) -> None:
    folder, path = tiny_copy / "search_space", "/somewhere/private/table.parquet"
    for file in (folder / "executed.ipynb", folder / "manifest.json"):
        text = file.read_text().replace("table = digits", f"table = {path}")
        file.write_text(text.replace('"table": "digits"', f'"table": "{path}"'))
    assert path in (folder / "executed.ipynb").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["notebook"]["executed.ipynb"]["sha256"] = file_hash(folder / "executed.ipynb")
    write_json(folder / "manifest.json", manifest)
    publication = publish.publish("tiny")
    published = [p.read_text() for p in publication.rglob("*") if p.suffix in (".ipynb", ".json")]
    assert len(published) > 2 * len(STAGES)
    assert not any("somewhere" in text or "private" in text for text in published)
    assert any("table = table.parquet" in text for text in published)
    parameters = yaml.safe_load((publication / "params.yaml").read_text())
    assert parameters["search_space"]["table"] == "table.parquet"


@pytest.mark.parametrize("file", ["io_dataset/targets.safetensors", "reinforce/executed.ipynb"])
def test_a_damaged_run_is_refused(tiny_copy: Path, results: Path, file: str) -> None:
    flip(tiny_copy / file)
    for partial in (False, True):
        with pytest.raises(publish.PublicationError, match=f"{file} is not the file"):
            publish.publish("tiny", partial=partial)
    assert not results.exists() or not any(results.iterdir())


def test_an_unfinished_run_is_refused_unless_partial(tiny_copy: Path, results: Path) -> None:
    shutil.rmtree(tiny_copy / "reinforce")
    with pytest.raises(publish.PublicationError, match=r"no finished 06_reinforce; .*--partial"):
        publish.publish("tiny")
    found = publish.read(publish.publish("tiny", partial=True))
    assert found.missing == ["06_reinforce"]
    assert "| Not run | 06_reinforce |" in about(found.run)


def test_results_that_do_not_belong_together_are_refused(tiny_copy: Path, results: Path) -> None:
    path = tiny_copy / "reinforce" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"]["upstream"]["embedding_training"] = "0" * 64
    write_json(path, manifest)
    with pytest.raises(publish.PublicationError, match="06_reinforce was made from other results"):
        publish.publish("tiny")


def test_what_cannot_be_published_is_named(tiny_copy: Path, results: Path) -> None:
    with pytest.raises(publish.PublicationError, match="no run 'tinyy'; did you mean 'tiny'"):
        publish.publish("tinyy")
    with pytest.raises(publish.PublicationError, match="cannot name a folder"):
        publish.publish("tiny", "../elsewhere")
    (results / "mine").mkdir(parents=True)
    with pytest.raises(publish.PublicationError, match=r"is no publication; give another --name"):
        publish.publish("tiny", "mine")
    with (
        runner.lock(RunFolder(tiny_copy)),
        pytest.raises(runner.RunError, match="another process"),
    ):
        publish.publish("tiny")


def test_a_publication_is_complete_or_as_it_was(
    publication: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(results)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "write_json", stop)
        for name in ("tiny", "other"):
            with pytest.raises(KeyboardInterrupt):
                publish.publish("tiny", name)
    assert [path.name for path in results.glob("[!.]*")] == ["tiny"]
    assert {name: hash for name, hash in files(results).items() if name[0] != "."} == before
    assert [p.name for p in publish.published()] == ["tiny"]
    publish.publish("tiny", limit=0.02)
    assert files(publication) == {name.removeprefix("tiny/"): h for name, h in before.items()}


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: flip(p / "reinforce" / "curves.parquet"), "curves.parquet has changed since"),
        (lambda p: (p / "params.yaml").unlink(), "params.yaml is missing since"),
        (lambda p: (p / "search_space" / "more.json").write_text("{}"), "more.json does not bel"),
        (
            lambda p: (p / publish.RECORD).write_text(
                (p / publish.RECORD).read_text().replace('"cells": ', '"cells": 1')
            ),
            "publication.json has changed since",
        ),
        (lambda p: (p / publish.RECORD).unlink(), "is no publication"),
    ],
)
def test_a_changed_publication_is_refused(
    publication: Path, change: Callable[[Path], object], message: str
) -> None:
    publish.read(publication)
    change(publication)
    with pytest.raises(publish.PublicationError, match=message):
        publish.read(publication)


def test_facts_are_those_of_the_run(publication: Path) -> None:
    text = about(publish.read(publication).run)
    assert nearest_profile(RunFolder(publication)) == ("tiny", [])
    assert "| Run | **tiny**, published |" in text
    assert f"digits, {len(embedded('digits')):,} cells" in text
    assert "| Labeled networks | 14 train (12 of them trained), 5 validation |" in text
    assert "| Images | scikit-learn's digits |" in text
    assert "05 seeds [1, 2]" in text
    assert "| Not run | nothing |" in text


def test_reencoded_images_are_called_so() -> None:
    for path in ("../data/cifar10-images.zip", "/data/cifar10-images"):
        assert images_title({"images": "folder", "images_path": path}) == (
            "CIFAR-10 (JPEG re-encoded)"
        )
    assert images_title({"images": "folder", "images_path": "my/birds"}) == "birds"
    assert images_title({"images": "cifar10", "images_path": "data"}) == "CIFAR-10"


# --- going on from one -----------------------------------------------------------------------


def test_restored_stages_are_those_of_the_run(tiny_copy: Path, publication: Path) -> None:
    assert restore.restore(publication, name="mine") == (str(publication / "params.yaml"), "mine")
    run, mine = RunFolder(tiny_copy), RunFolder(tiny_copy.parent / "mine")
    for file in ("search_space/table.parquet", publish.SPLIT, "pretraining/images.safetensors"):
        assert (mine.path / file).read_bytes() == (run.path / file).read_bytes()
    networks = [pd.read_parquet(r.stage("pretraining") / "networks.parquet") for r in (run, mine)]
    pd.testing.assert_frame_equal(*networks)
    whole, again = (load_file(folder.path / publish.TARGETS) for folder in (run, mine))
    for name, values in whole.items():
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], values.astype(np.float16).astype(np.float32))
    for stage in FIRST:
        manifest = mine.manifest(stage)
        assert manifest is not None
        assert manifest["restored"]["name"] == "tiny"
        assert manifest["parameters"]["run"] == "mine"


def test_another_file_of_the_same_cells_is_taken_and_noted(
    tiny_copy: Path, publication: Path, tmp_path: Path
) -> None:
    table = embedded("digits")
    order = np.random.default_rng(0).permutation(len(table))
    table.take(order).write(tmp_path / "shuffled.parquet")
    override = f"search_space.table={tmp_path}/shuffled.parquet"
    restore.restore(publication, [override], "mine")
    run, mine = RunFolder(tiny_copy), RunFolder(tiny_copy.parent / "mine")
    splits = [pd.read_parquet(r.path / publish.SPLIT).set_index("hash") for r in (run, mine)]
    kept = splits[1].loc[splits[0].index, ["part", "labeled"]]
    pd.testing.assert_frame_equal(splits[0][["part", "labeled"]], kept)
    networks = pd.read_parquet(mine.stage("pretraining") / "networks.parquet")
    assert (table.cells.hashes[order][networks["index"]] == networks["hash"]).all()
    manifest = mine.manifest("search_space")
    assert manifest is not None
    assert "another file" in manifest["restored"]["notes"][0]


def test_other_data_and_parameters_are_refused(
    tiny_copy: Path, publication: Path, tmp_path: Path
) -> None:
    embedded("digits").take(range(100)).write(tmp_path / "few.parquet")
    with pytest.raises(publish.PublicationError, match=r"few.parquet has other cells than"):
        restore.restore(publication, [f"search_space.table={tmp_path}/few.parquet"], "mine")
    with pytest.raises(InvalidParameters, match=r"pretraining.epochs is 1 in the publication"):
        restore.restore(publication, ["pretraining.epochs=2"], "mine")
    with pytest.raises(publish.PublicationError, match=r"that is not of .*give another --name"):
        restore.restore(publication, name="tiny")
    with pytest.raises(publish.PublicationError, match="is no publication"):
        restore.restore(tmp_path, name="mine")
    assert not list((tiny_copy.parent / "mine").glob("[!.]*"))


def test_other_images_are_refused(tiny_copy: Path, publication: Path) -> None:
    record, manifest_path = publication / publish.RECORD, publication / "pretraining/manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["outputs"]["images.safetensors"]["sha256"] = "0" * 64  # as if of other pixels
    write_json(manifest_path, manifest)
    content = read_json(record) or {}
    content["files"]["pretraining/manifest.json"]["sha256"] = file_hash(manifest_path)
    del content["sha256"]
    write_json(record, {**content, "sha256": json_hash(content)})
    with pytest.raises(publish.PublicationError, match="does not give the images of"):
        restore.restore(publication, name="mine")
    assert RunFolder(tiny_copy.parent / "mine").manifest("pretraining") is None


def test_a_publication_without_the_io_dataset_starts_nothing(
    tiny_copy: Path, results: Path
) -> None:
    for stage in list(STAGES)[2:]:
        shutil.rmtree(tiny_copy / stage)
    publication = publish.publish("tiny", partial=True)
    with pytest.raises(publish.PublicationError, match="lacks 03_io_dataset"):
        restore.restore(publication, name="mine")


def test_restored_stages_never_run(tiny_copy: Path, publication: Path) -> None:
    profile, name = restore.restore(publication, name="mine")
    mine = RunFolder(tiny_copy.parent / "mine")
    study = runner.Study(STAGES, project_root() / "notebooks", mine)
    parameters = resolve(profile, run=name)
    before = files(mine.path)
    restore.restore(publication, name="mine")
    assert files(mine.path) == before
    for stage in FIRST:
        inputs = runner.inputs_of(study, stage, parameters[stage])
        assert runner.reason_to_run(study, stage, inputs) == ""
        other_code = {**inputs, "notebook": "other", "modules": {"ionas.space.cells": "other"}}
        assert runner.reason_to_run(study, stage, other_code) == ""
    changed = {**inputs, "parameters": {**inputs["parameters"], "top_k": 5}}
    with pytest.raises(runner.RunError, match=r"changed: parameter top_k; .*--from"):
        runner.reason_to_run(study, "io_dataset", changed)
    flip(mine.path / publish.TARGETS)
    with pytest.raises(runner.RunError, match=r"targets.safetensors is not the file .*--from"):
        runner.reason_to_run(study, "io_dataset", inputs)
    restore.restore(publication, name="mine")
    assert files(mine.path) == before


def test_a_run_goes_on_at_notebook_04(tiny_copy: Path, publication: Path) -> None:
    command = [sys.executable, "-c", "from ionas.cli import app; app()"]

    def ionas(*words: str) -> str:
        env = {**os.environ, "COLUMNS": "500"}
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, env=env, cwd=project_root()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    chosen = [word for number in ("01", "02", "03", "04") for word in ("--only", number)]
    printed = ionas("run", "--from", str(publication), "--name", "mine", *chosen)
    lines = [line.split() for line in printed.splitlines()]
    assert [words[0] for words in lines if words[1:2] == ["done"]] == ["04_output_features"]
    assert sum(words[1:] == ["up", "to", "date"] for words in lines) == len(FIRST)
    printed = ionas("publish", "mine", "--partial")
    assert "not run: 05_embedding_training" in printed
    again = publish.read(publication.parent / "mine")
    assert "restored from tiny" in about(again.run)
    assert restore.restore(again.path, name="third")[1] == "third"


# --- more networks beside published ones -----------------------------------------------------


def few_networks(tiny_copy: Path) -> None:
    """Make the tiny run one of 5 train and 3 validation networks, whose targets are published."""
    runner.run("tiny", ["pretraining.train_networks=5", "pretraining.validation_networks=3"],
               only=["02", "03"], jobs=1)  # fmt: skip
    for stage in list(STAGES)[3:]:
        shutil.rmtree(tiny_copy / stage)


def test_more_networks_are_trained_beside_published_ones(
    tiny_run: Path, tiny_copy: Path, results: Path
) -> None:
    """The result is that of a run that trains them all, but for the float16 of the publication."""
    few_networks(tiny_copy)
    kept = (tiny_copy / "pretraining" / "networks").glob("*")
    assert {path.stat().st_mtime_ns for path in kept} <= {
        path.stat().st_mtime_ns for path in (tiny_run / "pretraining" / "networks").glob("*")
    }
    publication = publish.publish("tiny", "few", partial=True)
    runner.run("tiny", [f"pretraining.published={publication}"], ["01", "02", "03"], "more", jobs=1)
    whole, more = RunFolder(tiny_run), RunFolder(tiny_copy.parent / "more")
    networks = [pd.read_parquet(r.stage("pretraining") / "networks.parquet") for r in (whole, more)]
    pd.testing.assert_frame_equal(*(frame.drop(columns="published") for frame in networks))
    trained = networks[1].set_index("hash").query("not published").index
    assert networks[1].groupby("labeled")["published"].sum().to_dict() == {
        "train": 5,
        "validation": 3,
    }
    there = {path.stem for path in (more.stage("pretraining") / "networks").iterdir()}
    assert there == set(trained)
    everything, grown = (load_file(folder.path / publish.TARGETS) for folder in (whole, more))
    for name, values in everything.items():
        of_part = networks[1][networks[1]["labeled"] == name.split("_")[0]]
        taken = of_part["published"].to_numpy()
        half = values.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(grown[name], np.where(taken[:, None, None], half, values))
    few = ["pretraining.train_networks=5", "pretraining.validation_networks=3"]
    given = [f"pretraining.published={publication}", *few]
    with pytest.raises(runner.RunError, match=r"has all of the 8 networks wanted; .*--from"):
        runner.run("tiny", given, ["02"], "more", jobs=1)
    again = publish.publish("more", "all", partial=True)
    assert "published" not in (again / "params.yaml").read_text()
    assert "some from few" in about(RunFolder(again))


def test_published_networks_of_another_study_are_refused(
    tiny_copy: Path, publication: Path, tmp_path: Path
) -> None:
    def refused(*overrides: str) -> str:
        with pytest.raises(ValueError) as caught:
            runner.run("tiny", [f"pretraining.published={publication}", *overrides], name="mine")
        assert not (tiny_copy.parent / "mine").exists()
        return str(caught.value)

    assert "pretraining.epochs is 2, but 1 in" in refused("pretraining.epochs=2")
    assert "io_dataset.top_k is 5, but 10 in" in refused("io_dataset.top_k=5")
    assert "search_space.seed is 4, but 1 in" in refused("search_space.seed=4")
    assert "there is no publication" in refused(f"pretraining.published={tmp_path}")
    flip(publication / publish.TARGETS)
    assert "targets.safetensors has changed since it was published" in refused()


def test_what_is_committed_is_whole_small_and_names_no_machine() -> None:
    committed = [path.parent for path in (project_root() / "results").glob(f"[!.]*/{RECORD}")]
    assert committed, "results/ has no publication"
    for path in committed:
        publication = publish.read(path)  # compares every hash
        files = [file for file in path.rglob("*") if file.is_file()]
        sizes = [file.stat().st_size for file in files if file != path / publish.TARGETS]
        assert sum(sizes) < 9e6, f"{path} is too large to be committed"
        networks = len(pd.read_parquet(path / "pretraining" / "networks.parquet"))
        assert (path / publish.TARGETS).stat().st_size < networks * 3000 * 10 * 2  # float16
        for file in path.rglob("*"):
            if file.suffix in (".json", ".yaml", ".ipynb"):
                assert not re.search(r"/(home|root|tmp|work|Users)/", file.read_text("utf-8")), file
        assert publication.record["table"]["cells"] > 0
