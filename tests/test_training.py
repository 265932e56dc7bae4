"""The semi-supervised loop: order of batches, what each model learns, exact resume."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from embedding_data import SMALL, changed, data_of_both, small_data
from torch.nn.functional import softplus

from ionas.benchmark.table import Table
from ionas.embedding import data as seen
from ionas.embedding import training
from ionas.embedding.data import Labeled, alternate, batches, run_lengths
from ionas.embedding.extract import EMBEDDINGS, extract_all, maps
from ionas.embedding.training import MODELS, Trainer, build, load, train
from ionas.parameters import EmbeddingTraining
from ionas.space.cells import enumerate_cells


def test_order_at_paper_scale():
    """19,000 labeled and 11,896 unlabeled batches: 300 and 206 in turns, then the rest."""
    unlabeled = -(-(381262 - 608) // 32)
    assert unlabeled == 11896
    assert int(0.33 * unlabeled) // (608 // 32) == 206
    lengths = run_lengths(19000, unlabeled, EmbeddingTraining(labeled_run=0, unlabeled_run=0))
    assert lengths == (300, 206)
    kinds = torch.arange(19000), torch.arange(unlabeled)
    runs = list(alternate(*kinds, *lengths))
    sizes = [(labeled, len(run)) for labeled, run in runs]
    assert sizes[:114] == [(True, 300), (False, 206)] * 57
    # 57 * 206 = 11,742; then 300 and the last 154; then labeled batches to the end
    rest = sizes[114:]
    assert rest[:2] == [(True, 300), (False, 154)]
    assert all(labeled for labeled, _ in rest[2:])
    for is_labeled, kind in zip((True, False), kinds, strict=True):
        found = [run for labeled, run in runs if labeled is is_labeled]
        assert torch.equal(torch.cat(found), kind)


def test_order_when_the_labeled_run_out():
    runs = alternate(torch.arange(2), torch.arange(5), 2, 1)
    assert [(labeled, run.tolist()) for labeled, run in runs] == [
        (True, [0, 1]), (False, [0]), (False, [1]), (False, [2]), (False, [3]), (False, [4]),
    ]  # fmt: skip
    assert [run.tolist() for _, run in alternate(torch.arange(0), torch.arange(1), 3, 3)] == [[0]]


def test_run_lengths_keep_the_proportion():
    assert run_lengths(500, 66, changed(SMALL, labeled_run=0, unlabeled_run=0)) == (8, 1)
    assert run_lengths(2, 2, changed(SMALL, labeled_run=0, unlabeled_run=0)) == (1, 1)
    assert run_lengths(500, 66, changed(SMALL, labeled_run=7, unlabeled_run=0)) == (7, 1)


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
    data, pairs, cells = small_data(), [], []
    for batch in batches("io", data, SMALL, 1):
        assert len(batch.rows) <= SMALL.batch_size
        assert torch.equal(batch.adjacency, data.adjacency[batch.rows])
        assert torch.equal(batch.operations, data.operations[batch.rows])
        if batch.networks is None:
            cells += batch.rows.tolist()
        else:
            assert torch.equal(batch.rows, data.labeled.networks[batch.networks])
            pairs += list(zip(batch.networks.tolist(), batch.images.tolist(), strict=True))
    assert sorted(pairs) == [(n, i) for n in range(10) for i in range(6)]
    assert sorted(cells) == sorted(data.unlabeled.tolist())


def test_all_models_meet_the_same_batches_and_the_original_all_cells():
    data = small_data()
    rows = {name: [b.rows for b in batches(name, data, SMALL, 1)] for name in MODELS}
    for name in ("accuracy", "arch2vec"):
        assert all(torch.equal(a, b) for a, b in zip(rows["io"], rows[name], strict=True))
    for name in ("arch2vec_original", "arch2vec_original_eval"):
        assert sorted(torch.cat(rows[name]).tolist()) == sorted(data.train.tolist())
    assert not torch.equal(next(batches("io", data, SMALL, 2)).rows, rows["io"][0])


def test_models_of_one_seed_begin_with_the_same_autoencoder():
    shape = small_data().shape
    states = [build(name, shape, SMALL, 1).vae.state_dict() for name in MODELS]
    for state in states[1:]:
        assert all(torch.equal(state[key], states[0][key]) for key in state)
    other = build("arch2vec", shape, SMALL, 2).state_dict()
    assert not torch.equal(other["operations.weight"], states[0]["operations.weight"])


def textbook_loss(vae, adjacency, operations):
    """Encoder, decoder and loss of METHOD section 2, written out; also returns Z."""
    x = operations
    for epsilon, perceptron in zip(vae.epsilon, vae.perceptrons, strict=True):
        neighbors = torch.einsum("buv,bvd->bud", adjacency + adjacency.mT, x)
        rows = ((1 + epsilon) * x + neighbors).flatten(0, 1)
        for dense, norm in ((0, 1), (3, 4)):
            rows = rows @ perceptron[dense].weight.T
            mean, variance = rows.mean(0), rows.var(0, correction=0)
            rows = (rows - mean) / (variance + 1e-5).sqrt()
            rows = (rows * perceptron[norm].weight + perceptron[norm].bias).clamp(min=0)
        x = rows.view(*x.shape[:2], -1)
    both = x @ vae.mu_and_log_std.weight.T + vae.mu_and_log_std.bias
    mu, log_std = both[..., : vae.latent], both[..., vae.latent :]
    z = mu + log_std.exp() * torch.randn_like(mu)
    kept = torch.nn.functional.dropout(z, vae.dropout.p)
    edges = kept @ kept.mT
    named = kept @ vae.operations.weight.T + vae.operations.bias
    # -log p = softplus(x) - t x, exact where a sigmoid would round to 1
    fit = (softplus(named) - operations * named).mean()
    fit = fit + (softplus(edges) - adjacency * edges).triu(1).mean()
    rows = mu.shape[0] * mu.shape[1]
    divergence = (1 + 2 * log_std - mu**2 - (2 * log_std).exp()).sum(2).mean() * -0.5 / rows
    return fit + divergence, z


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["io", "accuracy", "arch2vec"])
def test_steps_against_the_textbook(name):
    """Two Adams over separate parameters, gradients cleared and clipped, formulas written out."""
    p = changed(SMALL, clip=0.05, labeled_weight=2.0)
    data = as_double(small_data())
    trainer = Trainer(name, 1, data, p)
    model = build(name, data.shape, p, 1).train()
    vae = model.vae
    adam = {
        True: torch.optim.Adam(model.parameters(), lr=p.learning_rate, fused=False),
        False: torch.optim.Adam(vae.parameters(), lr=p.learning_rate, fused=False),
    }
    trainer.model.train()
    met = list(batches(name, data, p, 1))[:8]
    assert {batch.networks is None for batch in met} == {True, False}
    for number, batch in enumerate(met):
        torch.manual_seed(number)
        losses, _ = trainer.step(batch)
        torch.manual_seed(number)
        total, z = textbook_loss(vae, batch.adjacency, batch.operations)
        labeled = batch.networks is not None and name != "arch2vec"
        if labeled:
            if name == "io":
                features = model.tower(data.labeled.pixels[batch.images])
                predicted = model.predict(z, features)
                wanted = data.labeled.outputs[batch.networks, batch.images]
            else:
                predicted, wanted = model.predict(z), data.labeled.accuracy[batch.networks]
            total = total + 2 * ((predicted - wanted) ** 2).mean()
        kind = "unlabeled" if batch.networks is None else "labeled"
        assert losses[f"loss_{kind}_batches"].item() == pytest.approx(total.item(), abs=1e-6)
        model.zero_grad()
        total.backward()
        trained = model if labeled else vae
        norm = torch.nn.utils.clip_grad_norm_(trained.parameters(), 0.05)
        assert norm > 0.05
        adam[labeled].step()
    for key, value in model.named_parameters():
        found = trainer.model.get_parameter(key)
        np.testing.assert_allclose(found.detach(), value.detach(), atol=1e-6, err_msg=key)


def test_images_lie_with_their_channels_last_and_are_the_same():
    labeled = small_data().labeled
    pixels = torch.randn(6, 3, 8, 8)
    moved = replace(labeled, pixels=pixels).to("cpu").pixels
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert moved[torch.tensor([4, 2])].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved, pixels)


def test_an_unlabeled_step_leaves_the_head_alone():
    trainer = Trainer("io", 1, small_data(), SMALL)
    trainer.model.train()
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    met = batches("io", trainer.data, SMALL, 1)
    trainer.step(next(batch for batch in met if batch.networks is None))
    after = trainer.model.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert all(key.startswith("vae.") for key in moved)


@pytest.mark.parametrize(
    ("name", "cells"), [("io", 70), ("accuracy", 70), ("arch2vec", 60 + 70)], ids=str
)
def test_latent_moments_are_over_unlabeled_cells_or_in_the_reference_over_all(
    name, cells, monkeypatch
):
    trainer = Trainer(name, 1, small_data(), SMALL)
    step, mus = trainer.step, []

    def remember(batch):
        losses, mu = step(batch)
        if batch.networks is None or name == "arch2vec":
            mus.append(mu.clone())
        return losses, mu

    monkeypatch.setattr(trainer, "step", remember)
    monkeypatch.setattr(training, "BLOCK", 4)
    trainer.train_epoch()
    seen_mus = torch.cat(mus)
    assert len(seen_mus) == cells
    np.testing.assert_allclose(trainer.latent_mean, seen_mus.mean(0), atol=1e-5)
    np.testing.assert_allclose(trainer.latent_std, seen_mus.std(0, correction=0), atol=1e-5)


@pytest.mark.parametrize("name", ["arch2vec_original", "arch2vec_original_eval"])
def test_the_original_in_evaluation_mode_after_the_first_epoch(name, monkeypatch):
    """No dropout, no sampling, frozen batch statistics and one order; in training mode none."""
    trainer = Trainer(name, 1, small_data(), SMALL)
    rows, statistics, exact = [], [], []
    step, sample = trainer.step, trainer.vae.sample

    def remember(batch):
        rows[-1].append(batch.rows.tolist())
        return step(batch)

    def look(mu, log_std):
        z = sample(mu, log_std)
        exact[-1].append(torch.equal(z, mu) and torch.equal(trainer.vae.dropout(z), z))
        return z

    monkeypatch.setattr(trainer, "step", remember)
    monkeypatch.setattr(trainer.vae, "sample", look)
    for _ in range(3):
        rows.append([])
        exact.append([])
        before = {key: value.clone() for key, value in trainer.model.named_parameters()}
        trainer.train_epoch()
        after = dict(trainer.model.named_parameters())
        assert not torch.equal(before["epsilon"], after["epsilon"])  # it learns in either mode
        buffers = dict(trainer.model.named_buffers()).items()
        statistics.append({key: value.clone() for key, value in buffers if "running" in key})
    one = name == "arch2vec_original_eval"
    assert (rows[0] == rows[1] == rows[2]) is one
    assert [all(found) for found in exact] == [False, one, one]
    assert [any(found) for found in exact] == [False, one, one]
    same = [all(torch.equal(s[key], statistics[1][key]) for key in s) for s in statistics]
    assert same == [one, True, one]


def frame(trainer):
    """What a training measured; uniqueness may be NaN, which a list would find different."""
    return pd.DataFrame(trainer.history, columns=["epoch", "metric", "value"])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A short real training of all models, two seeds, in one process."""
    folder = tmp_path_factory.mktemp("learned")
    p = changed(SMALL, seeds=[1, 2], epochs=12, original_epochs=12, hidden=32, latent=8)
    return training.train_data(data_of_both(small_data()), p, folder, 1, "cpu"), p, folder


