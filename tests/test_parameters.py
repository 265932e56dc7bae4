"""Parameters: what is refused, with which words, and how profiles and overrides combine."""

from pathlib import Path
from typing import Any

import fake_study
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from ionas.benchmark.reading import DIGITS
from ionas.book import checks
from ionas.book.configure import (
    STAGES,
    InvalidParameters,
    find_stage,
    load_profile,
    nearest,
    parse_overrides,
    profiles,
    resolve,
    validate,
)

FAKE = fake_study.STAGES


def profile(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_profiles_of_the_package_are_valid() -> None:
    assert profiles() == ["digits", "laptop", "paper", "tiny"]
    defaults = {name: notebook.model(run="digits") for name, notebook in STAGES.items()}
    assert resolve("digits") == defaults
    assert all(parameters.run == "tiny" for parameters in resolve("tiny").values())
    assert set(resolve("paper")) == set(STAGES)


def test_every_parameter_has_a_meaning() -> None:
    for notebook in STAGES.values():
        for name, field in notebook.model.model_fields.items():
            assert field.description, f"{notebook.name}.{name}"


def test_overrides_win_over_the_profile_and_the_profile_over_the_defaults(tmp_path: Path) -> None:
    given_profile = profile(tmp_path, "first: {size: 5, seed: 9}\n03_third: {extra: [1]}")
    resolved = resolve(given_profile, {"first": {"size": 7}}, stages=FAKE)
    assert resolved["first"] == fake_study.First(run="mine", size=7, seed=9)
    assert resolved["third"] == fake_study.Third(run="mine", extra=[1])
    assert resolve(given_profile, run="other", stages=FAKE)["second"].run == "other"


@pytest.mark.parametrize("name", ["05", "embedding_training", "05_embedding_training.ipynb"])
def test_a_notebook_has_three_names(name: str) -> None:
    assert find_stage(name).stem == "05_embedding_training"


# --- how a text is read ----------------------------------------------------------------------


def read(text: str) -> Any:
    """The value that `--set` gives a parameter, or the message that refuses it."""
    stage, _, parameter = text.partition("=")[0].partition(".")
    try:
        values = parse_overrides([text])[stage]
        return getattr(validate(STAGES[stage], values), parameter)
    except InvalidParameters as error:
        return f"refused: {error}"


@pytest.mark.parametrize(
    "text",
    [
        "dir/images #2",
        "2024",
        "on",
        "010",
        "null",
        "1e3",
        "a: b",
        "{a}",
        "a=b.csv",
        "",
        " two ",
        "'a'",
    ],
)
def test_a_text_stays_as_it_is(text: str, tmp_path: Path) -> None:
    assert read(f"pretraining.images_path={text}") == text
    mine = profile(tmp_path, yaml.safe_dump({"pretraining": {"images_path": text}}))
    assert resolve(mine)["pretraining"].images_path == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("pretraining.epochs=010", 10),
        ("pretraining.epochs=1_000", 1000),
        ("pretraining.learning_rate=1e-3", 0.001),
        ("pretraining.learning_rate=1", 1.0),
        ("reinforce.budget=1E6", 1e6),
        ("pretraining.augment=true", True),
        ("pretraining.augment=on", True),
        ("pretraining.augment=No", False),
        ("embedding_training.seeds=[1, 2]", [1, 2]),
        ("embedding_training.seeds=[08, 9]", [8, 9]),
        ("pretraining.images=folder", "folder"),
    ],
)
def test_values_are_read_as_a_person_means_them(text: str, value: Any, tmp_path: Path) -> None:
    assert (read(text), type(read(text))) == (value, type(value))
    name, _, written = text.partition("=")
    stage, _, parameter = name.partition(".")
    mine = profile(tmp_path, f"{stage}:\n  {parameter}: {written}\n")
    assert getattr(resolve(mine)[stage], parameter) == value


