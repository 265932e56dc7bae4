"""How fast the project is on this machine, beside its goals: the command `ionas bench`.

Every row measures what the study runs, on a sample where the whole would take long; a row that
extrapolates says so. On a CPU every process runs on one thread, as in `ionas run`, and time is
that of the processor: on an idle machine the same as by the clock on the wall, which stands beside
it, and hardly longer on a busy one. Only the step of arch2vec is timed by the clock, on two
threads. Of repeats the least counts.

A floor is the time that the arithmetic of a loop would take at the speed of a large product of
matrices, and its memory traffic at the speed of a copy, both measured in the same call.
"""

import base64
import json
import multiprocessing
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ionas import parallel, pretraining
from ionas.benchmark import tfrecord as nasbench101
from ionas.benchmark.table import Table
from ionas.book.parameters import nearest
from ionas.book.provenance import peak_memory
from ionas.embedding import metrics as evaluation
from ionas.embedding import training
from ionas.embedding.arch2vec import Arch2vec
from ionas.embedding.metrics import Labeled
from ionas.images import Images, ImageSet
from ionas.parallel import one_thread
from ionas.space.cells import CellSet, cell_tensors, enumerate_cells
from ionas.tasks import prediction
from ionas.tasks import reinforce as search

CELLS = 423_624
SEARCHED = 30_001  # cells of the shared table with a validation accuracy and a training time
SIZES, SEEDS, EMBEDDINGS = (608, 2_500, 10_000), 10, 7  # of Tables 6 and 7
PROCESSES = 2
PAPER_RECIPE = pretraining.Recipe(
    channels=128, stacks=3, cells_per_stack=3, epochs=12, learning_rate=0.025, augment=True
)


class Goal(NamedTuple):
    """The most that a row may take."""

    most: float
    unit: str


class Seconds(NamedTuple):
    """Processor time and time by the wall clock."""

    cpu: float
    wall: float

    def times(self, factor: float) -> "Seconds":
        """Both, scaled."""
        return Seconds(factor * self.cpu, factor * self.wall)


class Measured(NamedTuple):
    """What a row found, in the units of its goals: time, its floor, memory; and how."""

    time: Seconds
    how: str = "measured"
    floor: float | None = None
    memory: float | None = None


class Row(NamedTuple):
    """A row of the table."""

    what: str
    goals: tuple[Goal, ...]
    measure: Callable[["Subject"], Measured]
    needs: str = ""  # `table` or `GPU`


