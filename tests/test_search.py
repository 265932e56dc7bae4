"""REINFORCE against a slow single-run reference in plain PyTorch, and the rules of a search."""

import numpy as np
import pandas as pd
import pytest
import torch

from ionas.benchmark.table import Table
from ionas.space.cells import enumerate_cells
from ionas.tasks.reinforce import (
    LEAST_ROWS,
    _generator,
    _initial_policy,
    _nearest,
    above,
    alike,
    compare,
    curves,
    default_baseline,
    default_budget,
    effort,
    final_regret,
    judged,
    of_training,
    random_search,
    reinforce,
    trainings,
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
def embedding(table):
    return np.random.default_rng(1).normal(size=(len(table), 6)).astype(np.float32)


def slow_reference(embedding, table, run, seed, budget, baseline, episode, hidden, rate):
    """One run with torch's own LSTM cell, distances in a loop, and a policy of its own."""
    generator = _generator(seed, run)
    width = embedding.shape[1]
    weights = _initial_policy(width, hidden, generator)
    lstm, dense = torch.nn.LSTMCell(width, hidden), torch.nn.Linear(hidden, width)
    with torch.no_grad():
        lstm.weight_ih.copy_(weights.input)
        lstm.weight_hh.copy_(weights.hidden)
        lstm.bias_ih.copy_(weights.bias)
        lstm.bias_hh.zero_()
        dense.weight.copy_(weights.output)
        dense.bias.copy_(weights.output_bias)
    optimizer = torch.optim.Adam([*lstm.parameters(), *dense.parameters()], lr=rate)
    here = int(torch.randint(len(table), (1,), generator=generator))
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
            spent += table.frame["training_time"][here]
            if spent >= budget or len(visited) == len(table):
                return path
            log_p = torch.distributions.Normal(mean, 1.0).log_prob(sample).mean()
            losses.append(-log_p * (table.frame["validation_accuracy"][here] - baseline))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()


def test_agrees_with_the_slow_reference(embedding, table):
    settings = {"budget": 70.0, "baseline": 0.8, "seed": 3, "episode": 4, "hidden": 8}
    found = reinforce(embedding, table, runs=3, learning_rate=0.05, **settings)
    for run in range(3):
        path = slow_reference(embedding, table, run, 3, 70.0, 0.8, 4, 8, 0.05)
        assert found[found["run"] == run]["cell"].tolist() == path
        assert len(path) > 12  # several updates


def test_the_nearest_unvisited_point_over_many_blocks():
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
    for width in (50, 20, 7, 1):
        blocks = [block.T.contiguous() for block in points.split(width)]
        assert _nearest(samples, blocks, offsets).tolist() == expected
        for few in (1, 3, 8):  # rows beside them change nothing
            rows = slice(0, max(few, LEAST_ROWS))
            assert _nearest(samples[:few], blocks, offsets[rows]).tolist() == expected[:few]


def test_equal_points_are_visited_in_their_order():
    """Also where a few runs, whose products are rounded otherwise, would tell them apart."""
    points = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).repeat(300, 1)
    samples = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    offsets = (points.square().sum(1) / 2).repeat(9, 1)
    offsets[:, :5] = torch.inf
    blocks = [block.T.contiguous() for block in points.split(128)]
    for runs in (1, 2, 9):
        found = _nearest(samples[:runs], blocks, offsets[: max(runs, LEAST_ROWS)])
        assert found.tolist() == [5] * runs


def test_a_run_does_not_depend_on_those_beside_it(embedding, table):
    few, many = (reinforce(embedding, table, runs=r, budget=60.0, seed=5) for r in (2, 7))
    pd.testing.assert_frame_equal(few, many[many["run"] < 2].reset_index(drop=True))
    assert few[few["run"] == 0]["cell"].tolist() != few[few["run"] == 1]["cell"].tolist()


@pytest.mark.parametrize("search", ["reinforce", "random"])
def test_no_cell_twice_budget_kept_and_seeded(embedding, table, search):
    def go(seed):
        if search == "random":
            return random_search(table, runs=5, budget=50.0, seed=seed)
        return reinforce(embedding, table, runs=5, budget=50.0, seed=seed, hidden=16)

    found = go(1)
    assert not found.duplicated(["run", "cell"]).any()
    for _, group in found.groupby("run"):
        assert group["time"].iloc[-1] >= 50 > group["time"].iloc[-2]
    pd.testing.assert_frame_equal(found, go(1))
    assert not found["cell"].head(10).equals(go(2)["cell"].head(10))


