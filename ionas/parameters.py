"""The parameters of every notebook, one pydantic model each.

Their names, types and defaults are those of the cell tagged `parameters` of the notebook. A
parameter that names a file or folder is relative to the folder in which the run is started.
"""

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

SEEDS = 2**32  # the number of seeds that NumPy's generators accept
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
PathText = Annotated[str, AfterValidator(os.path.expanduser)]  # `~` is the home folder


def distinct_seeds(seeds: list[int]) -> list[int]:
    """Return the seeds if no two are the same and all can be used; else raise ValueError."""
    if len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= SEEDS:
        raise ValueError("give distinct seeds that are not negative and below 2**32")
    return seeds


class Parameters(BaseModel):
    """Parameters of every notebook. Types are strict: text is not a number, 1.5 not an integer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    run: str = Field(
        "digits", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the folder in runs/"
    )

    NAMES_DATA: ClassVar[tuple[str, ...]] = ()  # parameters that name files or folders

    def data(self) -> dict[str, Path]:
        """Files and folders by the parameter that names them; embedded data have no file."""
        named = {name: getattr(self, name) for name in self.NAMES_DATA}
        return {name: Path(value) for name, value in named.items() if value not in ("", "digits")}


class SearchSpace(Parameters):
    """01: the cells, the table, the split (paper: Fig. 9, appendix C)."""

    NAMES_DATA = ("table",)

    table: PathText = Field(
        "digits", min_length=1, description="digits, or the path of a .parquet or .csv table"
    )
    dataset: str = Field(
        "", description="data set whose accuracies are read, if the table has those of several"
    )
    seed: Seed = Field(1, description="seed of the split")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the cells in the validation part"
    )
    labeled_train: int = Field(160, ge=2, description="labeled cells of the train part")
    labeled_validation: int = Field(30, ge=2, description="labeled cells of the validation part")


class Pretraining(Parameters):
    """02: the labeled networks, trained on the images (paper: Table 1)."""

    NAMES_DATA = ("images_path",)

    seed: Seed = Field(1, description="seed of initial weights, order of batches, test images")
    train_networks: int = Field(
        0, ge=0, description="labeled train cells whose networks are trained; 0: all"
    )
    validation_networks: int = Field(
        0, ge=0, description="labeled validation cells whose networks are trained; 0: all"
    )
    images: Literal["digits", "cifar10", "folder"] = Field("digits", description="source of images")
    images_path: PathText = Field(
        "", description="folder or ZIP file of the images; unused for digits"
    )
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


class OutputFeatures(Parameters):
    """04: what the outputs look like (paper: Figs. 2 to 4)."""

    seed: Seed = Field(1, description="seed of the shuffled clusters")
    image: int = Field(0, ge=0, description="which image of the IO dataset Fig. 3 shows")
    threshold: float = Field(
        0.0,
        ge=0,
        description="least squared distance of clusters (paper: 0.4); 0: by threshold_quantile",
    )
    threshold_quantile: float = Field(
        0.25, gt=0, lt=1, description="quantile of all pairwise distances, for threshold 0"
    )
    min_cluster: int = Field(3, ge=1, description="networks in the smallest cluster shown")


class EmbeddingTraining(Parameters):
    """05: arch2vec, the IO model and the Accuracy model (paper: Table 3)."""

    seeds: list[int] = Field(
        [1, 2, 3], min_length=1, description="seeds of trainings of all models"
    )
    epochs: int = Field(6, ge=1, description="passes over the data (paper: 10)")
    original_epochs: int = Field(
        30, ge=1, description="passes of arch2vec original over the train cells (paper: 8)"
    )
    batch_size: int = Field(64, ge=2, description="pairs or cells in a batch (paper: 32)")
    learning_rate: float = Field(3e-3, gt=0, description="of Adam (paper: 0.001)")
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
    image_steps: int = Field(2, ge=0, le=8, description="times the image tower doubles its width")
    head_hidden: int = Field(128, ge=1, description="width of the IO model's head (paper: 512)")
    head_dropout: float = Field(0.5, ge=0, lt=1, description="in the IO model's head")
    accuracy_hidden: int = Field(512, ge=1, description="width of the Accuracy model's head")
    validity_samples: int = Field(
        1000, ge=1, description="cells drawn after each epoch (paper: 10,000)"
    )
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")
    device: str = Field("auto", description="auto, cpu, cuda or mps")

    _distinct = field_validator("seeds")(distinct_seeds)


class Reinforce(Parameters):
    """06: search in the embedding space (paper: Figs 5 and 6, appendix G)."""

    seed: Seed = Field(1, description="seed of the runs and of the bootstrap")
    runs: int = Field(100, ge=1, description="runs of every search")
    cost: Literal["time", "evaluations"] = Field(
        "time", description="cost of a query of a cell: its training time, or 1"
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
        description="subtracted from the reward, 0 to 1; 0: best accuracy cut to two digits",
    )
    episode: int = Field(16, ge=1, description="steps between two updates of the policy")
    hidden: int = Field(128, ge=1, description="width of the policy's LSTM cell")
    learning_rate: float = Field(0.01, gt=0, description="of Adam")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")


class PerformancePrediction(Parameters):
    """07: accuracy predicted from the embeddings (paper: Tables 6 and 7)."""

    sizes: list[int] = Field(
        [0, 400, 1000], min_length=1, description="cells fitted on; 0: the labeled train networks"
    )
    seeds: int = Field(4, ge=1, description="regressor seeds for the first training (paper: 10)")
    other_seeds: int = Field(2, ge=1, description="regressor seeds for each further training")
    accuracy_threshold: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="accuracy above which cells are scored (paper: 0.8); 0: by excluded_share",
    )
    excluded_share: float = Field(
        0.019,
        ge=0,
        lt=1,
        description="share of cells at or below the threshold, for threshold 0",
    )
    trees: int = Field(100, ge=1, description="trees of the random forest (paper: 200)")
    max_features: int = Field(4, ge=1, description="inputs tried per split")
    reference_features: float = Field(
        0.33, gt=0, le=1, description="share of inputs tried per split in the reference rows"
    )
    gaussian_cells: int = Field(250, ge=2, description="random cells for the Gaussian process")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")

    @field_validator("sizes")
    @classmethod
    def _large_enough(cls, sizes: list[int]) -> list[int]:
        if wrong := [size for size in sizes if size < 2 and size != 0]:
            raise ValueError(f"a sample of {wrong[0]} cells is too small; give at least 2, or 0")
        return sizes


class Predictors(Parameters):
    """08: accuracy predicted by the methods of the field."""

    sizes: list[Annotated[int, Field(ge=10)]] = Field(
        [100, 424], min_length=1, description="random cells fitted on to rank all others"
    )
    draws: int = Field(3, ge=1, description="samples of each size")
    other_draws: int = Field(
        1, ge=1, description="samples above 1,000 cells, and of each size for the slower predictors"
    )
    value_sizes: list[Annotated[int, Field(ge=10)]] = Field(
        [200], min_length=1, description="random cells fitted on to predict accuracies"
    )
    value_draws: int = Field(3, ge=1, description="samples of each of these sizes")
    added_size: int = Field(
        172, ge=10, description="random cells to try embeddings beside features"
    )
    added_draws: int = Field(2, ge=1, description="samples of that size")
    accuracy_threshold: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="accuracy above which accuracies are predicted (paper: 0.8); "
        "0: by excluded_share",
    )
    excluded_share: float = Field(
        0.019,
        ge=0,
        lt=1,
        description="share of cells at or below the threshold, for threshold 0",
    )
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")


class SearchMethods(Parameters):
    """09: methods of search, and a surrogate benchmark."""

    seed: Seed = Field(1, description="seed of the runs, the bootstrap and the surrogate")
    runs: int = Field(100, ge=2, description="runs of every method")
    embedding_runs: int = Field(
        10, ge=1, description="runs of Bayesian optimisation in each embedding of a training"
    )
    cost: Literal["time", "evaluations"] = Field(
        "time", description="cost of a query of a cell: its training time, or 1"
    )
    budget: int = Field(150, ge=2, description="queries of a run")
    initial: int = Field(10, ge=2, description="random cells that every run begins with")
    batch: int = Field(10, ge=1, description="queries between two fits of a predictor")
    target: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="test regret whose reaching is timed; 0: what random search ends with",
    )
    surrogate_share: float = Field(
        0.5, gt=0, lt=1, description="share of the cells that the surrogate is fitted to"
    )
    surrogate_runs: int = Field(30, ge=2, description="runs of a method on the surrogate")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")


class LabelValue(Parameters):
    """10: what the labels of networks buy (beyond the paper)."""

    doses: list[int] = Field(
        [1, 2],
        description="epochs of further trainings, besides 0 and those of notebook 02",
    )
    networks: list[int] = Field(
        [20, 40, 80], description="numbers of labeled train networks, the first ones, besides all"
    )
    images: list[int] = Field([10, 30], description="numbers of images, the first, besides all")
    readout_images: int = Field(
        256, ge=0, description="train images for readout, normalisation and FEAR; 0: all"
    )
    seeds: list[int] = Field(
        [1, 2, 3], min_length=1, description="seeds of trainings of the models on all labels"
    )
    epochs: int = Field(1, ge=1, description="passes of a model over the data")
    batch_size: int = Field(128, ge=2, description="pairs or cells in a batch")
    learning_rate: float = Field(3e-3, gt=0, description="of Adam")
    hidden: int = Field(64, ge=1, description="width of the GIN layers")
    image_channels: int = Field(8, ge=1, description="first width of the image tower")
    head_hidden: int = Field(128, ge=1, description="width of the IO model's head")
    accuracy_hidden: int = Field(512, ge=1, description="width of the Accuracy model's head")
    sample: int = Field(400, ge=2, description="cells that a regressor is fitted on")
    fits: int = Field(2, ge=1, description="samples, and forests, for each embedding")
    trees: int = Field(50, ge=1, description="trees of the random forest")
    signal_images: int = Field(64, ge=2, description="images in the batch of a cheap signal")
    initialisations: int = Field(
        5, ge=2, description="random initial weights of a cell for the spread of its accuracies"
    )
    threshold: float = Field(
        0.3, gt=0, le=1, description="train accuracy at which FEAR freezes a network"
    )
    seed: Seed = Field(1, description="seed of signals, bootstrap and permutations")
    jobs: int = Field(0, ge=0, description="processes; 0 takes one per core")
    device: str = Field("auto", description="auto, cpu, cuda or mps")

    @field_validator("doses", "networks", "images")
    @classmethod
    def _ascending(cls, numbers: list[int]) -> list[int]:
        if numbers != sorted(set(numbers)) or min(numbers, default=1) < 1:
            raise ValueError("give distinct positive numbers in ascending order, or none")
        return numbers

    _distinct = field_validator("seeds")(distinct_seeds)
