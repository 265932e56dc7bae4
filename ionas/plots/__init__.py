"""The book's one visual language: how cells, charts and tables of results look."""
# ruff: noqa: E402, F401

import logging

# A matplotlibrc where a run is started, of which `use_style` takes nothing, is not complained of.
logging.getLogger("matplotlib").addFilter(lambda record: "matplotlibrc" not in record.getMessage())

from ionas.plots.cell import cell_gallery, usual_operation
from ionas.plots.figures import (
    accuracy_by_counts,
    accuracy_distribution,
    agreement,
    clusters,
    compared_values,
    distance_histogram,
    embedding_maps,
    feature_heatmaps,
    image_row,
    labeled_losses,
    noise_and_signal,
    ordered_contributions,
    prediction_scores,
    predictor_scores,
    sample_effects,
    search_curves,
)
from ionas.plots.label_value import correlations, label_levels
from ionas.plots.searches import search_methods, time_to_target
from ionas.plots.style import MODEL_LABELS, STYLES, Chart, show, use_style
from ionas.plots.tables import interval, interval_table, sheet, training_table
