"""Cheaper signals of accuracy than the outputs of trained networks (the paper's related work).

Each is one function of an untrained cell, and is given with the sign with which its publication
says that larger means better. A negative result is a result.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ionas import pretraining
from ionas.images import Images
from ionas.networks import CellTable, Network, count_parameters
from ionas.parameters import LabelValue, Pretraining
from ionas.parts import Call, complete
from ionas.space.cells import Cell
from ionas.space.encodings import adjacency_one_hot
from ionas.tasks.distances import DRAWS, interval, train_rows
from ionas.tasks.intervals import LEVEL
from ionas.tasks.outputs import calibrate, doses_of, network_seed, ridge_readout, untrained

PARAMETERS = "parameters"
CHEAP = ("naswot", "nlc", "spread", "fear")
LOOKED_AT = 8  # images at which NLC takes derivatives
LONGEST = 2  # epochs after which FEAR freezes a network that has not reached the threshold
RECENT = 4  # batches over which FEAR averages the train accuracy


def naswot(network: nn.Module, pixels: Tensor) -> float:
    """NASWOT (Mellor et al. 2021) of a batch, (B, C, H, W): log-determinant of a kernel K.

    The code of an image says which rectified linear units are active. K has, for every two images,
    the number of units in which their codes agree. The network normalises by the batch. Minus
    infinity if two images have one code.
    """
    kernel = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)

    def add(_: nn.Module, __: Any, output: Tensor) -> None:
        active = (output.detach() > 0).flatten(1).float()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(add)
    with torch.no_grad():
        network.train()(pixels)
    sign, value = np.linalg.slogdet(kernel.numpy())
    return float(value) if sign > 0 else float("-inf")


def nlc(function: Callable[[Tensor], Tensor], pixels: Tensor, looked_at: int = LOOKED_AT) -> float:
    """The nonlinearity coefficient (Philipp 2021) of a function of each image, (B, ...) -> (B, C).

    It is sqrt(E tr(J S J') / tr(T)): J is the Jacobian at an image, averaged over the first
    `looked_at` of them; S and T are the covariances of all inputs and of their outputs. A linear
    function has 1, larger values are less linear. NaN if the outputs do not vary.
    """
    with torch.no_grad():
        spread = function(pixels).var(0, correction=0).sum()
    centred = pixels.flatten(1) - pixels.flatten(1).mean(0)
    points = pixels[:looked_at].clone().requires_grad_()
    total = torch.zeros(())
    for output in function(points).sum(0):
        (slope,) = torch.autograd.grad(output, points, retain_graph=True)
        total += (slope.flatten(1) @ centred.T).square().mean()  # of g S g', over the images
    return float((total / spread).sqrt()) if spread > 0 else float("nan")


def fear(
    network: Network, train: Images, p: Pretraining, threshold: float, batch: int, seed: int
) -> float:
    """FEAR (Dey et al. 2021): how useful the features are once the train accuracy is the same.

    Trains, without a schedule, until the mean accuracy of the last batches reaches the threshold,
    at most LONGEST epochs. Then all but the last layer is frozen. That is fitted anew in closed
    form, where the publication trains the last layers on; returned is its train accuracy.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        network.parameters(), p.learning_rate, p.momentum, weight_decay=p.weight_decay, foreach=True
    )
    network.train()
    recent: list[float] = []
    orders = [torch.randperm(len(train), generator=generator) for _ in range(LONGEST)]
    for rows in (rows for order in orders for rows in order.split(batch)):
        logits, labels = network(train.pixels[rows]), train.labels[rows]
        recent = [*recent, _right(logits, labels)][-RECENT:]
        if len(recent) == RECENT and np.mean(recent) >= threshold:
            break
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), p.clip)
        optimizer.step()
    features = calibrate(network, train.pixels)
    readout = ridge_readout(features, train.labels, network.classifier.out_features)
    return _right(nn.functional.linear(features, **readout), train.labels)


def _right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


def measure_all(
    networks: pd.DataFrame,
    table: CellTable,
    images: Path | None,
    pretrained: Pretraining,
    p: LabelValue,
    *,
    parts: Path,
    jobs: int = 0,
) -> pd.DataFrame:
    """Measure all signals on the cells of the train networks.

    Batches are of `p.signal_images` train images, the first; FEAR trains on the first
    `p.readout_images` (0: all). Returns `index` of the cell, `signal`, `value`, and `seconds` of
    one thread.
    """
    data = pretraining.load(images, pretrained)
    train = data.train[: p.readout_images or len(data.train)]
    arrays = {"pixels": train.pixels.numpy(), "labels": train.labels.numpy()}
    rows = train_rows(networks)
    chosen = p.model_dump(include={"seed", "signal_images", "initialisations", "threshold"})
    given = pretrained.model_dump(mode="json"), chosen | {"classes": len(data.classes)}
    texts = zip(*table.cells[rows].to_text(), strict=True)
    calls: list[Call] = [((text, *given), tuple(arrays)) for text in texts]
    found = complete(_measure, calls, arrays, parts, jobs, "cheap signals", "cell")
    lines = [
        (index, signal, *measured)
        for index, one in zip(rows.tolist(), found, strict=True)
        for signal, measured in one.items()
    ]
    return pd.DataFrame(lines, columns=["index", "signal", "value", "seconds"])


