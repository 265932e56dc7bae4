"""Which notebooks there are, and how a profile and `--set` settle their parameters.

Both give texts: of YAML only its structure is used. A parameter's type in its pydantic model says
how its text is read, so that a folder named `2024` or `on` stays a text, and `010` is ten.
"""

import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from ionas import parameters as models

PROFILES = Path(__file__).parent / "profiles"
BRIEF = reprlib.Repr()
BRIEF.maxstring = BRIEF.maxother = BRIEF.maxlong = 200


class InvalidParameters(ValueError):
    """A parameter, notebook or profile that does not exist, or a value that is not allowed."""


@dataclass(frozen=True)
class Notebook:
    """A stage of the study: its notebook, its parameters, the stages whose files it reads.

    Without those of `upstream` it cannot run; those that are `optional` it reads if they are there.
    """

    name: str
    number: str
    model: type[models.Parameters]
    upstream: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """All stages whose files it reads."""
        return self.upstream + self.optional

    @property
    def stem(self) -> str:
        """File name of the notebook without its ending."""
        return f"{self.number}_{self.name}"


NETWORKS = ("search_space", "pretraining")
OUTPUTS, EMBEDDINGS = (*NETWORKS, "io_dataset"), (*NETWORKS, "embedding_training")
NOTEBOOKS = (
    Notebook("search_space", "01", models.SearchSpace),
    Notebook("pretraining", "02", models.Pretraining, ("search_space",)),
    Notebook("io_dataset", "03", models.IODataset, NETWORKS),
    Notebook("output_features", "04", models.OutputFeatures, OUTPUTS),
    Notebook("embedding_training", "05", models.EmbeddingTraining, OUTPUTS),
    Notebook("reinforce", "06", models.Reinforce, EMBEDDINGS),
    Notebook(
        "performance_prediction", "07", models.PerformancePrediction, (*EMBEDDINGS, "io_dataset")
    ),
    Notebook(
        "predictors", "08", models.Predictors, ("search_space",), optional=("embedding_training",)
    ),
    Notebook(
        "search_methods",
        "09",
        models.SearchMethods,
        ("search_space",),
        optional=("embedding_training", "reinforce"),
    ),
    Notebook("label_value", "10", models.LabelValue, OUTPUTS, optional=("embedding_training",)),
)
STAGES: dict[str, Notebook] = {notebook.name: notebook for notebook in NOTEBOOKS}


def find_stage(text: str, stages: Mapping[str, Notebook] = STAGES) -> Notebook:
    """Find a stage by its number, its name or the name of its notebook (`05_embedding_training`).

    Raises InvalidParameters if there is none; the message names the nearest one.
    """
    wanted = text.removesuffix(".ipynb")
    for notebook in stages.values():
        if wanted in (notebook.name, notebook.number, notebook.stem):
            return notebook
    raise InvalidParameters(f"there is no notebook {BRIEF.repr(text)}{nearest(wanted, stages)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Say which valid name is meant, or list them all: the end of an error message."""
    names = list(names)
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(names)}"


def profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(
    profile: str, stages: Mapping[str, Notebook] = STAGES
) -> dict[str, dict[str, Any]]:
    """Read a profile, by name or as the path of a YAML file: stage -> parameter -> value.

    Raises InvalidParameters if there is none, or it does not map notebooks to their parameters.
    """
    path = PROFILES / f"{profile}.yaml"
    if profile.endswith((".yaml", ".yml")):
        path = Path(os.path.expanduser(profile))
    elif profile not in profiles():
        raise InvalidParameters(f"there is no profile {profile!r}{nearest(profile, profiles())}")
    try:
        content = _structure(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameters(f"profile {profile} cannot be read: {error}") from error
    except ValueError as error:
        raise InvalidParameters(f"profile {profile} is not YAML: {error}") from error
    if not isinstance(content, dict | None):
        raise InvalidParameters(f"profile {profile} must map notebooks to their parameters")
    values: dict[str, dict[str, Any]] = {}
    for key, section in (content or {}).items():
        stage = find_stage(key, stages)
        known = values.setdefault(stage.name, {})
        if isinstance(section, dict):
            known |= {name: _read(stage, name, value) for name, value in section.items()}
        elif section != "":  # nothing may stand below the name of the notebook
            raise InvalidParameters(f"profile {profile}: {key} must map parameters to values")
    return values


def parse_overrides(
    texts: Iterable[str], stages: Mapping[str, Notebook] = STAGES
) -> dict[str, dict[str, Any]]:
    """Read `notebook.parameter=value` texts: stage -> parameter -> value.

    Raises InvalidParameters if a text has another form, or names no notebook.
    """
    values: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"\s*([^.=]+)\.([^.=]+)=(.*)", text, re.DOTALL)
        if match is None:
            given = BRIEF.repr(text)
            raise InvalidParameters(f"--set {given} is not of the form notebook.parameter=value")
        stage, name = find_stage(match[1], stages), match[2].strip()
        values.setdefault(stage.name, {})[name] = _read(stage, name, match[3])
    return values


