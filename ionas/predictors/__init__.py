"""Predictors of accuracy: `fit_X(inputs, targets, seed)` gives `predict(inputs)`, one a file."""