class Line(NamedTuple):
    """A goal and what became of it; `value` is None if it was not measured, `how` says why."""

    name: str
    what: str
    goal: Goal
    device: str
    how: str
    value: float | None = None
    wall: float | None = None
    floor: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the goal was measured and is reached."""
        return self.value is not None and self.value <= self.goal.most


class Subject:
    """What rows share: the speed of this machine, the cells, a table, a model trained for a while.

    Parameters
    ----------
    table
        File of a table of NAS-Bench-101, for rows in which its values matter.
    """

    def __init__(self, table: str = "") -> None:
        self.path = table

    @cached_property
    def table(self) -> Table:
        """The table of the file."""
        return Table.read(self.path)

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Adjacency and operations of the whole space."""
        return cell_tensors(self.table.cells if self.path else enumerate_cells())

    @cached_property
    def model(self) -> Arch2vec:
        """An arch2vec after 500 steps."""
        trainer, batches = _trainer(*self.tensors)
        for _, batch in zip(range(500), batches, strict=False):
            trainer._step(*batch)
        return trainer.vae.eval()

    @cached_property
    def points(self) -> np.ndarray:
        """Mean embedding of every cell, (N, 16)."""
        return evaluation.encode(self.model, *self.tensors).mean(1).numpy()

    @cached_property
    def flops(self) -> float:
        """Floating-point operations a second, in a product of two 1024 x 1024 matrices."""
        a = torch.randn(1024, 1024)
        return 2 * 1024**3 / least(lambda: a @ a).cpu

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second, read and written, in a copy of 128 MiB."""
        a = torch.zeros(2**25)
        b = torch.ones_like(a)
        return 2 * a.nbytes / least(lambda: b.copy_(a)).cpu

    def floor(self, operations: float, traffic: float) -> float:
        """Seconds of arithmetic and of memory traffic."""
        return operations / self.flops + traffic / self.bandwidth


def run(table: str = "", only: Sequence[str] = ()) -> Iterator[Line]:
    """Measure all rows, or some, in the order of ROWS.

    Raises
    ------
    ValueError
        If a name is none of ROWS, or the table cannot be read.
    """
    for name in only:
        if name not in ROWS:
            raise ValueError(f"there is no row {name!r}{nearest(name, ROWS)}")
    subject = Subject(table)
    if table:
        known = np.isfinite(subject.table.values("test_accuracy")).sum()
        if known < CELLS:
            raise ValueError(f"{table} has {known} cells with a test accuracy, not {CELLS}")
    for name, row in ROWS.items():
        if only and name not in only:
            continue
        gpu = row.needs == "GPU"
        device = "GPU" if gpu else "CPU"
        lacking = {"table": not table, "GPU": not torch.cuda.is_available()}.get(row.needs)
        if lacking:
            need = "no GPU here" if gpu else "needs --table"
            for goal in row.goals:
                yield Line(name, row.what, goal, device, f"not run: {need}")
            continue
        if gpu:
            device = torch.cuda.get_device_name()
        with one_thread():
            found = row.measure(subject)
        first, *rest = row.goals
        time = found.time
        yield Line(name, row.what, first, device, found.how, time.cpu, time.wall, found.floor)
        for goal in rest:
            how = "beyond the memory of the imported libraries"
            yield Line(name, row.what, goal, device, how, found.memory)


def least(function: Callable[[], Any], repeats: int = 5) -> Seconds:
    """Time of the fastest of some calls, by either clock."""
    found = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        function()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return Seconds(*map(min, zip(*found, strict=True)))


def step_operations(model: Arch2vec, batch: int) -> int:
    """Floating-point operations of the products in a training step, from its dense layers.

    Forward, and backward to weights and to inputs; the first layer has no gradient at its input.
    """
    dense = [
        layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Linear)
    ]
    return 2 * batch * model.vertices * (3 * sum(dense) - dense[0])


def encoding_operations(model: Arch2vec) -> int:
    """The same of one cell's mu."""
    skipped = model.log_std.weight.numel() + model.operations.weight.numel()
    dense = [
        layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Linear)
    ]
    return 2 * model.vertices * (sum(dense) - skipped)


def policy_step(runs: int, points: int, width: int = 16, hidden: int = 128) -> tuple[int, int]:
    """Operations and bytes of a step of REINFORCE.

    Operations: distances of the samples to all points, and three passes through the policies.
    Bytes: what marks visited points is read, and every policy's weights, forward and backward;
    once in 16 steps Adam reads four numbers per weight and writes three.
    """
    weights = 4 * hidden * (width + hidden) + hidden * width
    traffic = 4 * points + 4 * weights * (2 + 7 / 16)
    return runs * 2 * (width * points + 3 * weights), int(runs * traffic)


def _enumeration(_: Subject) -> Measured:
    return _fresh(2, _count_cells)


def _table(subject: Subject) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        checked = Path(folder) / "checked.parquet"
        subject.table.write(checked)
        found = _fresh(3, _read_table, checked)
        first = _fresh(1, _read_table, subject.path).time.cpu
    return found._replace(how=f"a checked table; {first:.0f} s from the file given")


def _tfrecord(_: Subject) -> Measured:
    parts, found = (20, 5), []  # smaller files do not fill the buffers of the Parquet writer
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "part.tfrecord", Path(folder) / "part.parquet"
        for every in parts:
            write_tfrecord(source, enumerate_cells()[np.arange(0, CELLS, every)])
            measured = _fresh(2, _convert, source, out)
            assert measured.memory is not None
            found.append((*measured.time, measured.memory))
    cpu, wall, memory = (
        _line(1 / parts[0], less, 1 / parts[1], more) for less, more in zip(*found, strict=True)
    )
    how = "extrapolated from files of a twentieth and a fifth of the cells, 4 budgets, 3 repeats"
    return Measured(Seconds(cpu, wall), how, memory=memory)


