"""The explorer of cells: its data against the sources, its page in a browser."""

import json
import random
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nasbench201_cells import enumerate_nasbench201
from safetensors.numpy import load_file

from ionas.benchmark.table import Table
from ionas.book.folders import project_root, read_json
from ionas.parameters import PerformancePrediction
from ionas.plots import MODEL_LABELS
from ionas.space import InvalidCell
from ionas.space.cells import Cell, CellSet, decode_cells
from ionas.space.encodings import adjacency_one_hot
from ionas.tasks import explorer
from ionas.tasks.prediction import ENCODING

SMALL = PerformancePrediction(run="small", sizes=[20], trees=5)


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    kind = np.dtype(packed["type"]).newbyteorder("<")
    return np.frombuffer(b64decode(packed["data"]), kind) * packed["scale"]


@pytest.fixture(scope="module")
def sources(tiny_run: Path) -> dict[str, Any]:
    prediction = read_json(tiny_run / "performance_prediction" / "manifest.json") or {}
    return {
        "table": Table.read(tiny_run / "search_space" / "table.parquet"),
        "split": pd.read_parquet(tiny_run / "search_space" / "split.parquet"),
        "embeddings": load_file(tiny_run / "embedding_training" / "embeddings.safetensors"),
        "networks": pd.read_parquet(tiny_run / "pretraining" / "networks.parquet"),
        "targets": load_file(tiny_run / "io_dataset" / "targets.safetensors"),
        "setting": read_json(tiny_run / "performance_prediction" / "setting.json"),
        "p": PerformancePrediction(**prediction["parameters"]),
    }


@pytest.fixture(scope="module")
def kept(tiny_run: Path) -> dict[str, Any]:
    """What notebook 07 of the tiny run has written: all 2,532 cells of the digits table."""
    return read_json(tiny_run / "performance_prediction" / "explorer.json") or {}


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    """Sources of a table of 200 cells of up to 7 vertices, some without an accuracy."""
    rng = np.random.default_rng(0)
    adjacency = np.triu(rng.integers(0, 2, (4000, 7, 7)), 1).astype(np.uint8)
    operations = rng.integers(1, 4, (4000, 7)).astype(np.int8)
    operations[:, 0], operations[:, -1] = 0, 4
    cells = decode_cells(adjacency, operations)[1].canonical_order()
    return made_up(cells[np.unique(cells.hashes, return_index=True)[1][:200]])


def made_up(cells: CellSet) -> dict[str, Any]:
    """Sources of a table of these cells; those with an even number can be searched."""
    rng, count = np.random.default_rng(0), len(cells)
    accuracy = rng.uniform(0.5, 1, count)
    accuracy[:5] = np.nan
    frame = pd.DataFrame({"test_accuracy": accuracy, "validation_accuracy": accuracy})
    frame["training_time"] = np.where(np.arange(count) % 2 == 0, 1.0, np.nan)
    labeled = np.where(np.arange(count) % 10 == 7, "train", "")  # none with an even number
    split = pd.DataFrame({"index": np.arange(count), "labeled": labeled})
    rows = np.flatnonzero(labeled == "train")
    networks = pd.DataFrame({"index": rows, "labeled": "train"})
    return {
        "table": Table(cells, frame, {"name": "large"}),
        "split": split,
        "embeddings": {"io_mean_seed3": rng.normal(size=(count, 4)).astype(np.float32)},
        "networks": networks,
        "targets": {"train_validation": rng.normal(size=(len(rows), 6, 3))},
        "setting": {"sizes": [len(rows)]},
        "p": SMALL,
    }


# --- the data ------------------------------------------------------------------------------------


