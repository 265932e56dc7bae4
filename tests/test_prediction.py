"""Scores against plain Python and SciPy, samples and seeds of all fits, findings by hand."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nasbench201_cells import enumerate_nasbench201
from sklearn.ensemble import RandomForestRegressor

from ionas.benchmark.table import Table
from ionas.book.checks import check
from ionas.book.configure import load_profile
from ionas.paper import paper_table
from ionas.parameters import PerformancePrediction, SearchSpace
from ionas.plots import MODEL_LABELS
from ionas.space.cells import CellSet, enumerate_cells
from ionas.space.encodings import adjacency_one_hot
from ionas.tasks import prediction, regressors
from ionas.tasks import scores as said
from ionas.tasks.intervals import told

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=15)


def plain_tau_b(a, b):
    agree, tied_a, tied_b, total = 0, 0, 0, 0
    for i in range(len(a)):
        for j in range(i):
            x, y = a[i] - a[j], b[i] - b[j]
            agree += (x * y > 0) - (x * y < 0)
            tied_a, tied_b, total = tied_a + (x == 0), tied_b + (y == 0), total + 1
    return agree / math.sqrt((total - tied_a) * (total - tied_b))


@settings(deadline=None)
@given(pairs)
def test_scores_agree_with_plain_python_and_scipy(values):
    truth, guess = (np.array(column, float) for column in zip(*values, strict=True))
    assume(np.ptp(truth) > 0 and np.ptp(guess) > 0)
    found = regressors.score(truth, guess)
    squares = [(a - b) ** 2 for a, b in values]
    assert found["rmse"] == pytest.approx(math.sqrt(sum(squares) / len(squares)))
    assert found["kendall"] == pytest.approx(plain_tau_b(truth.tolist(), guess.tolist()), abs=1e-12)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(truth, guess)[0], abs=1e-12)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(truth, guess)[0], abs=1e-12)
    assert found["note"] == ""


def test_constant_vectors_give_nan_and_a_word_but_no_warning():
    varied, flat = np.array([0.1, 0.5, 0.9]), np.full(3, 0.1) * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for truth, guess, word in (
            (varied, flat, "all predictions are equal"),
            (flat, varied, "all accuracies are equal"),
            (flat, flat, "all accuracies and predictions are equal"),
        ):
            found = regressors.score(truth, guess)
            assert math.isnan(found["pearson"])
            assert math.isnan(found["kendall"])
            assert math.isnan(found["spearman"])
            assert word in found["note"]
    assert regressors.score(varied, flat)["rmse"] == pytest.approx(
        math.sqrt((0.04 + 0.04 + 0.36) / 3)
    )


COUNT = 120
P = PerformancePrediction(
    sizes=[10, 0, 40], seeds=2, other_seeds=1, accuracy_threshold=0.6, trees=10, gaussian_cells=50
)


@pytest.fixture(scope="module")
def study():
    """A table of 120 cells, 20 of them labeled, and embeddings of two trainings."""
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.5, 1.0, COUNT)
    accuracy[7] = np.nan
    told = np.nan_to_num(accuracy, nan=0.7)[:, None]
    table = Table(
        enumerate_cells(5)[:: 2532 // COUNT][:COUNT], pd.DataFrame({"test_accuracy": accuracy}), {}
    )
    split = pd.DataFrame({"index": np.arange(COUNT), "labeled": ""})
    split.loc[:19, "labeled"] = "train"
    split.loc[20:30, "labeled"] = "validation"
    embeddings = {
        "io_mean_seed3": np.hstack([told, rng.normal(size=(COUNT, 4))]),
        "io_mean_seed2": np.hstack([told, rng.normal(size=(COUNT, 4))]),
        "arch2vec_seed2": rng.normal(size=(COUNT, 5)),
        "latent_seed2": rng.normal(size=(COUNT, 20)),
    }
    return table, split, embeddings


def scored(study, parts, p=P, jobs=1):
    table, split, embeddings = study
    setting = prediction.setting(table, split, p)
    return prediction.score_all(table, split, embeddings, setting, p, parts=parts, jobs=jobs)


@pytest.fixture(scope="module")
def scores(study, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IONAS_PROGRESS", "off")
        return scored(study, tmp_path_factory.mktemp("fits"))


def test_all_fits_are_there_once(scores):
    keys = ["regressor", "sample", "embedding", "training_seed", "size", "seed"]
    assert not scores.duplicated(keys).any()
    counts = scores.groupby(["regressor", "sample", "embedding", "training_seed"], dropna=False)
    first, other = {}, {}
    for (regressor, sample, name, training), rows in counts:
        (first if pd.isna(training) or training == 2 else other).setdefault(
            (regressor, sample), {}
        )[name] = len(rows)
    each = ["arch2vec", "encoding", "io_mean", "latent"]
    assert first == {
        ("gaussian_process", "random"): dict.fromkeys(each, 2),
        ("random_forest", "paper"): dict.fromkeys(each, 6),
        ("random_forest", "passed"): dict.fromkeys(each, 3),
        ("random_forest", "random"): dict.fromkeys(each, 2),
        ("random_forest", "random, passed"): dict.fromkeys(each, 2),
    }
    assert other == {
        ("gaussian_process", "random"): {"io_mean": 1},
        ("random_forest", "paper"): {"io_mean": 3},
    }
    assert scores.loc[scores["embedding"] == "encoding", "training_seed"].isna().all()
    assert sorted(said.of_sample(scores)["size"].unique()) == [10, 19, 40]
    assert scores.notna().all(axis=0)[[*regressors.METRICS, "scored", "failed"]].all()


@pytest.mark.parametrize("regressor", ["random_forest", "gaussian_process"])
def test_fits_tell_a_good_embedding_from_noise(scores, regressor):
    sample, size = ("paper", 40) if regressor == "random_forest" else ("random", 50)
    rows = said.of_sample(scores, sample, regressor)
    means = rows[rows["size"] == size].groupby("embedding")["pearson"].mean()
    assert means["io_mean"] > 0.8
    assert abs(means["arch2vec"]) < 0.5


def test_every_fit_is_that_alone(study, scores):
    table, _, embeddings = study
    accuracy = table.values("test_accuracy")
    for _, row in scores[scores["embedding"] == "io_mean"].iterrows():
        alone = regressors.fit_and_score(
            row["sample"], row["size"], row["seed"], 0.6, row["regressor"], 10, 4, accuracy,
            np.arange(20), embeddings[f"io_mean_seed{row['training_seed']}"],
        )  # fmt: skip
        assert row[list(alone)].to_dict() == alone


def test_a_killed_call_goes_on_and_processes_change_nothing(study, scores, tmp_path, monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    made = []
    real = prediction.fit_and_score

    def dying(*given):
        made.append(given)
        if len(made) == 9:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(prediction, "fit_and_score", dying)
    with pytest.raises(KeyboardInterrupt):
        scored(study, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * 8
    monkeypatch.setattr(prediction, "fit_and_score", real)
    pd.testing.assert_frame_equal(scored(study, tmp_path, jobs=2), scores)
    monkeypatch.setattr(prediction, "fit_and_score", dying)
    pd.testing.assert_frame_equal(scored(study, tmp_path), scores)
    assert len(made) == 9


def test_what_was_fitted_holds_whatever_else_is_asked(study, scores, tmp_path, monkeypatch):
    """More seeds fit only these; another embedding of one training fits only that anew."""
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    scored(study, tmp_path)
    made = []
    real = prediction.fit_and_score
    monkeypatch.setattr(
        prediction, "fit_and_score", lambda *given: made.append(given) or real(*given)
    )
    more = scored(study, tmp_path, P.model_copy(update={"seeds": 3}))
    assert len(made) == len(more) - len(scores)
    assert len(scores.merge(more, on=list(scores))) == len(scores)
    assert {given[2] for given in made} == {2}
    made.clear()
    table, split, embeddings = study
    changed = {**embeddings, "io_mean_seed3": embeddings["io_mean_seed3"] + 1}
    again = scored((table, split, changed), tmp_path)
    assert len(made) == again["training_seed"].eq(3).sum() > 0


def test_samples_hold_the_labeled_first_and_contain_each_other(study):
    accuracy, labeled = study[0].values("test_accuracy"), np.arange(20)

    def sample(size, seed, kind="paper"):
        cells = regressors.sample_cells(accuracy, labeled, kind, size, seed)
        assert len(set(cells)) == size
        return set(cells.tolist())

    known = set(range(20)) - {7}
    for seed in (0, 1):
        assert sample(10, seed) < known == sample(19, seed) < sample(40, seed)
    assert sample(10, 0) != sample(10, 1)
    assert sample(40, 0) == sample(40, 0, "passed")
    assert not known <= sample(60, 0, "random")
    assert sample(60, 0, "random") == sample(60, 0, "random, passed")


def fit_on(accuracy, labeled, embedding, sample="paper", size=32, threshold=0.6, features=4):
    """The paper's forest on a sample."""
    return regressors.fit_and_score(
        sample, size, 0, threshold, regressors.FOREST, 200, features, accuracy, labeled, embedding
    )


