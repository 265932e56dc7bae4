"""The command `ionas`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer

from ionas import __version__

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="The study: run it, read its parameters, build its book.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
benchmark_app = typer.Typer(help="The embedded benchmark.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")
data_app = typer.Typer(
    help="The paper's data: NAS-Bench-101, CIFAR-10, tables of others.", no_args_is_help=True
)
app.add_typer(data_app, name="data")

PLAIN: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}  # tables
Profile = Annotated[str, typer.Option(help="A profile by name, or a YAML file of parameters.")]
Backend = Annotated[
    str, typer.Option(envvar="IONAS_BACKEND", help="Where work runs: processes, dask or ray.")
]
Scheduler = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        envvar="IONAS_SCHEDULER",
        help="Of the Dask or Ray cluster.",
    ),
]


@app.command()
def run(
    profile: Profile = "digits",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NOTEBOOK.PARAMETER=VALUE",
            help="Set one parameter; may be given again. See: ionas params.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NOTEBOOK", help="Run this notebook alone; may be given again."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Folder in runs/; by default that of the profile.")
    ] = "",
    jobs: Annotated[
        int,
        typer.Option(help="Notebooks side by side, and processes of each; 0: one per core."),
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Run also what is up to date.")] = False,
    backend: Backend = "processes",
    scheduler: Scheduler = "",
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RESULTS",
            help="Go on at notebook 04 with the IO dataset of a publication, say results/laptop; "
            "its parameters are the profile.",
        ),
    ] = None,
) -> None:
    """Run the notebooks of which an input has changed."""
    from ionas.book import run as runner

    _compute_on(backend, scheduler)
    try:
        if source:
            from ionas.book.restore import restore

            profile, name = restore(source, overrides or [], name)
        folder = runner.run(profile, overrides or [], only or [], name, jobs, force)
    except runner.RunError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", 130)
    except (ValueError, OSError) as error:
        _fail(str(error), 2)
    typer.echo(f"results: {_shown(folder)}, executed notebooks in its folder notebooks")


@app.command()
def params(
    notebook: Annotated[
        str,
        typer.Argument(
            metavar="[NOTEBOOK]", help="Number or name; all if left out.", show_default=False
        ),
    ] = "",
    profile: Profile = "digits",
) -> None:
    """Print every parameter: type, default, value in the profile, meaning with its unit."""
    from rich.table import Table
    from rich.text import Text

    from ionas.book.parameters import STAGES, find_stage, resolve

    try:
        chosen = [find_stage(notebook)] if notebook else STAGES.values()
        resolved = resolve(profile)
    except ValueError as error:
        _fail(str(error), 2)
    console = _console()
    narrow = 9 if console.width < 110 else None  # leaves the meaning some room
    for stage in chosen:
        about = (stage.model.__doc__ or "").partition(": ")[2]
        table = Table("parameter", **PLAIN)
        for head in ("type", "default", "value"):
            table.add_column(head, max_width=narrow, overflow="fold")
        table.add_column("meaning and unit")
        for name, field in stage.model.model_fields.items():
            if name != "run":
                value = getattr(resolved[stage.name], name)
                cells = [name, type_name(field.annotation), repr(field.default), repr(value)]
                table.add_row(*map(Text, [*cells, field.description or ""]))
        console.print(Text(f"{stage.stem}: {about}", style="bold"), table, "", sep="\n")


@app.command()
def status(run: Annotated[str, typer.Argument(help="Folder in runs/.")] = "digits") -> None:
    """Print what a run holds."""
    from rich.table import Table

    from ionas.book.folders import RunFolder
    from ionas.book.parameters import STAGES
    from ionas.book.progress import duration
    from ionas.book.provenance import damaged

    folder = RunFolder(_existing_run(run))
    table = Table("notebook", "results", "took", "memory", "device", "revision", **PLAIN)
    for name, notebook in STAGES.items():
        manifest = folder.manifest(name)
        if manifest is None:
            begun = folder.partial(name).is_dir()
            table.add_row(notebook.stem, "begun" if begun else "none")
            continue
        broken = damaged(folder.stage(name), manifest["outputs"])
        table.add_row(
            notebook.stem,
            f"damaged: {broken[0]}" if broken else f"{len(manifest['outputs'])} files",
            duration(manifest["wall_time_s"]),
            f"{manifest['peak_memory_mb']:.0f} MB",
            manifest["device"],
            manifest["revision"][:12] + (" with changes" if manifest["dirty"] else ""),
        )
    _console().print(table)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="Folder in runs/.")],
    name: Annotated[str, typer.Option(help="Folder in results/; by default that of the run.")] = "",
    partial: Annotated[
        bool, typer.Option("--partial", help="Publish although notebooks are missing.")
    ] = False,
    limit: Annotated[
        float, typer.Option(min=0, metavar="MB", help="Larger files are left out and listed.")
    ] = 2.0,
) -> None:
    """Write the small results of a run to results/, to be committed."""
    from ionas.book import publish as publisher
    from ionas.book.run import RunError

    try:
        publication = publisher.read(publisher.publish(run, name, partial, limit))
    except (ValueError, OSError, RunError) as error:
        _fail(str(error), 1)
    files, left_out = (publication.record[key] for key in ("files", "left_out"))
    size = sum(entry["size"] for entry in files.values()) / 1e6
    typer.echo(f"published: {_shown(publication.path)}, {len(files)} files, {size:.1f} MB")
    for stem in publication.missing:
        typer.echo(f"not run: {stem}")
    for file, entry in left_out.items():
        typer.echo(f"left out: {file}, {entry['files']} files, {entry['size'] / 1e6:.1f} MB")


@app.command()
def compare() -> None:
    """Print the paper's figures beside those of every published run, as Markdown."""
    from ionas.book.compare import beside_the_paper
    from ionas.book.publish import published

    try:
        typer.echo(beside_the_paper(published()))
    except (ValueError, OSError) as error:
        _fail(str(error), 1)