def test_facts_of_every_cell_are_those_of_the_table(kept: dict, sources: dict) -> None:
    frame, cells = sources["table"].frame, sources["table"].cells
    repeats = frame[[f"test_accuracy_r{k}" for k in range(3)]]
    assert (kept["cells"], kept["shown"], kept["known"], kept["repeats"]) == (2532, 2532, 2532, 3)
    assert (kept["vertices"], kept["edges"], kept["wiring"]) == (5, 9, None)
    assert np.abs(unpacked(kept["accuracy"]) - frame["test_accuracy"]).max() <= 0.5001e-4
    assert np.abs(unpacked(kept["spread"]) - repeats.std(axis=1)).max() <= 0.5001e-4
    ranks = frame["test_accuracy"].rank(method="min", ascending=False)
    assert (unpacked(kept["rank"]) == ranks).all()
    assert (unpacked(kept["parameters"]) == frame["trainable_parameters"]).all()
    assert unpacked(kept["hashes"]).astype(np.uint8).tobytes().hex() == "".join(cells.hashes)
    codes = unpacked(kept["codes"]).reshape(-1, 5)
    assert (codes == cells.operations[:, :5]).all()
    for row in range(0, 2532, 50):
        bits = [int(bit) for bit in reversed(f"{int(unpacked(kept['adjacency'])[row]):010b}")]
        matrix = np.zeros((5, 5), int)
        matrix[np.triu_indices(5, 1)] = bits
        assert (matrix == cells.adjacency[row, :5, :5]).all()


def test_roles_say_which_cells_were_seen(kept: dict, sources: dict) -> None:
    roles, networks = unpacked(kept["roles"]).astype(int), sources["networks"]
    for part, bit in (("train", explorer.TRAIN), ("validation", explorer.VALIDATION)):
        wanted = networks.loc[networks["labeled"] == part, "index"]
        assert np.flatnonzero(roles & bit).tolist() == sorted(wanted)
    assert (roles & explorer.FITTED > 0).sum() == kept["fitted"] == 60


def test_predictions_are_those_that_notebook_07_has_scored(
    kept: dict, sources: dict, tiny_run: Path
) -> None:
    scores = pd.read_parquet(tiny_run / "performance_prediction" / "scores.parquet")
    accuracy = sources["table"].values("test_accuracy")
    scored = (accuracy > sources["setting"]["threshold"]) & (
        unpacked(kept["roles"]).astype(int) < 4
    )
    wanted = scores[(scores["regressor"] == "random_forest") & (scores["sample"] == "paper")]
    wanted = wanted[(wanted["size"] == 60) & (wanted["seed"] == 0)]
    wanted = wanted[wanted["training_seed"].isna() | (wanted["training_seed"] == 1)]
    assert set(wanted["embedding"]) == set(kept["embeddings"])
    for name, rmse, count in wanted[["embedding", "rmse", "scored"]].itertuples(index=False):
        error = (unpacked(kept["embeddings"][name]["predicted"]) - accuracy)[scored]
        assert len(error) == count
        assert np.sqrt(np.mean(error**2)) == pytest.approx(rmse, abs=1e-4)


def test_maps_and_nearest_cells_by_brute_force(kept: dict, sources: dict) -> None:
    arrays = {n: sources["embeddings"].get(f"{n}_seed1") for n in kept["embeddings"]}
    arrays[ENCODING] = adjacency_one_hot(sources["table"].cells)
    for name, values in arrays.items():
        values, found = values.astype(np.float64), kept["embeddings"][name]
        near = unpacked(found["near"]).astype(int).reshape(-1, 5)
        for row in range(0, 2532, 97):
            apart = np.linalg.norm(values - values[row], axis=1)
            assert row not in near[row]
            assert apart[near[row]] == pytest.approx(np.sort(np.delete(apart, row))[:5], abs=1e-6)
        centered = values - values.mean(0)
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        for k, axis in enumerate("xy"):
            points = unpacked(found[axis])
            assert abs(np.corrcoef(points, u[:, k])[0, 1]) > 0.9999
            assert np.abs(points).max() == pytest.approx(np.abs(u[:, k] * s[k]).max(), rel=1e-3)


def test_nearest_by_outputs_by_brute_force(kept: dict, sources: dict) -> None:
    networks, targets = sources["networks"], sources["targets"]
    order = [networks[networks["labeled"] == part] for part in ("train", "validation")]
    index = pd.concat(order)["index"].to_numpy()
    outputs = [*targets["train_validation"], *targets["validation_validation"]]
    rows, near = (unpacked(kept["outputs"][name]).astype(int) for name in ("rows", "near"))
    assert rows.tolist() == index.tolist()
    for k, own in enumerate(outputs):
        apart = [np.square(own.astype(float) - other).sum(1).mean() for other in outputs]
        apart[k] = np.inf
        assert near.reshape(-1, 5)[k].tolist() == index[np.argsort(apart)[:5]].tolist()


