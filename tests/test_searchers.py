"""Neighbors against brute force; search methods against plain loops, and the rules of a search."""

from collections import deque
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, wilcoxon

from ionas import plots
from ionas.benchmark.table import Table
from ionas.book.checks import check
from ionas.paper import published_searches
from ionas.parameters import SearchMethods, SearchSpace
from ionas.space import InvalidCell
from ionas.space import neighbors as near
from ionas.space.cells import Cell, CellSet, enumerate_cells
from ionas.space.encodings import structure
from ionas.space.nasbench201 import OPERATIONS
from ionas.tasks import search_runs, search_scores
from ionas.tasks import searchers as s
from ionas.tasks.regret import regret_at

FIVE = 5


@pytest.fixture(scope="module")
def cells():
    return enumerate_cells(FIVE)


@pytest.fixture(scope="module")
def table():
    """All cells of at most four vertices, with accuracies that neighbors share in part."""
    rng, cells = np.random.default_rng(0), enumerate_cells(4)
    size = cells.adjacency.sum((1, 2)) + (cells.operations == 2).sum(1)
    validation = 0.5 + 0.04 * size + rng.uniform(0, 0.05, len(cells))
    frame = pd.DataFrame(
        {
            "validation_accuracy": validation,
            "test_accuracy": validation - rng.uniform(0, 0.05, len(cells)),
            "training_time": rng.uniform(1, 3, len(cells)),
        }
    )
    return Table(cells, frame, {"name": "made"})


P = SearchMethods(runs=3, budget=40, initial=6, batch=5, jobs=1)


@pytest.fixture(scope="module")
def around(table):
    return search_runs.find_neighbors(table, "time")


@pytest.fixture(scope="module")
def task(table, around):
    inputs = s.scaled(structure(table.cells), columns=True)
    return s.Task(around["starts"], around["ends"], inputs, P.initial, P.batch)


def edited(cell):
    """Every cell that one edit of a cell makes, by its definition: any edge, in any direction."""
    n, matrix = cell.n_vertices, np.array(cell.adjacency)
    graphs = []
    for u in range(n - 1):
        for v in range(1, n):
            if u != v and (u > 0 or v > 0):
                changed = matrix.copy()
                changed[u, v] ^= 1
                graphs.append((changed, cell.operations))
    for v in range(1, n - 1):
        for name in set(cell.space.inner) - {cell.operations[v]}:
            graphs.append((matrix, (*cell.operations[:v], name, *cell.operations[v + 1 :])))
    for edges, names in graphs:
        order = sorted_vertices(edges)
        if order is None:
            continue
        try:
            yield Cell(edges[np.ix_(order, order)], [names[v] for v in order])
        except InvalidCell:
            continue


def sorted_vertices(edges):
    """Vertices in an order that no edge goes back in, output last; None where there is a circle."""
    left, order = list(range(len(edges))), []
    while left:
        free = [v for v in left if not edges[left, v].any()]
        if not free:
            return None
        order.append(free[0])
        left.remove(free[0])
    order.remove(len(edges) - 1)
    return [*order, len(edges) - 1]


@pytest.mark.parametrize("vertices", [4, 5])
def test_neighbors_are_those_of_a_plain_loop_that_hashes_every_edit(vertices, monkeypatch):
    monkeypatch.setattr(near, "FEWEST", 0)
    cells = enumerate_cells(vertices)
    place = {name: row for row, name in enumerate(cells.hashes.tolist())}
    some = range(0, len(cells), 1 if vertices == 4 else 29)
    made = {row: [cell.hash for cell in edited(cells[row])] for row in some}
    wanted = {(row, place[name]) for row, names in made.items() for name in names} - {
        (row, row) for row in some
    }
    found, edits = near.neighbors(cells)
    assert edits == 1
    rows, columns = found.nonzero()
    pairs = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert pairs == {(b, a) for a, b in pairs}
    assert wanted <= pairs
    if vertices == 4:
        assert pairs == wanted | {(b, a) for a, b in wanted}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2531), st.randoms(use_true_random=False))