def test_training_learns(learned):
    history = training.history(*learned[:2]).groupby(["metric", "model", "epoch"])["value"].mean()
    for name in MODELS:
        losses = history["loss_unlabeled_batches"][name]
        assert losses[12] < losses[1]
    for name in ("io", "accuracy"):
        assert history["labels_train"][name][12] < history["labels_train"][name][1]


def test_history_has_what_the_figures_need(learned):
    history = training.history(*learned[:2])
    assert list(history.columns) == ["model", "seed", "epoch", "metric", "value"]
    assert not history.duplicated(["model", "seed", "epoch", "metric"]).any()
    metrics = history.groupby("model")["metric"].unique().map(set)
    common = {
        "operation_accuracy", "operation_accuracy_real", "adjacency_accuracy", "edges_mean",
        "non_edges_mean", "validity", "uniqueness", "validity_as_in_paper",
        "uniqueness_as_in_paper", "loss_unlabeled_batches",
    }  # fmt: skip
    assert metrics["arch2vec_original"] == metrics["arch2vec_original_eval"] == common
    assert metrics["arch2vec"] == common | {"loss_labeled_batches"}
    labels = {"loss_labeled_batches", "labels_running", "labels_train", "labels_unseen_networks"}
    assert metrics["accuracy"] == common | labels
    assert metrics["io"] == common | labels | {"labels_unseen_images"}
    assert set(history["epoch"]) == set(range(1, 13))


