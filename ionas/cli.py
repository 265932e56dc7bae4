"""The command `ionas`.

What is wrong with what was given is told in one line, with exit status 2; a run that failed ends
with 1, one that was stopped with 130.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ionas import __version__

PLAIN: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}  # tables


class Commands(TyperGroup):
    """All commands; their errors end here."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `ionas params | head`
            raise
        except KeyboardInterrupt:
            message, code = "stopped; the same command goes on from here", 130
        except (ValueError, OSError) as error:
            message, code = str(error), 2
        except Exception as error:
            from ionas.book.run import RunError

            if not isinstance(error, RunError):
                raise
            message, code = str(error), 1
        typer.echo(message, err=True)
        raise typer.Exit(code)


QUIET: dict[str, Any] = {"pretty_exceptions_enable": False, "add_completion": False}
app = typer.Typer(cls=Commands, no_args_is_help=True, **QUIET)
benchmark_app = typer.Typer(no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark", help="The embedded benchmark.")
data_app = typer.Typer(no_args_is_help=True)
DATA = "The paper's data: NAS-Bench-101, CIFAR-10, tables of others."
app.add_typer(data_app, name="data", help=DATA)

option, argument = typer.Option, typer.Argument
Profile = Annotated[
    str, option(help="A profile by name, or a YAML file of parameters, also a params.yaml.")
]
SET = "Set one parameter; may be given again. See: ionas params."
Set = Annotated[list[str] | None, option("--set", metavar="NOTEBOOK.PARAMETER=VALUE", help=SET)]
ONLY = "Run this notebook alone; may be given again."
Only = Annotated[list[str] | None, option(metavar="NOTEBOOK", help=ONLY)]
Jobs = Annotated[int, option(help="Processes; 0: one per core.")]
Backend = Annotated[str, option(envvar="IONAS_BACKEND", help="Where work runs: processes or dask.")]
Scheduler = Annotated[
    str, option(metavar="ADDRESS", envvar="IONAS_SCHEDULER", help="Of the Dask scheduler.")
]
Run = Annotated[str, argument(help="Folder in runs/, or a publication, say results/laptop.")]
Runs = Annotated[
    list[str] | None,
    argument(metavar="[RUN]...", help="As of status, by default digits; the first leads."),
]
Parquet = Annotated[Path, argument(help="Parquet file to write.")]


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, option("--version", help="Print the version.")] = False) -> None:
    """Graph embedding for neural architecture search with input-output information."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    profile: Profile = "digits",
    overrides: Set = None,
    only: Only = None,
    name: Annotated[str, option(help="Folder in runs/; by default that of the profile.")] = "",
    jobs: Jobs = 0,
    force: Annotated[bool, option("--force", help="Run also what is up to date.")] = False,
    backend: Backend = "processes",
    scheduler: Scheduler = "",
) -> None:
    """Run the notebooks of which an input has changed."""
    from ionas.book import run as runner

    _compute_on(backend, scheduler)
    folder = runner.run(profile, overrides or (), only or (), name, jobs, force)
    typer.echo(f"results: {_shown(folder)}, executed notebooks in its folder notebooks")


@app.command()
def params(
    notebook: Annotated[str, argument(help="Number or name; all if left out.")] = "",
    profile: Profile = "digits",
) -> None:
    """Print every parameter: type, default, value in the profile, meaning with its unit."""
    from ionas.book.configure import STAGES, find_stage, resolve

    chosen = [find_stage(notebook)] if notebook else STAGES.values()
    resolved = resolve(profile)
    console = _console()
    narrow = 9 if console.width < 110 else None  # leaves the meaning some room
    for stage in chosen:
        table = Table("parameter", **PLAIN)
        for head in ("type", "default", "value"):
            table.add_column(head, max_width=narrow, overflow="fold")
        table.add_column("meaning and unit")
        for name, field in stage.model.model_fields.items():
            if name != "run":
                value = getattr(resolved[stage.name], name)
                cells = [name, type_name(field.annotation), repr(field.default), repr(value)]
                table.add_row(*map(Text, [*cells, field.description or ""]))
        about = (stage.model.__doc__ or "").partition(": ")[2]
        console.print(Text(f"{stage.stem}: {about}", style="bold"), table, "", sep="\n")


@app.command()
def status(run: Run = "digits") -> None:
    """Print what a run holds."""
    from ionas.book.configure import STAGES
    from ionas.book.folders import find_run
    from ionas.book.provenance import damaged
    from ionas.book.run import duration

    folder = find_run(run)
    table = Table("notebook", "results", "processor time", "memory", "device", "revision", **PLAIN)
    for name, notebook in STAGES.items():
        manifest = folder.manifest(name)
        if manifest is None:
            table.add_row(notebook.stem, "begun" if folder.partial(name).is_dir() else "none")
            continue
        outputs = manifest["outputs"]
        broken = [] if folder.is_publication else damaged(folder.stage(name), outputs)
        table.add_row(
            notebook.stem,
            f"damaged: {broken[0]}" if broken else f"{len(outputs)} files",
            duration(sum(entry["processor_s"] for entry in outputs.values())),
            f"{manifest['peak_memory_mb']:.0f} MB",
            manifest["device"],
            manifest["revision"][:12] + (" with changes" if manifest["dirty"] else ""),
        )
    _console().print(table)


@app.command()
def publish(
    run: Annotated[str, argument(help="Folder in runs/.")],
    name: Annotated[str, option(help="Folder in results/; by default that of the run.")] = "",
    partial: Annotated[bool, option("--partial", help="Although notebooks are missing.")] = False,
) -> None:
    """Write the small results of a run to results/, to be committed."""
    from ionas.book import publish as publisher

    folder = publisher.publish(run, name, partial)
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    typer.echo(f"published: {_shown(folder)}, {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")


@app.command()
def book(
    runs: Runs = None,
    out: Annotated[Path | None, option(help="Where _build is made, if not at the sources.")] = None,
) -> None:
    """Build one book of one or more runs."""
    from ionas.book import html as builder

    index = builder.build(runs or ["digits"], out.absolute() if out else None)
    typer.echo(f"open in a browser: {index}")


@app.command()
def answer(runs: Runs = None) -> None:
    """Renew the opening of README.md: the answer of the book of these runs."""
    from ionas.book import answer as writer
    from ionas.book import html as builder
    from ionas.book.folders import find_run, project_root

    folders = [find_run(run) for run in runs or ["digits"]]
    found = builder.read_runs(folders, project_root() / "_build")
    typer.echo(f"renewed: {_shown(writer.write_readme(found))}")


@benchmark_app.command("build")
def benchmark_build(
    out: Parquet,
    max_vertices: Annotated[int, option(min=2, max=7, help="Largest cells.")] = 5,
    repeats: Annotated[int, option(min=1, help="Trainings of a cell per budget.")] = 3,
    epochs: Annotated[list[int] | None, option(min=1, help="A budget; may be given again.")] = None,
    source: Annotated[str, option(help="digits, cifar10 or folder.")] = "digits",
    path: Annotated[str, option(help="Folder of the images.")] = "",
    jobs: Jobs = 0,
    backend: Backend = "processes",
    scheduler: Scheduler = "",
) -> None:
    """Train every small cell several times and write the table of results; goes on if killed."""
    from ionas.benchmark import digits
    from ionas.benchmark.table import check_output
    from ionas.parameters import Pretraining

    check_output(path, out)
    _compute_on(backend, scheduler)
    recipe = Pretraining(images=source, images_path=path)  # type: ignore[arg-type]
    table = digits.build(out, max_vertices, repeats, epochs or (2, 6), recipe, jobs)
    typer.echo(f"{len(table)} cells: {_shown(out)}")


@benchmark_app.command("check")
def benchmark_check(
    table: Annotated[str, argument(help="digits, or a .parquet or .csv file.")] = "digits",
) -> None:
    """Read a table and print what it holds and by how much its cells differ beyond noise."""
    from ionas.benchmark.table import load_table, signal

    loaded = load_table(table)
    budget = f"largest budget {loaded.epochs} epochs" if loaded.epochs else "budget unknown"
    typer.echo(f"{loaded.name}: {len(loaded)} cells, {budget}")
    if loaded.repeats("test_accuracy") < 2:
        typer.echo("fewer than two repeats of a cell, so the noise of its accuracy is unknown")
        return
    for name, value in signal(loaded).items():
        typer.echo(f"{name}: {value:.5g}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, argument(help="nasbench101, nasbench101-full or cifar10.")],
    folder: Annotated[Path, argument(help="Where to put it.")],
) -> None:
    """Download a published data set and check it; goes on if stopped."""
    from ionas.benchmark.download import fetch

    found = fetch(name, folder)
    use = f"make its table: ionas data nasbench101 --from {found}"
    if name == "cifar10":
        use = f"use it: --set pretraining.images=cifar10 --set pretraining.images_path={found}"
    typer.echo(f"{_shown(found)}\n{use}")


@data_app.command("nasbench101")
def data_nasbench101(
    source: Annotated[Path, option("--from", help="The published .tfrecord file.")],
    out: Parquet = Path("nasbench101.parquet"),
    any_file: Annotated[bool, option("--any-file", help="Take any file of the format.")] = False,
) -> None:
    """Make a table of NAS-Bench-101's TFRecord; every record, cell and hash is checked."""
    from ionas.benchmark.tfrecord import convert

    typer.echo(f"{len(convert(source, out, any_file))} cells: {_shown(out)}")
    typer.echo(f"use it: --set search_space.table={_shown(out)}")


