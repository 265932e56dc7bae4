"""Parameters: what is refused, with which words, and how profiles and overrides combine."""

from pathlib import Path

import fake_study
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionas.book.parameters import (
    STAGES,
    InvalidParameters,
    find_stage,
    load_profile,
    nearest,
    parse_overrides,
    parse_yaml,
    profiles,
    resolve,
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


def test_values_are_yaml() -> None:
    texts = ["01.seed=2", "second.factor=1e-3", "third.extra=[1, 2]", "01_first.data_file=a=b.csv"]
    assert parse_overrides(texts, FAKE) == {
        "first": {"seed": 2, "data_file": "a=b.csv"},
        "second": {"factor": 0.001},
        "third": {"extra": [1, 2]},
    }


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_numbers_keep_their_value_and_type(real: float, whole: int) -> None:
    assert parse_yaml(f"{real!r}") == real
    assert isinstance(parse_yaml(f"{real:e}"), float)
    assert parse_yaml(f"{whole}") == whole
    assert isinstance(parse_yaml(f"{whole}"), int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first: {sise: 5}", "first has no parameter 'sise'; did you mean 'size'?"),
        ("first: {xyz: 5}", "first has no parameter 'xyz'; there are: seed, size, data_file"),
        ("frst: {size: 5}", "there is no notebook 'frst'; did you mean 'first'?"),
        ("first: {size: 0}", "first.size is 0: it should be greater than or equal to 1"),
        ("first: {size: '5'}", "first.size is '5': it should be a valid integer"),
        ("first: {size: true}", "first.size is True: it should be a valid integer"),
        ("first: {run: other}", "first.run cannot be set here; name the run with --name"),
        ("second: {fail: maybe}", "second.fail is 'maybe': it should be '', 'error' or 'kill'"),
        ("third: {extra: [1, a]}", "third.extra.1 is 'a': it should be a valid integer"),
        ("first: [1]", "first must map parameters to values"),
        ("[1, 2]", "must map notebooks to their parameters"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
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
        assert set(notebook.upstream) <= set(names[:position])
        assert notebook.number == f"{position + 1:02d}"


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
        *(f"pretraining.{name}" for name in (*networks, "test_images", "learning_rate")),
        "output_features.threshold",
        "embedding_training.labeled_run",
        "embedding_training.unlabeled_run",
        "embedding_training.image_channels",
        "embedding_training.head_hidden",
        "performance_prediction.sizes",
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
        parameters["pretraining"].check(parameters)


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("pretraining", {"stacks": 4}, "stacks is 4, .*8 x 8 pixels; give at most 3"),
        ("io_dataset", {"top_k": 18}, "top_k is 18, but the networks have 16 features and a bias"),
        ("io_dataset", {"test_images": 21}, "test_images is 21, but pretraining.test_images is 20"),
        ("reinforce", {"training_seed": 3}, r"training_seed is 3, .*seeds is \[1, 2\]; choose one"),
    ],
)
def test_what_would_fail_hours_later_is_refused_at_once(
    stage: str, values: dict[str, int], message: str
) -> None:
    parameters = resolve("tiny", {stage: values}, run="tiny")
    with pytest.raises(ValueError, match=message):
        parameters[stage].check(parameters)
    fitting = resolve("tiny", run="tiny")
    fitting[stage].check(fitting)