def test_seconds_are_those_of_the_parts(learned):
    found = training.seconds(learned[2], learned[1])
    assert found[["model", "seed"]].to_numpy().tolist() == [[m, s] for m in MODELS for s in (1, 2)]
    assert (found["seconds"] > 0).all()


def test_sizes_are_those_of_the_models(learned):
    found = training.sizes(learned[0], learned[1]).set_index("model")
    model = load(learned[0], "io", 1, learned[1])
    assert found.loc["io", "parameters"] == sum(q.numel() for q in model.parameters())
    assert found["autoencoder"].nunique() == 1
    assert found.loc["arch2vec", "parameters"] == found.loc["arch2vec", "autoencoder"]
    assert set(found["epochs"]) == {12}


def test_trained_models_are_found_again(learned):
    trained, p, folder = learned
    again = train("io", 2, small_data(), p, folder)  # nothing left to train
    loaded = load(trained, "io", 2, p)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])
    rows = training.history(trained, p).query("model == 'io' and seed == 2")
    assert frame(again).equals(rows[["epoch", "metric", "value"]].reset_index(drop=True))


def test_a_further_seed_trains_only_what_is_missing(learned, monkeypatch):
    trained, p, folder = learned
    begun = []
    train_epoch = Trainer.train_epoch

    def remember(self):
        begun.append((self.name, self.seed))
        train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", remember)
    more = changed(p, seeds=[1, 2, 3])
    grown = training.train_data(data_of_both(small_data()), more, folder, 1, "cpu")
    assert set(begun) == {(name, 3) for name in MODELS}
    assert all(np.array_equal(values, grown[key]) for key, values in trained.items())


