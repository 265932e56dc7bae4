"""What the first look at the inputs can tell, before anything runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ionas.benchmark.table import check_table
from ionas.book.configure import STAGES
from ionas.images import check_source
from ionas.parameters import Parameters
from ionas.tasks.prediction import check_sizes


class Source(NamedTuple):
    """What is known of images before they are read: pixels of a side, images of the two parts."""

    side: int
    train: int
    test: int


SOURCES = {"digits": Source(8, 1297, 500), "cifar10": Source(32, 50_000, 10_000)}


def check(name: str, parameters: Mapping[str, Parameters]) -> None:
    """Look at what the parameters of the stage `name` ask for, and at the data that they name.

    `parameters` are those of all notebooks that will run, by stage; what needs another one's is
    looked at only if that one runs, too. Raises ValueError if a file is missing or malformed, a
    folder unreadable, or parameters do not fit each other.
    """
    if name in CHECKS:
        CHECKS[name](parameters[name], parameters)


def _at_most(most: int, p: Any, name: str, limit: str) -> None:
    if (wanted := getattr(p, name)) > most:
        raise ValueError(f"{name} is {wanted}, but {limit}")


def _search_space(p: Any, _: Mapping[str, Any]) -> None:
    cells = check_table(p.table, p.dataset)["test_accuracy"]
    if (labeled := p.labeled_train + p.labeled_validation) > cells:
        raise ValueError(
            f"labeled_train and labeled_validation are {labeled} cells together, but only {cells} "
            f"of {p.table} have a test accuracy; ask for fewer"
        )


def _pretraining(p: Any, others: Mapping[str, Any]) -> None:
    for part in ("train", "validation"):
        name = f"{part}_networks"
        if getattr(p, name) == 1:
            raise ValueError(f"{name} is 1; give at least 2, or 0 for all")
        if space := others.get("search_space"):
            there = getattr(space, f"labeled_{part}")
            mend = "ask for fewer, or label more"
            _at_most(there, p, name, f"search_space.labeled_{part} is {there}; {mend}")
    if p.images in SOURCES:
        side, train, test = SOURCES[p.images]
        deepest = side.bit_length() - 1
        halved = f"between two the image is halved, of {side} x {side} pixels"
        _at_most(deepest, p, "stacks", f"{halved}; give at most {deepest}")
        _at_most(test, p, "test_images", f"{p.images} has {test}; ask for fewer")
        if p.validation_images + max(p.train_images, 1) > train:
            raise ValueError(
                f"validation_images is {p.validation_images} and train_images {p.train_images}, "
                f"but {p.images} has {train} train images for both; ask for fewer"
            )
    if p.images != "digits":
        check_source(p.images, p.images_path)


def _io_dataset(p: Any, others: Mapping[str, Any]) -> None:
    if networks := others.get("pretraining"):
        for name in ("validation_images", "test_images"):
            if kept := getattr(networks, name):
                mend = "take fewer, or have notebook 02 keep more"
                _at_most(kept, p, name, f"pretraining.{name} is {kept}; {mend}")
        width = networks.channels * 2 ** (networks.stacks - 1)
        mend = "keep fewer, or raise pretraining.channels or pretraining.stacks"
        _at_most(width + 1, p, "top_k", f"the networks have {width} features and a bias; {mend}")


def _reinforce(p: Any, others: Mapping[str, Any]) -> None:
    if space := others.get("search_space"):
        known = check_table(space.table, space.dataset)
        rest = [f"--only {STAGES[name].number}" for name in others if name != "reinforce"]
        mend = f"leave notebook 06 out: {' '.join(rest)}"
        if "validation_accuracy" not in known:
            raise ValueError(f"{space.table} has no validation_accuracy, which 06 needs; {mend}")
        if p.cost == "time" and "training_time" not in known:
            raise ValueError(
                f"{space.table} has no training_time, by which 06 charges a search; let it count "
                f"trainings instead: --set reinforce.cost=evaluations, or {mend}"
            )


def _performance_prediction(p: Any, others: Mapping[str, Any]) -> None:
    if space := others.get("search_space"):
        cells = check_table(space.table, space.dataset)["test_accuracy"]
        check_sizes(p.sizes, cells, space.labeled_train)
        check_sizes([p.gaussian_cells], cells, space.labeled_train, "gaussian_cells")


CHECKS = {
    "search_space": _search_space,
    "pretraining": _pretraining,
    "io_dataset": _io_dataset,
    "reinforce": _reinforce,
    "performance_prediction": _performance_prediction,
}
