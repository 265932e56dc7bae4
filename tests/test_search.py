"""REINFORCE against a slow single-run reference in plain PyTorch, and the rules of a search."""

import numpy as np
import pandas as pd
import pytest
import torch

from ionas.benchmark.table import Table
from ionas.parameters import Reinforce
from ionas.space.cells import enumerate_cells
from ionas.tasks import regret
from ionas.tasks import reinforce as search
from ionas.tasks.clock import improvements, with_cost
from ionas.tasks.reinforce import (
    LEAST_ROWS,
    Policies,
    _generator,
    backward,
    forward,
    initial_policy,
    nearest,
    random_search,
    reinforce,
    search_all,
)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    cells = enumerate_cells(4)
    validation = rng.uniform(0.5, 0.95, len(cells))
    frame = pd.DataFrame(
        {
            "validation_accuracy": validation,
            "test_accuracy": validation - rng.uniform(0, 0.05, len(cells)),
            "training_time": rng.uniform(1, 3, len(cells)),
        }
    )
    return Table(cells, frame, {"name": "made"})


@pytest.fixture(scope="module")
def measured(table):
    return with_cost(table)


@pytest.fixture(scope="module")
def embedding(table):
    return np.random.default_rng(1).normal(size=(len(table), 6)).astype(np.float32)


def slow_reference(embedding, measured, run, seed, budget, baseline, episode, hidden, rate):
    """One run with torch's own LSTM cell, distances in a loop, and a policy of its own."""
    generator = _generator(seed, run)
    width = embedding.shape[1]
    weights = initial_policy(width, hidden, generator)
    lstm, dense = torch.nn.LSTMCell(width, hidden), torch.nn.Linear(hidden, width)
    with torch.no_grad():
        lstm.weight_ih.copy_(weights.input)
        lstm.weight_hh.copy_(weights.hidden)
        lstm.bias_ih.copy_(weights.bias)
        lstm.bias_hh.zero_()
        dense.weight.copy_(weights.output)
        dense.bias.copy_(weights.output_bias)
    optimizer = torch.optim.Adam([*lstm.parameters(), *dense.parameters()], lr=rate)
    here = int(torch.randint(len(measured), (1,), generator=generator))
    visited, spent, path = {here}, 0.0, []
    while True:
        noise = torch.randn(episode, width, generator=generator)
        state, losses = None, []
        for step in range(episode):
            state = lstm(torch.from_numpy(embedding[here : here + 1]), state)
            mean = dense(state[0])[0]
            sample = mean.detach() + noise[step]
            distances = {
                index: float(((sample.double() - torch.from_numpy(row).double()) ** 2).sum())
                for index, row in enumerate(embedding)
                if index not in visited
            }
            here = min(distances, key=distances.__getitem__)
            visited.add(here)
            path.append(here)
            spent += measured["cost"][here]
            if spent >= budget or len(visited) == len(measured):
                return path
            log_p = torch.distributions.Normal(mean, 1.0).log_prob(sample).sum()
            losses.append(-log_p * (measured["validation_accuracy"][here] - baseline))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()


def test_agrees_with_the_slow_reference(embedding, measured):
    settings = {"budget": 70.0, "baseline": 0.8, "seed": 3, "episode": 4, "hidden": 8}
    found = reinforce(embedding, measured, runs=3, learning_rate=0.05, **settings)
    for run in range(3):
        path = slow_reference(embedding, measured, run, 3, 70.0, 0.8, 4, 8, 0.05)
        assert found[found["run"] == run]["cell"].tolist() == path
        assert len(path) > 12  # several updates


