"""Predictors against other implementations and loops; protocols, ceiling and judgements by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau, pearsonr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from ionas.benchmark.table import Table, load_table
from ionas.paper import published_predictors
from ionas.parameters import Predictors
from ionas.predictors import gaussian_process as gp
from ionas.predictors.average import average
from ionas.predictors.graphs import (
    Gated,
    GatedLayer,
    GlobalVertex,
    fit_gated,
    fit_gcn,
    graph_tensors,
)
from ionas.predictors.interface import Graphs, normal_scores, standard_scale
from ionas.predictors.sequence import fit_lstm
from ionas.predictors.training import MARGIN, hinge
from ionas.predictors.trees import fit_boosting, fit_forest
from ionas.space import encodings
from ionas.space.cells import Cell, CellSet
from ionas.tasks import predictor_protocols as protocols
from ionas.tasks.ceiling import ceiling, reliability
from ionas.tasks.intervals import all_hold

TABLE = load_table("digits")
ROWS = np.random.default_rng(0).permutation(len(TABLE))[:260]
CELLS, ACCURACY = TABLE.cells[ROWS], TABLE.values("test_accuracy")[ROWS]
FEATURES = encodings.structure(CELLS)
INPUTS = {
    "forest": (fit_forest, FEATURES),
    "boosting": (fit_boosting, FEATURES),
    "process": (gp.fit_gaussian_process, FEATURES),
    "lstm": (fit_lstm, encodings.sequence(CELLS)),
    "gcn": (fit_gcn, Graphs(CELLS)),
    "gated": (fit_gated, Graphs(CELLS)),
    "gated, features": (fit_gated, Graphs(CELLS, FEATURES)),
}
FITTED, OTHERS = slice(0, 60), slice(60, None)


@pytest.mark.parametrize("name", INPUTS)
def test_every_predictor_learns_and_gives_the_same_bits_for_the_same_seed(name):
    fit, inputs = INPUTS[name]
    torch.manual_seed(1)
    one = fit(inputs[FITTED], ACCURACY[FITTED], 3)(inputs[OTHERS])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = fit(inputs[FITTED], ACCURACY[FITTED], 3)(inputs[OTHERS])
    assert torch.equal(torch.get_rng_state(), before)
    assert one.dtype == np.float64
    assert np.array_equal(one, other)
    assert kendalltau(one, ACCURACY[OTHERS]).statistic > 0.35
    if name != "gcn":  # which has no use for so few cells
        errors, spread = one - ACCURACY[OTHERS], ACCURACY[OTHERS].std()
        assert np.sqrt(np.mean(errors**2)) < 0.9 * spread


@pytest.mark.parametrize("name", ["lstm", "gated"])
def test_networks_learn_ranks_by_the_hinge_loss(name):
    fit, inputs = INPUTS[name]
    predict = fit(inputs[FITTED], ACCURACY[FITTED], 0, "hinge")
    assert kendalltau(predict(inputs[OTHERS]), ACCURACY[OTHERS]).statistic > 0.35
    only_ranks = fit(inputs[FITTED], np.exp(20 * ACCURACY[FITTED]), 0, "hinge")
    assert np.array_equal(only_ranks(inputs[OTHERS]), predict(inputs[OTHERS]))


def test_hinge_is_the_mean_over_pairs():
    predicted, y = torch.tensor([0.3, 0.1, 0.35, 0.0]), torch.tensor([0.9, 0.5, 0.5, 0.1])
    pairs = [(i, j) for i in range(4) for j in range(4) if y[i] > y[j]]
    losses = [max(0.0, MARGIN - float(predicted[i] - predicted[j])) for i, j in pairs]
    assert float(hinge(predicted, y)) == pytest.approx(sum(losses) / len(losses))
    assert float(hinge(predicted, torch.ones(4))) == 0


def test_posterior_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, others, y = rng.normal(size=(40, 5)), rng.normal(size=(30, 5)), rng.normal(size=40)
    lengths, signal, noise = rng.uniform(0.5, 4, 5), 1.7, 0.08
    predict = gp.posterior_mean(x, y, torch.tensor([signal, noise, *lengths]).double().log())
    scale, (mean, deviation) = standard_scale(x), (y.mean(), y.std())
    kernel = ConstantKernel(signal) * Matern(lengths, nu=2.5)
    plain = GaussianProcessRegressor(kernel, alpha=noise + gp.JITTER, optimizer=None)
    plain.fit(scale(x), (y - mean) / deviation)
    means = plain.predict(scale(others))
    np.testing.assert_allclose(predict(others), means * deviation + mean, rtol=1e-4, atol=1e-5)
    assert predict(others).dtype == np.float64


def test_the_kernel_is_fitted_to_the_marginal_likelihood():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 6))
    y = np.sin(2 * x[:, 0]) + 0.05 * rng.normal(size=80)  # the other five say nothing
    standard = torch.from_numpy((y - y.mean()) / y.std())
    kernel = gp.Kernel(gp.fit_kernel(torch.from_numpy(x), standard))
    assert kernel.lengths[0] < kernel.lengths[1:].min() / 2
    assert kernel.noise < kernel.signal / 5


@pytest.mark.parametrize("constant", [False, True])
def test_the_process_holds_with_more_features_than_cells_and_equal_ones(constant):
    rng = np.random.default_rng(2)
    x = np.repeat(rng.integers(0, 2, (50, 200)).astype(np.float32), 2, 0)
    x[:, 50:] = x[:, :1]
    y = np.zeros(100) if constant else x[:, 1] + 0.1 * rng.normal(size=100)
    assert np.isfinite(gp.fit_gaussian_process(x, y, 0)(x)).all()


def test_many_inputs_all_count_in_the_posterior(monkeypatch):
    x = np.linspace(-2, 2, 120)[:, None]
    monkeypatch.setattr(gp, "MOST", 30)
    monkeypatch.setattr(gp, "CHUNK", 7)
    predict = gp.fit_gaussian_process(x, np.sin(3 * x[:, 0]), 0)
    assert np.abs(predict(x) - np.sin(3 * x[:, 0])).max() < 0.1


def test_a_gated_layer_is_the_loop_over_edges(double):
    torch.manual_seed(0)
    operations, adjacency = (tensor.double() for tensor in graph_tensors(CELLS[:5]))
    layer, states = GatedLayer(operations.shape[-1]).eval(), torch.randn(5, 7, 64)
    found = layer(states, operations, adjacency)
    along, against = layer.messages.weight.split(64)
    for cell in range(5):
        for v in range(7):
            gates = torch.sigmoid(layer.gates.weight @ operations[cell, v] + layer.gates.bias)
            total = layer.own.weight @ states[cell, v] + layer.own.bias
            for u in range(7):
                if adjacency[cell, u, v]:
                    total = total + gates[:64] * (along @ states[cell, u])
                if adjacency[cell, v, u]:
                    total = total + gates[64:] * (against @ states[cell, u])
            torch.testing.assert_close(found[cell, v], states[cell, v] + total.clamp_min(0))


def test_the_global_vertex_is_the_mean_of_all(double):
    torch.manual_seed(0)
    operations, adjacency = (tensor.double() for tensor in graph_tensors(CELLS[:4]))
    network = GlobalVertex(operations.shape[-1]).eval()
    found = network(operations, adjacency, None)
    shrink = (1 + network.norms[0].eps) ** -0.5
    for cell in range(4):
        vertices = [v for v in range(7) if operations[cell, v].any()]
        states = {v: torch.cat([operations[cell, v], torch.zeros(1)]) for v in vertices}
        states["global"] = torch.eye(6)[-1]
        feeds = {v: [v, *(u for u in vertices if adjacency[cell, u, v])] for v in vertices}
        feeds["global"] = [*vertices, "global"]
        for layer in network.layers:
            mixed = {v: sum(states[u] for u in given) / len(given) for v, given in feeds.items()}
            states = {v: (layer.weight @ h * shrink).clamp_min(0) for v, h in mixed.items()}
        torch.testing.assert_close(found[cell], network.head(states["global"])[0])


@pytest.mark.parametrize("make", [lambda: Gated(5, 0), lambda: GlobalVertex(5)])
def test_graph_networks_do_not_see_the_order_of_vertices(make, double):
    matrix = np.zeros((5, 5), int)
    matrix[[0, 0, 1, 2, 3], [1, 2, 4, 3, 4]] = 1
    names = ["input", "conv1x1-bn-relu", "maxpool3x3", "conv3x3-bn-relu", "output"]
    order = [0, 2, 3, 1, 4]
    other = Cell(matrix[np.ix_(order, order)], [names[v] for v in order])
    tensors = graph_tensors(CellSet.from_cells([Cell(matrix, names), other]))
    network = make().eval()
    one, two = network(*(tensor.double() for tensor in tensors), torch.zeros(2, 0))
    torch.testing.assert_close(one, two)


def test_the_average_is_of_values_or_of_ranks():
    given = [np.array([1.0, 5.0, 2.0]), np.array([100.0, 0.0, 300.0])]
    assert average(given, by_rank=False).tolist() == [50.5, 2.5, 151]
    np.testing.assert_allclose(average(given, by_rank=True), [1.5 / 3, 2 / 3, 2.5 / 3])


def test_normal_scores_keep_ranks_and_ties():
    found = normal_scores(np.array([0.9, 0.1, 0.5, 0.5]))
    assert found[0] == -found[1] > 0
    assert found[2] == found[3] == pytest.approx(0)
    many = normal_scores(np.random.default_rng(0).exponential(size=999))
    assert (many.mean(), many.std()) == pytest.approx((0, 1), abs=0.01)


@pytest.mark.parametrize("noise", [0.2, 0.6])
def test_the_ceiling_is_what_a_perfect_predictor_reaches(noise):
    rng = np.random.default_rng(0)
    expected = rng.normal(size=20_000)
    repeats = expected[:, None] + noise * rng.normal(size=(20_000, 3))
    mean = repeats.mean(1)
    assert reliability(repeats) == pytest.approx(1 / (1 + noise**2 / 3), abs=0.005)
    found = ceiling(repeats, np.ones(20_000, bool))
    assert found["pearson"] == pytest.approx(pearsonr(expected, mean)[0], abs=0.003)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((expected - mean) ** 2)), rel=0.05)
    assert found["kendall"] == pytest.approx(kendalltau(expected, mean).statistic, abs=0.01)
    skewed = ceiling(np.exp(3 * repeats), np.ones(20_000, bool))
    assert skewed["kendall"] == pytest.approx(found["kendall"], abs=1e-9)


# --- protocols --------------------------------------------------------------------------------

SMALL = Predictors(
    run="small", sizes=[12, 20], draws=2, other_draws=1, value_sizes=[20], value_draws=2,
    added_size=20, added_draws=2, jobs=1,
)  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """A table of 160 cells of which ten have no accuracy, and predictors that are fitted fast."""
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    frame = TABLE.frame.iloc[ROWS[:160]].reset_index(drop=True)
    frame.loc[:9, "test_accuracy"] = np.nan
    return Table(CELLS[:160], frame, TABLE.about)


def test_all_predictors_rank_the_same_others(small, tmp_path, monkeypatch):
    seen = []

    def fit(inputs, targets, seed, loss=""):
        seen.append((len(inputs), np.sort(targets).round(9).tolist(), seed, loss))
        return lambda others: np.arange(len(others), dtype=float)

    fits = {name: (kind, fit) for name, (kind, _) in protocols.FITS.items()}
    monkeypatch.setattr(protocols, "FITS", fits)
    monkeypatch.setattr(protocols, "NETWORKS", ())
    given = protocols.setting(small, SMALL)
    rows = protocols.score_all(small, given, SMALL, parts=tmp_path, jobs=1)
    rank = rows[rows["protocol"] == "rank"]
    counts = rank.groupby("predictor")["draw"].count()
    fast = {protocols.PLAIN, protocols.FOREST, *protocols.TOGETHER, protocols.AVERAGE}
    assert set(counts.index) == set(protocols.ORDER)
    assert {name for name, count in counts.items() if count == 4} == fast
    assert rank.groupby(["size", "draw"])["kendall"].nunique().eq(1).all()
    accuracy = small.values("test_accuracy")
    known, low = np.isfinite(accuracy), (accuracy <= given["threshold"]).sum()
    assert given["above"] == known.sum() - low
    scores = [s for n, s, *_ in seen if n == 12]
    np.testing.assert_allclose(scores, [np.sort(normal_scores(np.arange(12)))] * len(scores))
    again = protocols.score_all(small, given, SMALL, parts=tmp_path, jobs=1)
    pd.testing.assert_frame_equal(rows, again)


def test_failed_cells_are_left_out_of_the_sample_and_of_the_score(small, monkeypatch):
    accuracy = small.values("test_accuracy")
    sizes, scored = [], []

    def fit(inputs, targets, seed):
        sizes.append(targets)
        return lambda others: scored.append(len(others)) or np.zeros(len(others))

    monkeypatch.setattr(protocols, "FITS", {protocols.FOREST: ("structure", fit)})
    threshold = float(np.nanquantile(accuracy, 0.3))
    arrays = {name: np.zeros((160, 1)) for name in protocols.ARRAYS} | {"accuracy": accuracy}
    arrays["operations"] = small.cells.operations
    for sample in ("random", "random, passed"):
        protocols.fit_and_score(
            "value", sample, (protocols.FOREST,), 40, 0, threshold, *arrays.values()
        )
    whole, passed = sizes
    assert len(whole) == 40 > len(passed)
    assert sorted(passed) == sorted(whole[whole > threshold])
    above = int((accuracy > threshold).sum())
    assert scored == [above - len(passed)] * 2


def test_scores_of_the_best_cells_by_hand():
    truth, predicted = np.arange(200.0), np.arange(200.0)
    predicted[[199, 0]] = predicted[[0, 199]]  # the best is thought the worst
    found = protocols._scores("rank", truth, predicted)
    assert found["precision"] == 0.5  # of two cells
    pairs = 20 * 19 / 2
    assert found["kendall_best"] == pytest.approx((pairs - 2 * 19) / pairs)
    assert found["kendall"] == pytest.approx(kendalltau(truth, predicted).statistic)
    found = protocols._scores("value", truth, predicted)
    assert found == {
        "pearson": pytest.approx(pearsonr(truth, predicted)[0]),
        "rmse": pytest.approx(np.sqrt(2 * 199**2 / 200)),
    }


def test_a_size_that_leaves_too_few_cells_is_named():
    accuracy = np.linspace(0.1, 0.9, 100)
    for name, most in (("sizes", 80), ("value_sizes", 78), ("added_size", 80)):
        value = most + 1 if name == "added_size" else [most + 1]
        wrong = SMALL.model_copy(update={name: value})
        with pytest.raises(ValueError, match=f"^{name} has {most + 1}.* give at most {most}$"):
            protocols.scored(accuracy, wrong)
    assert protocols.scored(accuracy, SMALL)["above"] == 98


def test_embeddings_are_compared_with_the_features_alone(small, tmp_path):
    rng = np.random.default_rng(0)
    answer = np.nan_to_num(small.values("test_accuracy"))[:, None].astype(np.float32)
    given = {f"io_mean_seed{s}": answer + 0.01 * rng.normal(size=(160, 1)) for s in (1, 2)}
    given |= {f"arch2vec_seed{s}": rng.normal(size=(160, 2)) for s in (1, 2)}
    given["latent_seed1"] = answer  # is not tried
    found = protocols.score_added(small, given, SMALL, parts=tmp_path, jobs=1)
    assert len(found) == 2 * (1 + 4)
    judged = protocols.judge_added(found).set_index("embedding")
    assert judged.loc["io_mean", "mean"] > 0.05 > judged.loc["arch2vec", "mean"]
    alone = found[found["embedding"] == ""].set_index("draw")["kendall"]
    of_first = found[(found["embedding"] == "io_mean") & (found["training_seed"] == 1)]
    gain = (of_first.set_index("draw")["kendall"] - alone).mean()
    both = judged.loc["io_mean", ["low", "high"]].mean()
    assert both == pytest.approx(judged.loc["io_mean", "mean"])
    assert abs(gain - both) < 0.1
    nothing = protocols.score_added(small, None, SMALL, parts=tmp_path, jobs=1)
    assert set(nothing["embedding"]) == {""}
    judged = protocols.judge_added(nothing)
    assert judged["mean"].isna().all()
    assert set(judged["holds"]) == {None}
    with pytest.raises(ValueError, match="'io_mean_seed1' has shape"):
        protocols.score_added(small, {"io_mean_seed1": answer[1:]}, SMALL, parts=tmp_path)


def test_predictors_are_judged_by_differences_within_a_draw():
    luck = [0.0, 0.2, 0.4]  # of a draw, larger than any difference
    rows = [
        {"protocol": protocol, "sample": sample, "predictor": name, "size": 20, "draw": draw,
         "kendall": base + luck[draw], "pearson": base + luck[draw] + gain, "failed": 2}
        for protocol, sample, gain in (
            ("rank", "random", 0), ("value", "random", 0), ("value", "random, passed", 0.1),
        )
        for name, base in ((protocols.PLAIN, 0.1), (protocols.FOREST, 0.2), (protocols.GATED, 0.3))
        for draw in range(3)
    ]  # fmt: skip
    rows.append(rows[0] | {"predictor": "LSTM, sequence", "kendall": 9.0})  # a single lucky draw
    scores = pd.DataFrame(rows)
    structure = protocols.judge_structure(scores)
    assert structure["mean"].tolist() == pytest.approx([0.1])
    assert all_hold(structure["holds"])
    failed = protocols.judge_failed(scores)
    assert failed["mean"].tolist() == pytest.approx([0.1] * 3)
    assert all_hold(failed["holds"])
    none = scores.assign(failed=np.where(scores["draw"] == 0, 0, 2))
    none.loc[none["draw"] == 0, "pearson"] = 0.5  # the same with and without failed cells: none
    assert protocols.judge_failed(none)["mean"].tolist() == pytest.approx([0.1] * 3)
    assert protocols.judge_failed(none)["seeds"].tolist() == [2] * 3


def test_the_best_is_among_those_with_all_draws():
    rows = [
        {"protocol": "rank", "predictor": name, "size": 20, "draw": draw, "kendall": tau + draw / 9}
        for name, tau, draws in zip(
            protocols.ORDER, np.linspace(0, 0.8, 9), [3] * 8 + [1], strict=True
        )
        for draw in range(draws)
    ]
    best, judged = protocols.judge_best(pd.DataFrame(rows), 20)
    assert best == protocols.ORDER[-2]
    assert len(judged) == len(protocols.ORDER) - 1
    assert judged.set_index("part")["holds"][protocols.AVERAGE] is None  # a single draw
    assert judged.iloc[:-1]["holds"].all()


def test_published_figures_name_their_source():
    found = published_predictors()
    table = found.pivot(index="predictor", columns="size", values="mean")
    assert table.loc["PINAT"].tolist() == [0.679, 0.715, 0.772, 0.846]
    assert set(found["source"]) == set(found.attrs["sources"])
    assert found["mean"].between(0, 1).all()