@app.command()
def book(
    run: Annotated[
        str, typer.Argument(help="Folder in runs/, or a publication, say results/laptop.")
    ] = "digits",
) -> None:
    """Build the book from a run."""
    from ionas.book import html as builder
    from ionas.book.folders import find_publication

    if find_publication(run) is None:
        _existing_run(run)
    try:
        index = builder.build(run)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    typer.echo(f"open in a browser: {index}")


@app.command()
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure this row alone; may be given again."),
    ] = None,
    table: Annotated[
        str, typer.Option(metavar="FILE", help="The NAS-Bench-101 table, for rows that need it.")
    ] = "",
) -> None:
    """Measure how fast the project is on this machine, beside its goals."""
    from rich.table import Table

    from ionas.bench import run

    os.environ["IONAS_PROGRESS"] = "off"
    heads = ("row", "what", "goal", "here", "by the wall", "x floor", "holds", "device", "how")
    shown = Table(*heads, **PLAIN)
    lines = []
    try:
        for line in run(table, only or []):
            lines.append(line)
            found = "not run" if line.value is None else f"{line.value:.3g} {line.goal.unit}"
            typer.echo(f"{line.name}: {found}", err=True)
            shown.add_row(
                line.name,
                line.what,
                f"{line.goal.most:g} {line.goal.unit}",
                found,
                f"{line.wall:.3g} {line.goal.unit}" if line.wall else "",
                f"{line.value / line.floor:.1f}" if line.value and line.floor else "",
                "" if line.value is None else "yes" if line.holds else "NO",
                line.device,
                line.how,
            )
    except (ValueError, OSError) as error:
        _fail(str(error), 2)
    _console().print(shown)
    typer.echo(f"{sum(line.holds for line in lines)} of {len(lines)} goals hold")
    if any(line.value is not None and not line.holds for line in lines):
        raise typer.Exit(1)


