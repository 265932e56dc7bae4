"""Run the notebooks of a study: those, and only those, of which an input has changed.

What is up to date is read from the manifests, and the order is that of the standard library's
`graphlib`. The library `doit` was looked at (0.37): it writes its state when it ends, so that a
killed run would forget the notebooks that were done, and it does not see a damaged result file.

A notebook runs in a process of its own and writes to `runs/NAME/STAGE.partial`; when it is
complete, that folder takes the place of `runs/NAME/STAGE` by renaming. A failure or a kill leaves
the last good results where they are, and the partial ones for the next run to go on from.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, Any

import filelock
import psutil
import yaml
from rich.console import Console

from ionas.book import execute, provenance
from ionas.book.folders import (
    RunFolder,
    project_root,
    read_json,
    runs_folder,
    write_json,
    write_text,
)
from ionas.book.parameters import (
    STAGES,
    InvalidParameters,
    Notebook,
    Parameters,
    find_stage,
    parse_overrides,
    resolve,
)
from ionas.book.progress import Progress, duration, titles

ENVIRONMENT = {  # the same bits whatever else is set or runs on this machine
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "JUPYTER_PREFER_ENV_PATH": "1",
}
POLL_S = 0.1


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


@dataclass
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    inputs: dict[str, Any]
    log: IO[bytes]
    continued: bool  # whether it goes on with what an earlier, stopped or smaller, run of it made
    started: float = field(default_factory=time.monotonic)


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
        empty); see `ionas.book.parameters.resolve`.
    only
        Notebooks to run, by number or name; all if empty.
    jobs
        Notebooks at a time, and worker processes of each unless its parameters say otherwise;
        0 takes one per core, 1 runs one after another.
    force
        Run again what is up to date, too.
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
    parameters = resolve(profile, parse_overrides(overrides, stages), name, stages)
    chosen = [find_stage(text, stages).name for text in only] or list(stages)
    parameters = {key: _with_jobs(value, jobs) for key, value in parameters.items()}
    folder = RunFolder(runs_folder() / next(iter(parameters.values())).run)
    study = Study(stages, notebooks or project_root() / "notebooks", folder)
    command = _command(profile, overrides, only, name, jobs)
    _check(study, parameters, chosen)
    with lock(folder), _interruptible():
        recover(study.run, study.stages)
        _check_upstream(study, chosen, command)
        try:
            _run_all(study, parameters, chosen, jobs or _cores(), force, command, console)
        finally:
            _write_parameters(study)
    return folder.path


def inputs_of(study: Study, name: str, parameters: Parameters) -> dict[str, Any]:
    """Everything that decides the results of a stage, hashed.

    Returns
    -------
    dict
        `notebook` (its code cells), `modules` of this package that it imports, `parameters`,
        `upstream` (artifacts of each stage that it reads), `data` (files named by parameters).
    """
    code = provenance.notebook_code(study.source(name))
    upstream = study.stages[name].upstream
    manifests = {stage: study.run.manifest(stage) for stage in upstream}
    return {
        "notebook": provenance.json_hash(code),
        "modules": provenance.imported_modules(code),
        "parameters": provenance.parameters_hashed(parameters.model_dump(mode="json")),
        "upstream": {
            stage: provenance.artifact_hash(manifest["outputs"]) if manifest else ""
            for stage, manifest in manifests.items()
        },
        "data": {path.name: provenance.data_hash(path) for path in parameters.data()},
    }


def reason_to_run(study: Study, name: str, inputs: Mapping[str, Any]) -> str:
    """Say why a stage must run; empty if it is up to date.

    Raises
    ------
    DamagedArtifact
        If a result file differs from what the manifest says.
    RunError
        If the stage was restored from a publication and is not what was restored: it is never run
        in place of that. Code may change; what was published stands.
    """
    manifest = study.run.manifest(name)
    if manifest is None:
        return "it has not run yet"
    if "restored" in manifest:
        if problem := restored_differs(study.run, name, manifest, inputs):
            raise RunError(
                f"{study.stages[name].stem} was restored from the publication "
                f"{manifest['restored']['name']!r}, and {problem}; "
                "restore it again with --from, or give another --name"
            )
        return ""
    if changed := _changes(manifest["inputs"], inputs):
        return f"changed: {', '.join(changed)}"
    folder = study.run.stage(name)
    if broken := provenance.damaged(folder, {**manifest["outputs"], **manifest["notebook"]}):
        raise DamagedArtifact(folder / broken[0])
    return ""


def restored_differs(
    run: RunFolder, name: str, manifest: Mapping[str, Any], inputs: Mapping[str, Any]
) -> str:
    """Say how a restored stage or what it rests on has changed, but for code; empty if not."""
    code = {kind: manifest["inputs"][kind] for kind in ("notebook", "modules")}
    if changed := _changes(manifest["inputs"], {**inputs, **code}):
        return f"this has changed: {', '.join(changed)}"
    broken = provenance.damaged(run.stage(name), {**manifest["outputs"], **manifest["notebook"]})
    return f"{run.stage(name) / broken[0]} is not the file that was restored" if broken else ""


class DamagedArtifact(RunError):
    """A result file that differs from what its manifest says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        state = "has changed since it was written" if path.exists() else "is missing"
        super().__init__(f"{path} {state}")