def test_data_are_small_and_the_same_byte_for_byte(
    tiny_run: Path, kept: dict, sources: dict
) -> None:
    assert (tiny_run / "performance_prediction" / "explorer.json").stat().st_size < 700_000
    assert json.dumps(explorer.explorer_data(**sources)) == json.dumps(kept)


def test_of_a_large_table_some_cells_are_shown(large: dict) -> None:
    trained = large["networks"]["index"].to_numpy()
    rows = explorer.shown_cells(large["table"], trained, 50)
    assert len(rows) == 50
    assert (np.diff(rows) > 0).all()
    assert set(trained) <= set(rows)
    assert all(row % 2 == 0 and row >= 5 for row in set(rows) - set(trained))
    assert (explorer.shown_cells(large["table"], trained, 50) == rows).all()
    data = explorer.explorer_data(**large, most=50)
    assert (data["cells"], data["known"], data["shown"], data["vertices"]) == (200, 195, 50, 7)
    assert data["training_seed"] == 3
    shown = large["table"].cells.hashes[rows]
    assert unpacked(data["hashes"]).astype(np.uint8).tobytes().hex() == "".join(shown)
    by_outputs = unpacked(data["outputs"]["rows"]).astype(int)
    assert rows[by_outputs].tolist() == trained.tolist()
    without = Table(large["table"].cells, large["table"].frame[["test_accuracy"]], {})
    others = set(explorer.shown_cells(without, trained, 190)) - set(trained)
    assert len(others) == 170
    assert min(others) >= 5


