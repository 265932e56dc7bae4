"""The paper's values, the rule of the verdicts, and the page that shows both."""

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ionas.book import compare
from ionas.book.compare import NOT_REPRODUCED, NOT_RUN, REPRODUCED, SAME_ORDER
from ionas.book.folders import RECORD, project_root, write_json
from ionas.book.parameters import STAGES, resolve
from ionas.book.provenance import files_in, json_hash
from ionas.book.publish import Publication, read
from ionas.paper import ITEMS, paper_claims, paper_table, paper_values, where

# --- the paper's values ----------------------------------------------------------------------


@pytest.fixture
def text() -> str:
    """The text of the paper, where it stands beside the project."""
    for folder in Path(__file__).resolve().parents[2:]:
        if (path := folder / "shared" / "paper.txt").is_file():
            return path.read_text("utf-8")
    pytest.skip("the paper's text does not stand beside the project (../shared/paper.txt)")


def printed(text: str, number: int) -> list[list[float]]:
    """Numbers of each row of a table of the paper's text, without its heading."""
    body = text.partition(f"\nTable {number}:")[2].partition("\n\n")[2].partition("\n\n")[0]
    rows = []
    for line in body.splitlines()[1:]:
        cells = re.sub(r"test_2k|</?\w+>|\b(\d+) (?=\d{3}\b)", r"\1", line).split("\t")[1:]
        rows.append([float(n) for cell in cells for n in re.findall(r"\d+(?:\.\d+)?", cell)])
    return rows


def test_tables_4_and_5_are_those_of_the_text(text: str) -> None:
    wanted = [[v for v in row[1:] if pd.notna(v)] for row in paper_table(4).to_numpy().tolist()]
    assert printed(text, 4) == wanted
    rows = paper_table(5)[["mean", "std", "baseline", "interval"]].to_numpy().tolist()
    assert printed(text, 5) == rows


def test_table_2_is_that_of_the_text(text: str) -> None:
    assert [row[-1] for row in printed(text, 2)] == paper_table(2)["size"].tolist()


@pytest.mark.parametrize("number", [6, 7])
def test_tables_6_and_7_are_those_of_the_text(text: str, number: int) -> None:
    body = text.partition(f"\nTable {number}:")[2].partition("\n\n")[2]
    names = [line.split("\t")[0] for line in body.splitlines()[1:7]]
    model = {"Accuracy Model": "accuracy", "IO Model": "io", "arch2vec": "arch2vec"}
    kind = {" 1": "_flatten", " 2": "_mean", " original": "_original", "": ""}
    wanted = {model[a] + kind[b]: row for (a, b), row in zip(map(split, names), printed(text, number), strict=True)}  # fmt: skip # noqa: E501
    table = paper_table(number)
    for name, rows in table.groupby("embedding"):
        found = rows.sort_values("size")[["mean", "half_width"]].to_numpy().ravel().tolist()
        assert found == wanted.pop(str(name))
    assert not wanted


def split(name: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)( \d| original|)", name)
    assert match is not None
    return match[1], match[2]


def test_what_the_text_says_of_the_figures(text: str) -> None:
    said = " ".join(text.split())
    assert r"approximately $1.3 \cdot 10^5$ seconds" in said
    assert "perform the same as the original arch2vec when the same embedding method" in said
    assert "The arch2vec trained jointly with the IO model and the other embedding method" in said
    assert "estimated $10^6$ seconds limit per one run" in said
    shift = paper_values().query("item == 'Figure 6'")
    assert shift["value"].tolist() == [1.3e5]
    assert paper_claims().attrs["budget"] == 1e6


def test_every_value_has_a_place_and_an_interval() -> None:
    values = paper_values()
    assert set(values["item"]) == set(ITEMS)
    assert not values[["value", "low", "high", "digits"]].isna().any(axis=None)
    assert (values["low"] <= values["value"]).all()
    assert (values["value"] <= values["high"]).all()
    assert not values.duplicated(["item", "column", "row"]).any()
    assert all(re.match(r"(Table|Figure) \d, ", where(item)) for item in (*ITEMS, "Figure 5"))
    validity = values.query("column == 'validity' and row == 'io'").iloc[0]
    assert (validity["low"], validity["high"]) == pytest.approx((0.4735, 0.4745))
    with pytest.raises(ValueError, match="tables 1 to 7"):
        paper_table(8)