def test_all_others_above_the_threshold_are_scored(monkeypatch, study):
    accuracy, seen = study[0].values("test_accuracy"), []

    def forest(inputs, outputs, others, seed, trees, max_features):
        seen.append((set(inputs[:, 0].astype(int)), set(others[:, 0].astype(int)), max_features))
        return others[:, 0]

    monkeypatch.setattr(regressors, "predict_forest", forest)
    rows, labeled = np.arange(float(COUNT))[:, None], np.arange(8, 48)
    above, sample = set(np.flatnonzero(accuracy > 0.6).tolist()), set(labeled.tolist())
    whole, passed = (
        fit_on(accuracy, labeled, rows, sample=kind, size=40) for kind in ("paper", "passed")
    )
    assert seen[0] == (sample, above - sample, 4)
    assert seen[1] == (sample & above, above - sample, 4)
    assert whole["scored"] == passed["scored"] == len(above - sample)
    assert whole["failed"] == passed["failed"] == len(sample - above) > 0


def test_a_sample_of_failed_cells_is_not_fitted(study):
    accuracy = np.where(np.arange(COUNT) < 20, 0.1, study[0].values("test_accuracy"))
    found = fit_on(accuracy, np.arange(20), np.ones((COUNT, 2)), sample="passed", size=19)
    assert found["note"] == "not fitted: 0 cells above the threshold"
    assert all(math.isnan(found[name]) for name in regressors.METRICS)
    assert found["failed"] == 19