def test_gradients_are_those_of_autograd_through_torchs_own_cell():
    """Three policies, an episode of five steps, in double precision."""
    runs, width, hidden, length = 3, 4, 6, 5
    generator = torch.Generator().manual_seed(0)
    cells = [torch.nn.LSTMCell(width, hidden).double() for _ in range(runs)]
    heads = [torch.nn.Linear(hidden, width).double() for _ in range(runs)]
    policies = Policies(
        torch.stack([cell.weight_ih.T for cell in cells]).detach(),
        torch.stack([cell.weight_hh.T for cell in cells]).detach(),
        torch.stack([cell.bias_ih + cell.bias_hh for cell in cells]).detach(),
        torch.stack([head.weight.T for head in heads]).detach(),
        torch.stack([head.bias for head in heads]).detach(),
    )
    inputs, grads = (
        torch.randn(length, runs, width, generator=generator, dtype=torch.float64) for _ in "ab"
    )
    state = (torch.zeros(runs, hidden, dtype=torch.float64),) * 2
    steps = []
    for x in inputs:
        mean, step, cell = forward(policies, x, state)
        state = (step.output, cell)
        steps.append(step)
    found = backward(policies, steps, list(grads))
    for run, (cell, head) in enumerate(zip(cells, heads, strict=True)):
        own, loss = None, 0
        for x, grad in zip(inputs[:, run], grads[:, run], strict=True):
            own = cell(x[None], own)
            loss = loss + (head(own[0])[0] * grad).sum()
        loss.backward()
        expected = Policies(
            cell.weight_ih.grad.T, cell.weight_hh.grad.T, cell.bias_ih.grad, head.weight.grad.T,
            head.bias.grad,
        )  # fmt: skip
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[run], theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mean[-1], head(own[0])[0].detach(), rtol=1e-9, atol=1e-12)


def test_the_nearest_unvisited_point():
    rng = np.random.default_rng(0)
    points, samples = rng.normal(size=(50, 3)), rng.normal(size=(9, 3))
    visited = rng.random((9, 50)) < 0.7
    expected = [
        min(np.flatnonzero(~visited[r]), key=lambda n: np.linalg.norm(points[n] - samples[r]))
        for r in range(9)
    ]
    points, samples = torch.tensor(points).float(), torch.tensor(samples).float()
    offsets = (points.square().sum(1) / 2).repeat(9, 1)
    offsets[torch.tensor(visited)] = torch.inf
    for few in (1, 3, 8, 9):  # rows beside them change nothing
        rows = offsets[: max(few, LEAST_ROWS)]
        found = nearest(samples[:few], points.T.contiguous(), rows, torch.empty_like(rows))
        assert found.tolist() == expected[:few]


def test_equal_points_are_visited_in_their_order():
    """Also where a few runs, whose products are rounded otherwise, would tell them apart."""
    points = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).repeat(300, 1)
    samples = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    offsets = (points.square().sum(1) / 2).repeat(9, 1)
    offsets[:, :5] = torch.inf
    for runs in (1, 2, 9):
        rows = offsets[: max(runs, LEAST_ROWS)]
        found = nearest(samples[:runs], points.T.contiguous(), rows, torch.empty_like(rows))
        assert found.tolist() == [5] * runs


GIVEN = {"budget": 50.0, "baseline": 0.9, "hidden": 16}


def test_a_run_does_not_depend_on_those_beside_it(embedding, measured):
    one, few, many = (reinforce(embedding, measured, runs=r, seed=5, **GIVEN) for r in (1, 2, 7))
    pd.testing.assert_frame_equal(few, many[many["run"] < 2].reset_index(drop=True))
    pd.testing.assert_frame_equal(one, many[many["run"] < 1].reset_index(drop=True))
    assert few[few["run"] == 0]["cell"].tolist() != few[few["run"] == 1]["cell"].tolist()


@pytest.mark.parametrize("kind", ["reinforce", "random"])
def test_no_cell_twice_budget_kept_and_seeded(embedding, measured, kind):
    def go(seed):
        if kind == "random":
            return random_search(measured, 50.0, runs=5, seed=seed)
        return reinforce(embedding, measured, runs=5, seed=seed, **GIVEN)

    found = go(1)
    assert not found.duplicated(["run", "cell"]).any()
    for _, group in found.groupby("run"):
        assert group["time"].iloc[-1] >= 50 > group["time"].iloc[-2]
    pd.testing.assert_frame_equal(found, go(1))
    assert not found["cell"].head(10).equals(go(2)["cell"].head(10))


