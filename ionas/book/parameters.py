"""The parameters of every notebook, one pydantic model each, and the profiles that set them.

The names, types and defaults here are those of the cell tagged `parameters` of the notebook.
A parameter that names a file or folder is relative to the folder in which the run is started.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ionas.book.folders import RECORD, find_publication


class InvalidParameters(ValueError):
    """A parameter, notebook or profile that does not exist, or a value that is not allowed."""


class Parameters(BaseModel):
    """What every notebook has. Types are strict: text is no number, a fraction no integer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    run: str = Field(
        "digits", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the folder in runs/"
    )

    def check(self, others: Mapping[str, "Parameters"]) -> None:
        """Look at the data that these parameters name, cheaply, before anything runs.

        `others` are the parameters of all notebooks that will run.

        Raises
        ------
        ValueError
            If a file is missing or malformed, or a folder unreadable.
        """

    def data(self) -> list[Path]:
        """Files and folders that these parameters name: when their content changes, so does all."""
        return []


class SearchSpace(Parameters):
    """01: the cells, the table, the split (paper: Fig. 9, appendix C)."""

    table: str = Field("digits", description="digits, or the path of a .parquet or .csv table")
    dataset: str = Field(
        "", description="whose accuracies, if the table has those of several data sets"
    )
    seed: int = Field(1, ge=0, description="seed of the split")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the cells in the validation part"
    )
    labeled_train: int = Field(160, ge=2, description="labeled cells of the train part")
    labeled_validation: int = Field(30, ge=2, description="labeled cells of the validation part")

    def check(self, others: Mapping[str, Parameters]) -> None:
        """Look whether the table is there and has the columns it needs."""
        from ionas.benchmark.table import check_table

        check_table(self.table, self.dataset)

    def data(self) -> list[Path]:
        """The file of the table, if it is not an embedded one."""
        path = Path(self.table)
        return [path] if path.suffix else []