def test_the_order_of_the_vertices_does_not_change_the_edits_of_a_cell(row, random):
    cell = enumerate_cells(FIVE)[row]
    matrix, left, order = np.array(cell.adjacency), set(range(cell.n_vertices)), []
    while left:  # a random order in which no edge goes back
        free = [v for v in left if not matrix[sorted(left), v].any()]
        free = [v for v in free if v != cell.n_vertices - 1 or len(left) == 1]
        order.append(random.choice(sorted(free)))
        left.remove(order[-1])
    other = Cell(matrix[np.ix_(order, order)], [cell.operations[v] for v in order])
    one, two = (near.edits(CellSet.from_cells([given]))[1] for given in (cell, other))
    assert set(one.hashes) == set(two.hashes)
    assert one.valid().all()


def test_with_few_cells_two_edits_that_prune_nothing_join_two_cells(cells):
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(cells))[:120])
    few = cells[rows]
    found, edits = near.neighbors(few)
    assert edits == 2
    one = {row: {cell.hash for cell in edited(few[row])} for row in range(len(few))}
    kept = {
        row: {c.hash for c in edited(few[row]) if c.n_vertices == few[row].n_vertices}
        | {few[row].hash}
        for row in range(len(few))
    }
    for a in range(len(few)):
        for b in range(a):
            joined = few.hashes[a] in one[b] or few.hashes[b] in one[a] or kept[a] & kept[b]
            assert found[[a], [b]][0] == bool(joined)


def test_cells_of_nasbench201_differ_in_one_operation():
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 6, (40, 6))
    names = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*np.array(OPERATIONS)[c]) for c in codes]
    rows, found = near.edits(CellSet.from_architectures(names))
    assert len(rows) == 40 * 6 * 4
    assert ((found.operations[:, 1:-1] != codes[rows]).sum(1) == 1).all()


@pytest.mark.parametrize("name", s.METHODS)
def test_a_method_keeps_to_the_budget_and_repeats_no_query(name, table, task):
    accuracy = table.values("validation_accuracy")
    for run in range(3):
        cells = s.search(s.METHODS[name], accuracy, task, 40, 7, run)
        assert len(cells) == len(set(cells.tolist())) == 40
        first = np.random.default_rng([7, run]).permutation(len(table))[: task.initial]
        assert cells[: task.initial].tolist() == first.tolist()
        assert cells.tolist() == s.search(s.METHODS[name], accuracy, task, 40, 7, run).tolist()


@pytest.mark.parametrize("name", s.METHODS)
def test_a_budget_of_all_cells_finds_the_optimum(name, table, task):
    accuracy = table.values("validation_accuracy")
    cells = s.search(s.METHODS[name], accuracy, task, 10**6, 1, 0)
    assert sorted(cells.tolist()) == list(range(len(table)))


def test_a_method_that_repeats_a_query_is_refused(task):
    def stuck(seen, task, rng):
        while True:
            yield np.array([next(iter(seen))])

    with pytest.raises(ValueError, match="was queried before"):
        s.search(stuck, np.ones(91), task, 20, 1, 0)


def test_evolution_is_the_loop_of_the_paper(table, task):
    """Algorithm 1 of Real et al. 2019, with this house's mutation and the same random numbers."""
    accuracy = table.values("validation_accuracy")
    rng = np.random.default_rng([3, 0])
    first = rng.permutation(len(table))[: task.initial].tolist()
    population, history = deque(), {}
    for cell in first:
        population.append((cell, accuracy[cell]))
        history[cell] = accuracy[cell]
    while len(history) < 80:
        places = rng.integers(0, len(population), s.TOURNAMENT)
        sample = [population[place] for place in places]
        parent = max(sample, key=lambda member: member[1])
        child = s.mutate(parent[0], history, task, rng)
        history[child] = accuracy[child]
        population.append((child, accuracy[child]))
        while len(population) > s.POPULATION:
            population.popleft()  # dead: the oldest
    assert s.search(s.evolution, accuracy, task, 80, 3, 0).tolist() == list(history)


