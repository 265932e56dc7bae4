"""The semi-supervised loop: order of batches, what each model learns, exact resume."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from embedding_data import SMALL, of_all, small_data

from ionas.embedding import training
from ionas.embedding.arch2vec import loss
from ionas.embedding.metrics import Labeled
from ionas.embedding.training import (
    MODELS,
    Settings,
    batch_order,
    build,
    load,
    run_lengths,
    seconds_of,
    train,
    train_all,
)
from ionas.space.cells import enumerate_cells


def runs(order):
    """Lengths of the runs of an order: [(labeled, length)]."""
    found = []
    for labeled, _ in order:
        if not found or found[-1][0] != labeled:
            found.append([labeled, 0])
        found[-1][1] += 1
    return [tuple(run) for run in found]


def test_order_at_paper_scale():
    """19,000 labeled and 11,896 unlabeled batches: 300 and 206 in turns, then the rest."""
    unlabeled = -(-(381262 - 608) // 32)
    assert unlabeled == 11896
    assert int(0.33 * unlabeled) // (608 // 32) == 206
    lengths = run_lengths(19000, unlabeled, Settings(labeled_run=0, unlabeled_run=0))
    assert lengths == (300, 206)
    assert lengths == run_lengths(1, 1, Settings())
    order = batch_order(19000, unlabeled, *lengths)
    assert len(order) == 19000 + unlabeled
    found = runs(order)
    assert found[:114] == [(True, 300), (False, 206)] * 57
    # 57 * 206 = 11,742; then 300 and the last 154; then labeled batches to the end
    assert found[114:] == [(True, 300), (False, 154), (True, 19000 - 58 * 300)]
    for kind, count in ((True, 19000), (False, unlabeled)):
        assert [k for labeled, k in order if labeled is kind] == list(range(count))


def test_order_when_the_labeled_run_out():
    assert batch_order(2, 5, 2, 1) == [
        (True, 0), (True, 1), (False, 0), (False, 1), (False, 2), (False, 3), (False, 4),
    ]  # fmt: skip
    assert batch_order(0, 1, 3, 3) == [(False, 0)]


def test_run_lengths_keep_the_proportion():
    assert run_lengths(500, 66, Settings(labeled_run=0, unlabeled_run=0)) == (8, 1)
    assert run_lengths(2, 2, Settings(labeled_run=0, unlabeled_run=0)) == (1, 1)
    assert run_lengths(500, 66, Settings(labeled_run=7, unlabeled_run=0)) == (7, 1)


def trainer(name="io", seed=1, settings=SMALL, data=None):
    data = data or small_data()
    return training._Trainer(name, seed, build(name, data, settings, seed), data, settings)


def as_double(data):
    def change(labeled):
        return Labeled(
            labeled.networks,
            labeled.pixels.double(),
            labeled.outputs.double(),
            labeled.accuracy.double(),
        )

    return replace(
        data,
        adjacency=data.adjacency.double(),
        operations=data.operations.double(),
        labeled=change(data.labeled),
        watched={name: change(labeled) for name, labeled in data.watched.items()},
    )


def test_an_epoch_meets_every_pair_and_every_unlabeled_cell_once():
    at_work = trainer()
    data, pairs, cells = at_work.data, [], []
    for rows, pair in at_work._batches():
        assert len(rows) <= SMALL.batch_size
        if pair is None:
            cells += rows.tolist()
        else:
            assert torch.equal(rows, data.labeled.networks[pair[0]])
            pairs += list(zip(*(part.tolist() for part in pair), strict=True))
    assert sorted(pairs) == [(n, i) for n in range(10) for i in range(6)]
    assert sorted(cells) == sorted(data.unlabeled.tolist())


def test_all_models_meet_the_same_batches_and_the_original_all_cells():
    batches = {name: list(trainer(name)._batches()) for name in MODELS}
    for name in ("accuracy", "arch2vec"):
        assert all(
            torch.equal(a[0], b[0]) for a, b in zip(batches["io"], batches[name], strict=True)
        )
    original = torch.cat([rows for rows, _ in batches["arch2vec_original"]])
    assert sorted(original.tolist()) == sorted(small_data().train.tolist())
    other = trainer()
    other.epoch = 1
    assert not torch.equal(next(iter(other._batches()))[0], batches["io"][0][0])


def test_models_of_one_seed_begin_with_the_same_autoencoder():
    data = small_data()
    states = [training.vae_of(build(name, data, SMALL, 1)).state_dict() for name in MODELS]
    for state in states[1:]:
        assert all(torch.equal(state[key], states[0][key]) for key in state)
    other = build("arch2vec", data, SMALL, 2).state_dict()
    assert not torch.equal(other["mu.weight"], states[0]["mu.weight"])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["io", "accuracy"])
def test_steps_against_plain_pytorch(name):
    """Two Adams over separate parameters, gradients cleared and clipped: the textbook loop."""
    settings = replace(SMALL, clip=0.05, labeled_weight=2.0)
    data = as_double(small_data())
    fast = trainer(name, settings=settings, data=data)
    model = build(name, data, settings, 1).train()
    vae = model.vae
    adam = {
        True: torch.optim.Adam(model.parameters(), lr=1e-3),
        False: torch.optim.Adam(vae.parameters(), lr=1e-3),
    }
    batches = list(fast._batches())[:8]
    assert {pairs is None for _, pairs in batches} == {True, False}
    fast.model.train()
    for number, (rows, pairs) in enumerate(batches):
        torch.manual_seed(number)
        fast._step(rows, pairs)
        torch.manual_seed(number)
        adjacency, operations = data.adjacency[rows], data.operations[rows]
        mu, log_std = vae.encode(adjacency, operations)
        z = vae.sample(mu, log_std)
        total = loss(vae.decode(z), adjacency, operations, mu, log_std)
        if pairs is not None:
            networks, images = pairs
            if name == "io":
                predicted = model.predict(z, model.image_features(data.labeled.pixels[images]))
                wanted = data.labeled.outputs[networks, images]
            else:
                predicted, wanted = model.predict(z), data.labeled.accuracy[networks]
            total = total + 2 * ((predicted - wanted) ** 2).mean()
        model.zero_grad()
        total.backward()
        trained = model if pairs is not None else vae
        norm = torch.nn.utils.clip_grad_norm_(trained.parameters(), 0.05)
        assert norm > 0.05
        adam[pairs is not None].step()
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value, fast.model.state_dict()[key], atol=1e-7, err_msg=key)


def test_half_the_bits_in_the_convolutions_give_nearly_the_same_loss():
    found = []
    for mixed in (False, True):
        at_work = trainer(settings=replace(SMALL, mixed_precision=mixed))
        at_work.model.train()
        rows, pairs = next(batch for batch in at_work._batches() if batch[1] is not None)
        torch.manual_seed(0)
        found.append(at_work._step(rows, pairs)[1].item())
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.03)


def test_images_lie_with_their_channels_last_and_are_the_same():
    labeled = small_data().labeled
    pixels = torch.randn(6, 3, 8, 8)
    moved = replace(labeled, pixels=pixels).to("cpu").pixels
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert moved[torch.tensor([4, 2])].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved, pixels)


def test_an_unlabeled_step_leaves_the_head_alone():
    at_work = trainer()
    at_work.model.train()
    before = {key: value.clone() for key, value in at_work.model.state_dict().items()}
    rows = next(rows for rows, pairs in at_work._batches() if pairs is None)
    at_work._step(rows, None)
    after = at_work.model.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert all(key.startswith("vae.") for key in moved)


def test_latent_moments_are_those_of_all_mus(monkeypatch):
    at_work = trainer("arch2vec")
    step, seen = at_work._step, []

    def remember(rows, pairs):
        result = step(rows, pairs)
        seen.append(result[2].clone())
        return result

    monkeypatch.setattr(at_work, "_step", remember)
    at_work.train_epoch()
    mus = torch.cat(seen)
    assert len(mus) == 60 + 70
    np.testing.assert_allclose(at_work.latent_mean, mus.mean(0), atol=1e-5)
    np.testing.assert_allclose(at_work.latent_std, mus.std(0, correction=0), atol=1e-5)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A short real training of all models, two seeds, in one process."""
    folder = tmp_path_factory.mktemp("learned")
    settings = replace(SMALL, epochs=12, original_epochs=12, hidden=32, latent=8)
    names = [(name, seed) for name in MODELS for seed in (1, 2)]
    return train_all(names, of_all(small_data()), settings, folder, jobs=1), settings, folder