class Pretraining(Parameters):
    """02: the labeled networks, trained on the images (paper: Table 1)."""

    seed: int = Field(1, ge=0, description="seed of initial weights, order of batches, test images")
    train_networks: int = Field(
        0, ge=0, description="labeled train cells whose networks are trained; 0: all"
    )
    validation_networks: int = Field(
        0, ge=0, description="labeled validation cells whose networks are trained; 0: all"
    )
    published: str = Field(
        "", description="a publication, say results/laptop, whose networks are not trained again"
    )
    images: Literal["digits", "cifar10", "folder"] = Field("digits", description="source of images")
    images_path: str = Field("", description="folder or ZIP file of the images; unused for digits")
    validation_images: int = Field(297, ge=1, description="train images held out for the IO data")
    train_images: int = Field(0, ge=0, description="images trained on; 0 takes all others")
    test_images: int = Field(200, ge=0, description="random test images for the IO data; 0: all")
    channels: int = Field(8, ge=1, description="channels of the stem")
    stacks: int = Field(3, ge=1, description="stacks of cells; between two the image is halved")
    cells_per_stack: int = Field(1, ge=1, description="cells in a stack")
    epochs: int = Field(6, ge=1, description="passes over the train images")
    batch_size: int = Field(128, ge=2, description="images in a batch")
    learning_rate: float = Field(0.1, gt=0, description="of SGD at the start, falling to 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, description="of SGD")
    clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    augment: bool = Field(False, description="random crop and flip, for colour images")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")
    device: str = Field("auto", description="auto, cpu, cuda or mps")

    def check(self, others: Mapping[str, Parameters]) -> None:
        """Look at the numbers of networks, and whether the images are there as they must be."""
        space = others.get("search_space")
        for part in ("train", "validation"):
            wanted = getattr(self, f"{part}_networks")
            if wanted == 1:
                raise ValueError(f"{part}_networks is 1; give at least 2, or 0 for all")
            labeled = getattr(space, f"labeled_{part}", wanted)
            if wanted > labeled:
                raise ValueError(
                    f"{part}_networks is {wanted}, but search_space.labeled_{part} is {labeled}; "
                    "ask for fewer, or label more"
                )
        side = {"digits": 8, "cifar10": 32}.get(self.images)
        if side and side < 2**self.stacks:
            raise ValueError(
                f"stacks is {self.stacks}, and between two of them the image is halved: too many "
                f"for {side} x {side} pixels; give at most {side.bit_length() - 1}"
            )
        if self.images != "digits":
            from ionas.images import check_source

            check_source(self.images, self.images_path)
        if self.published:
            self._check_published(others)

    def _check_published(self, others: Mapping[str, Parameters]) -> None:
        """Look whether the publication is whole, of the same parameters, and of fewer networks."""
        from ionas.book import publish
        from ionas.book.facts import changed

        folder = find_publication(self.published)
        if folder is None:
            raise ValueError(
                f"published is {self.published!r}, and there is no publication; give its folder, "
                "say results/laptop"
            )
        publication = publish.read(folder)
        wanted = dict(others, pretraining=self)
        free = {  # what does not decide the targets of a network
            "pretraining": STAGES["pretraining"].counts,
            "io_dataset": ("batch_size", "validation_share"),
        }
        for stage in FIRST:
            manifest = publication.run.manifest(stage)
            if manifest is None:
                raise ValueError(f"{folder} has no {STAGES[stage].stem}: nothing to go on from")
            here = wanted[stage].model_dump(mode="json") if stage in wanted else {}
            for name, (value, there) in changed(here, manifest["parameters"]).items():
                if name not in free.get(stage, ()):
                    raise ValueError(
                        f"{stage}.{name} is {value!r}, but {there!r} in {folder}, whose "
                        "networks can be used only with the same; or leave published out"
                    )
        if "published_order" not in publication.record["table"]:
            raise ValueError(
                f"{folder} was made before cells were put into the published order of vertices; "
                "its networks cannot be used beside those of today"
            )

    def data(self) -> list[Path]:
        """The folder of the images, and the record of a publication, with the hashes of all."""
        paths = [Path(self.images_path)] if self.images_path else []
        folder = find_publication(self.published) if self.published else None
        return [*paths, folder / RECORD] if folder else paths


class IODataset(Parameters):
    """03: outputs of the trained networks (paper: Table 2)."""

    validation_images: int = Field(
        100, ge=0, description="first validation images used as inputs; 0 takes all"
    )
    test_images: int = Field(0, ge=0, description="first test images kept; 0 takes all")
    top_k: int = Field(10, ge=1, description="contributions kept, largest weight first")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="share of train networks for validation on unseen images"
    )
    batch_size: int = Field(512, ge=1, description="images in a batch")
    device: str = Field("auto", description="auto, cpu, cuda or mps")

    def check(self, others: Mapping[str, Parameters]) -> None:
        """Look whether notebook 02, if it runs too, keeps as much as is wanted here."""
        networks = others.get("pretraining")
        if not isinstance(networks, Pretraining):
            return
        for name in ("validation_images", "test_images"):
            wanted, kept = getattr(self, name), getattr(networks, name)
            if wanted > kept > 0:
                raise ValueError(
                    f"{name} is {wanted}, but pretraining.{name} is {kept}; "
                    "take fewer, or have notebook 02 keep more"
                )
        width = networks.channels * 2 ** (networks.stacks - 1)
        if self.top_k > width + 1:
            raise ValueError(
                f"top_k is {self.top_k}, but the networks have {width} features and a bias; "
                "keep fewer, or raise pretraining.channels or pretraining.stacks"
            )


class OutputFeatures(Parameters):
    """04: what the outputs look like (paper: Figs. 2 to 4)."""

    seed: int = Field(1, ge=0, description="seed of the shuffled clusters")
    image: int = Field(0, ge=0, description="which image of the IO dataset Fig. 3 shows")
    threshold: float = Field(
        0.0,
        ge=0,
        description="distance (a mean squared error) at which clusters are not joined; 0: the rule",
    )
    threshold_quantile: float = Field(
        0.25, gt=0, lt=1, description="the rule: quantile of all pairwise distances"
    )
    min_cluster: int = Field(3, ge=1, description="networks in the smallest cluster shown")


