"""Run the notebooks of a study, one after the other: those of which an input has changed.

A notebook runs in a process of its own and writes to `runs/NAME/STAGE.partial`; when it is
complete, that folder takes the place of `runs/NAME/STAGE` by renaming. A failure or a kill leaves
the last good results where they are, and the partial ones for the next run to go on from. Which
heavy results of a notebook still hold is for `ionas.book.stage` to say: a notebook that runs again
because a colour has changed takes seconds.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ionas.book import execute, provenance
from ionas.book.checks import check, finished
from ionas.book.configure import (
    STAGES,
    InvalidParameters,
    Notebook,
    find_stage,
    load_profile,
    parse_overrides,
    resolve,
)
from ionas.book.folders import (
    RECORD,
    RunFolder,
    locked,
    project_root,
    read_json,
    runs_folder,
    sealed,
    write_json,
    write_text,
)
from ionas.parameters import Parameters

POLL_S = 0.1
SHOWN = 4  # changed inputs that are named
FULL = 50e6  # bytes of a disk that has no more than these


class RunError(Exception):
    """A run that could not be completed; the message is for the reader and says how to go on."""


@dataclass(frozen=True)
class Study:
    """What is run, and where: the registry of stages, the notebooks, the run's folder."""

    stages: Mapping[str, Notebook]
    notebooks: Path
    run: RunFolder

    def source(self, name: str) -> Path:
        """Notebook of a stage."""
        return self.notebooks / f"{self.stages[name].stem}.ipynb"