@pytest.mark.parametrize("name", MODELS)
def test_resume_gives_the_same_bytes(name, tmp_path):
    data = small_data()
    straight = train(name, 3, data, changed(SMALL, epochs=3, original_epochs=3), tmp_path / "a")
    for epochs in (1, 2, 3):
        p = changed(SMALL, epochs=epochs, original_epochs=epochs)
        stopped = train(name, 3, data, p, tmp_path / "b")
    file = f"{name}_seed3.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert frame(stopped).equals(frame(straight))
    assert len(stopped.seconds) == 3
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("where", ["before the measures", "between the parts"])
def test_killed_between_epochs_goes_on_where_it_was(where, tmp_path, monkeypatch):
    data = small_data()
    train("io", 3, data, SMALL, tmp_path / "a")
    owner, name = (Trainer, "measure") if where.startswith("before") else (Trainer, "checkpoint")
    whole = getattr(owner, name)

    def killed(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(KeyboardInterrupt):
        train("io", 3, data, SMALL, tmp_path / "b")
    monkeypatch.undo()
    assert len(train("io", 3, data, SMALL, tmp_path / "b").seconds) == 2
    file = "io_seed3.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_parallel_gives_the_same_bytes(tmp_path):
    both = data_of_both(small_data())
    p = changed(SMALL, seeds=[1, 2], epochs=1, original_epochs=1)
    serial, parallel = (
        training.train_data(both, p, tmp_path / str(jobs), jobs, "cpu") for jobs in (1, 2)
    )
    assert serial.keys() == parallel.keys()
    for key, values in serial.items():
        assert np.array_equal(values, parallel[key])


@pytest.mark.parametrize("harm", ["bit", "cut", "empty"])
def test_a_damaged_checkpoint_is_trained_again(harm, tmp_path):
    data = small_data()
    straight = train("io", 1, data, SMALL, tmp_path)
    path = tmp_path / "io_seed1.safetensors"
    content = bytearray(path.read_bytes())
    whole = bytes(content)
    content[-1] ^= 1
    path.write_bytes({"bit": bytes(content), "cut": whole[:1000], "empty": b""}[harm])
    again = train("io", 1, data, SMALL, tmp_path)
    assert path.read_bytes() == whole
    assert frame(again).equals(frame(straight))


def test_a_checkpoint_of_other_parameters_is_not_gone_on_with(tmp_path):
    data = small_data()
    train("io", 1, data, SMALL, tmp_path)
    for other in (changed(SMALL, learning_rate=0.1), changed(SMALL, epochs=1)):
        found = train("io", 1, data, other, tmp_path)
        assert frame(found).equals(frame(train("io", 1, data, other)))


@pytest.mark.parametrize("name", MODELS)
def test_a_training_that_diverges_is_refused_and_not_kept(name, tmp_path):
    wild = changed(SMALL, learning_rate=1e30)
    message = f"loss of {name}, seed 3, is not finite in epoch .; lower learning_rate"
    with pytest.raises(ValueError, match=message):
        train(name, 3, small_data(), wild, tmp_path)
    assert not (tmp_path / f"{name}_seed3.safetensors").exists()


def test_a_missing_timing_is_no_obstacle(tmp_path):
    data = small_data()
    train("io", 1, data, SMALL, tmp_path)
    (tmp_path / "io_seed1.json").write_bytes(b"[")
    assert all(math.isnan(spent) for spent in train("io", 1, data, SMALL, tmp_path).seconds)


def study(**changes):
    """Arguments of `gather`: seven cells, three labeled ones to train and two for validation.

    Of their networks, two and one are trained; they saw 3 and 4 images.
    """
    shapes = {"train_validation": (2, 3), "train_test": (2, 4)}
    shapes |= {"validation_validation": (1, 3), "validation_test": (1, 4)}
    given = {
        "accuracy": np.arange(7) / 10,
        "split": pd.DataFrame(
            {
                "part": ["train"] * 4 + ["validation"] * 3,
                "labeled": ["train", "train", "train", "", "", "validation", "validation"],
            }
        ),
        "networks": pd.DataFrame({"index": [2, 0, 5], "labeled": ["train", "train", "validation"]}),
        "targets": {
            name: np.arange(n * i * 2, dtype=np.float32).reshape(n, i, 2)
            for name, (n, i) in shapes.items()
        },
        "images": {
            "validation_pixels": np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1),
            "test_pixels": 10 + np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1),
        },
        "splits": {"validation_networks": [1], "test_networks": [0]},
    }
    given |= changes
    table = Table(enumerate_cells(3), pd.DataFrame({"test_accuracy": given.pop("accuracy")}), {})
    return table, *given.values()