class EmbeddingTraining(Parameters):
    """05: arch2vec, the IO model and the Accuracy model (paper: Table 3)."""

    seeds: list[int] = Field([1, 2, 3], min_length=1, description="one training of all models each")
    epochs: int = Field(10, ge=1, description="passes over the data")
    original_epochs: int = Field(
        50, ge=1, description="passes of arch2vec original over the train cells (paper: 8)"
    )
    batch_size: int = Field(32, ge=2, description="pairs or cells in a batch")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    labeled_run: int = Field(
        0, ge=0, description="labeled batches in a row (paper: 300); 0: the paper's share of all"
    )
    unlabeled_run: int = Field(
        0, ge=0, description="unlabeled batches in a row (paper: 206); 0: the paper's share of all"
    )
    labeled_weight: float = Field(1.0, ge=0, description="weight of the loss on labels")
    hidden: int = Field(64, ge=1, description="width of the GIN layers (paper: 128)")
    latent: int = Field(16, ge=2, description="latent width of a vertex")
    layers: int = Field(4, ge=1, description="GIN layers")
    decoder_dropout: float = Field(0.3, ge=0, lt=1, description="on Z in the decoder")
    activation: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="of the decoded operations"
    )
    embedding: int = Field(16, ge=2, description="width of the flatten embedding")
    image_channels: int = Field(8, ge=1, description="first width of the image tower (paper: 128)")
    image_steps: int = Field(2, ge=0, description="times the image tower doubles its width")
    head_hidden: int = Field(128, ge=1, description="width of the IO model's head (paper: 512)")
    head_dropout: float = Field(0.5, ge=0, lt=1, description="in the IO model's head")
    accuracy_hidden: int = Field(512, ge=1, description="width of the Accuracy model's head")
    validity_samples: int = Field(
        1000, ge=1, description="cells drawn after each epoch (paper: 10,000)"
    )
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")
    device: str = Field("auto", description="auto, cpu, cuda or mps")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("give distinct seeds that are not negative")
        return seeds


class Reinforce(Parameters):
    """06: search in the embedding space (paper: Figs 5 and 6, appendix G)."""

    seed: int = Field(1, ge=0, description="seed of the runs and of the bootstrap")
    training_seed: int = Field(
        1, ge=0, description="which training the figures and findings are of"
    )
    runs: int = Field(100, ge=2, description="runs of every search")
    cost: Literal["time", "evaluations"] = Field(
        "time", description="what a search pays for a cell: its training time, or 1 each"
    )
    budget: float = Field(
        0.0,
        ge=0,
        description="simulated time of a run, in the unit of the table; 0: 300 average trainings",
    )
    label_cost: float = Field(
        1.0,
        ge=0,
        description="time of a labeled network, as a share of its training in the table "
        "(paper: 12 of 108 epochs)",
    )
    baseline: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="accuracy subtracted from the reward, 0 to 1; 0 takes the best one, cut",
    )
    episode: int = Field(16, ge=1, description="steps between two updates of the policy")
    hidden: int = Field(128, ge=1, description="width of the policy's LSTM cell")
    learning_rate: float = Field(0.01, gt=0, description="of Adam")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")

    def check(self, others: Mapping[str, Parameters]) -> None:
        """Look whether table and trainings, if of the same run, have what a search needs."""
        models = others.get("embedding_training")
        if isinstance(models, EmbeddingTraining) and self.training_seed not in models.seeds:
            raise ValueError(
                f"training_seed is {self.training_seed}, but embedding_training.seeds is "
                f"{models.seeds}; choose one of them"
            )
        space = others.get("search_space")
        if not isinstance(space, SearchSpace):
            return
        from ionas.benchmark.table import check_table

        columns = check_table(space.table, space.dataset)
        rest = [f"--only {STAGES[name].number}" for name in others if name != "reinforce"]
        mend = f"leave notebook 06 out: {' '.join(rest)}"
        if "validation_accuracy" not in columns:
            raise ValueError(f"{space.table} has no validation_accuracy, which 06 needs; {mend}")
        if self.cost == "time" and "training_time" not in columns:
            raise ValueError(
                f"{space.table} has no training_time, by which 06 charges a search; let it count "
                f"trainings instead: --set reinforce.cost=evaluations, or {mend}"
            )