def _run_all(
    study: Study,
    parameters: Mapping[str, Parameters],
    chosen: Sequence[str],
    slots: int,
    force: bool,
    command: str,
    console: Console,
) -> None:
    """Go through the stages in order, as many at a time as there are slots."""
    graph = {name: set(study.stages[name].upstream) & set(chosen) for name in chosen}
    order = TopologicalSorter(graph)
    order.prepare()
    ready: list[str] = []
    running: dict[str, _Running] = {}
    failures: list[str] = []
    stems = titles((name, study.stages[name].stem) for name in study.stages if name in chosen)
    with Progress(stems, console) as progress:
        try:
            while order.is_active() or running:
                ready += order.get_ready()
                while ready and len(running) < slots and not failures:
                    name = ready.pop(0)
                    inputs = inputs_of(study, name, parameters[name])
                    why = "--force" if force else _why(study, name, inputs, progress)
                    if why:
                        _check_together(study, name, chosen, command, ended=True)
                        running[name] = _launch(study, name, parameters[name], inputs, force)
                        _show_start(study, running[name], why, progress)
                    else:
                        progress.end(name, "fresh")
                        _publish(study, name)
                        order.done(name)
                for name, job in list(running.items()):
                    if job.process.poll() is None:
                        continue
                    del running[name]
                    if problem := _collect(study, job):
                        failures.append(f"{problem}\n  go on with: {command}")
                        progress.end(name, "failed")
                    else:
                        _publish(study, name)
                        order.done(name)
                        spent = time.monotonic() - job.started
                        progress.end(name, "done", f"in {duration(spent)}")
                if failures and not running:
                    break
                if running:
                    time.sleep(POLL_S)
        except BaseException:
            _stop(running.values())
            raise
        if failures:
            for line in progress.lines.values():
                if line.state == "waiting":
                    line.state = "skipped"
    if failures:
        raise RunError("\n".join(failures))


def _why(study: Study, name: str, inputs: Mapping[str, Any], progress: Progress) -> str:
    try:
        return reason_to_run(study, name, inputs)
    except DamagedArtifact as damage:
        progress.warn(f"{damage}: {study.stages[name].stem} runs again")
        return f"{damage.path.name} is damaged"


def _show_start(study: Study, job: _Running, why: str, progress: Progress) -> None:
    last = study.run.manifest(job.name)
    expected = last["wall_time_s"] if last else None
    progress.start(job.name, expected, study.run.partial(job.name) / ".progress.json", why)


def _launch(
    study: Study, name: str, parameters: Parameters, inputs: dict[str, Any], force: bool
) -> _Running:
    """Start the process of a notebook, in its partial folder."""
    folder = study.run.partial(name)
    _reap(folder)
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    elif read_json(folder / ".inputs.json") != inputs:
        _carry_over(study, name, inputs)
    for leftover in ("stage.json", ".progress.json"):
        (folder / leftover).unlink(missing_ok=True)
    write_json(folder / ".inputs.json", inputs)
    values = {
        key: value
        for key, value in parameters.model_dump(mode="json").items()
        if value != type(parameters).model_fields[key].get_default(call_default_factory=True)
    }
    continued = any(path.is_file() for path in folder.glob("*/*"))
    log = (folder / "log.txt").open("wb")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ionas.book.execute"),
            *(str(study.source(name)), str(folder / "executed.ipynb")),
            *(json.dumps(values), str(os.getpid())),
        ],
        env=os.environ
        | ENVIRONMENT
        | {
            "IONAS_RUNS": str(study.run.path.parent),
            "IONAS_STAGE_DIR": str(folder),
            "IONAS_PROGRESS": str(folder / ".progress.json"),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # ctrl-C reaches this process alone, which then stops the others
    )
    return _Running(name, process, inputs, log, continued)


