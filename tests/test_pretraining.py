"""Training of networks: repeatable, resumable, the same in parallel, and files that are checked."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from ionas import parallel, pretraining
from ionas.images import Images, load_images
from ionas.networks import build, load_network
from ionas.parameters import Pretraining
from ionas.pretraining import (
    accuracy,
    beside_table,
    image_examples,
    image_facts,
    io_images,
    labeled_rows,
    summary,
    times,
    train_network,
    train_networks,
)
from ionas.space import INPUT, OUTPUT
from ionas.space.cells import Cell, CellSet, enumerate_cells
from ionas.space.nasbench101 import CONV1X1, CONV3X3

CHAIN = Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [INPUT, CONV3X3, OUTPUT])
QUICK = Pretraining(channels=4, epochs=1, batch_size=64, train_images=200)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", train_size=200)


def test_training_learns(digits):
    trained = train_network(CHAIN, digits, Pretraining(epochs=20, batch_size=32))
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
    p = Pretraining(channels=4, epochs=1, batch_size=200, learning_rate=0.5, clip=0.1)
    trained = train_network(CHAIN, digits, p, seed=3)
    torch.manual_seed(3)
    network = build(CHAIN, p, 1, 10).train()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    loss = torch.nn.functional.cross_entropy(
        network(digits.train.pixels[order]), digits.train.labels[order]
    )
    loss.backward()
    parameters = list(network.parameters())
    norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
    assert norm > p.clip
    for parameter, found in zip(parameters, trained.network.parameters(), strict=True):
        gradient = parameter.grad * p.clip / (norm + 1e-6) + p.weight_decay * parameter
        assert torch.allclose(found, parameter - p.learning_rate * gradient, atol=1e-5)


class Columns:
    """A table of cells and one column."""

    def __init__(self, cells, accuracy=None):
        self.cells = cells
        self.accuracy = accuracy

    def values(self, name):
        assert name == "test_accuracy"
        return self.accuracy


def test_labeled_rows_and_accuracies_beside_the_table_by_hand():
    split = pd.DataFrame(
        {
            "index": [0, 1, 2, 3],
            "hash": list("abcd"),
            "labeled": ["validation", "", "train", "train"],
            "rank": [0, -1, 0, 1],
        }
    )
    rows = labeled_rows(split, Pretraining())
    assert rows["index"].tolist() == [2, 3, 0]
    rows["test_accuracy"] = [0.5, 0.7, 0.9]
    both = beside_table(rows, Columns(None, np.array([0.8, 0.1, 0.6, np.nan])))
    assert both["here"].tolist() == [0.5, 0.7, 0.9]
    assert both["table"].tolist()[::2] == [0.6, 0.8]
    assert both["labeled"].tolist() == ["train", "train", "validation"]


def test_accuracies_in_summary_by_hand():
    networks = pd.DataFrame({"labeled": ["train", "train", "validation"]})
    for part in ("train", "validation", "test"):
        networks[f"{part}_accuracy"] = [0.2, 0.4, 0.9]
    table = summary(networks).set_index(["labeled", "accuracy"])
    assert table.loc[("train", "test_accuracy"), ["count", "mean", "max"]].tolist() == [2, 0.3, 0.4]
    assert table.loc[("validation", "train_accuracy"), "count"] == 1


def test_the_networks_drawn_first_are_trained():
    split = pd.DataFrame(
        {
            "index": range(6),
            "hash": list("abcdef"),
            "labeled": ["train", "validation", "", "train", "validation", "train"],
            "rank": [2, 1, -1, 0, 0, 1],
        }
    )

    def drawn(train, validation):
        p = Pretraining(train_networks=train, validation_networks=validation)
        return labeled_rows(split, p)["index"].tolist()

    assert drawn(0, 0) == [3, 5, 0, 4, 1]
    assert drawn(2, 1) == [3, 5, 4]
    assert drawn(0, 1) == [3, 5, 0, 4]
    with pytest.raises(ValueError, match=r"train_networks is 4, but only 3 cells .*labeled_train"):
        drawn(4, 0)


def study(cells, train):
    """A table of cells, of which the first are labeled for training and the others to validate."""
    part = ["train"] * train + ["validation"] * (len(cells) - train)
    ranks = [*range(train), *range(len(cells) - train)]
    columns = {"index": range(len(cells)), "hash": cells.hashes, "labeled": part, "rank": ranks}
    return Columns(cells), pd.DataFrame(columns)


def kept(folder):
    """The bytes of the networks in a folder."""
    assert not list(folder.glob("*tmp*"))
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.suffix}


def test_parallel_serial_and_resumed_runs_give_the_same(tmp_path, monkeypatch):
    arguments = (*study(enumerate_cells(4)[:4], 3), None, QUICK)
    one, two = (train_networks(*arguments, tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    assert one["index"].tolist() == [0, 1, 2, 3]
    assert one["labeled"].tolist() == ["train"] * 3 + ["validation"]
    assert one.equals(two)
    seconds = times(one, tmp_path / "1")["seconds"]
    assert (seconds > 0).all()
    contents = kept(tmp_path / "1")
    assert sorted(contents) == sorted(one["hash"])
    assert kept(tmp_path / "2") == contents
    names = one["hash"].tolist()
    (tmp_path / "1" / names[0]).unlink()
    flipped = bytearray((tmp_path / "1" / names[1]).read_bytes())
    flipped[-5] ^= 1
    (tmp_path / "1" / names[1]).write_bytes(flipped)
    trained = counted(monkeypatch)
    again = train_networks(*arguments, tmp_path / "1", jobs=1)
    assert trained == names[:2]
    assert again.equals(one)
    assert times(one, tmp_path / "1")["seconds"][2:].equals(seconds[2:])
    assert kept(tmp_path / "1") == contents
    (tmp_path / "1" / f"{names[0]}.seconds").write_text("damaged")
    assert times(one, tmp_path / "1")["seconds"].isna().tolist() == [True, False, False, False]


def counted(monkeypatch):
    """Hashes of the cells that are trained in this process from now on."""
    trained = []
    original = pretraining.train_network

    def call(cell, *arguments):
        trained.append(cell.hash)
        return original(cell, *arguments)

    monkeypatch.setattr(pretraining, "train_network", call)
    return trained


def test_only_what_is_missing_or_was_made_otherwise_is_trained(tmp_path, monkeypatch):
    cells = enumerate_cells(4)[:4]
    trained = counted(monkeypatch)

    def train(folder="parts", known=None, **changes):
        trained.clear()
        p = QUICK.model_copy(update=changes)
        return train_networks(*study(cells, 3), None, p, tmp_path / folder, known, jobs=1)

    assert train(train_networks=1)["index"].tolist() == [0, 3]
    assert trained == [cells[0].hash, cells[3].hash]
    assert train()["index"].tolist() == [0, 1, 2, 3]
    assert trained == [cells[1].hash, cells[2].hash]
    train(jobs=3, test_images=7)
    assert trained == []
    for changes in ({"seed": 2}, {"learning_rate": 0.2}, {"train_images": 150}):
        train(**changes)
        assert len(trained) == 4, changes
    known = train(train_networks=2)
    more = train("elsewhere", known)
    assert trained == [cells[2].hash]
    assert more.drop(index=2).reset_index(drop=True).equals(known)
    seconds = times(known, tmp_path / "parts")
    both = times(more, tmp_path / "elsewhere", seconds)
    assert both["seconds"].drop(2).tolist() == seconds["seconds"].tolist()
    train("elsewhere", known, seed=2)
    assert len(trained) == 4


def test_other_orders_of_the_same_vertices_are_other_networks(tmp_path):
    rows = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    first = Cell(rows, [INPUT, CONV3X3, CONV1X1, OUTPUT])
    second = Cell(rows, [INPUT, CONV1X1, CONV3X3, OUTPUT])
    assert first.hash == second.hash
    cells = CellSet.from_cells([first, CHAIN])
    train_networks(*study(cells, 1), None, QUICK, tmp_path, jobs=1)
    load_network(tmp_path, first)
    with pytest.raises(ValueError, match="are in another order; run notebook 02 again"):
        load_network(tmp_path, second)


def test_a_kept_network_computes_the_same_and_damage_is_named(tmp_path):
    cells = CellSet.from_cells([CHAIN, enumerate_cells(3)[1]])
    networks = train_networks(*study(cells, 1), None, QUICK, tmp_path, jobs=1)
    loaded = load_network(tmp_path, CHAIN)
    assert not loaded.training
    digits = load_images("digits", train_size=QUICK.train_images)
    for part in ("train", "validation", "test"):
        assert accuracy(loaded, getattr(digits, part)) == networks[f"{part}_accuracy"][0]
    path = tmp_path / CHAIN.hash
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"{CHAIN.hash} is missing or was damaged.* notebook 02"):
        load_network(tmp_path, CHAIN)


def test_images_for_later_notebooks():
    p = QUICK.model_copy(update={"test_images": 7, "validation_images": 20})
    digits = load_images("digits", validation_size=20, train_size=200)
    io = io_images(None, p)
    assert torch.equal(io["validation_pixels"], digits.validation.pixels)
    assert io["test_pixels"].shape == (7, 1, 8, 8)
    same = [(digits.test.pixels == image).flatten(1).all(1) for image in io["test_pixels"]]
    places = [int(one.nonzero()) for one in same]
    assert places == sorted(places)
    assert torch.equal(io["test_labels"], digits.test.labels[places])
    assert torch.equal(io["test_labels"], io_images(None, p)["test_labels"])
    assert not torch.equal(
        io["test_labels"], io_images(None, p.model_copy(update={"seed": 2}))["test_labels"]
    )
    with pytest.raises(ValueError, match="test_images is 501, but there are only 500"):
        io_images(None, p.model_copy(update={"test_images": 501}))
    facts = image_facts(None, p)
    assert facts["classes"] == [str(digit) for digit in range(10)]
    assert [facts[name] for name in ("train", "validation", "test", "kept")] == [200, 20, 500, 7]
    first = image_examples(None, p)
    assert first["labels"].tolist() == list(range(10))
    seven = digits.train.pixels[digits.train.labels == 7][0]
    assert torch.equal(first["pixels"][7], seven)


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