def test_a_run_ends_when_every_cell_is_visited(embedding, measured):
    found = reinforce(embedding, measured, runs=2, **{**GIVEN, "budget": 1e9})
    assert found.groupby("run")["cell"].nunique().tolist() == [len(measured) - 1] * 2
    everything = random_search(measured, 1e9, runs=2)
    assert everything.groupby("run")["cell"].nunique().tolist() == [len(measured)] * 2


def test_unknown_cells_are_never_visited(embedding, measured):
    part = measured.copy()
    part.loc[part.index % 3 == 0, "validation_accuracy"] = np.nan
    part.loc[part.index % 5 == 0, "cost"] = np.nan
    known = set(np.flatnonzero((part.index % 3 != 0) & (part.index % 5 != 0)))
    assert set(reinforce(embedding, part, runs=3, **GIVEN)["cell"]) <= known
    assert set(random_search(part, 1e9, runs=3)["cell"]) == known


@pytest.fixture
def stored(embedding):
    names = ("io_mean", "io_flatten", "accuracy_mean", "accuracy_flatten", "arch2vec")
    trained = {
        f"{name}_seed{seed}": np.roll(embedding, place + 7 * seed, 0)
        for seed in (1, 2)
        for place, name in enumerate((*names, "arch2vec_original"))
    }
    return {**trained, "latent_seed1": np.zeros((len(embedding), 70))}


P = Reinforce(runs=4, budget=30.0, hidden=8, episode=4, seed=1)
SPLIT = pd.DataFrame({"index": range(10), "labeled": ["train"] * 6 + ["validation"] * 4})


def searched(table, stored, parts, jobs=1):
    return search_all(
        table, stored, search.setting(table, SPLIT, SPLIT[2:], P), P, parts=parts, jobs=jobs
    )