class PerformancePrediction(Parameters):
    """07: accuracy predicted from the embeddings (paper: Tables 6 and 7)."""

    sizes: list[int] = Field(
        [0, 400, 1000], min_length=1, description="cells fitted on; 0: the labeled train networks"
    )
    seeds: int = Field(10, ge=1, description="regressor seeds for the first training")
    other_seeds: int = Field(3, ge=1, description="regressor seeds for each further training")
    accuracy_threshold: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="accuracy above which cells are scored (paper: 0.8); 0: the rule",
    )
    excluded_share: float = Field(
        0.019, ge=0, lt=1, description="the rule: share of cells at or below the threshold"
    )
    trees: int = Field(200, ge=1, description="trees of the random forest")
    max_features: int = Field(4, ge=1, description="inputs tried per split")
    reference_features: float = Field(
        0.33, gt=0, le=1, description="share of inputs tried per split in the reference rows"
    )
    gaussian_cells: int = Field(250, ge=2, description="random cells for the Gaussian process")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")


@dataclass(frozen=True)
class Notebook:
    """A stage of the study: its notebook, its parameters, the stages whose files it reads.

    Where only parameters that are `counts` have changed, it goes on with what it has `made`:
    folders of files each of which stands for itself.
    """

    name: str
    number: str
    model: type[Parameters]
    upstream: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    made: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """File name of the notebook without its ending."""
        return f"{self.number}_{self.name}"


STAGES: dict[str, Notebook] = {
    notebook.name: notebook
    for notebook in (
        Notebook("search_space", "01", SearchSpace),
        Notebook(
            "pretraining",
            "02",
            Pretraining,
            ("search_space",),
            counts=("train_networks", "validation_networks"),
            made=("networks", "timings"),
        ),
        Notebook("io_dataset", "03", IODataset, ("search_space", "pretraining")),
        Notebook(
            "output_features", "04", OutputFeatures, ("search_space", "pretraining", "io_dataset")
        ),
        Notebook(
            "embedding_training",
            "05",
            EmbeddingTraining,
            ("search_space", "pretraining", "io_dataset"),
            counts=("seeds",),
            made=("checkpoints", "timings"),
        ),
        Notebook(
            "reinforce", "06", Reinforce, ("search_space", "pretraining", "embedding_training")
        ),
        Notebook(
            "performance_prediction",
            "07",
            PerformancePrediction,
            ("search_space", "pretraining", "embedding_training"),
        ),
    )
}


FIRST = ("search_space", "pretraining", "io_dataset")  # they make the IO dataset


def find_stage(text: str, stages: Mapping[str, Notebook] = STAGES) -> Notebook:
    """Find a stage by its number, its name or the name of its notebook (`05_embedding_training`).

    Raises
    ------
    InvalidParameters
        If there is none; the message names the nearest one.
    """
    wanted = text.removesuffix(".ipynb")
    for notebook in stages.values():
        if wanted in (notebook.name, notebook.number, notebook.stem):
            return notebook
    raise InvalidParameters(f"there is no notebook {text!r}{nearest(wanted, stages)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Say which valid name is meant, or list them all: the end of an error message."""
    names = list(names)
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(names)}"


def parse_yaml(text: str) -> Any:
    """Parse YAML safely; unlike PyYAML alone, `1e-3` is a number."""
    return yaml.load(text, _Loader)


def profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("ionas.book") / "profiles"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_profile(
    profile: str, stages: Mapping[str, Notebook] = STAGES
) -> dict[str, dict[str, Any]]:
    """Read a profile, by name or as the path of a YAML file: stage -> parameter -> value.

    Raises
    ------
    InvalidParameters
        If there is no such profile, or it is no mapping of notebooks to parameters.
    """
    if profile in profiles():
        text = (resources.files("ionas.book") / "profiles" / f"{profile}.yaml").read_text("utf-8")
    elif profile.endswith((".yaml", ".yml")):
        try:
            text = Path(profile).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameters(f"profile {profile} cannot be read: {error}") from error
    else:
        raise InvalidParameters(f"there is no profile {profile!r}{nearest(profile, profiles())}")
    try:
        content = parse_yaml(text) or {}
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InvalidParameters(f"profile {profile} is not YAML: {problem}") from error
    if not isinstance(content, dict):
        raise InvalidParameters(f"profile {profile} must map notebooks to their parameters")
    values: dict[str, dict[str, Any]] = {}
    for key, section in content.items():
        stage = find_stage(str(key), stages).name
        if not isinstance(section, dict | None):
            raise InvalidParameters(f"profile {profile}: {key} must map parameters to values")
        values.setdefault(stage, {}).update(section or {})
    return values


def parse_overrides(
    texts: Iterable[str], stages: Mapping[str, Notebook] = STAGES
) -> dict[str, dict[str, Any]]:
    """Parse `notebook.parameter=value` texts, the values being YAML: stage -> parameter -> value.

    Raises
    ------
    InvalidParameters
        If a text has another form, or names a notebook that does not exist.
    """
    values: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"\s*([^.=]+)\.([^.=]+)=(.*)", text, re.DOTALL)
        if match is None:
            raise InvalidParameters(f"--set {text!r} is not of the form notebook.parameter=value")
        stage, parameter, value = match.groups()
        try:
            parsed = parse_yaml(value)
        except yaml.YAMLError as error:
            raise InvalidParameters(f"--set {text!r}: the value is not YAML") from error
        values.setdefault(find_stage(stage, stages).name, {})[parameter.strip()] = parsed
    return values


def resolve(
    profile: str = "digits",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    run: str = "",
    stages: Mapping[str, Notebook] = STAGES,
) -> dict[str, Parameters]:
    """Settle the parameters of every notebook: the defaults, then the profile, then the overrides.

    Parameters
    ----------
    profile
        Name of a profile, or path of a YAML file.
    overrides
        Stage -> parameter -> value, as `parse_overrides` gives it.
    run
        Name of the run; that of the profile if empty.

    Raises
    ------
    InvalidParameters
        Naming the notebook, the parameter, and the nearest valid name or the range.
    """
    from_profile = load_profile(profile, stages)
    run = run or Path(profile).stem
    resolved = {}
    for name, notebook in stages.items():
        values = {**from_profile.get(name, {}), **(overrides or {}).get(name, {})}
        if values.get("run", run) != run:
            raise InvalidParameters(f"{name}.run cannot be set here; name the run with --name")
        resolved[name] = validate(notebook, {**values, "run": run})
    return resolved


def validate(notebook: Notebook, values: Mapping[str, Any]) -> Parameters:
    """Make the parameters of one notebook.

    Raises
    ------
    InvalidParameters
        With one line for all that is wrong.
    """
    try:
        return notebook.model(**{str(name): value for name, value in values.items()})
    except ValidationError as error:
        problems = [_problem(notebook, item) for item in error.errors()]
        raise InvalidParameters("; ".join(problems)) from error


def _problem(notebook: Notebook, item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = [name for name in notebook.model.model_fields if name != "run"]
        return f"{notebook.name} has no parameter {where!r}{nearest(where, known)}"
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if not where:
        return f"{notebook.name}: {message}"
    return f"{notebook.name}.{where} is {item['input']!r}: {message}"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, with the floats of YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)