def test_local_search_asks_for_all_neighbors_and_leaves_only_a_local_optimum(table, task):
    accuracy, restarts = table.values("validation_accuracy"), 0
    left = deque(s.search(s.local_search, accuracy, task, len(table), 1, 0).tolist())
    seen = start = {left.popleft() for _ in range(task.initial)}
    here = max(start, key=accuracy.__getitem__)
    while left:
        around = set(task.near(here))
        asked = {left.popleft() for _ in range(len(around - seen))}
        assert asked == around - seen
        seen = seen | asked
        better = max(around, key=accuracy.__getitem__)
        if accuracy[better] > accuracy[here]:
            here = better
            continue
        assert all(accuracy[cell] <= accuracy[here] for cell in around)
        start = {left.popleft() for _ in range(min(task.initial, len(left)))}
        here, seen, restarts = (
            max(start, key=accuracy.__getitem__, default=here),
            seen | start,
            restarts + 1,
        )
    assert restarts > 1


def test_expected_improvement_by_hand_and_by_sampling():
    mean, deviation = np.array([0.0, 1.0, -1.0]), np.array([1.0, 0.1, 3.0])
    rng = np.random.default_rng(0)
    found = s.expected_improvement(mean, deviation, 0.5, rng)
    z = -0.5
    assert found[0] == pytest.approx(z * norm.cdf(z) + norm.pdf(z))
    draws = mean + deviation * rng.standard_normal((400_000, 3))
    assert found == pytest.approx(np.maximum(draws - 0.5, 0).mean(0), rel=0.02)


def test_the_posterior_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    x, y, others = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=(5, 3))
    process = s.Process(x, y)
    assert process.length in s.LENGTHS
    assert process.noise in s.NOISES

    def kernel(a, b):
        d = np.sqrt(5) * np.linalg.norm(a[:, None] - b, axis=2) / process.length
        return (1 + d + d**2 / 3) * np.exp(-d)

    inverse = np.linalg.inv(kernel(x, x) + process.noise * np.eye(12))
    center = y - y.mean()
    mean = y.mean() + kernel(others, x) @ inverse @ center
    signal = center @ inverse @ center / 12
    assert process.signal == pytest.approx(signal)
    left = 1 - np.einsum("mn,nk,mk->m", kernel(others, x), inverse, kernel(others, x))
    found = process(others, spread=True)
    assert found[0] == pytest.approx(mean, abs=1e-5)
    assert found[1] == pytest.approx(np.sqrt(signal * left), abs=1e-4)