def test_all_searches_are_those_alone_and_go_on(table, measured, stored, tmp_path, monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    stored = {name: stored[name] for name in ("io_mean_seed1", "io_mean_seed2", "latent_seed1")}
    first = searched(table, stored, tmp_path / "a")
    searches = first[["embedding", "training_seed"]].drop_duplicates()
    assert searches["embedding"].tolist() == ["io_mean", "io_mean", "random"]
    assert searches["training_seed"].tolist() == [1, 2, pd.NA]
    alone = improvements(reinforce(stored["io_mean_seed2"], measured, 30.0, 0.94, 4, 1, 4, 8))
    rows = first[first["training_seed"].eq(2).fillna(False)]
    pd.testing.assert_frame_equal(rows[list(alone)].reset_index(drop=True), alone)
    by_chance = improvements(random_search(measured, 30.0, 4, 1))
    rows = first[first["embedding"] == "random"]
    pd.testing.assert_frame_equal(rows[list(by_chance)].reset_index(drop=True), by_chance)
    two = searched(table, stored, tmp_path / "b", 2)
    pd.testing.assert_frame_equal(first, two)

    left = sorted((tmp_path / "a").iterdir())
    assert len(left) == 3 * 2  # parts and their hashes, no inputs
    left[0].write_bytes(b"{}")  # damaged: made again
    made = []
    real = search._search
    monkeypatch.setattr(search, "_search", lambda *given: made.append(given) or real(*given))
    pd.testing.assert_frame_equal(searched(table, stored, tmp_path / "a"), first)
    assert len(made) == 1
    more = {**stored, "io_mean_seed3": np.roll(stored["io_mean_seed1"], 1, 0)}
    kept = searched(table, more, tmp_path / "a")  # another training: the others hold
    assert len(made) == 2
    pd.testing.assert_frame_equal(kept[kept["training_seed"] != 3].dropna(), first.dropna())


def test_curves_and_findings(table, stored, tmp_path, monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    given = search.setting(table, SPLIT, SPLIT[2:], P)
    times = table.frame["training_time"]
    assert given["label_cost"] == pytest.approx(
        {"io": times[2:6].sum(), "accuracy": times[:6].sum()}
    )
    assert (given["cells"], given["budget"], given["time_unit"]) == (len(table), 30, "seconds")
    walks = searched(table, stored, tmp_path)
    assert len(walks) <= 13 * 4 * 12
    effort = regret.effort(walks)
    assert len(effort) == 13
    assert effort["queries"].between(30 / 3, 30).all()
    monkeypatch.setattr(regret, "POINTS", 8)
    found = regret.curves(walks, given, seed=1)
    shifted = found[found["shifted"] & (found["training"] == "all") & (found["metric"] == "test")]
    begins = shifted.dropna().groupby("embedding")["time"].min()
    for name, begin in begins.items():
        labels = given["label_cost"].get(name.partition("_")[0], 0)
        assert begin >= labels
        if labels == 0:  # neither arch2vec pays for labels, nor does random search
            assert begin == shifted["time"].min()
    differences = regret.differences(found)
    assert differences.groupby("embedding").size().eq(2).all()
    assert {"random", "io_mean"} < set(differences["embedding"])
    judged, _ = regret.findings(found)
    assert judged["part"].tolist() == [
        "{io_mean}", "{accuracy_mean}", "{arch2vec}", "{io_flatten}", "{accuracy_flatten}",
    ]  # fmt: skip
    assert set(judged["holds"]) <= {True, False, None}


def curves_of(regrets):
    """Curves of one time with the given test regrets of (embedding, training)."""
    rows = [
        {"embedding": name, "training": training, "time": 1.0, "metric": "test", "mean": value,
         "low": value, "high": value, "shifted": False}
        for name, values in regrets.items()
        for training, value in zip(("all", "1", "2", "3"), [np.mean(values), *values], strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_findings_by_hand():
    regrets = {
        "arch2vec_original": [1.0, 2.0, 3.0],  # trainings differ much, differences little
        "io_mean": [1.01, 2.0, 2.99],
        "accuracy_mean": [1.0, 2.01, 3.01],
        "arch2vec": [2.0, 3.1, 3.9],
        "io_flatten": [1.0, 2.9, 2.0],
        "accuracy_flatten": [0.5, 1.5, 2.5],
    }
    judged, margin = regret.findings(curves_of(regrets))
    assert margin == 0.2
    judged = judged.set_index("part")
    assert judged.loc["{arch2vec}", "mean"] == pytest.approx(1)
    assert judged["holds"].to_dict() == {
        "{io_mean}": True, "{accuracy_mean}": True, "{arch2vec}": True, "{io_flatten}": None,
        "{accuracy_flatten}": False,
    }  # fmt: skip
    few, _ = regret.findings(curves_of({k: v for k, v in regrets.items() if k != "io_mean"}))
    assert few.set_index("part").loc["{io_mean}", "holds"] is None


def test_defaults_follow_the_table(table):
    best = table.frame.assign(validation_accuracy=np.linspace(0.5, 0.9505, len(table)))
    space = Table(table.cells, best, {})
    given = search.setting(space, SPLIT, SPLIT, Reinforce())
    assert given["baseline"] == 0.95
    assert given["budget"] == pytest.approx(300 * table.frame["training_time"].mean())


def test_bad_input_is_named(embedding, measured, table, tmp_path):
    with pytest.raises(ValueError, match="embed every cell"):
        reinforce(embedding[:5], measured, **GIVEN)
    with pytest.raises(ValueError, match="not finite"):
        searched(table, {"io_mean_seed1": np.full_like(embedding, np.nan)}, tmp_path)