# --- the rule --------------------------------------------------------------------------------


def column(*rows: tuple[Any, ...]) -> list[str]:
    """Verdicts of rows of (paper, its half-width, here or None, its half-width or NaN)."""
    frame = pd.DataFrame(rows, columns=["value", "half", "here", "here_half"])
    frame["ran"] = frame["here"].notna()
    frame["here"] = frame["here"].astype(float)
    return compare.verdicts(
        frame.assign(
            low=frame["value"] - frame["half"],
            high=frame["value"] + frame["half"],
            here_low=frame["here"] - frame["here_half"],
            here_high=frame["here"] + frame["here_half"],
        )
    )


NAN = float("nan")


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([(0.7, 0.01, 0.72, 0.02)], [REPRODUCED]),
        ([(0.7, 0.01, 0.71, NAN)], [REPRODUCED]),  # it touches; a point
        ([(0.7, 0.01, 0.72, NAN)], [NOT_REPRODUCED]),  # alone it has no order
        ([(0.7, 0.01, None, NAN)], [NOT_RUN]),
        ([(0.7, 0.01, 0.5, 0.01), (0.6, 0.01, 0.4, 0.01)], [SAME_ORDER] * 2),
        ([(0.7, 0.01, 0.4, 0.01), (0.6, 0.01, 0.5, 0.01)], [NOT_REPRODUCED] * 2),
        ([(0.7, 0.01, 0.5, 0.01), (0.6, 0.01, 0.5, 0.01)], [NOT_REPRODUCED] * 2),  # equal
        # the paper does not tell these two apart, so there is no order to keep
        ([(0.7, 0.1, 0.5, 0.01), (0.6, 0.1, 0.4, 0.01)], [NOT_REPRODUCED] * 2),
        # the third has not run and does not count
        (
            [(0.7, 0.01, 0.5, 0.01), (0.6, 0.01, 0.4, 0.01), (0.5, 0.01, None, NAN)],
            [SAME_ORDER, SAME_ORDER, NOT_RUN],
        ),
        # only the pair that changed places is not reproduced
        (
            [(0.9, 0.01, 0.5, 0.01), (0.8, 0.01, 0.3, 0.01), (0.7, 0.01, 0.4, 0.01)],
            [SAME_ORDER, NOT_REPRODUCED, NOT_REPRODUCED],
        ),
    ],
)
def test_the_rule(rows: list[tuple[Any, ...]], wanted: list[str]) -> None:
    assert column(*rows) == wanted


def test_a_value_that_is_not_defined_is_not_reproduced() -> None:
    frame = paper_values().query("item == 'Figure 6'").assign(ran=True)
    frame = frame.assign(here=NAN, here_low=NAN, here_high=NAN)
    assert compare.verdicts(frame) == [NOT_REPRODUCED]


def test_the_page_states_the_rule() -> None:
    page = (project_root() / "book" / "paper_beside_ours.md").read_text("utf-8")
    assert all(f"- **{word}**:" in page for word in compare.VERDICTS)


# --- a run beside the paper ------------------------------------------------------------------


@pytest.fixture
def publication(tmp_path: Path) -> Publication:
    """A publication that says it is of NAS-Bench-101, with values set from the paper's."""
    path, parameters = tmp_path / "laptop", resolve("laptop")
    values = paper_values()
    reported = {
        "io_dataset": {"sets": sets(values)},
        "embedding_training": {"metrics": metrics(values), "tests": losses()},
        "performance_prediction": {"summary": summary(values)},
        "reinforce": {"curves": curves()},
    }
    for stage in ("search_space", "pretraining", *reported):
        (path / stage).mkdir(parents=True)
        for name, frame in reported.get(stage, {}).items():
            frame.to_parquet(path / stage / f"{name}.parquet")
        settings = parameters[stage].model_dump(mode="json")
        if stage == "pretraining":
            settings["images_path"] = "cifar10-images.zip"
        manifest = {"parameters": settings, "machine": "M", "device": "cpu", "outputs": {}}
        write_json(path / stage / "manifest.json", manifest)
    times = {"io": [600.0, 400.0], "arch2vec": [500.0], "accuracy": [700.0]}
    for model, seconds in times.items():
        write_json(
            path / "embedding_training" / "timings" / f"{model}_seed1.json", {"seconds": seconds}
        )
    share = new_output(
        "display_data",
        {"application/papermill.record/text/plain": "0.131"},
        metadata={"scrapbook": {"name": "shift_share"}},
    )
    cell = new_code_cell("glue()", outputs=[share])
    nbformat.write(new_notebook(cells=[cell]), path / "reinforce" / "executed.ipynb")
    record = {
        "table": {"name": "nasbench101", "cells": 423_624, "searchable": 30_001},
        "files": {name: {"sha256": file_hash(file)} for name, file in files_in(path)},
    }
    write_json(path / RECORD, {**record, "sha256": json_hash(record)})
    return read(path)