def run(
    profile: str = "digits",
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    name: str = "",
    jobs: int = 0,
    force: bool = False,
    stages: Mapping[str, Notebook] = STAGES,
    notebooks: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Bring a run up to date.

    Parameters
    ----------
    profile, overrides, name
        Profile, texts `notebook.parameter=value`, and name of the run (that of the profile if
        empty); see `ionas.book.configure.resolve`.
    only
        Notebooks to run, by number or name; all if empty.
    jobs
        Worker processes of each notebook unless its parameters say otherwise; 0 takes one per core.
    force
        Compute again what is up to date, too.
    stages, notebooks
        The registry and the folder of the notebooks.

    Returns
    -------
    Path
        Folder of the run.

    Raises
    ------
    InvalidParameters, ValueError
        If a parameter, a notebook or the data it names is wrong; nothing has run then.
    RunError
        If a notebook failed, or another process is writing this run.
    """
    if jobs < 0:
        raise InvalidParameters(f"--jobs is {jobs}; give 0 for one per core, or a positive number")
    console = console or Console()
    given = parse_overrides(overrides, stages)
    parameters = resolve(profile, given, name, stages)
    chosen = list({find_stage(text, stages).name: None for text in only} or stages)
    chosen.sort(key=list(stages).index)
    parameters = {key: _with_jobs(value, jobs) for key, value in parameters.items()}
    folder = RunFolder(runs_folder() / next(iter(parameters.values())).run)
    if folder.is_publication:
        record = folder.path / RECORD
        raise InvalidParameters(
            f"{folder.path} is a publication; to go on from it, remove {record}"
        )
    study = Study(stages, notebooks or project_root() / "notebooks", folder)
    _check(study, {stage: parameters[stage] for stage in chosen})
    for stage in (stage for stage in given if stage not in chosen):
        _say(console, f"{stages[stage].stem}  does not run, so its --set has no effect now")
    try:
        with locked(folder.path), _interruptible():
            recover(study)
            for stage in chosen:  # before anything runs
                _check_upstream(study, stage, chosen)
            _write_parameters(study, parameters, chosen)
            for stage in chosen:
                _check_upstream(study, stage)
                _run_stage(study, stage, parameters[stage], force, console)
    except TimeoutError as error:
        raise RunError(str(error)) from error
    return folder.path


def inputs_of(study: Study, name: str, parameters: Parameters) -> dict[str, Any]:
    """Everything that decides what a notebook shows, hashed.

    Returns
    -------
    dict
        `notebook` (its code cells), `modules` of this package that it imports, `parameters`,
        `upstream` (results of each stage that it reads), `data` (files named by parameters).
    """
    code = provenance.notebook_code(study.source(name))
    manifests = {stage: study.run.manifest(stage) for stage in study.stages[name].reads}
    return {
        "notebook": provenance.json_hash(code),
        "modules": provenance.notebook_modules(code),
        "parameters": provenance.inputs_only(parameters.model_dump(mode="json")),
        "upstream": {
            stage: provenance.artifact_hash(manifest["outputs"]) if manifest else ""
            for stage, manifest in manifests.items()
        },
        "data": {n: provenance.data_hash(path) for n, path in parameters.data().items()},
    }


def reason_to_run(study: Study, name: str, inputs: Mapping[str, Any]) -> str:
    """Say why a notebook must run; empty if it is up to date."""
    manifest = study.run.manifest(name)
    if manifest is None:
        return "it has not run yet"
    if changed := _changes(manifest["inputs"], inputs):
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        return f"changed: {', '.join(changed[:SHOWN])}{more}"
    folder = study.run.stage(name)
    if broken := provenance.damaged(folder, {**manifest["outputs"], **manifest["notebook"]}):
        state = (
            "has changed since it was written" if (folder / broken[0]).exists() else "is missing"
        )
        return f"{folder / broken[0]} {state}"
    return ""


def apart(run: RunFolder, name: str, upstream: Sequence[str]) -> str:
    """Name an earlier stage whose results are not those that this one was made from; or nothing."""
    manifest = run.manifest(name)
    for stage in upstream if manifest else ():
        there = run.manifest(stage)
        now = provenance.artifact_hash(there["outputs"]) if there else ""
        if now != manifest["inputs"]["upstream"].get(stage):  # type: ignore[index]
            return stage
    return ""


def draw(publication: RunFolder, target: Path, console: Console | None = None) -> Path:
    """Draw a publication by the notebooks of today, from its small results alone.

    Parameters
    ----------
    publication
        `results/NAME`.
    target
        Folder of the drawn notebooks; those that are there and still hold are not drawn again.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunError
        If a notebook fails, as where the publication has no result that it asks for.
    """
    console = console or Console()
    study = Study(STAGES, project_root() / "notebooks", publication)
    for name, notebook in STAGES.items():
        manifest = publication.manifest(name)
        path = target / f"{notebook.stem}.ipynb"
        if manifest is None:
            path.unlink(missing_ok=True)
            continue
        code = provenance.notebook_code(study.source(name))
        results = {n: m["outputs"] for n in STAGES if (m := publication.manifest(n))}
        drawn_from = [code, provenance.notebook_modules(code), manifest, results]
        stamp = target / f".{notebook.stem}.json"
        key = provenance.json_hash(drawn_from)
        if path.is_file() and (read_json(stamp) or {}).get("key") == key:
            continue
        folder = target / ".drawing"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        values = manifest["parameters"] | {"run": publication.name}
        problem = _execute(study, name, values, folder, console)
        if problem:
            raise RunError(f"{publication.path} cannot be drawn: {problem}")
        executed = execute.read(folder / "executed.ipynb")
        execute.scrub(executed)
        write_text(path, execute.text(executed))
        write_json(stamp, {"key": key})
        shutil.rmtree(folder)
    return target


def _run_stage(
    study: Study, name: str, parameters: Parameters, force: bool, console: Console
) -> None:
    """Run a notebook if it must, and put its results in place."""
    stem, folder = study.stages[name].stem, study.run.partial(name)
    inputs = inputs_of(study, name, parameters)
    if why := "--force" if force else reason_to_run(study, name, inputs):
        _say(console, f"{stem}  runs: {why}")
        started = time.monotonic()
        _end_orphans(folder)
        if force:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if problem := _execute(study, name, _changed(parameters), folder, console, afresh=force):
            raise RunError(f"{problem}\n  go on with the same command")
        _put_in_place(study, name, inputs)
        _say(console, f"{stem}  done  in {duration(time.monotonic() - started)}")
    else:
        _say(console, f"{stem}  up to date")
    _show_notebook(study, name)


def _execute(
    study: Study,
    name: str,
    values: Mapping[str, Any],
    folder: Path,
    console: Console,
    afresh: bool = False,
) -> str:
    """Execute a notebook in a folder; return what went wrong, or nothing."""
    stem, progress = study.stages[name].stem, folder / ".progress.json"
    for leftover in (progress, folder / "stage.json", folder / "executed.ipynb"):
        leftover.unlink(missing_ok=True)
    environment = execute.environment(runs_folder() / ".settings") | {
        "IONAS_RUNS": str(study.run.path.parent),
        "IONAS_STAGE_DIR": str(folder),
        "IONAS_PROGRESS": str(progress),
        "IONAS_AFRESH": "yes" if afresh else "",
    }
    arguments = [str(study.source(name)), str(folder / "executed.ipynb"), json.dumps(dict(values))]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        (folder / "log.txt").open("wb") as log,
        Progress(
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bars,
    ):
        task = bars.add_task(stem, total=None)
        process = subprocess.Popen(
            [sys.executable, "-m", "ionas.book.execute", *arguments, str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # ctrl-C reaches this process alone, which then stops the other
        )
        try:
            while process.poll() is None:
                if report := read_json(progress):
                    text = f"{stem} · {report['description']}"
                    bars.update(
                        task, description=text, completed=report["done"], total=report["total"]
                    )
                time.sleep(POLL_S)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return _problem(stem, folder, process.returncode)


def _problem(stem: str, folder: Path, code: int) -> str:
    """What went wrong in a notebook, in a few lines; nothing if all cells ran."""
    path, log = folder / "executed.ipynb", folder / "log.txt"
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    try:
        failure = execute.first_failure(execute.read(path))
    except (OSError, ValueError):  # never written, or cut short
        failure, code = None, code or 1
    if failure:
        error, where = (
            failure.error,
            f"the half-executed notebook, with the whole traceback: {path}",
        )
        if error == execute.CUT and lines:
            error, where = f"{error}; the last message: {lines[-1]}", f"all messages: {log}"
        if any("DeadKernelError" in line for line in lines):
            error = "the kernel died, perhaps for want of memory"
        return f"{stem} failed in cell {failure.cell}: {failure.head}\n  {error}\n  {where}"
    if code or not (folder / "stage.json").is_file():
        free = shutil.disk_usage(folder).free
        full = f"; the disk has only {free / 1e6:.0f} MB left" if free < FULL else ""
        said = f"failed: {lines[-1] if lines else 'no message'}"
        return f"{stem} {said if code else 'ended without finish()'}{full}\n  its messages: {log}"
    return ""


def _put_in_place(study: Study, name: str, inputs: Mapping[str, Any]) -> None:
    """Let the complete results take the place of the last ones."""
    folder, final = study.run.partial(name), study.run.stage(name)
    record = read_json(folder / "stage.json") or {}
    executed = execute.read(folder / "executed.ipynb")
    execute.scrub(executed)
    write_text(folder / "executed.ipynb", execute.text(executed))
    notebook = {"executed.ipynb": {"sha256": provenance.file_hash(folder / "executed.ipynb")}}
    manifest = {**record, "inputs": dict(inputs), "notebook": notebook}
    write_json(folder / "manifest.json", sealed(manifest))
    for leftover in ("stage.json", "log.txt", ".progress.json"):
        (folder / leftover).unlink(missing_ok=True)
    old = final.with_name(f"{name}.old")
    if final.exists():
        final.replace(old)
    folder.replace(final)
    shutil.rmtree(old, ignore_errors=True)


def recover(study: Study) -> None:
    """Undo or complete a swap of results during which the process was killed."""
    for name in study.stages:
        final = study.run.stage(name)
        old = final.with_name(f"{name}.old")
        if old.exists() and not final.exists():
            old.replace(final)
        shutil.rmtree(old, ignore_errors=True)


def _show_notebook(study: Study, name: str) -> None:
    """Write the executed notebook for the book, with the prose that the source has now."""
    executed = execute.read(study.run.stage(name) / "executed.ipynb")
    source = execute.read(study.source(name))
    target = study.run.path / "notebooks" / f"{study.stages[name].stem}.ipynb"
    text = execute.text(execute.with_prose(executed, source))
    if not target.is_file() or target.read_bytes() != text.encode():
        write_text(target, text)


def _write_parameters(
    study: Study, parameters: Mapping[str, Parameters], chosen: Sequence[str]
) -> None:
    """Write params.yaml: the parameters of the chosen notebooks, and those that others have there.

    A notebook that has none there, yet, gets what it would run with, so that the file is enough to
    complete the study.
    """
    path = study.run.parameters
    there = load_profile(str(path), study.stages) if path.is_file() else {}
    rest = {k: v | {"run": study.run.name} for k, v in there.items() if k not in chosen}
    content = {name: values.model_dump(mode="json") for name, values in parameters.items()} | rest
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if not (path.is_file() and path.read_text("utf-8") == text):
        write_text(path, text)


def _check(study: Study, parameters: Mapping[str, Parameters]) -> None:
    """Find what can be found wrong before anything runs."""
    earlier = {stage: None for name in parameters for stage in study.stages[name].reads}
    known = {**finished(study.run, list(earlier)), **parameters}
    for name, values in parameters.items():
        source = study.source(name)
        if not source.is_file():
            raise InvalidParameters(f"there is no notebook {source}")
        for parameter, path in values.data().items():
            if not path.exists():
                raise InvalidParameters(f"{name}.{parameter}: there is no file or folder {path}")
        check(name, known)
        provenance.pick_device(getattr(values, "device", "cpu"))
        try:
            provenance.notebook_modules(provenance.notebook_code(source))
        except (ValueError, KeyError, SyntaxError) as error:
            raise InvalidParameters(f"{source} cannot be read: {error}") from error


def _check_upstream(study: Study, name: str, later: Sequence[str] = ()) -> None:
    """Refuse to run a notebook on results that are missing, damaged or do not belong together.

    Those `later` to be run are not looked at.
    """
    notebook = study.stages[name]
    for stage in (stage for stage in notebook.reads if stage not in later):
        folder, again = study.run.stage(stage), f"run --only {study.stages[stage].number} first"
        manifest = study.run.manifest(stage)
        if manifest is None:
            if stage in notebook.optional:
                continue
            raise RunError(f"{name} reads {stage}, which run {study.run.name} lacks; {again}")
        if broken := provenance.damaged(folder, manifest["outputs"]):
            raise RunError(f"{folder / broken[0]} is not what {stage} wrote; {again}")
        if source := apart(study.run, stage, study.stages[stage].reads):
            raise RunError(
                f"{name} reads {stage}, which was made from other results of {source} than are "
                f"there now; {again}"
            )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the inputs that differ."""
    words = {"parameters": "parameter ", "modules": "", "upstream": "results of ", "data": "data "}
    changed = [] if before.get("notebook") == now["notebook"] else ["its code"]
    for kind, word in words.items():
        old, new = before.get(kind, {}), now[kind]
        names = [key for key in [*new, *(set(old) - set(new))] if old.get(key) != new.get(key)]
        changed += [f"{word}{name}" for name in names]
    return changed


def _end_orphans(folder: Path) -> None:
    """Kill what an earlier run, itself killed, may have left writing into a folder.

    The lock of the run is held, so every such process is an orphan.
    """
    orphans = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("IONAS_STAGE_DIR") == str(folder):
                process.kill()
                orphans.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(orphans, timeout=10)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM like ctrl-C, so that a notebook is stopped and not left behind."""

    def interrupt(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def duration(seconds: float) -> str:
    """Write a duration as people say it: 7 s, 2 min 30 s, 3 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)


def _changed(parameters: Parameters) -> dict[str, Any]:
    """The parameters that are not at their default."""
    fields = type(parameters).model_fields
    return {
        key: value
        for key, value in parameters.model_dump(mode="json").items()
        if value != fields[key].get_default(call_default_factory=True)
    }


def _with_jobs(parameters: Parameters, jobs: int) -> Parameters:
    given = "jobs" in parameters.model_fields_set
    if jobs and "jobs" in type(parameters).model_fields and not given:
        return parameters.model_copy(update={"jobs": jobs})
    return parameters
