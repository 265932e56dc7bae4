"""Both ways to read vectors off a model, against one cell at a time."""

import numpy as np
import pandas as pd
import torch
from embedding_data import SMALL, small_data

from ionas.benchmark.table import Table
from ionas.embedding import metrics as evaluation
from ionas.embedding.extract import EMBEDDINGS, extract, maps
from ionas.embedding.training import MODELS, train
from ionas.space.cells import enumerate_cells


def test_both_methods_against_a_loop(monkeypatch):
    data = small_data()
    models = {name: train(name, 1, data, SMALL).model for name in MODELS}
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 40)
    found = {}
    for name, model in models.items():
        found |= extract(name, model, data.adjacency, data.operations)
    latent = found.pop("latent")
    assert tuple(found) == EMBEDDINGS
    assert latent.shape == (91, 4 * SMALL.latent)
    for row in range(len(data.adjacency)):
        cell = data.adjacency[row][None], data.operations[row][None]
        with torch.no_grad():
            for name, model in models.items():
                mu = model.vae.encode(*cell)[0][0]  # (V, L)
                mean = sum(mu[v] for v in range(4)) / 4
                key = name if name.startswith("arch2vec") else f"{name}_mean"
                np.testing.assert_allclose(found[key][row], mean, atol=1e-5)
                if name in ("io", "accuracy"):
                    weight, bias = model.flatten.weight, model.flatten.bias
                    flat = torch.cat([mu[v] for v in range(4)])
                    expected = [(w * flat).sum() + b for w, b in zip(weight, bias, strict=True)]
                    np.testing.assert_allclose(found[f"{name}_flatten"][row], expected, atol=1e-5)
                if name == "arch2vec_original":
                    np.testing.assert_allclose(latent[row], mu.flatten(), atol=1e-5)


def test_shapes_and_that_the_flatten_embedding_is_not_cut_off_at_zero():
    data = small_data()
    model = train("io", 1, data, SMALL).model
    found = extract("io", model, data.adjacency, data.operations)
    assert {name: values.shape for name, values in found.items()} == {
        "io_mean": (91, SMALL.latent),
        "io_flatten": (91, SMALL.embedding),
    }
    assert all(values.dtype == np.float32 for values in found.values())
    assert (found["io_flatten"] < 0).any()
    assert not model.training


def embedded(accuracy: np.ndarray) -> tuple[Table, dict[str, np.ndarray]]:
    """Some cells and made-up embeddings of them."""
    cells = enumerate_cells(4)[: len(accuracy)]
    table = Table(cells, pd.DataFrame({"test_accuracy": accuracy}), {})
    rng = np.random.default_rng(0)
    spread = np.array([5, 1, 3, 0.5, 0.1])
    values = {f"{name}_seed4": rng.normal(size=(len(cells), 5)) * spread for name in EMBEDDINGS}
    return table, values


def test_maps_are_the_plane_of_largest_variance():
    table, values = embedded(np.linspace(0.5, 0.9, 60))
    points = maps(table, values, 4)
    assert list(points["embedding"].unique()) == list(EMBEDDINGS)
    found = points[points["embedding"] == "io_flatten"]
    centered = values["io_flatten_seed4"] - values["io_flatten_seed4"].mean(0)
    lengths = np.linalg.svd(centered, compute_uv=False)
    np.testing.assert_allclose(found["variance"], (lengths[:2] ** 2).sum() / (lengths**2).sum())
    assert found["cells"].sum() == 60


def test_maps_show_known_cells_evenly():
    accuracy = np.arange(20.0) / 20
    accuracy[[3, 19]] = np.nan
    table, values = embedded(accuracy)
    for most, shown in ((3000, 18), (3, 3)):
        assert maps(table, values, 4, most).groupby("embedding")["cells"].sum().eq(shown).all()