@data_app.command("table")
def data_table(
    source: Annotated[str, argument(metavar="FILE", help="A .parquet or .csv file.")],
    dataset: Annotated[str, option(help="Whose accuracies, if it has several.")] = "",
    out: Annotated[Path | None, option(help="Where to write it, to be read faster.")] = None,
) -> None:
    """Check a table, print what it holds and for which parts of the study that is enough."""
    from ionas.benchmark.table import check_output, describe, load_table, uses

    if out:
        check_output(source, out)
    table = load_table(source, dataset)
    held = describe(table)
    typer.echo(f"{table.name}: {len(table)} cells, every hash that of its cell")
    typer.echo(held.to_string() if len(held) else "no measured values")
    typer.echo("cells that each part of the study can use:")
    for part, count in uses(table).items():
        typer.echo(f"  {part}: {count}")
    if out:
        table.write(out)
        typer.echo(f"checked table: {_shown(out)}")


def type_name(annotation: object) -> str:
    """Write a type as a reader knows it: int, list[int], 'sigmoid' or 'softmax'."""
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    return str(annotation) if get_origin(annotation) else getattr(annotation, "__name__", "")


def _console() -> Console:
    """As wide as the terminal; in a pipe or a file no line is folded."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


def _compute_on(backend: str, scheduler: str) -> None:
    """Choose where this process, and the notebooks that it starts, let calls run."""
    os.environ |= {"IONAS_BACKEND": backend, "IONAS_SCHEDULER": scheduler}
    if backend != "processes" or scheduler:
        from ionas import parallel

        typer.echo(parallel.check())


def _shown(path: Path) -> str:
    """A path relative to the current folder where that is shorter."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    app(prog_name="ionas")