def test_gather_by_hand():
    sees, tests = seen.gather(*study())
    data = sees["io"]
    assert data.adjacency.shape == (7, 3, 3)  # cut to the largest cell
    assert data.operations.shape == (7, 3, 5)
    assert data.shape == (3, 5, 1, 2)
    assert data.train.tolist() == [0, 1, 2, 3]
    assert data.unlabeled.tolist() == [1, 3]
    assert data.validation.tolist() == [4]  # without the labeled ones
    assert data.labeled.networks.tolist() == [2, 0]
    np.testing.assert_allclose(data.labeled.accuracy, [0.2, 0])
    assert data.labeled.pixels.flatten().tolist() == [0, 1, 2]
    assert data.watched["unseen_networks"].networks.tolist() == [5]
    assert data.watched["unseen_networks"].pixels.flatten().tolist() == [0, 1, 2]
    assert data.watched["unseen_images"].networks.tolist() == [0]
    assert data.watched["unseen_images"].pixels.flatten().tolist() == [10, 11, 12, 13]
    assert data.watched["unseen_images"].outputs.flatten().tolist() == list(range(8, 16))
    unseen, known = tests.values()
    assert list(tests) == ["unseen networks, unseen images", "seen networks, unseen images"]
    assert (unseen.networks.tolist(), known.networks.tolist()) == ([5], [2])
    assert known.outputs.flatten().tolist() == list(range(8))


