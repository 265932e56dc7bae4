"""Both ways to read vectors off a model, against one cell at a time."""

import numpy as np
import torch
from embedding_data import SMALL, small_data

from ionas.embedding import metrics as evaluation
from ionas.embedding.extract import EMBEDDINGS, extract, latent_matrix, project, shown_on_map
from ionas.embedding.training import MODELS, train


def test_both_methods_against_a_loop(monkeypatch):
    data = small_data()
    models = {name: train(name, 1, data, SMALL).model for name in MODELS}
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 40)
    found = extract(models, data.adjacency, data.operations)
    assert tuple(found) == EMBEDDINGS
    latent = latent_matrix(models["arch2vec_original"], data.adjacency, data.operations)
    assert latent.shape == (91, 4 * SMALL.latent)
    for row in range(len(data.adjacency)):
        cell = data.adjacency[row][None], data.operations[row][None]
        with torch.no_grad():
            for name, model in models.items():
                vae = evaluation.vae_of(model)
                mu = vae.encode(*cell)[0][0]  # (V, L)
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
    found = extract({"io": model}, data.adjacency, data.operations)
    assert {name: values.shape for name, values in found.items()} == {
        "io_mean": (91, SMALL.latent),
        "io_flatten": (91, SMALL.embedding),
    }
    assert all(values.dtype == np.float32 for values in found.values())
    assert (found["io_flatten"] < 0).any()
    assert not model.training


def test_map_against_scikit_learn():
    from sklearn.decomposition import PCA

    values = np.random.default_rng(0).normal(size=(60, 5)) * [5, 1, 3, 0.5, 0.1] + 7
    points, share = project(values.astype(np.float32))
    pca = PCA(2).fit(values)
    expected = pca.transform(values)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), rtol=1e-3, atol=1e-4)
    assert abs(share - pca.explained_variance_ratio_.sum()) < 1e-6
    np.testing.assert_allclose(project(values[::-1])[0][::-1], points, atol=1e-4)


def test_map_shows_known_cells_evenly():
    accuracy = np.arange(20.0)
    accuracy[[3, 19]] = np.nan
    assert shown_on_map(accuracy).tolist() == [*range(3), *range(4, 19)]
    assert shown_on_map(accuracy, 3).tolist() == [0, 9, 18]