def resolve(
    profile: str = "digits",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    run: str = "",
    stages: Mapping[str, Notebook] = STAGES,
) -> dict[str, models.Parameters]:
    """Settle the parameters of every notebook: the defaults, then the profile, then the overrides.

    `profile` and `overrides` are what `load_profile` takes and `parse_overrides` gives. The run is
    called `run`, else as the parameter `run` of the profile says, which `params.yaml` of a run has,
    else as the profile. Raises InvalidParameters, naming the notebook, the parameter, and the
    nearest valid name or the range.
    """
    from_profile = load_profile(profile, stages)
    named = {str(values.pop("run")) for values in from_profile.values() if "run" in values}
    if len(named) > 1:
        raise InvalidParameters(f"profile {profile} names several runs: {', '.join(sorted(named))}")
    run = run or next(iter(named), Path(profile).stem)
    resolved = {}
    for name, notebook in stages.items():
        values = (overrides or {}).get(name, {})
        if values.get("run", run) != run:
            raise InvalidParameters(f"{name}.run cannot be set here; name the run with --name")
        resolved[name] = validate(notebook, {**from_profile.get(name, {}), **values, "run": run})
    return resolved


def validate(notebook: Notebook, values: Mapping[str, Any]) -> models.Parameters:
    """Make the parameters of a notebook; InvalidParameters tells all that is wrong in one line."""
    try:
        return notebook.model(**values)
    except ValidationError as error:
        problems = [_problem(notebook, item) for item in error.errors()]
        raise InvalidParameters("; ".join(problems)) from error


def _problem(notebook: Notebook, item: Any) -> str:
    where, given = ".".join(map(str, item["loc"])), BRIEF.repr(item["input"])
    if item["type"] == "extra_forbidden":
        known = [name for name in notebook.model.model_fields if name != "run"]
        return f"{notebook.name} has no parameter {BRIEF.repr(where)}{nearest(where, known)}"
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    message = message.replace("valid list", "list, say [1, 2]")
    message = message.replace("valid string", "text, which papermill takes with -r in place of -p")
    return f"{notebook.name}.{where} is {given}: {message}"


def _read(notebook: Notebook, name: str, value: Any) -> Any:
    """Read what was given as text by the type of the parameter."""
    field = notebook.model.model_fields.get(name)
    return _as_type(field.annotation, value) if field else value


def _as_type(annotation: Any, value: Any) -> Any:
    """Read a text, or a list of texts; what cannot be read stays, for the model to refuse it."""
    try:
        if get_origin(annotation) is list:
            items, (kind,) = _structure(value), get_args(annotation)
            return [_as_type(kind, item) for item in items] if isinstance(items, list) else value
        return TypeAdapter(annotation).validate_strings(value)
    except ValueError:
        return value


def _structure(given: Any) -> Any:
    """Parse YAML to mappings, lists and texts; a ValueError if a text is none."""
    try:
        return yaml.load(given, _Loader) if isinstance(given, str) else given
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.BaseLoader):
    """Makes a text of every scalar, and refuses a key that stands twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            problem = f"{twice[0]!r} stands there twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)
