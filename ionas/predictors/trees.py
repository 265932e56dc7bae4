"""Ensembles of trees on a matrix: random forest and gradient boosting, by scikit-learn."""

import numpy as np

from ionas.predictors.interface import Predict


def fit_forest(
    inputs: np.ndarray,
    targets: np.ndarray,
    seed: int,
    trees: int = 200,
    max_features: int | float = 0.33,
) -> Predict:
    """Fit a random forest (Breiman 2001).

    `max_features` is the number of inputs tried per split, never more than there are, or a share of
    them if it is a float.
    """
    from sklearn.ensemble import RandomForestRegressor

    if isinstance(max_features, int):
        max_features = min(max_features, inputs.shape[1])
    forest = RandomForestRegressor(trees, max_features=max_features, random_state=seed, n_jobs=1)
    return forest.fit(inputs, targets).predict


def fit_boosting(inputs: np.ndarray, targets: np.ndarray, seed: int) -> Predict:
    """Fit 300 boosted trees of at most 16 leaves on binned inputs, each scaled by 0.05."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=300,
        max_leaf_nodes=16,
        min_samples_leaf=5,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    return model.fit(inputs, targets).predict