def test_what_is_unknown_is_minus_one(large: dict) -> None:
    data = explorer.explorer_data(**large)
    for name in ("accuracy", "rank"):
        assert (unpacked(data[name])[:5] < 0).all()
        assert (unpacked(data[name])[5:] >= 0).all()
    assert (unpacked(data["spread"]) < 0).all()  # no repeats
    assert (unpacked(data["parameters"]) == -1).all()


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(kept: dict, large: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with three runs: digits, 50 of 200 cells of up to 7 vertices, NAS-Bench-201."""
    root = tmp_path_factory.mktemp("explorer")
    static = project_root() / "book" / "_static"
    (root / "_static").mkdir()
    for name in ("explorer.js", "explorer.css"):
        shutil.copy(static / name, root / "_static" / name)
    tags = ""
    fixed = explorer.explorer_data(**made_up(enumerate_nasbench201()[::390]))
    some = explorer.explorer_data(**large, most=50)
    for label, data in {"Digits": kept, "Large one": some, "Fixed edges": fixed}.items():
        name = f"explorer_{label[0]}.js"
        value = json.dumps({"label": label, "slug": label.lower().replace(" ", "-"), "data": data})
        text = f"window.IONAS_RUNS = window.IONAS_RUNS || []; window.IONAS_RUNS.push({value});"
        (root / "_static" / name).write_text(text)
        tags += f'<script defer src="../_static/{name}"></script>\n'
    prose = (project_root() / "book" / "explorer.md").read_text("utf-8")
    raw = re.search(r"```\{raw\} html\n(.*?)```", prose, re.DOTALL)
    assert raw is not None
    body = raw[1].replace("{{ explorer_scripts }}", tags)
    page = root / "book" / "explorer.html"
    page.parent.mkdir()
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'><title>t</title>"
    page.write_text(f"<!doctype html>{head}<main>{body}</main>", "utf-8")
    return page


Opener = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, page_file: Path) -> Iterator[Opener]:
    """Open the page at a fragment; in the end nothing may have gone wrong or left the folder."""
    faults: list[str] = []
    contexts = []

    def opened(fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        inside = page_file.parent.parent.as_uri()
        page.on("request", lambda r: None if r.url.startswith(inside) else faults.append(r.url))
        page.goto(page_file.as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def shown_hash(page: Any) -> str:
    return page.locator("#ex-facts code").inner_text()


def verdict(page: Any) -> str:
    return page.locator("#ex-verdict").inner_text()


def fragment(cell: Cell, vertices: int, run: str = "digits") -> str:
    """The address of a cell: on so many vertices, the output being the last."""
    n, place = cell.n_vertices, [*range(cell.n_vertices - 1), vertices - 1]
    matrix, codes = np.zeros((vertices, vertices), int), np.full(vertices, 2)
    for u, v in np.argwhere(cell.matrix):
        matrix[place[u], place[v]] = 1
    for v in range(n):
        codes[place[v]] = cell.space.operations.index(cell.operations[v])
    bits = "".join(map(str, matrix[np.triu_indices(vertices, 1)]))
    return f"#run={run}&cell={bits}-{''.join(map(str, codes[1:-1]))}"


CHECK = """([slug, drawings]) => {
    const { runs, check } = window.ionasExplorer, run = runs.find((run) => run.slug === slug);
    return drawings.map(([edges, codes]) => {
        const { hash, problem } = check(run, { edges, codes });
        return hash || problem;
    });
}"""


def another_way(cell: Cell, vertices: int, rng: random.Random) -> tuple[list, list[int]]:
    """The same cell with its vertices in another order, and useless vertices between them."""
    n, order = cell.n_vertices, [0]
    while len(order) < n:
        ready = [v for v in range(1, n) if v not in order]
        ready = [v for v in ready if all(u in order for u in range(n) if cell.adjacency[u][v])]
        order.append(rng.choice(ready))
    place = [0, *sorted(rng.sample(range(1, vertices - 1), n - 2)), vertices - 1]
    at = dict(zip(order, place, strict=True))
    edges = [[0] * vertices for _ in range(vertices)]
    for u, v in np.argwhere(cell.matrix):
        edges[at[u]][at[v]] = 1
    codes = [0, *(rng.randint(1, 3) for _ in range(vertices - 2)), 4]
    for v in range(n):
        codes[at[v]] = cell.space.operations.index(cell.operations[v])
    for v in set(range(1, vertices - 1)) - set(place):  # a dead end
        edges[rng.randrange(v)][v] = rng.randint(0, 1)
    return edges, codes


@pytest.mark.slow
def test_the_hash_agrees_with_python_for_every_cell(open_page: Opener, sources: dict) -> None:
    cells, rng = sources["table"].cells, random.Random(0)
    page = open_page()
    as_stored = page.evaluate(
        "() => { const { runs: [run], check, cellOf } = window.ionasExplorer;"
        "return [...Array(run.shown).keys()].map((row) => check(run, cellOf(run, row)).hash); }"
    )
    assert as_stored == cells.hashes.tolist()
    drawings = [another_way(cell, 5, rng) for cell in cells]
    assert page.evaluate(CHECK, ["digits", drawings]) == cells.hashes.tolist()


@pytest.mark.slow
def test_any_drawing_is_judged_as_in_python(open_page: Opener) -> None:
    rng, names = np.random.default_rng(1), ["input", *CellSet.from_cells([]).space.inner, "output"]
    drawings, wanted = [], []
    for share in rng.uniform(0.1, 0.9, 1500):
        edges = np.triu(rng.random((7, 7)) < share, 1).astype(int).tolist()
        codes = [0, *rng.integers(1, 4, 5).tolist(), 4]
        drawings.append((edges, codes))
        try:
            wanted.append(Cell(edges, [names[code] for code in codes]).hash)
        except InvalidCell as error:
            wanted.append(str(error))
    said = {text for text in wanted if " " in text}
    assert "no path leads from the input to the output" in said
    assert "12 edges after pruning; at most 9" in said
    assert sum(" " not in text for text in wanted) > 300
    assert open_page().evaluate(CHECK, ["large-one", drawings]) == wanted


def vertex(page: Any, v: int) -> Any:
    return page.locator(f"#ex-canvas [data-v='{v}'] rect")


@pytest.mark.slow
def test_an_edit_gives_the_cell_that_python_makes(open_page: Opener, sources: dict) -> None:
    chain = np.diag([1, 1, 1, 1], 1)
    names = ["input", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output"]
    table, page = sources["table"], open_page(fragment(Cell(chain, names), 5))
    assert shown_hash(page) == Cell(chain, names).hash
    chain[1, 3] = 1
    vertex(page, 3).click()  # the order of the two does not matter
    vertex(page, 1).click()
    assert shown_hash(page) == Cell(chain, names).hash
    chain[2, 3] = 0  # now the pool leads nowhere
    page.locator("#ex-canvas [data-edge='2,3'] path.hit").dispatch_event("click")
    pruned = Cell(chain, names)
    assert pruned.n_vertices == 4
    assert shown_hash(page) == pruned.hash
    assert "1 vertex on no path" in page.locator("#ex-pruned").inner_text()
    page.get_by_label("operation of vertex 3").select_option(label="3×3 conv")
    names[3] = "conv3x3-bn-relu"
    wanted = Cell(chain, names).hash
    assert shown_hash(page) == wanted
    row = table.cells.hashes.tolist().index(wanted)
    accuracy = table.values("test_accuracy")
    rank = 1 + (accuracy > accuracy[row]).sum()
    assert re.match(rf"Measured test accuracy {accuracy[row]:.4f} ± 0\.\d{{4}}", verdict(page))
    assert verdict(page).endswith(f"rank {rank:,} of 2,532.")
    parameters = int(table.values("trainable_parameters")[row])
    assert f"{parameters:,}" in page.locator("#ex-facts").inner_text()


@pytest.mark.slow
def test_what_is_no_cell_says_why(open_page: Opener, large: dict) -> None:
    page = open_page("#run=digits&cell=0001000000-222")
    assert shown_hash(page) == Cell([[0, 1], [0, 0]], ["input", "output"]).hash
    vertex(page, 0).click()
    vertex(page, 4).click()
    assert verdict(page) == "Not a cell: no path leads from the input to the output."
    page = open_page("#run=digits&cell=1111111110-222")
    vertex(page, 3).click()
    vertex(page, 4).click()
    assert verdict(page) == "Not a cell: 10 edges after pruning; at most 9."
    cells = large["table"].cells
    shown = explorer.shown_cells(large["table"], large["networks"]["index"].to_numpy(), 50)
    hidden = next(row for row in range(len(cells)) if row not in shown)
    page = open_page(fragment(cells[hidden], 7, "large-one"))
    assert shown_hash(page) == cells.hashes[hidden]
    assert verdict(page).startswith("A valid cell, but none of the 50 of 200 cells")
    for wrong in ("12-3", "0001000000-229", "0" * 32):
        page = open_page(f"#run=digits&cell={wrong}")
        assert "names no cell of this run" in verdict(page)


@pytest.mark.slow
def test_the_address_restores_a_cell_and_history_works(open_page: Opener, sources: dict) -> None:
    hashes = sources["table"].cells.hashes
    page = open_page(f"#run=digits&cell={hashes[1000]}")
    assert shown_hash(page) == hashes[1000]
    page.locator("#ex-cards .near").first.click()
    second, address = shown_hash(page), page.url
    assert second != hashes[1000]
    assert shown_hash(open_page("#" + address.partition("#")[2])) == second
    page.go_back()
    assert shown_hash(page) == hashes[1000]
    page.go_forward()
    assert shown_hash(page) == second
    page.reload()
    assert shown_hash(page) == second
    assert open_page("#run=large-one").locator("#ex-canvas [data-v]").count() == 7


@pytest.mark.slow
def test_neighbours_and_predictions_are_those_of_the_data(
    open_page: Opener, kept: dict, sources: dict
) -> None:
    hashes, row = sources["table"].cells.hashes, int(sources["networks"]["index"][0])
    page = open_page(f"#run=digits&cell={hashes[row]}")
    cards = page.locator("#ex-cards .card")
    names = cards.evaluate_all("cards => cards.map((card) => card.dataset.name)")
    assert cards.locator("h3").all_inner_texts() == [MODEL_LABELS[name] for name in names]
    assert names == [name for name in MODEL_LABELS if name in kept["embeddings"]]
    predicted = page.locator("#ex-predicted tr")
    linked = "links => links.map((link) => link.hash)"
    for k, name in enumerate(names):
        found = kept["embeddings"][name]
        near = unpacked(found["near"]).astype(int).reshape(-1, 5)[row]
        links = cards.nth(k).locator(".near").evaluate_all(linked)
        assert links == [fragment(sources["table"].cells[int(other)], 5) for other in near]
        value = unpacked(found["predicted"])[row]
        assert predicted.nth(k).locator("td").first.inner_text() == f"{value:.4f}"
    assert "fitted on this cell" in page.locator("#ex-predicted").inner_text()  # labeled
    near = unpacked(kept["outputs"]["near"]).astype(int)[:5]
    links = page.locator("#ex-outputs .near").evaluate_all(linked)
    assert links == [fragment(sources["table"].cells[int(other)], 5) for other in near]


@pytest.mark.slow
def test_a_point_of_a_map_leads_to_its_cell(open_page: Opener, kept: dict, sources: dict) -> None:
    page = open_page()
    found = kept["embeddings"]["io_flatten"]
    x, y = unpacked(found["x"]), unpacked(found["y"])
    row = int(np.argmin(x))  # at the left edge, ten pixels inside
    height = (y[row] - y.min()) / np.ptp(y)
    map_ = page.locator("[data-name='io_flatten'] canvas")
    map_.click(position={"x": 10, "y": 210 - 200 * height})
    assert shown_hash(page) == sources["table"].cells.hashes[row]
    page.locator("[data-name='io_flatten'] .map").press("ArrowRight")
    other = sources["table"].cells.hashes.tolist().index(shown_hash(page))
    assert x[other] > x[row]


@pytest.mark.slow
def test_it_works_by_keyboard_and_says_what_it_shows(open_page: Opener) -> None:
    cell = Cell(np.diag([1, 1], 1), ["input", "conv3x3-bn-relu", "output"])
    page = open_page(fragment(cell, 5))
    status = page.get_by_role("status")
    before = status.inner_text()
    page.locator("#ex-run").focus()
    for _ in range(5):  # four buttons, then the drawing
        page.keyboard.press("Tab")
    focused = "document.activeElement.dataset.v"
    assert page.evaluate(focused) == "0"
    assert "edges to vertex 1" in page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "4"
    outline = "getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth"
    assert page.evaluate(outline) == "4px"
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#ex-verdict').textContent !== '{before}'")
    edges = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert shown_hash(page) == Cell(edges, cell.operations).hash
    assert page.evaluate(focused) == "4"  # the drawing keeps the focus
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("3")
    assert shown_hash(page) == Cell(edges, ["input", "maxpool3x3", "output"]).hash
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.locator("#ex-canvas .chosen").count() == 0
    assert status.inner_text().startswith("Measured test accuracy")
    unnamed = """[...document.querySelectorAll('a, button, select, [role=button], [tabindex="0"]')]
        .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.closest('label')))
        .map((e) => e.outerHTML)"""
    assert page.evaluate(unnamed) == []


@pytest.mark.slow
def test_where_edges_are_fixed_operations_alone_are_chosen(open_page: Opener) -> None:
    cells = enumerate_nasbench201()[::390]
    page = open_page(f"#run=fixed-edges&cell={cells.hashes[7]}")
    drawings = [
        (cell.adjacency, codes)
        for cell, codes in zip(cells, cells.operations.tolist(), strict=True)
    ]
    assert page.evaluate(CHECK, ["fixed-edges", drawings]) == cells.hashes.tolist()
    vertex(page, 1).click()
    vertex(page, 2).click()
    assert shown_hash(page) == cells.hashes[7]
    page.get_by_label("operation of vertex 6").select_option(label="skip connection")
    names = list(cells[7].operations)
    names[6] = "skip_connect"
    assert shown_hash(page) == Cell(cells[7].adjacency, tuple(names)).hash


@pytest.mark.slow
def test_the_same_cell_in_another_run(open_page: Opener, sources: dict) -> None:
    page = open_page(f"#run=digits&cell={sources['table'].cells.hashes[1234]}")
    page.get_by_label("Run").select_option("Large one")
    assert page.locator("#ex-canvas [data-v]").count() == 7
    assert shown_hash(page) == sources["table"].cells.hashes[1234]
    assert "#run=large-one" in page.url


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone(open_page: Opener, theme: str) -> None:
    page = open_page(
        viewport={"width": 390, "height": 844}, color_scheme=theme, has_touch=True, is_mobile=True
    )
    vertex(page, 1).tap()
    assert page.locator("#ex-canvas .chosen").count() == 1
    for fragment_ in ("#run=digits", "#run=large-one"):
        page.evaluate(f"location.hash = '{fragment_}'")
        page.wait_for_function(f"document.querySelector('#ex-run').value === '{fragment_[5:]}'")
        wide = "document.documentElement.scrollWidth - window.innerWidth"
        assert page.evaluate(wide) <= 0