def test_references_try_a_share_of_the_inputs(study, monkeypatch, tmp_path):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    tried = {}
    real = regressors.predict_forest

    def spy(inputs, outputs, others, seed, trees, max_features):
        tried.setdefault(inputs.shape[1], set()).add(max_features)
        return real(inputs, outputs, others, seed, trees, max_features)

    monkeypatch.setattr(regressors, "predict_forest", spy)
    few = P.model_copy(update={"sizes": [10], "trees": 2, "max_features": 3})
    scored(study, tmp_path, few)
    assert tried == {5: {3}, 20: {0.33}, adjacency_one_hot(study[0].cells).shape[1]: {0.33}}


def test_constant_embedding_gives_a_note(study):
    accuracy = study[0].values("test_accuracy")
    found = fit_on(accuracy, np.arange(8, 40), np.ones((COUNT, 4)))
    assert "predictions are equal" in found["note"]
    assert math.isnan(found["pearson"])
    assert found["rmse"] > 0


@pytest.mark.parametrize(
    ("embeddings", "change", "message"),
    [
        ({"short": np.zeros((3, 2))}, {}, "'short' has shape"),
        ({"bad": np.full((COUNT, 2), np.inf)}, {}, "'bad' is not finite"),
        ({}, {"sizes": [118]}, "sizes has 118, but the table has 119 cells .* 2 to 117, or 0"),
        ({}, {"gaussian_cells": 200}, "gaussian_cells has 200, but"),
        ({}, {"accuracy_threshold": 0.9999}, "choose a smaller size or threshold"),
    ],
)
def test_what_cannot_be_fitted_is_refused_first(
    study, monkeypatch, tmp_path, embeddings, change, message
):
    table, split, given = study
    monkeypatch.setattr(prediction, "complete", None)
    with pytest.raises(ValueError, match=message):
        scored((table, split, given | embeddings), tmp_path, P.model_copy(update=change))