def test_training_learns(learned):
    history = learned[0].groupby(["metric", "model", "epoch"])["value"].mean()
    for name in MODELS:
        losses = history["loss_unlabeled_batches"][name]
        assert losses[12] < 0.8 * losses[1]
    for name in ("io", "accuracy"):
        assert history["labels_train"][name][12] < 0.8 * history["labels_train"][name][1]


def test_history_has_what_the_figures_need(learned):
    history = learned[0]
    assert list(history.columns) == ["model", "seed", "epoch", "metric", "value"]
    assert not history.duplicated(["model", "seed", "epoch", "metric"]).any()
    metrics = history.groupby("model")["metric"].unique().map(set)
    common = {
        "operation_accuracy", "operation_accuracy_real", "adjacency_accuracy", "edges_mean",
        "non_edges_mean", "validity", "uniqueness", "validity_whole", "uniqueness_whole",
        "loss_unlabeled_batches",
    }  # fmt: skip
    assert metrics["arch2vec_original"] == common
    assert metrics["arch2vec"] == common | {"loss_labeled_batches"}
    labels = {"loss_labeled_batches", "labels_running", "labels_train", "labels_unseen_networks"}
    assert metrics["accuracy"] == common | labels
    assert metrics["io"] == common | labels | {"labels_unseen_images"}
    assert set(history["epoch"]) == set(range(1, 13))


