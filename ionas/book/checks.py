"""What the first look at the inputs can tell, before anything runs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ionas.benchmark.table import check_table
from ionas.book.configure import STAGES, InvalidParameters, validate
from ionas.book.folders import RunFolder
from ionas.book.provenance import damaged
from ionas.images import check_source
from ionas.parameters import Parameters
from ionas.tasks import predictor_protocols
from ionas.tasks.labels import EXCLUDED
from ionas.tasks.prediction import accuracy_threshold, check_sizes, scored

FEWEST = 20  # cells that a surrogate or predictor is fitted to, and judged on
FEWEST_NETWORKS = 10  # train networks whose pairs notebook 10 compares


def check(name: str, parameters: Mapping[str, Parameters]) -> None:
    """Look at what the parameters of the stage `name` ask for, and at the data that they name.

    `parameters` are those of all notebooks that will run or have run, by stage; what needs another
    one's is looked at only if that is among them. Raises ValueError, which names the stage, if a
    file is missing or malformed, a folder unreadable, or parameters do not fit each other.
    """
    if name in CHECKS:
        try:
            CHECKS[name](parameters[name], parameters)
        except ValueError as error:
            raise InvalidParameters(f"{name}: {error}") from error


def finished(run: RunFolder, stages: Sequence[str]) -> dict[str, Parameters]:
    """Parameters of those of the stages whose results a run has, whole.

    Those of 01 are as if it had read the table that it wrote.
    """
    found: dict[str, Parameters] = {}
    for name in stages:
        manifest = run.manifest(name) if name in STAGES else None
        if manifest and not damaged(run.stage(name), manifest["outputs"]):
            with suppress(InvalidParameters):  # of an older version
                found[name] = validate(STAGES[name], manifest["parameters"])
    if "search_space" in found:
        table = run.stage("search_space") / "table.parquet"
        written = {"table": str(table), "dataset": ""}
        found["search_space"] = found["search_space"].model_copy(update=written)
    return found


def _at_most(most: int, p: Any, name: str, limit: str) -> None:
    if (wanted := getattr(p, name)) > most:
        raise ValueError(f"{name} is {wanted}, but {limit}")


def _search_space(p: Any, _: Mapping[str, Any]) -> None:
    known = check_table(p.table, p.dataset)["test_accuracy"]
    cells = known.count()
    if (labeled := p.labeled_train + p.labeled_validation) > cells:
        raise ValueError(
            f"labeled_train and labeled_validation are {labeled} cells together, but only {cells} "
            f"of {p.table} have a test accuracy; ask for fewer"
        )

    if known.nunique() < 2:
        raise ValueError(f"all test accuracies of {p.table} are the same; check the file")
    train = int((1 - p.validation_fraction) * len(known))
    for part, size in (("train", train), ("validation", len(known) - train)):
        limit = f"at a validation_fraction of {p.validation_fraction} that part has {size} cells"
        _at_most(size, p, f"labeled_{part}", f"{limit}; ask for fewer, or change the fraction")


def _pretraining(p: Any, others: Mapping[str, Any]) -> None:
    for part in ("train", "validation"):
        name = f"{part}_networks"
        if getattr(p, name) == 1:
            raise ValueError(f"{name} is 1; give at least 2, or 0 for all")
        if space := others.get("search_space"):
            there = getattr(space, f"labeled_{part}")
            mend = "ask for fewer, or label more"
            _at_most(there, p, name, f"search_space.labeled_{part} is {there}; {mend}")
    side, train, test = check_source(p.images, p.images_path)
    named = p.images_path if p.images == "folder" else p.images
    deepest = max(side.bit_length() - 1, 1)
    halved = f"between two the image is halved, of {side} x {side} pixels"
    _at_most(deepest, p, "stacks", f"{halved}; give at most {deepest}")
    _at_most(test, p, "test_images", f"{named} has {test}; ask for fewer")
    if p.validation_images + max(p.train_images, 1) > train:
        raise ValueError(
            f"validation_images is {p.validation_images} and train_images {p.train_images}, "
            f"but {named} has {train} train images for both; ask for fewer"
        )


def _io_dataset(p: Any, others: Mapping[str, Any]) -> None:
    if networks := others.get("pretraining"):
        for name in ("validation_images", "test_images"):
            if kept := getattr(networks, name):
                mend = "take fewer, or have notebook 02 keep more"
                _at_most(kept, p, name, f"pretraining.{name} is {kept}; {mend}")
        width = networks.channels * 2 ** (networks.stacks - 1)
        mend = "keep fewer, or raise pretraining.channels or pretraining.stacks"
        _at_most(width + 1, p, "top_k", f"the networks have {width} features and a bias; {mend}")


def _output_features(p: Any, others: Mapping[str, Any]) -> None:
    if outputs := others.get("io_dataset"):
        networks = others.get("pretraining")
        if images := outputs.validation_images or (networks and networks.validation_images):
            mend = f"the IO dataset has {images} validation images; give 0 to {images - 1}"
            _at_most(images - 1, p, "image", mend)


def _reinforce(p: Any, others: Mapping[str, Any]) -> None:
    if space := others.get("search_space"):
        known = check_table(space.table, space.dataset)
        mend = "leave notebook 06 out, by --only for each of the others"
        if not known["validation_accuracy"].count():
            raise ValueError(f"{space.table} has no validation_accuracy, which 06 needs; {mend}")
        if p.cost == "time" and not known["training_time"].max() > 0:
            raise ValueError(
                f"{space.table} has no training_time, by which 06 charges a search; let it count "
                f"trainings instead: --set reinforce.cost=evaluations, or {mend}"
            )
        longest = 1.0 if p.cost == "evaluations" else known["training_time"].max()
        if 0 < p.budget < longest:
            raise ValueError(
                f"budget is {p.budget:g}, but one training of {space.table} takes up to "
                f"{longest:g}; give more, or 0 for 300 average trainings"
            )


def _search_methods(p: Any, others: Mapping[str, Any]) -> None:
    if p.initial >= p.budget:
        raise ValueError(
            f"initial is {p.initial}, but a run has {p.budget} queries; begin with fewer"
        )
    if space := others.get("search_space"):
        known = check_table(space.table, space.dataset)
        if not known["validation_accuracy"].count():
            raise ValueError(
                f"{space.table} has no validation_accuracy, which 09 needs; leave it out"
            )
        if p.cost == "time" and not known["training_time"].max() > 0:
            raise ValueError(
                f"{space.table} has no training_time, by which 09 charges a search; let it count "
                "trainings instead: --set search_methods.cost=evaluations"
            )
        needed = ["validation_accuracy", *(["training_time"] if p.cost == "time" else [])]
        queried = known[needed].notna().all(axis=1)
        cells, unknown = int(queried.sum()), int(known.loc[queried, "test_accuracy"].isna().sum())
        if unknown:
            raise ValueError(
                f"{unknown} of the {cells} cells of {space.table} that can be queried have no "
                "test_accuracy, by which 09 measures regret; leave these cells out of the table"
            )
        fitted = round(p.surrogate_share * cells)
        if min(fitted, cells - fitted) < FEWEST:
            raise ValueError(
                f"surrogate_share is {p.surrogate_share:g}, which fits the surrogate to {fitted} "
                f"of {cells} cells; {FEWEST} at least are needed, and as many to judge it on"
            )
        _at_most(
            cells, p, "budget", f"{cells} cells of {space.table} can be queried; ask for fewer"
        )


def _performance_prediction(p: Any, others: Mapping[str, Any]) -> None:
    if space := others.get("search_space"):
        accuracy = check_table(space.table, space.dataset)["test_accuracy"].dropna().to_numpy()
        scored(accuracy, space.labeled_train, p)


def _predictors(p: Any, others: Mapping[str, Any]) -> None:
    if space := others.get("search_space"):
        accuracy = check_table(space.table, space.dataset)["test_accuracy"].dropna().to_numpy()
        threshold = p.accuracy_threshold or accuracy_threshold(accuracy, p.excluded_share)
        above = int((accuracy > threshold).sum())
        if above <= FEWEST + 2:
            raise ValueError(
                f"only {above} of the {len(accuracy)} cells of {space.table} have a test accuracy "
                f"above {threshold:g}, of which {FEWEST} are left to be scored; lower "
                "accuracy_threshold, take a larger table, or leave notebook 08 out"
            )
        predictor_protocols.scored(accuracy, p)


def _label_value(p: Any, others: Mapping[str, Any]) -> None:
    if networks := others.get("pretraining"):
        most = networks.epochs
        if p.doses and p.doses[-1] >= most:
            raise ValueError(
                f"doses has {p.doses[-1]}, but pretraining.epochs is {most}, the dose of notebook "
                f"02's own networks; give fewer epochs than {most}, or none"
            )
        space = others.get("search_space")
        train = networks.train_networks or (space.labeled_train if space else FEWEST_NETWORKS)
        if train < FEWEST_NETWORKS:
            raise ValueError(
                f"there are {train} labeled train networks, too few to compare pairs of them; "
                f"give {FEWEST_NETWORKS} at least, or leave notebook 10 out"
            )
    if space := others.get("search_space"):
        known = check_table(space.table, space.dataset)["test_accuracy"].dropna().to_numpy()
        check_sizes([p.sample], len(known), space.labeled_train, "sample")
        above = int((known > accuracy_threshold(known, EXCLUDED)).sum())
        mend = f"{above} cells are scored, of which two at least are left; ask for fewer"
        _at_most(above - 2, p, "sample", mend)


CHECKS = {
    "search_space": _search_space,
    "pretraining": _pretraining,
    "io_dataset": _io_dataset,
    "output_features": _output_features,
    "reinforce": _reinforce,
    "performance_prediction": _performance_prediction,
    "predictors": _predictors,
    "search_methods": _search_methods,
    "label_value": _label_value,
}