def file_hash(path: Path) -> str:
    from ionas.book import provenance

    return provenance.file_hash(path)


def sets(values: pd.DataFrame) -> pd.DataFrame:
    rows = values.query("item == 'Table 2'")
    sizes = rows["value"].where(rows["row"] != "unseen images", 30_500.0)
    return pd.DataFrame({"set": rows["row"], "size": sizes.astype(int)})


def metrics(values: pd.DataFrame) -> pd.DataFrame:
    names = {column: metric for metric, column in compare.METRICS.items()}
    rows = values.query("item == 'Table 4' and column != 'seconds'")
    frame = pd.DataFrame({"model": rows["row"], "metric": rows["column"].map(names)})
    frame = frame.assign(mean=rows["value"], low=rows["value"] - 1e-3, high=rows["value"] + 1e-3)
    pruned = frame[frame["metric"] == "uniqueness_whole"].assign(metric="uniqueness", mean=0.1)
    return pd.concat([frame, pruned], ignore_index=True)


def losses() -> pd.DataFrame:
    """Smaller losses in the paper's order."""
    names = paper_table(5)["set"]
    mean = np.array([0.010, 0.012])
    frame = pd.DataFrame({"set": names, "mean": mean, "baseline": [0.02, 0.01]})
    return frame.assign(low=mean - 1e-4, high=mean + 1e-4)


def summary(values: pd.DataFrame) -> pd.DataFrame:
    """As in the paper by regressor seeds, half of that over trainings; another regressor, too."""
    parts = []
    for item, metric in (("Table 6", "pearson"), ("Table 7", "rmse")):
        rows = values[(values["item"] == item) & (values["column"] != "10000")]
        frame = rows.rename(columns={"row": "embedding", "value": "mean"})
        frame = frame.assign(size=rows["column"].astype(int), metric=metric)
        parts += [
            frame.assign(interval="regressor", regressor="random_forest"),
            frame.assign(interval="regressor", regressor="gaussian_process", mean=0.0),
        ]
        over = frame.assign(interval="training", regressor="random_forest")
        parts.append(over.assign(**{end: frame[end] / 2 for end in ("mean", "low", "high")}))
    columns = ["embedding", "size", "metric", "interval", "regressor", "mean", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns]