def test_trained_models_are_found_again(learned):
    _, settings, folder = learned
    data = small_data()
    again = train("io", 2, data, settings, folder)  # nothing left to train
    loaded = load("io", 2, data, settings, folder)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    spent = seconds_of([("io", 2), ("accuracy", 1)], folder)
    assert (spent["seconds"] > 0).all()
    assert len(again.seconds) == 12


@pytest.mark.parametrize("name", MODELS)
def test_resume_gives_the_same_bytes(name, tmp_path):
    data = small_data()
    straight = train(name, 3, data, replace(SMALL, epochs=3, original_epochs=3), tmp_path / "a")
    for epochs in (1, 2, 3):
        settings = replace(SMALL, epochs=epochs, original_epochs=epochs)
        stopped = train(name, 3, data, settings, tmp_path / "b")
    file = f"checkpoints/{name}_seed3.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert stopped.history.equals(straight.history)
    assert len(stopped.seconds) == 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_killed_between_epochs_goes_on_where_it_was(tmp_path, monkeypatch):
    data = small_data()
    train("io", 3, data, SMALL, tmp_path / "a")
    measure = training._Trainer.measure

    def killed(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        measure(self)

    monkeypatch.setattr(training._Trainer, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        train("io", 3, data, SMALL, tmp_path / "b")
    monkeypatch.undo()
    train("io", 3, data, SMALL, tmp_path / "b")
    file = "checkpoints/io_seed3.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_parallel_gives_the_same_bytes(tmp_path):
    data = small_data()
    names = [("accuracy", 1), ("arch2vec", 2)]
    first = train_all(names, of_all(data), SMALL, tmp_path / "a", jobs=1)
    second = train_all(names, of_all(data), SMALL, tmp_path / "b", jobs=2)
    assert first.equals(second)
    for name, seed in names:
        file = f"checkpoints/{name}_seed{seed}.safetensors"
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    data = small_data()
    train("io", 1, data, SMALL, tmp_path)
    path = tmp_path / "checkpoints" / "io_seed1.safetensors"
    with pytest.raises(ValueError, match=r"io_seed1\.safetensors was trained with .*remove it"):
        train("io", 1, data, replace(SMALL, learning_rate=0.1), tmp_path)
    with pytest.raises(ValueError, match="has 2 epochs, more than the 1 asked for"):
        train("io", 1, data, replace(SMALL, epochs=1), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"io_seed1\.safetensors is damaged"):
        train("io", 1, data, SMALL, tmp_path)
    with pytest.raises(ValueError, match=r"there is no trained model .*io_seed9"):
        load("io", 9, data, SMALL, tmp_path)


def gathered(**changes):
    """Seven cells, three labeled ones to train and two for validation.

    Of their networks, two and one are trained; they saw 3 and 4 images.
    """
    cells = enumerate_cells(3)
    parts = {"train_validation": (2, 3), "train_test": (2, 4)}
    parts |= {"validation_validation": (1, 3), "validation_test": (1, 4)}
    given = {
        "accuracy": np.arange(7) / 10,
        "split": pd.DataFrame(
            {
                "part": ["train"] * 4 + ["validation"] * 3,
                "labeled": ["train", "train", "train", "", "", "validation", "validation"],
            }
        ),
        "networks": pd.DataFrame({"index": [2, 0, 5], "labeled": ["train", "train", "validation"]}),
        "outputs": {
            name: torch.arange(n * i * 2.0).view(n, i, 2) for name, (n, i) in parts.items()
        },
        "images": {
            "validation_pixels": torch.arange(5.0).view(5, 1, 1, 1),
            "test_pixels": 10 + torch.arange(4.0).view(4, 1, 1, 1),
        },
        "splits": {"validation_networks": [1], "test_networks": [0]},
    }
    return training.gather(cells, **(given | changes))


def test_gather_by_hand():
    sees, tests = gathered()
    data = sees["io"]
    assert data.adjacency.shape == (7, 3, 3)  # cut to the largest cell
    assert data.operations.shape == (7, 3, 5)
    assert data.train.tolist() == [0, 1, 2, 3]
    assert data.unlabeled.tolist() == [1, 3]
    assert data.validation.tolist() == [4, 5, 6]
    assert data.labeled.networks.tolist() == [2, 0]
    np.testing.assert_allclose(data.labeled.accuracy, [0.2, 0])
    assert data.labeled.pixels.flatten().tolist() == [0, 1, 2]
    assert data.watched["unseen_networks"].networks.tolist() == [5]
    assert data.watched["unseen_networks"].pixels.flatten().tolist() == [0, 1, 2]
    assert data.watched["unseen_images"].networks.tolist() == [0]
    assert data.watched["unseen_images"].pixels.flatten().tolist() == [10, 11, 12, 13]
    assert data.watched["unseen_images"].outputs.flatten().tolist() == list(range(8, 16))
    unseen, seen = tests.values()
    assert list(tests) == ["unseen networks, unseen images", "seen networks, unseen images"]
    assert (unseen.networks.tolist(), seen.networks.tolist()) == ([5], [2])
    assert seen.outputs.flatten().tolist() == list(range(8))
    assert sees["arch2vec_original"] is data


def test_the_accuracy_model_and_the_reference_see_all_labeled_cells():
    sees = gathered()[0]
    data = sees["accuracy"]
    assert sees["arch2vec"] is data
    assert data.labeled.networks.tolist() == [0, 1, 2]
    np.testing.assert_allclose(data.labeled.accuracy, [0, 0.1, 0.2])
    assert len(data.labeled) == 3 * 3  # once for each of the IO model's images
    assert data.unlabeled.tolist() == [3]
    assert list(data.watched) == ["unseen_networks"]
    assert data.watched["unseen_networks"].networks.tolist() == [5, 6]
    np.testing.assert_allclose(data.watched["unseen_networks"].accuracy, [0.5, 0.6])


def test_labeled_sets_and_schedule_by_hand():
    sees, tests = gathered()
    sets = training.labeled_sets(sees, tests).set_index(["model", "set"])
    assert [name for model, name in sets.index if model == "io"] == [
        "train", "unseen_networks", "unseen_images",
        "test: unseen networks, unseen images", "test: seen networks, unseen images",
    ]  # fmt: skip
    assert [name for model, name in sets.index if model == "accuracy"] == [
        "train",
        "unseen_networks",
    ]
    assert sets.loc[("io", "train"), ["networks", "images", "pairs"]].tolist() == [2, 3, 6]
    assert sets.loc[("accuracy", "train"), ["networks", "images", "pairs"]].tolist() == [3, 3, 9]
    # pairs 0 to 5 of two numbers each, 2 apart: variance 4 * 35 / 12; accuracies 0, .1 and .2
    assert sets.loc[("io", "train"), "baseline"] == pytest.approx(35 / 3)
    assert sets.loc[("accuracy", "train"), "baseline"] == pytest.approx(0.02 / 3)
    found = training.schedule(sees, replace(SMALL, batch_size=2)).set_index(["model", "kind"])
    assert found["batches in an epoch"].to_dict() == {
        ("io", "labeled"): 3,
        ("io", "unlabeled"): 1,
        ("accuracy", "labeled"): 5,
        ("accuracy", "unlabeled"): 1,
    }
    assert found["batches in a run"].tolist() == [3, 2, 3, 2]


def test_gather_wants_the_accuracy_of_labeled_cells():
    accuracy = np.arange(7) / 10
    gathered(accuracy=np.where(np.arange(7) == 3, np.nan, accuracy))
    with pytest.raises(ValueError, match=r"no test accuracy of the labeled cell .* \(row 6\)"):
        gathered(accuracy=np.where(np.arange(7) == 6, np.nan, accuracy))


def test_data_that_do_not_fit_are_refused():
    data = small_data()
    with pytest.raises(ValueError, match="unlabeled cells hold labeled ones"):
        replace(data, unlabeled=data.train)
    with pytest.raises(ValueError, match="no validation cells"):
        replace(data, validation=data.validation[:0])
    with pytest.raises(ValueError, match="no model 'gcn'; choose one of io, accuracy"):
        build("gcn", data, SMALL, 1)