def test_bayesian_optimisation_asks_for_the_argmax_of_the_acquisition():
    """Six cells on a line, three known: the acquisition is computed by scikit-learn's process."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    inputs = s.scaled(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]))
    seen = {0: 0.2, 2: 0.6, 4: 0.5}
    task = s.Task(np.zeros(7, int), np.zeros(0, int), inputs, 3, 1)
    bo, guided = (
        next(s.METHODS[n](seen, task, np.random.default_rng(0))) for n in ("bo", "guided")
    )
    y = s.targets(np.array(list(seen.values())))
    own = s.Process(inputs[[0, 2, 4]], y)
    noise = WhiteKernel(own.noise * own.signal)
    kernel = ConstantKernel(own.signal) * Matern(own.length, nu=2.5) + noise
    process = GaussianProcessRegressor(kernel, optimizer=None).fit(inputs[[0, 2, 4]], y - y.mean())
    mean, deviation = process.predict(inputs, return_std=True)
    deviation = np.sqrt(deviation**2 - noise.noise_level)  # theirs has the noise of a target
    z = (mean - mean[[0, 2, 4]].max()) / deviation
    wanted = deviation * (z * norm.cdf(z) + norm.pdf(z))
    assert bo == max([1, 3, 5], key=wanted.__getitem__)
    assert guided == max([1, 3, 5], key=mean.__getitem__)


def test_a_belief_discounts_a_lucky_training():
    """On a line the truth is smooth; one cell of the bad half was lucky and looks best."""
    inputs = s.scaled(np.linspace(0, 1, 30)[:, None])
    accuracy = 0.5 + 0.3 * np.linspace(0, 1, 30)
    accuracy[12] = 0.81
    cells = np.random.default_rng(0).permutation(30)
    found = s.believed(cells, accuracy, inputs, 5, 5)
    assert accuracy[cells].argmax() == list(cells).index(12)
    assert found[-1] > 20
    assert found[:5].tolist() == [
        cells[: k + 1][accuracy[cells[: k + 1]].argmax()] for k in range(5)
    ]


def test_targets_cut_the_tail_of_failed_cells():
    accuracy = np.r_[0.1, np.linspace(0.88, 0.94, 30)]
    found = s.targets(accuracy)
    assert np.argsort(found[1:], kind="stable").tolist() == list(range(30))
    assert found[0] == found.min() > -4
    assert (found.mean(), found.std()) == pytest.approx((0, 1))


def test_results_do_not_depend_on_the_number_of_processes(table, around, tmp_path):
    rng = np.random.default_rng(0)
    embeddings = {"io_flatten_seed1": rng.normal(size=(len(table), 4)).astype(np.float32)}
    p = P.model_copy(update={"runs": 2, "embedding_runs": 2, "budget": 18})
    one, two = (
        search_runs.search_all(table, around, embeddings, p, parts=tmp_path / str(jobs), jobs=jobs)
        for jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)
    assert set(one["search"]) == {*search_runs.UNTRAINED, search_runs.BELIEVED, "bo_io_flatten"}
    alone = search_runs.search_all(table, around, None, p, parts=tmp_path / "none", jobs=1)
    assert "bo_io_flatten" not in set(alone["search"])
    wrong = {"io_flatten_seed1": np.zeros((3, 4))}
    with pytest.raises(ValueError, match="embed every cell"):
        search_runs.search_all(table, around, wrong, p, parts=tmp_path, jobs=1)


def test_cells_without_values_are_never_searched(tmp_path):
    rng, cells = np.random.default_rng(0), enumerate_cells(4)
    frame = pd.DataFrame({name: rng.uniform(0.5, 0.9, 91) for name in ("validation_accuracy",
        "test_accuracy", "training_time")})  # fmt: skip
    frame.loc[::2, "validation_accuracy"] = np.nan
    table = Table(cells, frame, {"name": "half"})
    around = search_runs.find_neighbors(table, "time")
    assert around["cells"].tolist() == list(range(1, 91, 2))
    given = search_runs.setting(table, around, P)
    assert (given["cells"], given["searchable"], given["budget"]) == (91, 45, 40)
    walks = search_runs.search_all(table, around, None, P, parts=tmp_path, jobs=1)
    assert np.isfinite(walks[["time", "validation_regret", "best_regret"]]).all(axis=None)


def test_regrets_of_a_walk_by_hand():
    frame = pd.DataFrame(
        {"validation_accuracy": [0.7, 0.9, 0.8], "test_accuracy": [0.6, 0.65, 0.75]}
    )
    measured = frame.assign(cost=[1.0, 2.0, 4.0])
    walk = search_runs.followed(measured, np.array([[0, 1, 2]]))
    assert walk["query"].tolist() == [1, 2, 3]
    assert walk["time"].tolist() == [1, 3, 7]
    assert walk["test_regret"].tolist() == pytest.approx([0.15, 0.1, 0.1])
    assert walk["validation_regret"].tolist() == pytest.approx([0.2, 0, 0])
    assert walk["best_regret"].tolist() == pytest.approx([0.15, 0.1, 0])
    believed = search_runs.followed(measured, np.array([[0, 1, 2]]), np.array([[0, 0, 2]]))
    assert believed["query"].tolist() == [1, 2, 3]
    assert believed["test_regret"].tolist() == pytest.approx([0.15, 0.15, 0])


def test_the_share_of_runs_that_reach_a_target_by_hand():
    rows = [
        (0, 1, 2.0, 0.3),
        (0, 4, 8.0, 0.1),
        (1, 1, 3.0, 0.2),
        (1, 6, 9.0, 0.25),
        (2, 9, 1.0, 0.5),
    ]
    walks = pd.DataFrame(rows, columns=["run", "query", "time", "test_regret"])
    walks = walks.assign(search="random", training_seed=pd.array([pd.NA] * 5, "Int64"))
    found = search_scores.reached(walks, 0.2)
    assert found["query"].tolist() == [4, 1, np.inf]
    assert found["time"].tolist() == [8, 3, np.inf]
    chart = plots.time_to_target(found, 0.2, "s")
    steps = chart.axes[0].lines[0].get_xydata()
    assert steps.tolist() == [[0, 0], [1, pytest.approx(100 / 3)], [4, pytest.approx(200 / 3)],
                              [4, pytest.approx(200 / 3)]]  # fmt: skip
    assert "67% of the runs" in chart.alt


@pytest.fixture(scope="module")
def regrets():
    values = np.random.default_rng(0).normal([0.5, 0.4, 0.401], 0.01, (60, 3))
    return pd.DataFrame(values, columns=["random", "local", "guided"])


def ends_of(regrets):
    """Runs that end with these regrets, in no order."""
    rows = regrets.rename_axis("run").reset_index().melt("run", var_name="search")
    return rows.rename(columns={"value": "test_regret"}).sample(frac=1, random_state=0)


def test_pairs_of_runs_are_tested_and_adjusted_by_the_rule_of_holm(regrets):
    tests = search_scores.pair_tests(ends_of(regrets), list(regrets), 0)
    p = [wilcoxon(regrets[one], regrets[other]).pvalue for one, other in combinations(regrets, 2)]
    assert tests["p"].tolist() == pytest.approx(p)
    # The least is tripled, the next doubled; none is below one before it.
    first, second, third = sorted(p)
    wanted = np.maximum.accumulate([3 * first, 2 * second, third])
    assert sorted(tests["adjusted"]) == pytest.approx(wanted)
    assert tests["adjusted"].rank().tolist() == tests["p"].rank().tolist()
    assert tests["difference"][0] == pytest.approx((regrets["random"] - regrets["local"]).mean())
    equal = ends_of(pd.DataFrame({"local": [1.0, 2.0], "random": [1.0, 2.0]}))
    assert search_scores.pair_tests(equal, ["local", "random"], 0)["adjusted"].tolist() == [1]


def test_a_significant_difference_is_one_of_means():
    # Small losses in most runs and large gains in the others: the ranks differ, the means do not.
    few = np.where(np.arange(100) % 10 == 0, -0.9, 0.1) + np.linspace(0, 1e-3, 100)
    regrets = pd.DataFrame({"guided": 1 + few, "random": np.ones(100)})
    [test] = search_scores.pair_tests(ends_of(regrets), list(regrets), 0).itertuples()
    assert test.low < test.difference < test.high
    assert test.low < 0 < test.high
    assert test.adjusted < search_scores.SIGNIFICANT
    assert test.sign == 0


def test_verdicts_follow_the_significant_differences(regrets):
    tests = search_scores.pair_tests(ends_of(regrets), list(regrets), 0)
    found = search_scores.against(tests, "local", ["guided", "random"])
    assert found["sign"].tolist() == [0, 1]
    wanted = [(regrets[name] - regrets["local"]).mean() for name in ("guided", "random")]
    assert found["difference"].tolist() == pytest.approx(wanted)
    assert (found["low"] < found["difference"]).all()
    assert (found["difference"] < found["high"]).all()
    assert search_scores.all_positive(found["sign"]) is None
    assert search_scores.all_positive(found["sign"][1:]) is True
    assert search_scores.all_positive(-found["sign"]) is False
    assert search_scores.all_positive([]) is None


def test_two_sets_of_tests_agree_where_both_are_significant(regrets):
    tests = search_scores.pair_tests(ends_of(regrets), list(regrets), 0)
    turned = tests.assign(**-tests[["difference", "sign"]])
    unsure = tests.assign(sign=0.0)
    for other, sign, same in ((tests, 1, True), (turned, -1, False), (unsure, 0, True)):
        found = search_scores.same_order(tests, other)
        assert found[["one", "other"]].to_numpy().tolist() == [
            ["random", "local"],
            ["random", "guided"],
        ]
        assert set(found["sign"]) == {sign}
        assert set(found["same"]) == {same}
    assert search_scores.same_order(unsure, tests).empty


def test_curves_start_with_the_first_query_and_end_with_the_last(table, around, tmp_path):
    walks = search_runs.search_all(table, around, None, P, parts=tmp_path, jobs=1)
    curves = search_scores.curves(walks, 1)
    ends = search_scores.at_end(walks)
    summary = search_scores.end_table(ends, 1).set_index(["search", "metric"])["mean"]
    by_query = curves[curves["axis"] == "query"]
    last = by_query[by_query["at"] == P.budget].set_index("search")["mean"]
    for name in last.index:
        assert last[name] == pytest.approx(summary[name, "test"])
    of_random = walks[walks["search"] == "random"]
    first = regret_at(of_random.assign(time=of_random["query"]), np.array([1]), "test").mean()
    assert by_query.query("search == 'random' and at == 1")["mean"].item() == pytest.approx(first)
    assert (summary[:, "best"] <= summary[:, "test"] + 1e-12).all()
    chart = plots.search_methods(curves, "s", 0.01)
    assert "Local search" in chart.alt


def test_reinforce_joins_up_to_the_budget():
    regrets = ["validation_regret", "test_regret"]
    walks = pd.DataFrame({"search": ["random"], "training_seed": pd.array([pd.NA], "Int64")})
    walks = walks.assign(run=0, query=10, time=9.0, best_regret=0.0, **dict.fromkeys(regrets, 0.1))
    other = pd.DataFrame({"embedding": ["io_flatten", "io_flatten", "latent"], "step": [3, 10, 2]})
    other = other.assign(training_seed=1, run=0, time=1.0, **dict.fromkeys(regrets, 0.2))
    found = search_scores.joined(walks, other, ("io_flatten",))
    assert found["search"].tolist() == ["random", "reinforce_io_flatten"]
    assert found["query"].tolist() == [10, 4]
    assert search_scores.joined(walks, None, ("io_flatten",)) is walks


def test_embeddings_are_compared_within_their_training():
    rows = [
        (name, seed, run, value + 0.1 * seed)
        for seed in (1, 2, 3)
        for run in (0, 1)
        for name, value in (("bo_io_flatten", 0.1), ("bo_arch2vec_original", 0.2 + 0.01 * seed))
    ]
    ends = pd.DataFrame(rows, columns=["search", "training_seed", "run", "test_regret"])
    judged = search_scores.embedding_gains(ends, 0.01).set_index("part")
    row = judged.loc["{bo_io_flatten}"]
    assert row["mean"] == pytest.approx(-0.12)
    assert row["holds"] is True
    assert judged.loc["{bo_io_mean}", "holds"] is None


def test_published_searches_say_their_protocol():
    found = published_searches()
    assert {"source", "protocol", "queries", "trials", "optimum"} <= set(found.attrs)
    assert set(found["search"]) <= set(search_runs.UNTRAINED)
    assert (found["test_error"] > found.attrs["optimum"]).all()


def test_a_cell_that_can_be_queried_needs_the_accuracy_that_measures_regret(table, tmp_path):
    path = tmp_path / "table.parquet"
    accuracy = table.frame["test_accuracy"].where(np.arange(len(table.frame)) > 1)
    frame = table.frame.assign(test_accuracy=accuracy)
    Table(table.cells, frame, {"name": "made"}).write(path)
    parameters = {"search_space": SearchSpace(table=str(path)), "search_methods": SearchMethods()}
    with pytest.raises(
        ValueError, match=r"2 of the .* have no test_accuracy, by which 09 measures"
    ):
        check("search_methods", parameters)


@pytest.mark.parametrize(
    ("columns", "change", "message"),
    [
        ({}, {"budget": 10, "initial": 10}, "initial is 10, but a run has 10 queries"),
        ({}, {"runs": 2, "budget": 900}, "budget is 900, but 91 cells"),
        ({}, {"surrogate_share": 1e-6}, "fits the surrogate to 0 of 91 cells; 20 at least"),
        ({}, {"surrogate_share": 0.9}, "fits the surrogate to 82 of 91 cells; 20 at least"),
        ({"training_time": np.nan}, {}, "search_methods.cost=evaluations"),
        ({"validation_accuracy": np.nan}, {}, "no validation_accuracy, which 09 needs"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_it_runs(
    columns, change, message, table, tmp_path
):
    path = tmp_path / "table.parquet"
    Table(table.cells, table.frame.assign(**columns), {"name": "made"}).write(path)
    space = SearchSpace(table=str(path))
    p = SearchMethods(budget=50).model_copy(update=change)
    with pytest.raises(ValueError, match=message):
        check("search_methods", {"search_space": space, "search_methods": p})
    if "validation_accuracy" not in columns:
        mended = SearchMethods(budget=50, cost="evaluations")
        check("search_methods", {"search_space": space, "search_methods": mended})