def test_the_accuracy_model_and_the_reference_see_all_labeled_cells():
    data = seen.gather(*study())[0]["accuracy"]
    assert seen.DATA_OF["arch2vec"] == "accuracy"
    assert data.labeled.networks.tolist() == [0, 1, 2]
    np.testing.assert_allclose(data.labeled.accuracy, [0, 0.1, 0.2])
    assert len(data.labeled) == 3 * 3  # once for each of the IO model's images
    assert data.unlabeled.tolist() == [3]
    assert list(data.watched) == ["unseen_networks"]
    assert data.watched["unseen_networks"].networks.tolist() == [5, 6]
    np.testing.assert_allclose(data.watched["unseen_networks"].accuracy, [0.5, 0.6])


def test_workers_get_the_same_data():
    for data in seen.gather(*study())[0].values():
        found = seen.unpack(seen.pack(data))
        for field in (*seen.CELLS, *seen.ROWS):
            assert torch.equal(getattr(found, field), getattr(data, field))
        assert found.watched.keys() == data.watched.keys()
        pairs = [(found.watched[key], data.watched[key]) for key in data.watched]
        for one, other in [(found.labeled, data.labeled), *pairs]:
            assert all(torch.equal(value, vars(other)[key]) for key, value in vars(one).items())


def test_labeled_sets_and_schedule_by_hand():
    sets = seen.labeled_sets(*study()).set_index(["model", "set"])
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
    found = seen.schedule(*study(), p=changed(SMALL, batch_size=2)).set_index(["model", "kind"])
    assert found["batches in an epoch"].to_dict() == {
        ("io", "labeled"): 3,
        ("io", "unlabeled"): 1,
        ("accuracy", "labeled"): 5,
        ("accuracy", "unlabeled"): 1,
    }
    assert found["batches in a run"].tolist() == [3, 2, 3, 2]


def test_the_whole_notebook_by_its_functions(tmp_path):
    """From the tables to the trained models, the test sets, the embeddings and their maps."""
    given = study(
        split=pd.DataFrame(
            {"part": ["train"] * 5 + ["validation"] * 2, "labeled": [*["train"] * 3, *[""] * 4]}
        ).assign(labeled=[*["train"] * 3, "", "", "validation", ""]),
        images={name: np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
                for name in ("validation_pixels", "test_pixels")},
    )  # fmt: skip
    p = changed(SMALL, seeds=[1, 2], epochs=1, original_epochs=1)
    trained = training.train_all(*given, p=p, parts=tmp_path, jobs=1)
    losses = training.losses_on_test_sets(*given, trained=trained, p=p)
    assert losses[["set", "seed"]].to_numpy().tolist() == [
        ["unseen networks, unseen images", 1], ["unseen networks, unseen images", 2],
        ["seen networks, unseen images", 1], ["seen networks, unseen images", 2],
    ]  # fmt: skip
    assert (losses["loss"] > 0).all()
    embeddings = extract_all(given[0], trained, p)
    assert set(embeddings) == {f"{e}_seed{s}" for e in (*EMBEDDINGS, "latent") for s in (1, 2)}
    points = maps(given[0], embeddings, 2, most=5)
    cells = points.groupby("embedding", sort=False)["cells"].sum()
    assert cells.to_dict() == dict.fromkeys(EMBEDDINGS, 5)


def test_gather_wants_the_accuracy_of_labeled_cells():
    accuracy = np.arange(7) / 10
    seen.gather(*study(accuracy=np.where(np.arange(7) == 3, np.nan, accuracy)))
    with pytest.raises(ValueError, match=r"no test accuracy of the labeled cell .* \(row 6\)"):
        seen.gather(*study(accuracy=np.where(np.arange(7) == 6, np.nan, accuracy)))


def test_data_that_do_not_fit_are_refused():
    data = small_data()
    with pytest.raises(ValueError, match="unlabeled cells contain labeled ones"):
        replace(data, unlabeled=data.train)
    with pytest.raises(ValueError, match="no validation cells"):
        replace(data, validation=data.validation[:0])
    with pytest.raises(ValueError, match="no model 'gcn'; choose one of io, accuracy"):
        build("gcn", data.shape, SMALL, 1)