def _measure(
    cell_text: list[str], given: dict[str, Any], chosen: dict[str, Any], *arrays: np.ndarray
) -> dict[str, tuple[float, float]]:
    from scipy.stats import variation

    cell, p = Cell.from_text(*cell_text), Pretraining(**given)
    train = Images(*map(torch.from_numpy, arrays))
    shape = train.pixels.shape[1], chosen["classes"]
    size, seed = chosen["signal_images"], network_seed(cell, chosen["seed"])
    batch = train[:size]

    def fresh(number: int = 0) -> Network:
        return untrained(cell, p, *shape, (seed + number) % 2**32)

    def linearity() -> float:
        network = fresh()
        calibrate(network, batch.pixels)
        return -nlc(network, batch.pixels)

    @torch.no_grad()
    def stability() -> float:  # coefficient of variation over initial weights (Gracheva 2021)
        logits = (fresh(k).train()(batch.pixels) for k in range(chosen["initialisations"]))
        return -float(variation([_right(each, batch.labels) for each in logits]))

    signals: dict[str, Callable[[], float]] = {
        PARAMETERS: lambda: float(np.log(count_parameters(fresh()))),
        "naswot": lambda: naswot(fresh(), batch.pixels),
        "nlc": linearity,
        "spread": stability,
        "fear": lambda: fear(fresh(), train, p, chosen["threshold"], size, seed),
    }
    measured = {}
    for name, signal in signals.items():
        start = time.thread_time()
        value = signal()
        spent = time.thread_time() - start
        measured[name] = value if np.isfinite(value) else float("-inf"), spent  # counts as worst
    return measured


def beside(
    measured: pd.DataFrame,
    networks: pd.DataFrame,
    table: Any,
    p: LabelValue,
    doses: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """All signals of each train network's cell: a column per signal, and `index`.

    Takes the results of `measure_all` and of `outputs.by_dose`. Added are `accuracy DOSE`, that
    reached on the test images; `io DOSE`, what a ridge regression reads from the outputs on all
    images; and `encoding`, from the plain encoding. The last two have learned from the accuracies
    in the table of the other networks.
    """
    wide = measured.pivot(index="index", columns="signal", values="value")
    wide = wide[measured["signal"].unique()]
    rows = train_rows(networks)
    accuracy = table.values("test_accuracy")[rows]
    added = {"encoding": read_out(adjacency_one_hot(table.cells[rows]), accuracy, p.seed)}
    for dose in doses_of(doses):
        added[f"accuracy {dose}"] = doses[f"{dose}/train_accuracy"].astype(np.float64)
        seen = doses[f"{dose}/train"].reshape(len(rows), -1)
        added[f"io {dose}"] = read_out(seen, accuracy, p.seed)
    return wide.join(pd.DataFrame(added, index=rows)).reset_index()


def read_out(inputs: np.ndarray, accuracy: np.ndarray, seed: int) -> np.ndarray:
    """Predict each of (N,) accuracies from (N, D) inputs, by a ridge regression on the others.

    Ten folds; inputs are standardised, the penalty is chosen by leave-one-out on nine of them.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 6, 17)))
    folds = KFold(min(10, len(accuracy)), shuffle=True, random_state=seed)
    return cross_val_predict(model, inputs.astype(np.float64), accuracy, cv=folds)


def compare(signals: pd.DataFrame, table: Any, p: LabelValue) -> pd.DataFrame:
    """Spearman's correlation of each signal with the mean test accuracy in the table.

    Takes the result of `beside`. Returns, by `signal`: `mean`, and `low` and `high`, its 95 %
    interval by bootstrap over cells, the same for every signal; `gain`, `gain_low` and `gain_high`,
    the correlation less that of the number of parameters, with an interval of 95 % for all of CHEAP
    at once (Bonferroni).
    """
    from scipy.stats import rankdata

    wide = signals.set_index("index")
    values = np.column_stack([wide, table.values("test_accuracy")[wide.index]])
    rng, count = np.random.default_rng(p.seed), len(wide)
    rows = [np.arange(count), *rng.integers(count, size=(DRAWS, count))]
    with np.errstate(invalid="ignore"):  # a constant signal has no correlation
        each = [np.corrcoef(rankdata(values[k], axis=0), rowvar=False)[-1, :-1] for k in rows]
    drawn = pd.DataFrame(each, columns=wide.columns)
    found = []
    for name in drawn:
        gain = interval((drawn[name] - drawn[PARAMETERS]).to_numpy(), 1 - (1 - LEVEL) / len(CHEAP))
        gains = {"gain": gain["mean"], "gain_low": gain["low"], "gain_high": gain["high"]}
        found.append({"signal": name, **interval(drawn[name].to_numpy()), **gains})
    return pd.DataFrame(found)


def seconds(
    measured: pd.DataFrame, networks: pd.DataFrame, folder: Path, shares: Mapping[str, float]
) -> pd.DataFrame:
    """Processor time of each signal, on average for a cell: `signal`, `seconds`.

    Accuracies and outputs of a dose cost its share of the epochs of notebook 02's trainings.
    """
    spent = measured.groupby("signal", sort=False)["seconds"].mean().to_dict()
    train = networks[networks["labeled"] == "train"]
    whole = pretraining.times(train, folder)["seconds"].mean()
    for dose, share in shares.items():
        spent |= dict.fromkeys((f"accuracy {dose}", f"io {dose}"), share * whole)
    return pd.DataFrame(spent.items(), columns=["signal", "seconds"])