def _carry_over(study: Study, name: str, inputs: Mapping[str, Any]) -> None:
    """Leave in the partial folder of a stage only what it has made and what is still good.

    That is found in the folder itself, and in the last results.
    """
    stage, folder, final = study.stages[name], study.run.partial(name), study.run.stage(name)
    good = stage.made if _only_counts(stage, read_json(folder / ".inputs.json"), inputs) else ()
    for path in folder.glob("*"):
        if path.is_file() and path.name != ".inputs.json":  # a kill here must lose nothing
            path.unlink()
        elif path.is_dir() and path.name not in good:
            shutil.rmtree(path)
    manifest = study.run.manifest(name) or {}
    if not _only_counts(stage, manifest.get("inputs"), inputs):
        return
    for file, entry in manifest["outputs"].items():
        made = file.split("/")[0] in stage.made and not (folder / file).exists()
        if made and not provenance.damaged(final, {file: entry}):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(final / file, folder / file)


def _only_counts(stage: Notebook, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    """Whether inputs differ at most in parameters that are counts of what a stage makes."""
    ways = {f"parameter {name}" for name in stage.counts}
    return before is not None and set(_changes(before, now)) <= ways


def _collect(study: Study, job: _Running) -> str:
    """Put the results of an ended notebook in place; return what went wrong, or nothing."""
    job.log.close()
    folder = study.run.partial(job.name)
    path = folder / "executed.ipynb"
    record = read_json(folder / "stage.json")
    if job.process.returncode or record is None or not path.is_file():
        return _problem(study, job)
    notebook = execute.read(path)
    if execute.first_failure(notebook):
        return _problem(study, job)
    execute.scrub(notebook)
    write_text(path, execute.text(notebook))
    manifest = {
        **record,
        "inputs": job.inputs,
        "notebook": {"executed.ipynb": {"sha256": provenance.file_hash(path)}},
        "wall_time_s": round(time.monotonic() - job.started, 3),
        "continued": job.continued,
    }
    for leftover in ("stage.json", "log.txt", ".progress.json"):
        (folder / leftover).unlink(missing_ok=True)
    write_json(folder / "manifest.json", manifest)
    swap_in(study.run, job.name)
    return ""


def _problem(study: Study, job: _Running) -> str:
    """What went wrong in a notebook, in a few lines."""
    folder = study.run.partial(job.name)
    path, log = folder / "executed.ipynb", folder / "log.txt"
    stem = study.stages[job.name].stem
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    failure = execute.first_failure(execute.read(path)) if path.is_file() else None
    if failure is None:
        last = lines[-1] if lines else "no message"
        what = "ended without finish()" if job.process.returncode == 0 else f"failed: {last}"
        return f"{stem} {what}\n  its messages: {log}"
    error = failure.error
    if any("DeadKernelError" in line for line in lines):
        error = "the kernel died, perhaps for want of memory"
    return (
        f"{stem} failed in cell {failure.cell}: {failure.head}\n  {error}\n"
        f"  the half-executed notebook, with the whole traceback: {path}"
    )


def swap_in(run: RunFolder, name: str) -> None:
    """Let a complete partial folder take the place of the last results."""
    new, final = run.partial(name), run.stage(name)
    old = final.with_name(f"{name}.old")
    if final.exists():
        final.replace(old)
    new.replace(final)
    shutil.rmtree(old, ignore_errors=True)


def recover(run: RunFolder, names: Iterable[str]) -> None:
    """Undo or complete a swap of stages during which the process was killed."""
    for name in names:
        final = run.stage(name)
        old = final.with_name(f"{name}.old")
        if old.exists() and not final.exists():
            old.replace(final)
        shutil.rmtree(old, ignore_errors=True)


def _publish(study: Study, name: str) -> None:
    """Write the executed notebook for the book, with the prose that the source has now."""
    executed = execute.read(study.run.stage(name) / "executed.ipynb")
    source = execute.read(study.source(name))
    target = study.run.notebooks / f"{study.stages[name].stem}.ipynb"
    text = execute.text(execute.with_prose(executed, source))
    if not target.is_file() or target.read_bytes() != text.encode():
        write_text(target, text)


def _write_parameters(study: Study) -> None:
    """Write params.yaml: the parameters of the results that are there."""
    manifests = {name: study.run.manifest(name) for name in study.stages}
    content = {name: manifest["parameters"] for name, manifest in manifests.items() if manifest}
    path = study.run.path / "params.yaml"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if content and not (path.is_file() and path.read_text("utf-8") == text):
        write_text(path, text)


def _check(study: Study, parameters: Mapping[str, Parameters], chosen: Sequence[str]) -> None:
    """Find what can be found wrong before anything runs."""
    for name in chosen:
        if not study.source(name).is_file():
            raise InvalidParameters(f"there is no notebook {study.source(name)}")
        parameters[name].check({key: parameters[key] for key in chosen})
        provenance.pick_device(getattr(parameters[name], "device", "cpu"))
        try:
            provenance.imported_modules(provenance.notebook_code(study.source(name)))
        except (ValueError, KeyError) as error:
            raise InvalidParameters(f"{study.source(name)}: {error}") from error


def _check_upstream(study: Study, chosen: Sequence[str], command: str) -> None:
    """Check the results of stages that are read but not among those to run."""
    for name in chosen:
        for stage in study.stages[name].upstream:
            if stage in chosen:
                continue
            manifest = study.run.manifest(stage)
            number = study.stages[stage].number
            again = f"run it with: {_without_only(command)} --only {number}"
            if manifest is None:
                raise RunError(f"{name} reads {stage}, which run {study.run.name} lacks; {again}")
            folder = study.run.stage(stage)
            if broken := provenance.damaged(folder, manifest["outputs"]):
                raise RunError(f"{DamagedArtifact(folder / broken[0])}; {again}")
        _check_together(study, name, chosen, command)


def _check_together(
    study: Study, name: str, chosen: Sequence[str], command: str, ended: bool = False
) -> None:
    """Refuse to run a stage on results that do not belong together.

    What it reads and is not among those to run must have been made from the results that are there
    now, not from earlier ones. The results of stages to run count once those have `ended`.
    """
    for stage in study.stages[name].upstream:
        manifest = study.run.manifest(stage)
        if stage in chosen or manifest is None or "restored" in manifest:
            continue
        for source, before in manifest["inputs"]["upstream"].items():
            now = study.run.manifest(source)
            if now is None or (source in chosen and not ended):
                continue
            if provenance.artifact_hash(now["outputs"]) != before:
                raise RunError(
                    f"{name} reads {stage}, which was made from other results of {source} than are "
                    f"there now; run it again with: {_without_only(command)} "
                    f"--only {study.stages[stage].number}"
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


def _reap(folder: Path) -> None:
    """Kill what an earlier run, itself killed, may have left writing into a partial folder.

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


def _stop(jobs: Iterable[_Running]) -> None:
    for job in jobs:
        job.process.terminate()
    for job in jobs:
        job.process.wait()
        job.log.close()


@contextmanager
def lock(folder: RunFolder) -> Any:
    """Hold the run, so that no other process writes it."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(f"another process is writing {folder.path}; wait for it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _interruptible() -> Any:
    """Treat SIGTERM like ctrl-C, so that notebooks are stopped and not left behind."""

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


def _with_jobs(parameters: Parameters, jobs: int) -> Parameters:
    if (
        jobs
        and "jobs" in type(parameters).model_fields
        and "jobs" not in parameters.model_fields_set
    ):
        return parameters.model_copy(update={"jobs": jobs})
    return parameters


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _command(
    profile: str, overrides: Sequence[str], only: Sequence[str], name: str, jobs: int
) -> str:
    """The command that goes on with this run."""
    words = ["ionas", "run", "--profile", profile]
    for flag, values in (("--set", overrides), ("--only", only)):
        for value in values:
            words += [flag, value]
    words += ["--name", name] if name else []
    words += ["--jobs", str(jobs)] if jobs else []
    if os.environ.get("IONAS_SCHEDULER"):
        words += ["--backend", os.environ["IONAS_BACKEND"]]
        words += ["--scheduler", os.environ["IONAS_SCHEDULER"]]
    return shlex.join(words)


def _without_only(command: str) -> str:
    words = shlex.split(command)
    while "--only" in words:
        at = words.index("--only")
        del words[at : at + 2]
    return shlex.join(words)
