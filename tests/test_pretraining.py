"""Training of networks: repeatable, resumable, the same in parallel, and files that are checked."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from ionas import parallel
from ionas.images import Images, load_images
from ionas.pretraining import (
    Recipe,
    accuracy,
    agreement,
    build,
    labeled_rows,
    load_network,
    load_networks,
    network_seed,
    train_network,
    train_networks,
)
from ionas.space.cells import CONV3X3, INPUT, OUTPUT, Cell, CellSet, enumerate_cells

CHAIN = Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [INPUT, CONV3X3, OUTPUT])
QUICK = Recipe(channels=4, epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", train_size=200)


def test_training_learns(digits):
    trained = train_network(CHAIN, digits, Recipe(epochs=20, batch_size=32))
    losses = trained.metrics["losses"]
    assert losses[-1] < losses[0] / 2
    assert trained.metrics["test_accuracy"] > 0.4
    assert trained.seconds > 0
    assert accuracy(trained.network, digits.test) == trained.metrics["test_accuracy"]


def test_accuracy_by_hand():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)

    pixels = torch.tensor([[1.0, 0], [0, 1], [2, 1], [0, 3]])[:, :, None, None]
    assert accuracy(Fixed(), Images(pixels, torch.tensor([0, 1, 1, 1]))) == 0.75


def test_first_step_against_a_written_out_one(digits):
    """One batch, one epoch: gradient clipped to norm 5, then SGD with weight decay and momentum."""
    recipe = Recipe(channels=4, epochs=1, batch_size=200, learning_rate=0.5, clip=0.1)
    trained = train_network(CHAIN, digits, recipe, seed=3)
    torch.manual_seed(3)
    network = build(CHAIN, recipe, 1, 10).train()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    loss = torch.nn.functional.cross_entropy(
        network(digits.train.pixels[order]), digits.train.labels[order]
    )
    loss.backward()
    parameters = list(network.parameters())
    norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
    assert norm > recipe.clip
    for parameter, found in zip(parameters, trained.network.parameters(), strict=True):
        gradient = parameter.grad * recipe.clip / (norm + 1e-6) + recipe.weight_decay * parameter
        assert torch.allclose(found, parameter - recipe.learning_rate * gradient, atol=1e-5)


def test_labeled_rows_and_agreement_by_hand():
    split = pd.DataFrame(
        {
            "index": [0, 1, 2, 3],
            "hash": list("abcd"),
            "labeled": ["validation", "", "train", "train"],
            "rank": [0, -1, 0, 1],
        }
    )
    rows = labeled_rows(split)
    assert rows["index"].tolist() == [2, 3, 0]
    rows["test_accuracy"] = [0.5, 0.7, 0.9]
    found = agreement(rows, np.array([0.8, 0.1, 0.6, np.nan]))
    assert found["count"] == 2
    assert found["pearson"] == pytest.approx(1)
    assert found["difference"] == pytest.approx(0.1)
    assert np.isnan(agreement(rows, np.full(4, 0.5))["pearson"])


def test_the_networks_drawn_first_are_trained():
    split = pd.DataFrame(
        {
            "index": range(6),
            "hash": list("abcdef"),
            "labeled": ["train", "validation", "", "train", "validation", "train"],
            "rank": [2, 1, -1, 0, 0, 1],
        }
    )
    assert labeled_rows(split)["index"].tolist() == [3, 5, 0, 4, 1]
    assert labeled_rows(split, 2, 1)["index"].tolist() == [3, 5, 4]
    assert labeled_rows(split, 0, 1)["index"].tolist() == [3, 5, 0, 4]
    with pytest.raises(ValueError, match=r"train_networks is 4, but only 3 cells .*labeled_train"):
        labeled_rows(split, 4)


def test_parallel_serial_and_resumed_runs_give_the_same_bytes(digits, tmp_path):
    cells = enumerate_cells(4)[:4]
    frames = [
        train_networks(cells, digits, QUICK, tmp_path / str(jobs), seed=1, jobs=jobs)[0]
        for jobs in (1, 2)
    ]
    assert frames[0].equals(frames[1])
    files = sorted((tmp_path / "1" / "networks").iterdir())
    contents = {file.name: file.read_bytes() for file in files}
    assert contents == {f.name: f.read_bytes() for f in (tmp_path / "2" / "networks").iterdir()}
    files[2].unlink()
    untouched = files[0].stat().st_mtime_ns
    again, timings = train_networks(cells, digits, QUICK, tmp_path / "1", seed=1, jobs=1)
    assert again.equals(frames[0])
    assert (timings.seconds > 0).all()
    assert files[0].stat().st_mtime_ns == untouched
    assert contents == {file.name: file.read_bytes() for file in files}


def test_other_settings_in_the_folder_are_refused(digits, tmp_path):
    cells = CellSet.from_cells([CHAIN])
    train_networks(cells, digits, QUICK, tmp_path, jobs=1)
    with pytest.raises(ValueError, match="was trained with"):
        train_networks(cells, digits, QUICK, tmp_path, seed=5, jobs=1)


def test_saved_network_computes_the_same_and_damage_is_named(digits, tmp_path):
    train_networks(CellSet.from_cells([CHAIN]), digits, QUICK, tmp_path, seed=2, jobs=1)
    path = tmp_path / "networks" / f"{CHAIN.hash}.safetensors"
    trained = train_network(CHAIN, digits, QUICK, network_seed(CHAIN, 2))
    loaded = load_network(path, CHAIN, QUICK, 1, 10)
    with torch.inference_mode():
        assert torch.equal(loaded(digits.test.pixels), trained.network(digits.test.pixels))
    with pytest.raises(ValueError, match="under this recipe"):
        load_network(path, CHAIN, Recipe(channels=8), 1, 10)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=path.name):
        load_network(path, CHAIN, QUICK, 1, 10)
    with pytest.raises(ValueError, match="damaged"):
        train_networks(CellSet.from_cells([CHAIN]), digits, QUICK, tmp_path, seed=2, jobs=1)


def test_networks_load_one_at_a_time_in_the_order_asked_for(digits, tmp_path):
    cells = enumerate_cells(4)[:3]
    train_networks(cells, digits, QUICK, tmp_path, seed=1, jobs=1)
    about = {**asdict(QUICK), "in_channels": 1, "classes": list("0123456789"), "mean": [0.3]}
    order = [cells[2], cells[0], CHAIN]
    loaded = load_networks(tmp_path / "networks", order, about)
    for cell in order[:2]:
        trained = train_network(cell, digits, QUICK, network_seed(cell, 1)).network
        with torch.inference_mode():
            assert torch.equal(next(loaded)(digits.test.pixels), trained(digits.test.pixels))
    (tmp_path / "networks" / f"{CHAIN.hash}.safetensors").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=f"{CHAIN.hash}.*run notebook 02 again"):
        next(loaded)


def _square(x):
    return x * x


def _fail(x):
    raise KeyError(x)


def test_parallel_keeps_order_and_reports_progress(tmp_path, monkeypatch):
    report = tmp_path / "progress.json"
    monkeypatch.setenv("IONAS_PROGRESS", str(report))
    items = [(value,) for value in range(7)]
    expected = [value * value for value in range(7)]
    assert parallel.run(_square, items, jobs=1) == expected
    assert parallel.run(_square, items, jobs=2, description="squares") == expected
    assert json.loads(report.read_text()) == {"description": "squares", "done": 7, "total": 7}
    assert parallel.run(_square, [], jobs=2) == []


def _logged(folder, values, number):
    with (folder / "calls").open("a") as log:
        log.write(f"{number} ")
    if number == 3 and (folder / "fail").exists():
        raise KeyError(number)
    return float(values.sum()) + number


@pytest.mark.parametrize("jobs", [1, 2])
def test_kept_results_are_not_computed_again(jobs, tmp_path):
    """A call that failed in the middle goes on where it was; other arguments are other calls."""

    def results(values, count):
        items = [(tmp_path, values, number) for number in range(count)]
        return parallel.run(_logged, items, jobs, kept=tmp_path / "kept")

    values = np.arange(4.0)
    assert results(values, 3) == [6, 7, 8]
    (tmp_path / "fail").touch()
    with pytest.raises(KeyError):
        results(values.copy(), 4)
    (tmp_path / "fail").unlink()
    assert results(values.copy(), 5) == [6, 7, 8, 9, 10]
    assert sorted((tmp_path / "calls").read_text().split()) == ["0", "1", "2", "3", "3", "4"]
    assert results(values + 1, 2) == [10, 11]
    assert not list((tmp_path / "kept").glob("*.tmp"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_parallel_raises_what_the_function_raised(jobs, monkeypatch):
    monkeypatch.setenv("IONAS_PROGRESS", "off")
    with pytest.raises(KeyError):
        parallel.run(_fail, [(1,)], jobs=jobs)
    with pytest.raises(ValueError, match="jobs is -1"):
        parallel.run(_square, [(1,)], jobs=-1)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    parallel.run(_square, [(np.float64(2),)], jobs=1)
    assert torch.get_num_threads() == before