def curves() -> pd.DataFrame:
    """Regret that falls; at the paper's budget all but arch2vec are alike, later not."""
    names = ["arch2vec_original", "arch2vec", "io_mean", "io_flatten", "accuracy_mean"]
    rows = [
        {"embedding": name, "time": time, "metric": "test", "mean": mean, "shifted": False}
        for name in [*names, "accuracy_flatten"]
        for time, mean in ((5e5, 0.9), (1e6, 0.004 if name == "arch2vec" else 0.002), (2e6, 0.5))
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(low=frame["mean"] - 1e-4, high=frame["mean"] + 1e-4)


def verdict(values: pd.DataFrame, item: str, column: str = "", row: str = "") -> set[str]:
    chosen = values[values["item"] == item]
    chosen = chosen[chosen["column"] == column] if column else chosen
    return set((chosen[chosen["row"] == row] if row else chosen)["verdict"])


def test_values_of_a_run_are_judged(publication: Publication) -> None:
    values = compare.judged_values(publication.run)
    pd.testing.assert_frame_equal(values[["item", "row"]], paper_values()[["item", "row"]])
    assert verdict(values, "Table 2", row="train") == {REPRODUCED}
    assert verdict(values, "Table 2", row="unseen images") == {NOT_REPRODUCED}
    for column in compare.METRICS.values():
        assert verdict(values, "Table 4", column) == {REPRODUCED}
    assert verdict(values, "Table 4", "seconds") == {SAME_ORDER}
    seconds = values.query("column == 'seconds'").set_index("row")["here"]
    assert seconds.to_dict() == {"accuracy": 700.0, "io and arch2vec": 1500.0}
    assert verdict(values, "Table 5", "mean") == {SAME_ORDER}
    assert verdict(values, "Table 5", "baseline") == {NOT_REPRODUCED}
    assert verdict(values, "Table 6", "10000") == {NOT_RUN}
    halves = values.query("item == 'Table 6' and column == '608'")  # intervals over trainings
    np.testing.assert_allclose(halves["here"], halves["value"] / 2)
    assert verdict(values, "Table 6", "608", "arch2vec_original") == {SAME_ORDER}
    assert verdict(values, "Figure 6") == {REPRODUCED}
    np.testing.assert_allclose(values["difference"].dropna(), (values["here"] - values["value"]).dropna())  # fmt: skip # noqa: E501


def test_claims_are_judged_at_the_papers_budget(publication: Publication) -> None:
    claims = compare.judged_claims(publication.run).set_index("embedding")
    assert claims["verdict"].to_dict() == {
        "accuracy_mean": REPRODUCED,
        "io_mean": REPRODUCED,
        "arch2vec": REPRODUCED,
        "accuracy_flatten": NOT_REPRODUCED,
        "io_flatten": NOT_REPRODUCED,
    }
    assert claims.loc["arch2vec", "here"] == pytest.approx((0.004, 0.0039, 0.0041))


def test_what_did_not_run_takes_one_line(publication: Publication, tmp_path: Path) -> None:
    less = Publication(tmp_path / "less", publication.record)
    shutil.copytree(publication.path, less.path)
    shutil.rmtree(less.path / "reinforce")
    text = compare.beside_the_paper([publication, less])
    assert text.count("**less (partial)**: not run.") == 2  # Figures 5 and 6
    assert text.count("**less (partial)**\n") == len(ITEMS) - 1


def test_claims_must_hold_in_most_trainings(publication: Publication) -> None:
    curves_path = publication.path / "reinforce" / "curves.parquet"
    final = compare._final_regrets(publication.run, 1e6)[0]
    rows = []
    for training, moved in ((1, 0.0), (2, 0.0), (3, 1.0)):  # in the third all but one are far worse
        for name in final.index:
            away = moved * (name != "arch2vec_original")
            rows.append((training, name, *(final.loc[name] + away)))
    columns = ["training", "embedding", "mean", "low", "high"]
    pd.DataFrame(rows, columns=columns).to_parquet(curves_path.with_name("regrets.parquet"))
    curves = pd.read_parquet(curves_path)
    curves[~curves["shifted"] & (curves["time"] <= 1e6)].to_parquet(curves_path)
    claims = compare.judged_claims(publication.run).set_index("embedding")
    assert claims["holds"].to_dict() == {
        "accuracy_mean": 2,
        "io_mean": 2,
        "arch2vec": 3,
        "accuracy_flatten": 1,
        "io_flatten": 1,
    }
    assert (claims["verdict"] == REPRODUCED).to_dict() == (claims["holds"] > 1).to_dict()
    here = final.loc["io_mean", "mean"]
    assert claims.loc["io_mean", "here"] == pytest.approx((here + 1 / 3, here, here + 1))
    assert f"{REPRODUCED} (holds in 2 of 3)" in compare.beside_the_paper([publication])


def test_the_page_gives_reasons_and_says_what_is_missing(publication: Publication) -> None:
    text = compare.beside_the_paper([publication])
    assert "laptop is partial, without 04_output_features." in text
    assert "the images are CIFAR-10 (JPEG re-encoded)" in text
    assert "30,001 of the 423,624 cells have the validation accuracy" in text
    order = "vertices stand in another order than in the published file"
    assert text.count(order) == len(compare.ON_ORDER)
    publication.record["table"]["published_order"] = True
    assert order not in compare.beside_the_paper([publication])
    assert (
        "- 02_pretraining: `train_images` 10000 (paper 0), `test_images` 500 (paper 2000)" in text
    )
    table_2 = text.partition("### Table 2")[2].partition("###")[0]
    assert "| train: size | 608,000 | 608,000 | +0 | reproduced |" in table_2
    assert "settings of notebooks 02 are others" in table_2
    table_6 = text.partition("### Table 6")[2].partition("###")[0]
    assert "| IO model, flatten: 608 cells | 0.686 ± 0.005 | 0.343 ± 0.003 | -0.343 |" in table_6
    assert "| IO model, flatten: 10,000 cells | 0.732 ± 0.009 |  |  | not run |" in table_6
    assert "times are of M, device cpu" in text.partition("### Table 4")[2].partition("###")[0]


def test_flatten_stands_beside_the_number_of_labels(publication: Publication) -> None:
    """The run has 608 labels and 40 networks; only the Accuracy model has a sample of 10,000."""
    path = publication.run.stage("performance_prediction") / "summary.parquet"
    scores = pd.read_parquet(path)
    largest = scores[(scores["size"] == 2500) & scores["embedding"].str.startswith("accuracy")]
    pd.concat([scores, largest.assign(size=10_000)], ignore_index=True).to_parquet(path)
    manifest = publication.run.manifest("pretraining")
    assert manifest is not None
    manifest["parameters"]["train_networks"] = 40
    write_json(publication.run.stage("pretraining") / "manifest.json", manifest)
    judged = compare.judged_values(publication.run)
    lines = compare.labels_beside_flatten([(publication, judged)]).splitlines()[2:]
    assert lines[0].startswith("| the paper | 608 | 0.732 ± 0.009 | 0.690 ± 0.008 | 608 | 0.758 ±")
    assert lines[1].startswith("| laptop | 40 | not run | not run | 608 | 0.362 ± ")  # half of .724
    assert "### Labels" in compare.beside_the_paper([publication])


def test_failed_cells_by_hand(publication: Publication) -> None:
    assert compare.failed_cells(publication.run) == ""
    rows = [
        ("paper", 608, 14, 0.5), ("paper", 608, 14, 0.6), ("paper", 10_000, 200, 0.7),
        ("random", 608, 5, 0.7), ("random", 608, 16, 0.5), ("random, passed", 608, 5, 0.9),
        ("passed", 608, 14, 0.8), ("passed", 10_000, 200, 0.85),
    ]  # fmt: skip
    samples = pd.DataFrame(rows, columns=["sample", "size", "failed", "pearson"])
    folder = publication.run.stage("performance_prediction")
    samples.assign(embedding="io_mean").to_parquet(folder / "samples.parquet")
    head, _, line = compare.failed_cells(publication.run).splitlines()
    assert head == (
        "|  | 608 cells, 14 of them failed | 608 random cells, 5 to 16 failed | 608 cells without "
        "the failed ones | 10,000 cells | 10,000 cells without the failed ones |"
    )
    assert line == "| IO model, mean | 0.550 | 0.600, 0.500 to 0.700 | 0.800 | 0.700 | 0.850 |"
    assert "### Failed cells in laptop (partial" in compare.beside_the_paper([publication])


def test_without_a_run_nothing_has_been_run() -> None:
    text = compare.beside_the_paper([])
    assert "No run on NAS-Bench-101 has been published" in text
    assert text.count("| not run |\n") + text.endswith("| not run |") >= len(paper_values())
    assert not any(f"| {word} |" in text for word in (REPRODUCED, SAME_ORDER, NOT_REPRODUCED))


def test_another_search_space_is_not_compared(publication: Publication) -> None:
    publication.record["table"].update(name="digits", cells=2_532)
    text = compare.beside_the_paper([publication])
    assert "has another search space, digits with 2,532 cells: none of its numbers" in text
    assert REPRODUCED not in text.replace(NOT_REPRODUCED, "")


def test_each_item_rests_on_notebooks_that_exist() -> None:
    assert set(compare.RESTS_ON) == {*ITEMS, "Figure 5"}
    assert {stage for stages in compare.RESTS_ON.values() for stage in stages} <= set(STAGES)