@benchmark_app.command("build")
def benchmark_build(
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    max_vertices: Annotated[int, typer.Option(min=2, max=7, help="Largest cells.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Trainings of a cell per budget.")] = 3,
    epochs: Annotated[
        list[int] | None, typer.Option(min=1, help="A budget; may be given again.")
    ] = None,
    source: Annotated[str, typer.Option(help="digits, cifar10 or folder.")] = "digits",
    path: Annotated[str, typer.Option(help="Folder of the images.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    backend: Backend = "processes",
    scheduler: Scheduler = "",
) -> None:
    """Train every small cell several times and write the table of results; goes on if killed."""
    from ionas.benchmark import digits as benchmark

    _compute_on(backend, scheduler)
    budgets = epochs or (2, benchmark.RECIPE.epochs)
    try:
        table = benchmark.build(
            out, max_vertices, repeats, budgets, source=source, path=path, jobs=jobs
        )
    except (ValueError, OSError) as error:
        _fail(str(error), 2)
    typer.echo(f"{len(table)} cells: {_shown(out)}")


@benchmark_app.command("check")
def benchmark_check(
    table: Annotated[str, typer.Argument(help="digits, or a .parquet or .csv file.")] = "digits",
) -> None:
    """Read a table and print what it holds and by how much its cells differ beyond noise."""
    from ionas.benchmark.table import load_table, signal

    try:
        loaded = load_table(table)
    except (ValueError, OSError) as error:
        _fail(str(error), 2)
    budget = f"largest budget {loaded.epochs} epochs" if loaded.epochs else "budget unknown"
    typer.echo(f"{loaded.name}: {len(loaded)} cells, {budget}")
    if loaded.repeats("test_accuracy") < 2:
        typer.echo("fewer than two repeats of a cell, so the noise of its accuracy is unknown")
        return
    for name, value in signal(loaded).items():
        typer.echo(f"{name}: {value:.5g}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="nasbench101, nasbench101-full or cifar10.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where to put it.")],
) -> None:
    """Download a published data set and check it; goes on if stopped."""
    from ionas.benchmark import download as fetch

    try:
        found = fetch.fetch(name, folder)
    except fetch.FetchError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", 130)
    typer.echo(_shown(found))
    if name == "cifar10":
        typer.echo(
            f"use it: --set pretraining.images=cifar10 --set pretraining.images_path={found}"
        )
    else:
        typer.echo(f"make its table: ionas data nasbench101 --from {found}")


@data_app.command("nasbench101")
def data_nasbench101(
    source: Annotated[Path, typer.Option("--from", help="The published .tfrecord file.")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")] = Path(
        "nasbench101.parquet"
    ),
    any_file: Annotated[
        bool, typer.Option("--any-file", help="Take also another file of the same format.")
    ] = False,
) -> None:
    """Make a table of NAS-Bench-101's TFRecord; every record, cell and hash is checked."""
    from ionas.benchmark import tfrecord as nasbench101

    try:
        table = nasbench101.convert(source, out, any_file)
    except (ValueError, OSError) as error:
        _fail(str(error), 2)
    typer.echo(f"{len(table)} cells: {_shown(out)}")
    typer.echo(f"use it: --set search_space.table={_shown(out)}")


@data_app.command("table")
def data_table(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .parquet or .csv file.")],
    dataset: Annotated[
        str, typer.Option(help="Whose accuracies, if it has those of several data sets.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Write it as a checked table, which is read faster.")
    ] = None,
) -> None:
    """Check a table, print what it holds and for which parts of the study that is enough."""
    from ionas.benchmark.table import describe, load_table, uses

    try:
        table = load_table(source, dataset)
        if out:
            table.write(out)
    except (ValueError, OSError) as error:
        _fail(str(error), 2)
    held = describe(table)
    typer.echo(f"{table.name}: {len(table)} cells, every hash that of its cell")
    typer.echo(held.to_string() if len(held) else "no measured values")
    typer.echo("cells that each part of the study can use:")
    for part, count in uses(table).items():
        typer.echo(f"  {part}: {count}")
    if out:
        typer.echo(f"checked table: {_shown(out)}")


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Graph embedding for neural architecture search with input-output information."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def type_name(annotation: object) -> str:
    """Write a type as a reader knows it: int, list[int], 'sigmoid' or 'softmax'."""
    if get_origin(annotation) is Literal:
        *others, last = map(repr, get_args(annotation))
        return f"{', '.join(others)} or {last}" if others else last
    return str(annotation) if get_origin(annotation) else getattr(annotation, "__name__", "")


def _console() -> "Console":
    """As wide as the terminal; in a pipe or a file no line is folded."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


def _existing_run(name: str) -> Path:
    """Folder of a run, or the end of the command if there is none."""
    from ionas.book.folders import runs_folder
    from ionas.book.parameters import nearest

    runs = runs_folder()
    folders = runs.iterdir() if runs.is_dir() else []
    there = sorted(folder.name for folder in folders if folder.is_dir())
    if name not in there:
        mend = nearest(name, there) if there else "; make one with: ionas run"
        _fail(f"there is no run {name!r} in {_shown(runs)}{mend}", 2)
    return runs / name


def _compute_on(backend: str, scheduler: str) -> None:
    """Choose where this process, and the notebooks that it starts, let calls run."""
    os.environ |= {"IONAS_BACKEND": backend, "IONAS_SCHEDULER": scheduler}
    if backend == "processes" and not scheduler:
        return
    from ionas import parallel

    try:
        typer.echo(parallel.check())
    except ValueError as error:
        _fail(str(error), 2)


def _shown(path: Path) -> str:
    """A path relative to the current folder where that is shorter."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)