def test_sizes_are_checked():
    assert prediction.check_sizes([9, 0, 3, 9], 20, 5) == [3, 5, 9]
    assert prediction.check_sizes([18], 20, 5) == [18]
    for sizes, message in (
        ([400], "sizes has 400, but the table has 400 cells"), ([-1], "sizes has -1"),
        ([1], "sizes has 1"), ([399], "give 2 to 398, or 0 for the 5"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            prediction.check_sizes(sizes, 400, 5)
    with pytest.raises(ValueError, match="sizes has 400"):  # the labeled cells are all there are
        prediction.check_sizes([0], 400, 400)


@pytest.mark.parametrize("sizes", [[-1], [1], [0, 1], [], [2.5]])
def test_parameters_refuse_sizes_that_mean_nothing(sizes):
    with pytest.raises(ValueError, match="sizes"):
        PerformancePrediction(sizes=sizes)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_sizes_that_do_not_fit_a_table_are_refused_before_anything_runs(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    cells = enumerate_cells(5)[:400]
    adjacency, operations = cells.to_text()
    accuracy = np.linspace(0.5, 0.9, 400)
    accuracy[:3] = np.nan
    frame = pd.DataFrame(
        {"adjacency": adjacency, "operations": operations, "test_accuracy": accuracy}
    )
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    space = SearchSpace(table=str(path), labeled_train=14)
    for change, message in (
        ({"sizes": [0, 396]}, "sizes has 396, but the table has 397 cells"),
        ({"gaussian_cells": 500}, "gaussian_cells has 500"),
    ):
        asked = {"search_space": space, "performance_prediction": P.model_copy(update=change)}
        with pytest.raises(ValueError, match=message):
            check("performance_prediction", asked)
    check("performance_prediction", {"search_space": space, "performance_prediction": P})
    check("performance_prediction", {"performance_prediction": P})


def test_the_setting_is_told(study):
    table, split, _ = study
    given = prediction.setting(table, split, P)
    above = int((table.values("test_accuracy") > 0.6).sum())
    assert given == {
        "cells": COUNT, "labeled": 19, "threshold": 0.6, "above": above, "sizes": [10, 19, 40],
    }  # fmt: skip
    ruled = prediction.setting(table, split, P.model_copy(update={"accuracy_threshold": 0.0}))
    known = table.values("test_accuracy")
    assert ruled["threshold"] == np.quantile(known[np.isfinite(known)], 0.019)


def test_forest_is_that_of_the_paper():
    rng = np.random.default_rng(1)
    x, y, others = rng.normal(size=(30, 6)), rng.normal(size=30), rng.normal(size=(5, 6))
    plain = RandomForestRegressor(n_estimators=200, max_features=4, random_state=3).fit(x, y)
    paper = PerformancePrediction(**load_profile("paper")["performance_prediction"])
    found = regressors.predict_forest(x, y, others, 3, paper.trees, paper.max_features)
    np.testing.assert_array_equal(found, plain.predict(others))
    few = regressors.predict_forest(x[:, :2], y, others[:, :2], 3, 200, 4)  # 4 of 2 inputs
    assert few.shape == (5,)


def test_order_of_prediction_changes_no_bit():
    rng = np.random.default_rng(0)
    inputs, outputs, others = (
        rng.normal(size=(80, 5)),
        rng.normal(size=80),
        rng.normal(size=(400, 5)),
    )
    plain = RandomForestRegressor(30, max_features=3, random_state=4).fit(inputs, outputs)
    found = regressors.predict_forest(inputs, outputs, others, 4, 30, 3)
    assert np.array_equal(found, plain.predict(others))
    few = regressors.predict_forest(inputs, outputs, others[:1], 4, 2, 3)
    assert len(few) == 1


def test_gaussian_process_learns_a_smooth_function_in_parts(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, size=(80, 2))
    y = np.sin(x[:, 0]) + x[:, 1]
    whole = regressors.predict_gaussian_process(x[:60], y[:60], x[60:])
    assert np.abs(whole - y[60:]).max() < 0.1
    monkeypatch.setattr(regressors, "CHUNK", 7)
    parts = regressors.predict_gaussian_process(x[:60], y[:60], x[60:])
    np.testing.assert_allclose(parts, whole, rtol=1e-9)


def test_threshold_leaves_out_the_share():
    accuracy = np.linspace(0, 1, 1001)
    threshold = prediction.accuracy_threshold(accuracy, 0.019)
    assert np.mean(accuracy > threshold) == pytest.approx(0.981, abs=0.001)
    assert (accuracy > prediction.accuracy_threshold(accuracy, 0.0)).all()


def test_plain_encoding_keeps_edges_and_operations():
    cells = CellSet.from_text(["010001000"], ["input,conv3x3-bn-relu,output"])
    one_hot = [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert adjacency_one_hot(cells).tolist() == [[1, 0, 1, *one_hot]]


@pytest.mark.parametrize(
    ("cells", "edges", "width"),
    [(enumerate_cells(4), 6, 4 * 5), (enumerate_nasbench201()[::97], 28, 8 * 7)],
    ids=["NAS-Bench-101", "NAS-Bench-201"],
)
def test_cells_are_encoded_without_the_padding_of_larger_ones(cells, edges, width):
    encoding = adjacency_one_hot(cells)
    assert encoding.shape == (len(cells), edges + width)
    assert len(np.unique(encoding, axis=0)) == len(cells)
    bits, one_hot = encoding[:, :edges], encoding[:, edges:]
    assert (bits.sum(1) == cells.adjacency.sum((1, 2))).all()
    assert (one_hot.sum(1) == cells.n_vertices).all()


VALUES = {1: [0.1, 0.3], 2: [0.5, 0.7], 3: [0.0, 0.2]}


def fits(values=VALUES):
    """Scores of `a` with trainings 1, 2, 3 of two seeds each, and of `b`, not trained."""
    rows = [("a", t, 5, s, values[t][s]) for t in values for s in (0, 1)]
    rows += [("b", None, 5, s, 0.5 + s) for s in (0, 1)]
    columns = ["embedding", "training_seed", "size", "seed", "pearson"]
    frame = pd.DataFrame(rows, columns=columns).astype({"training_seed": "Int64"})
    return frame.assign(rmse=1.0, kendall=np.nan, spearman=0.0)


def line(summary, **values):
    for key, value in values.items():
        summary = summary[summary[key] == value]
    assert len(summary) == 1
    return summary.iloc[0]


def test_two_kinds_of_intervals():
    summary = said.summarise(fits())
    one = line(summary, embedding="a", metric="pearson", interval="regressor")
    low, high = scipy.stats.t.interval(0.95, 1, 0.2, 0.1)  # of training 1 only
    assert one[["mean", "low", "high", "seeds"]].tolist() == pytest.approx([0.2, low, high, 2])
    over = line(summary, embedding="a", metric="pearson", interval="training")
    means = [0.2, 0.6, 0.1]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(means), scipy.stats.sem(means))
    assert over[["mean", "low", "high", "seeds"]].tolist() == pytest.approx([0.3, low, high, 3])
    untrained = line(summary, embedding="b", metric="pearson", interval="training")
    assert untrained["mean"] == 1
    assert math.isnan(untrained["low"])


def test_undefined_scores_stay_undefined():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = said.summarise(fits())
    found = line(summary, embedding="a", metric="kendall", interval="regressor")
    assert math.isnan(found["mean"])
    assert found["seeds"] == 0


def test_values_of_each_training():
    found = said.per_training(fits())
    assert found[found["embedding"] == "a"]["pearson"].tolist() == pytest.approx([0.2, 0.6, 0.1])
    assert found[found["embedding"] == "b"]["pearson"].tolist() == [1]
    assert found["training_seed"].tolist() == [1, 2, 3, pd.NA]


def test_marks_of_samples(scores):
    marks = said.sample_marks(scores)
    counts = marks.groupby(["embedding", "sample"]).size().unstack()
    assert (counts[["random", "random, passed"]] == 2).all(axis=None)
    assert (counts[["paper", "passed"]] == 1).all(axis=None)
    rows = said.of_sample(scores).query("embedding == 'encoding' and size == 10")
    mean = marks.query("embedding == 'encoding' and sample == 'paper'")["pearson"].item()
    assert mean == pytest.approx(rows["pearson"].mean())
    spread = said.spread_of_draws(marks, "rmse").set_index(["embedding", "cells"])
    draws = marks.query("embedding == 'io_mean' and sample == 'random'")["rmse"]
    found = spread.loc[("io_mean", "random draws")]
    assert found["high"] - found["low"] == pytest.approx(2 * draws.std())
    assert found["mean"] == pytest.approx(draws.mean())
    assert spread.loc[("io_mean", "labeled cells"), ["low", "high"]].isna().all()


def test_differences_are_of_the_same_training_and_sample():
    frame = fits()
    frame = frame[~((frame["training_seed"] == 3) & (frame["seed"] == 1)).fillna(False)]
    found = said.differences(frame, "a")
    assert found["embedding"].tolist() == ["b"] * 3
    values = dict(zip(found["training_seed"], found["value"], strict=True))
    assert values == pytest.approx({1: 0.8, 2: 0.4, 3: 0.5})  # of training 3 seed 0 alone


def paper_fits(spread=0.0, table=6):
    """Table 6 of the paper as the scores of three trainings that differ by a common shift."""
    rows = (
        paper_table(table)
        .drop(columns=["half_width", "low", "high"])
        .rename(columns={"mean": "pearson"})
    )
    rng = np.random.default_rng(0)
    parts = [
        rows.assign(
            training_seed=training, seed=0,
            pearson=rows["pearson"] + shift + rng.normal(0, spread, len(rows)),
        )
        for training, shift in ((1, 0.0), (2, 0.1), (3, -0.1))
    ]  # fmt: skip
    frame = pd.concat(parts, ignore_index=True).astype({"training_seed": "Int64"})
    return frame.assign(rmse=0.0, kendall=0.0, spearman=0.0)


def shown(scores):
    found = said.findings(scores)
    return [told(found, name, MODEL_LABELS)[0] for name in said.FINDINGS]


def test_rules_find_in_the_papers_table_what_its_text_says():
    """Shifts that all embeddings of a training have in common do not count."""
    assert shown(paper_fits(1e-4)) == [True] * 4


def test_rules_can_say_no_and_undecided():
    both = {"io_flatten": "io_mean", "accuracy_flatten": "accuracy_mean"}
    both |= {new: old for old, new in both.items()}
    assert shown(paper_fits(1e-4).replace({"embedding": both}))[1] is False
    models = {"io_flatten": "accuracy_flatten", "io_mean": "accuracy_mean"}
    models |= {new: old for old, new in models.items()}
    assert shown(paper_fits(1e-4).replace({"embedding": models}))[2] is False
    original = {"arch2vec": "arch2vec_original", "arch2vec_original": "arch2vec"}
    assert shown(paper_fits(1e-4).replace({"embedding": original}))[3] is False
    assert True not in shown(paper_fits(0.2))  # trainings differ too much
    one = paper_fits(1e-4).query("training_seed == 1")
    assert shown(one) == [None] * 4


def test_one_size_tells_nothing_of_a_change_with_size():
    found = said.findings(paper_fits(1e-4).query("size == 608"))
    with_size = found[found["part"].str.endswith("with size")]
    assert len(with_size) == 3
    assert with_size["holds"].isna().all()
    assert with_size["mean"].isna().all()


def test_a_missing_embedding_leaves_its_findings_undecided():
    few = paper_fits(1e-4).query("embedding != 'arch2vec_original'")
    assert shown(few)[3] is None


@pytest.mark.shared
def test_the_papers_608_cells_and_the_plain_encoding(shared_data):
    """METHOD 10: the forest on the plain encoding of the paper's 608 cells has r .711."""
    from ionas.benchmark.split import split_cells

    columns = ["hash", "adjacency", "operations", "test_accuracy"]
    frame = pd.read_parquet(shared_data / "nasbench101.parquet", columns=columns)
    split = split_cells(
        frame["hash"].to_numpy(str),
        np.ones(len(frame), bool),
        SearchSpace(labeled_train=608, labeled_validation=77),
    )
    labeled = split.loc[split["labeled"] == "train", "index"].to_numpy()
    rng = np.random.default_rng(0)  # scored on a part of the cells: a forest on all takes minutes
    others = rng.choice(len(frame), 20_000, replace=False)
    rows = np.union1d(labeled, others)
    part = frame.iloc[rows]
    cells = CellSet.from_text(part["adjacency"].tolist(), part["operations"].tolist())
    found = fit_on(
        part["test_accuracy"].to_numpy(), np.searchsorted(rows, labeled),
        adjacency_one_hot(cells), size=608, threshold=0.8, features=0.33,
    )  # fmt: skip
    assert found["failed"] == 7
    assert found["pearson"] == pytest.approx(0.71, abs=0.03)
    assert found["rmse"] == pytest.approx(0.0167, abs=0.001)