@pytest.mark.parametrize(
    "text",
    [
        *(f"pretraining.epochs={text}" for text in ("0x10", "1:30", "6.5", "yes", "", "six", "²")),
        *(
            f"{name}={text}"
            for name in ("pretraining.learning_rate", "pretraining.clip", "reinforce.budget")
            for text in ("inf", ".inf", "-.inf", "nan", ".nan", "1e999", "Infinity")
        ),
        *(
            f"embedding_training.seeds={text}"
            for text in ("3", "1, 2", "[1", "[]", "[-1]", "[[1]]")
        ),
        "search_space.seed=4294967296",
        "performance_prediction.sizes=[-1]",
        "performance_prediction.sizes=[0, 1]",
        "embedding_training.seeds=" + 1500 * "[",
        "embedding_training.seeds=&a [*a]",
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_such_value_is_refused(text: str) -> None:
    told = read(text)
    assert told.startswith(f"refused: {text.partition('=')[0]}")
    assert "\n" not in told
    assert len(told) < 500


@given(st.text())
@example('"\\UFFFFFFFF"')
@example("!!python/object/apply:os.getcwd []")
def test_any_text_is_a_value_or_refused(text: str) -> None:
    assert read(f"search_space.dataset={text}") == text
    for name in ("pretraining.epochs", "embedding_training.seeds", "pretraining.images"):
        read(f"{name}={text}")


@given(st.floats(1e-300, allow_infinity=False), st.integers(1, 10**30))
def test_numbers_keep_their_value_and_type(real: float, whole: int) -> None:
    assert read(f"pretraining.learning_rate={real!r}") == real
    assert read(f"pretraining.epochs={whole}") == whole


def test_the_home_folder_may_be_written_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read("search_space.table=~/t.csv") == "/home/me/t.csv"
    assert read("pretraining.images_path=~") == "/home/me"
    assert read("search_space.dataset=~") == "~"


def test_the_parameters_of_a_run_are_a_profile_of_that_run(tmp_path: Path) -> None:
    before = resolve("tiny", parse_overrides(["search_space.table=2024"]), run="mine")
    content = {name: values.model_dump(mode="json") for name, values in before.items()}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert resolve(str(path)) == before
    assert {values.run for values in resolve(str(path), run="other").values()} == {"other"}
    content["reinforce"]["run"] = "another"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InvalidParameters, match="names several runs: another, mine"):
        resolve(str(path))


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first: {sise: 5}", "first has no parameter 'sise'; did you mean 'size'?"),
        ("first: {xyz: 5}", "first has no parameter 'xyz'; there are: seed, size, data_file"),
        ("frst: {size: 5}", "there is no notebook 'frst'; did you mean 'first'?"),
        ("first: {size: 0}", "first.size is 0: it should be greater than or equal to 1"),
        ("first: {size: 5.5}", "first.size is '5.5': it should be a valid integer"),
        ("first: {size: true}", "first.size is 'true': it should be a valid integer"),
        ("first: {size: 5}\nfirst: {seed: 2}", "'first' stands there twice"),
        ("first: {size: 5, size: 6}", "'size' stands there twice"),
        (1500 * "[" + 1500 * "]", "is not YAML: it is nested too deeply"),
        ("third: {extra: " + 1500 * "[" + 1500 * "]" + "}", "is not YAML: it is nested too deeply"),
        ("second: {fail: maybe}", "second.fail is 'maybe': it should be '', 'error' or 'kill'"),
        ("third: {extra: [1, a]}", "third.extra.1 is 'a': it should be a valid integer"),
        ("first: [1]", "first must map parameters to values"),
        ("[1, 2]", "must map notebooks to their parameters"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "must map notebooks to their parameters"),
        ("first: !!python/object/apply:os.getcwd []", "first must map parameters to values"),
        ("? [first]\n: {size: 5}", "is not YAML"),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_profile_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        resolve(profile(tmp_path, text), stages=FAKE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_profile_is_named() -> None:
    with pytest.raises(InvalidParameters, match="did you mean 'digits'"):
        load_profile("digit")
    with pytest.raises(InvalidParameters, match=r"profile nowhere\.yaml cannot be read"):
        load_profile("nowhere.yaml")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameters, match=r"size is 0.*did you mean 'seed'"):
        resolve(profile(tmp_path, "first: {size: 0, sed: 1}"), stages=FAKE)


def test_nearest_lists_all_where_none_is_near() -> None:
    assert nearest("epoch", ["epochs", "seed"]) == "; did you mean 'epochs'?"
    assert nearest("zzz", ["epochs", "seed"]) == "; there are: epochs, seed"


def test_every_stage_reads_only_earlier_ones() -> None:
    names = list(STAGES)
    for position, notebook in enumerate(STAGES.values()):
        assert set(notebook.reads) <= set(names[:position])
    numbers = [notebook.number for notebook in STAGES.values()]
    assert numbers == sorted(set(numbers))


def test_laptop_is_the_paper_but_for_what_its_header_says() -> None:
    laptop, paper = resolve("laptop", run="same"), resolve("paper", run="same")
    changed = {
        f"{stage}.{name}"
        for stage, parameters in laptop.items()
        for name, value in parameters
        if value != getattr(paper[stage], name)
    }
    networks = ("images", "train_images", "channels", "cells_per_stack", "epochs", "augment")
    assert changed == {
        *(
            f"pretraining.{name}"
            for name in (*networks, "test_images", "learning_rate", "batch_size")
        ),
        "output_features.threshold",
        "embedding_training.labeled_run",
        "embedding_training.unlabeled_run",
        "embedding_training.image_channels",
        "embedding_training.head_hidden",
        "label_value.image_channels",
        "label_value.head_hidden",
    }


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (1, "validation_networks is 1; give at least 2, or 0 for all"),
        (9, "validation_networks is 9, but search_space.labeled_validation is 5; ask for fewer"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(wanted: int, message: str) -> None:
    values = {"pretraining": {"validation_networks": wanted}}
    parameters = resolve("tiny", values, run="tiny")
    with pytest.raises(ValueError, match=message):
        checks.check("pretraining", parameters)


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("pretraining", {"stacks": 4}, "stacks is 4, .*8 x 8 pixels; give at most 3"),
        (
            "pretraining",
            {"validation_images": 1198},
            "is 1198 and train_images 200, but digits has",
        ),
        (
            "pretraining",
            {"train_images": 1001},
            "is 297 and train_images 1001, but digits has 1297",
        ),
        ("pretraining", {"test_images": 501}, "test_images is 501, but digits has 500; ask for"),
        ("io_dataset", {"top_k": 18}, "top_k is 18, but the networks have 16 features and a bias"),
        ("io_dataset", {"test_images": 21}, "test_images is 21, but pretraining.test_images is 20"),
        ("output_features", {"image": 10}, "image is 10, but .* 10 validation images; give 0 to 9"),
        ("reinforce", {"budget": 0.001}, "budget is 0.001, but one training of digits takes up to"),
        ("reinforce", {"budget": 0.5, "cost": "evaluations"}, "takes up to 1; give more, or 0"),
        ("performance_prediction", {"accuracy_threshold": 0.99}, "of 0 cells above 0.99, a sample"),
        (
            "predictors",
            {"accuracy_threshold": 0.99},
            "predictors: only 0 of .* above 0.99",
        ),
        ("label_value", {"sample": 2490}, "label_value: sample is 2490, but 2483 cells are"),
        (
            "search_space",
            {"labeled_validation": 300},
            "validation_fraction of 0.1 .* 254 cells; ask",
        ),
        ("search_space", {"validation_fraction": 0.999}, "labeled_train is 14, but .* has 2 cells"),
    ],
)
def test_what_would_fail_hours_later_is_refused_at_once(
    stage: str, values: dict[str, Any], message: str
) -> None:
    parameters = resolve("tiny", {stage: values}, run="tiny")
    with pytest.raises(ValueError, match=message):
        checks.check(stage, parameters)
    checks.check(stage, resolve("tiny", run="tiny"))


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("search_space", {}, "are 19 cells together, but only 15 of digits have a test accuracy"),
        ("performance_prediction", {"sizes": [0]}, "sizes has 14, but the table has 15 cells"),
        ("performance_prediction", {"sizes": [9, 60]}, "sizes has 60, but the table has 15 cells"),
        ("performance_prediction", {"sizes": [9]}, "gaussian_cells has 40, but the table has 15"),
    ],
)
def test_a_table_that_is_too_small_is_refused_at_once(
    stage: str, values: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_cells(number: int) -> None:
        known = pd.DataFrame({"test_accuracy": np.linspace(0.1, 0.9, number)})
        monkeypatch.setattr(checks, "check_table", lambda *_: known)

    with_cells(15)
    with pytest.raises(ValueError, match=message):
        checks.check(stage, resolve("tiny", {stage: values}, run="tiny"))
    with_cells(64)  # the two worst are not scored
    checks.check(stage, resolve("tiny", {stage: values}, run="tiny"))


def test_a_table_of_equal_accuracies_is_refused_at_once(tmp_path: Path) -> None:
    table = pd.read_parquet(DIGITS).assign(test_accuracy=0.5)
    table.to_parquet(path := tmp_path / "t.parquet")
    values = {"search_space": {"table": str(path)}}
    with pytest.raises(ValueError, match=r"accuracies of .*t\.parquet are the same"):
        checks.check("search_space", resolve("tiny", values, run="tiny"))


@pytest.mark.parametrize(
    ("column", "mend"),
    [
        ("validation_accuracy", "leave notebook 06 out, by"),
        ("training_time", "=evaluations"),
    ],
)
def test_a_search_without_a_known_value_is_refused_at_once(
    column: str, mend: str, tmp_path: Path
) -> None:
    table = pd.read_parquet(DIGITS).assign(**{column: None})
    table.to_parquet(path := tmp_path / "t.parquet")
    values = {"search_space": {"table": str(path)}}
    with pytest.raises(ValueError, match=f"has no {column}.*{mend}"):
        checks.check("reinforce", resolve("tiny", values, run="tiny"))


def test_sizes_of_own_images_are_known_before_they_are_loaded(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 9), number).save(tmp_path / part / name / f"{number}.png")
    small = {"validation_images": 4, "train_images": 8, "test_images": 6, "stacks": 3}
    own = {"images": "folder", "images_path": str(tmp_path)}
    for change, message in (
        ({"stacks": 4}, "of 8 x 8 pixels; give at most 3"),
        ({"train_images": 9}, "has 12 train images for both"),
        ({"validation_images": 12, "train_images": 0}, "has 12 train images for both"),
        ({"test_images": 7}, "test_images is 7, but .* has 6"),
    ):
        values = {"pretraining": {**small, **own, **change}}
        with pytest.raises(ValueError, match=message):
            checks.check("pretraining", resolve("tiny", values, run="tiny"))
    checks.check("pretraining", resolve("tiny", {"pretraining": {**small, **own}}, run="tiny"))


def test_what_is_known_of_the_digits_is_true() -> None:
    from ionas.images import SIZES, load_images

    images, known = load_images("digits"), SIZES["digits"]
    train = len(images.train) + len(images.validation)
    assert (images.train.pixels.shape[-1], train, len(images.test)) == known