def test_a_run_ends_when_every_cell_is_visited(embedding, table):
    found = reinforce(embedding, table, runs=2, budget=1e9, hidden=8)
    assert found.groupby("run")["cell"].nunique().tolist() == [len(table) - 1] * 2
    everything = random_search(table, runs=2, budget=1e9)
    assert everything.groupby("run")["cell"].nunique().tolist() == [len(table)] * 2


def test_unknown_cells_are_never_visited(embedding, table):
    frame = table.frame.copy()
    frame.loc[frame.index % 3 == 0, "validation_accuracy"] = np.nan
    frame.loc[frame.index % 5 == 0, "training_time"] = np.nan
    part = Table(table.cells, frame, {})
    known = set(np.flatnonzero((frame.index % 3 != 0) & (frame.index % 5 != 0)))
    assert set(reinforce(embedding, part, runs=3, budget=60.0, hidden=8)["cell"]) <= known
    assert set(random_search(part, runs=3, budget=1e9)["cell"]) == known


def test_comparison_in_processes_and_its_curves(embedding, table, monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    settings = {"runs": 4, "budget": 40.0, "seed": 1, "hidden": 8}
    one, two = (
        compare({"io_mean": embedding, "arch2vec": -embedding}, table, jobs=jobs, **settings)
        for jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)
    alone = reinforce(embedding, table, **settings)
    rows = one[one["embedding"] == "io_mean"].drop(columns="embedding").reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone)
    found = curves(one, table, 40.0, {"io_mean": 20.0}, points=8)
    late = found[(found["embedding"] == "io_mean") & (found["time"] <= 20)]
    assert late["mean"].isna().all()
    final = final_regret(found)
    assert sorted(final.index) == ["arch2vec", "io_mean", "random"]
    assert final["mean"].between(0, 1).all()
    assert alike(final, ["random"], "random") == ["random"]
    counts = effort(one)
    expected = (one["embedding"] == "random").sum() / 4
    assert counts.loc["random", "evaluations per run"] == pytest.approx(expected, abs=0.051)
    assert (counts["different cells"] <= len(table)).all()


def test_verdicts_by_hand():
    final = pd.DataFrame({"low": [0.0, 0.2, 0.09], "high": [0.1, 0.3, 0.2]}, index=list("abc"))
    assert alike(final, ["b", "c"], "a") == ["c"]
    assert above(final, ["b", "c"], "a") == ["b"]


def test_embeddings_of_one_training():
    stored = {"io_mean_seed1": 1, "io_mean_seed12": 2, "latent_seed1": 3, "arch2vec_seed1": 4}
    assert of_training(stored, 1) == {"arch2vec": 4, "io_mean": 1}
    with pytest.raises(ValueError, match="there are: 1, 12"):
        of_training(stored, 2)
    assert trainings(stored) == [1, 12]


def test_trainings_are_judged_one_by_one():
    index = ["arch2vec_original", "io_mean", "random"]
    intervals = pd.DataFrame(
        {"mean": [2.0, 2.5, 5], "low": [1.0, 2, 4], "high": [3.0, 3, 6]}, index=index
    )
    other = intervals.copy()
    other.loc["io_mean"] = [0.5, 0.2, 0.9]
    found = judged({1: intervals, 2: other})
    assert found[1].to_dict() == {"io_mean": "same", "random": "worse"}
    assert found[2].to_dict() == {"io_mean": "better", "random": "worse"}
    other.loc["random"] = np.nan
    assert judged({1: other})[1].to_dict() == {"io_mean": "better", "random": "unknown"}
    other.loc["arch2vec_original"] = np.nan
    assert set(judged({1: other})[1]) == {"unknown"}


def test_defaults_follow_the_table(table):
    assert default_budget(table, 10) == pytest.approx(10 * table.frame["training_time"].mean())
    frame = table.frame.assign(validation_accuracy=np.linspace(0.5, 0.9505, len(table)))
    assert default_baseline(Table(table.cells, frame, {})) == 0.95


def test_bad_input_is_named(embedding, table):
    with pytest.raises(ValueError, match="embed every cell"):
        reinforce(embedding[:5], table)
    with pytest.raises(ValueError, match="not finite"):
        reinforce(np.full_like(embedding, np.nan), table)
    empty = Table(table.cells, table.frame.assign(training_time=np.nan), {})
    with pytest.raises(ValueError, match="both a validation accuracy and a training time"):
        random_search(empty)