def _line(x: float, y: float, other_x: float, other_y: float) -> float:
    """Where the line through two points is at 1."""
    return y + (1 - x) * (other_y - y) / (other_x - x)


def _arch2vec(subject: Subject) -> Measured:
    model = Arch2vec()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    floor = subject.floor(step_operations(model, 32), 7 * 4 * parameters)  # Adam's traffic
    abreast = parallel.run(step_seconds, [(20, 25)] * PROCESSES, PROCESSES)
    torch.set_num_threads(PROCESSES)  # `run` takes them back
    wall = step_seconds(20, 25).wall
    each = 1e3 * max(spent.wall for spent in abreast)
    how = (
        f"one training on {PROCESSES} threads, by the clock, mean of 25 steps; as in the study, "
        f"{PROCESSES} side by side on one thread each: {each:.2f} ms, {each / PROCESSES:.2f} a step"
    )
    return Measured(Seconds(wall, wall).times(1e3), how, 1e3 * floor / PROCESSES)


def _embeddings(subject: Subject) -> Measured:
    spent = least(lambda: evaluation.encode(subject.model, *subject.tensors), 2)
    floor = subject.floor(CELLS * encoding_operations(subject.model), 0)
    return Measured(spent, "measured, one process", floor)


def _validity(subject: Subject) -> Measured:
    latent = (subject.model.vertices, subject.model.latent)
    samples, std = 10_000, torch.ones(latent)
    real = enumerate_cells()[np.random.default_rng(0).choice(CELLS, samples, replace=False)]

    def both() -> None:
        evaluation.draw(subject.model, torch.zeros(latent), std, samples, 0)
        evaluation.validity(real.adjacency, real.operations)

    how = "10,000 decoded, and as many real cells judged: no share of valid ones takes longer"
    return Measured(least(both), how)


def _searches(subject: Subject, whole: bool) -> Measured:
    table, points, how = subject.table, subject.points, "measured, one process"
    fields = ("validation_accuracy", "test_accuracy", "training_time")
    known = np.flatnonzero(np.isfinite(table.values("training_time")))[:SEARCHED]
    columns = {name: table.values(name)[known] for name in fields}
    cells = table.cells
    if whole:
        # Only here: cells without values take, in turns, those of cells that have them.
        columns = {name: np.resize(values, CELLS) for name, values in columns.items()}
        how += "; cells without values borrow those of others"
    else:
        points, cells = points[known], cells[known]
    searched = Table(cells, pd.DataFrame(columns), {"name": "bench"})
    found = []

    def go() -> None:
        found.append(search.reinforce(points, searched, runs=100, budget=1e6, baseline=0.95))

    spent = least(go, 1)
    steps = int(found[0]["step"].max()) + 1
    floor = steps * subject.floor(*policy_step(100, len(points)))
    return Measured(spent, f"{how}; {steps} steps", floor)


def _forests(subject: Subject) -> Measured:
    accuracy = subject.table.values("test_accuracy")
    items = [(subject.points, accuracy, size, seed) for size in SIZES for seed in range(PROCESSES)]
    few = (subject.points[:3000], accuracy[:3000], 20, 0)
    parallel.run(fit_seconds, [few] * 4, PROCESSES)  # workers start and import
    spent = parallel.run(fit_seconds, items, PROCESSES)
    fits = len(SIZES) * SEEDS * EMBEDDINGS
    factor = fits / len(items) / PROCESSES / 60
    total = Seconds(*map(sum, zip(*spent, strict=True))).times(factor)
    return Measured(total, f"extrapolated from {len(items)} of {fits} fits, {PROCESSES} processes")


def _joint(_: Subject) -> Measured:
    spent = joint_seconds("cuda", training.Settings())
    return Measured(Seconds(spent, spent), "extrapolated from 100 steps of each kind")


def _pretraining(_: Subject) -> Measured:
    networks, parts = 4, 5
    spent = network_seconds("cuda", PAPER_RECIPE, networks, images=49_000 // parts)
    hours = 685 * PAPER_RECIPE.epochs * parts * spent / 3600
    how = f"extrapolated from {networks} networks, {parts}th of an epoch each, one by one"
    return Measured(Seconds(hours, hours), how)


def _seconds(*most: float) -> tuple[Goal, ...]:
    return tuple(Goal(value, unit) for value, unit in zip(most, ("s", "MB"), strict=False))


ROWS: dict[str, Row] = {
    "enumeration": Row("all 423,624 cells enumerated", _seconds(30, 2000), _enumeration),
    "table": Row("table of 423,624 cells loaded", _seconds(2, 500), _table, "table"),
    "tfrecord": Row("full NAS-Bench-101 TFRecord converted", _seconds(180, 1000), _tfrecord),
    "arch2vec": Row("arch2vec: a step, batch 32, two cores", (Goal(3.5, "ms"),), _arch2vec),
    "embeddings": Row("embeddings of all cells", _seconds(20), _embeddings),
    "validity": Row("validity of 10,000 samples", _seconds(2), _validity),
    "search": Row(
        "100 REINFORCE runs of 1e6 s, 30,001 cells",
        _seconds(60),
        lambda subject: _searches(subject, whole=False),
        "table",
    ),
    "search-all": Row(
        "100 REINFORCE runs of 1e6 s, 423,624 cells",
        _seconds(240),
        lambda subject: _searches(subject, whole=True),
        "table",
    ),
    "forests": Row("the forests of Tables 6 and 7", (Goal(15, "min"),), _forests, "table"),
    "joint": Row("IO model and arch2vec, 10 epochs, paper's sizes", _seconds(600), _joint, "GPU"),
    "pretraining": Row(
        "685 networks of 128 channels, 12 epochs", (Goal(3, "h"),), _pretraining, "GPU"
    ),
}


def step_seconds(blocks: int, steps: int) -> Seconds:
    """Time of a training step of arch2vec over the whole space: the mean of the fastest block.

    The first block is not counted.
    """
    trainer, batches = _trainer(*cell_tensors(enumerate_cells()))

    def block() -> None:
        for _ in range(steps):
            trainer._step(*next(batches))

    block()
    return least(block, blocks).times(1 / steps)


def fit_seconds(points: np.ndarray, accuracy: np.ndarray, size: int, seed: int) -> Seconds:
    """Time of fitting the paper's forest to some cells and scoring it on all others."""
    os.environ["IONAS_PROGRESS"] = "off"
    given = ({"": points}, accuracy, np.empty(0, np.int64), [size], [seed])
    return least(lambda: prediction.score_grid(*given, jobs=1), 1)


def joint_seconds(
    device: str,
    settings: training.Settings,
    networks: int = 608,
    images: int = 1000,
    cells: CellSet | None = None,
    pixels: tuple[int, ...] = (3, 32, 32),
    steps: int = 100,
) -> float:
    """Seconds of training the IO model and its reference arch2vec, extrapolated from some steps.

    Images and targets are random numbers, which take as long as others.
    """
    adjacency, operations = cell_tensors(cells or enumerate_cells())
    labeled = _labeled(torch.arange(networks), torch.randn(images, *pixels))
    data = _data(adjacency, operations, labeled).to(device)
    total = 0.0
    for name in ("io", "arch2vec"):
        model = training.build(name, data, settings, 1).to(device)
        trainer = training._Trainer(name, 1, model, data, settings)
        model.train()
        batches = list(trainer._batches())
        for kind in (True, False):
            chosen = [batch for batch in batches if (batch[1] is not None) is kind]
            some = chosen[: steps + 10]
            for batch in some[:10]:
                trainer._step(*batch)[0].item()
            start = time.perf_counter()
            for batch in some[10:]:
                loss = trainer._step(*batch)[0]
            loss.item()  # waits for the device
            spent = time.perf_counter() - start
            total += spent / len(some[10:]) * len(chosen)
    return total * settings.epochs


def network_seconds(device: str, recipe: pretraining.Recipe, networks: int, images: int) -> float:
    """Mean seconds of an epoch of one of some random cells, on random images like CIFAR-10's."""
    sets = [
        Images(torch.randn(count, 3, 32, 32), torch.randint(10, (count,)))
        for count in (images, 100, 100)
    ]
    classes = tuple(map(str, range(10)))
    made = ImageSet("random", sets[0], sets[1], sets[2], classes, (0.0,) * 3, (1.0,) * 3)
    recipe = replace(recipe, epochs=1)
    space = enumerate_cells(5)
    chosen = space[np.random.default_rng(0).choice(len(space), networks + 1, replace=False)]
    times = [
        pretraining.train_network(cell, made, recipe, device=device).seconds for cell in chosen
    ]
    return float(np.mean(times[1:]))  # the first one starts the device


def write_tfrecord(path: Path, cells: CellSet) -> None:
    """Write cells with random values in the format of the full NAS-Bench-101 file (METHOD 11)."""
    rng = np.random.default_rng(0)

    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def entry(epoch: float, values: np.ndarray) -> bytes:
        numbers = (epoch, 4000 * values[0], *values[1:])
        fields = b"".join(struct.pack("<Bd", 8 * k + 9, x) for k, x in enumerate(numbers))
        return b"\x0a" + bytes([len(fields)]) + fields

    with path.open("wb") as file:
        for name, adjacency, operations in zip(cells.hashes, *cells.to_text(), strict=True):
            for epochs, _ in product(nasbench101.EPOCHS, range(nasbench101.REPEATS)):
                halves = rng.random((3, 4), np.float32).astype(np.float64)
                message = b"".join(
                    entry(part * epochs / 2, values) for part, values in enumerate(halves)
                )
                message += b"\x10\xc0\x84\x3d" + struct.pack("<Bd", 25, 8000.0)
                encoded = base64.b64encode(message).decode()
                record = json.dumps([str(name), epochs, adjacency, operations, encoded]).encode()
                length = struct.pack("<Q", len(record))
                file.write(length + masked(length) + record + masked(record))


def _trainer(adjacency: Tensor, operations: Tensor) -> tuple[Any, Iterator[Any]]:
    """Arch2vec in training over nine tenths of the cells, and its batches."""
    settings = training.Settings()
    data = _data(adjacency, operations, _labeled(torch.arange(608), torch.zeros(1, 1, 8, 8)))
    model = training.build("arch2vec_original", data, settings, 1)
    trainer = training._Trainer("arch2vec_original", 1, model.train(), data, settings)
    return trainer, iter(trainer._batches())


def _labeled(networks: Tensor, pixels: Tensor) -> Labeled:
    shape = (len(networks), len(pixels), 10)
    return Labeled(networks, pixels, torch.randn(shape), torch.rand(len(networks)))


def _data(adjacency: Tensor, operations: Tensor, labeled: Labeled) -> training.Data:
    count = len(adjacency)
    train, labels = torch.arange(int(0.9 * count)), len(labeled.networks)
    return training.Data(
        adjacency, operations, train, train[labels:], torch.arange(len(train), count), labeled, {}
    )


def _fresh(repeats: int, function: Callable[..., Any], *arguments: Any) -> Measured:
    """Least time of a call in a new process, and by how many MB it raised the peak of memory."""
    context, found = multiprocessing.get_context("spawn"), []
    for _ in range(repeats):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(_watched, function, arguments).result())
    times, memory = zip(*found, strict=True)
    return Measured(min(times), f"least of {repeats}", memory=max(memory))


def _watched(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Seconds, float]:
    os.environ["IONAS_PROGRESS"] = "off"
    with one_thread():
        before = _peak()
        spent = least(lambda: function(*arguments), 1)
        return spent, _peak() - before


def _peak() -> float:
    """Peak memory of this process in MB; Linux's usual figure begins with that of its parent."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return peak_memory()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _count_cells() -> None:
    assert len(enumerate_cells()) == CELLS


def _read_table(path: Path | str) -> None:
    assert len(Table.read(path)) == CELLS


def _convert(source: Path, out: Path) -> None:
    nasbench101.convert(source, out, any_file=True)
