"""Labeled images in three parts: digits (embedded), CIFAR-10, or a folder or ZIP file of one's own.

Pixels are kept as one normalised tensor per part, so that they move to a device once.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ionas import image_folder

SOURCES = ("digits", "cifar10", "folder")
SIZES = {"digits": (8, 1297, 500), "cifar10": (32, 50_000, 10_000)}  # as `check_source` gives them
WHITE = np.float32(255)  # of 8-bit images; single precision halves the memory of a division
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Images:
    """Pixels (N, C, H, W) float32, normalised, and labels (N,) int64 into `ImageSet.classes`."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | np.ndarray | slice) -> "Images":
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device | str) -> "Images":
        """Copy both tensors to a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageSet:
    """The three parts of a data set, and the mean and standard deviation by which it is scaled."""

    name: str
    train: Images
    validation: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.train.pixels.shape[1]

    @property
    def black(self) -> Tensor:
        """Value of a black pixel after scaling, (C,)."""
        return -torch.tensor(self.mean) / torch.tensor(self.std)


def load_images(
    source: str = "digits",
    path: str | Path = "",
    validation_size: int = 297,
    train_size: int = 0,
    augmented: bool = False,
) -> ImageSet:
    """Load a data set and hold out random images of its train part for validation (METHOD 3).

    `digits` are the 1,797 8x8 digits of scikit-learn, of which 500 are the test part; `cifar10` are
    the files that torchvision keeps under `path`; `folder` is a folder or a ZIP file at `path`, see
    `ionas.image_folder`, whose images become RGB of 8 bits. CIFAR-10 is scaled by its published
    mean and standard deviation, the others by those of their train part.

    The train part is put into a random order that is the same for every size; its last
    `validation_size` images are held out, and the first `train_size` are kept (0: all others). If
    the networks are trained on `augmented` images, the held-out ones are augmented as well, as the
    authors do: once, and in the same way for every network.

    Raises ValueError if the source is unknown, a file cannot be read, the train part is too small,
    or all its images are the same.
    """
    _check_place(source, path)

    def chosen(count: int) -> np.ndarray:
        """Positions in the train part, of `count` images, that are used."""
        end = count - validation_size
        if not 0 < validation_size < count or train_size > end:
            raise ValueError(
                f"{source} has {count} train images: that is too few for train_size={train_size} "
                f"and validation_size={validation_size}"
            )
        return np.r_[: train_size or end, end:count]

    load = {"digits": _digits, "cifar10": _cifar10, "folder": _folder}[source]
    pixels, labels, test_pixels, test_labels, classes, white = load(Path(path), chosen)
    train, held_out = slice(-validation_size), slice(-validation_size, None)
    if all(np.array_equal(image, pixels[0]) for image in pixels[train]):
        raise ValueError(f"images {source!r}: all train images are the same; check the files")
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD
    if source != "cifar10":
        colours = [pixels[train][:, channel] for channel in range(pixels.shape[1])]
        mean = tuple(float(values.mean() / white) for values in colours)
        std = tuple(float(values.std() / white) or 1.0 for values in colours)

    def part(values: np.ndarray, targets: np.ndarray) -> Images:
        scaled = np.empty(values.shape, np.float32)
        center, spread = (np.array(moments)[:, None, None] for moments in (mean, std))
        for row, image in zip(scaled, values, strict=True):  # one at a time saves memory
            row[:] = (image / white - center) / spread
        return Images(torch.from_numpy(scaled), torch.from_numpy(targets.astype(np.int64)))

    loaded = ImageSet(
        name=source if source != "folder" else Path(path).stem,
        train=part(pixels[train], labels[train]),
        validation=part(pixels[held_out], labels[held_out]),
        test=part(test_pixels, test_labels),
        classes=classes,
        mean=mean,
        std=std,
    )
    if not augmented:
        return loaded
    once = augment(loaded.validation.pixels, torch.Generator().manual_seed(0), loaded.black)
    return replace(loaded, validation=Images(once, loaded.validation.labels))


def check_source(source: str, path: str | Path = "") -> tuple[int, int, int]:
    """Check a source without loading it; raises ValueError, saying what is wrong with it.

    Returns the pixels of the shorter side and the numbers of train and test images. A warning
    names the files of a folder that are not images.
    """
    _check_place(source, path)
    return SIZES[source] if source in SIZES else image_folder.look(Path(path))


def _check_place(source: str, path: str | Path) -> None:
    if source not in SOURCES:
        raise ValueError(f"images source {source!r} is unknown; choose one of {', '.join(SOURCES)}")
    folder = Path(path)
    archive = source == "folder" and folder.is_file()
    if archive and not zipfile.is_zipfile(folder):
        raise ValueError(
            f"images 'folder': {path} is not a complete ZIP file; unpack other archives"
        )
    if source == "digits" or archive:
        return
    if not str(path) or not folder.is_dir():
        kind = "folder or ZIP file" if source == "folder" else "folder"
        raise ValueError(f"images {source!r}: there is no {kind} {str(path)[:300]!r}")
    if source == "cifar10":
        from torchvision.datasets import CIFAR10

        for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
            if not (folder / CIFAR10.base_folder / name).is_file():
                raise ValueError(
                    f"images 'cifar10': {path} has no {CIFAR10.base_folder}/{name}; "
                    f"get it with: ionas data fetch cifar10 {path}"
                )


def write_images(images: ImageSet, path: Path) -> str:
    """Write a data set to a safetensors file, for processes elsewhere; return its SHA-256."""
    tensors = {
        f"{part}_{name}": getattr(getattr(images, part), name).contiguous()
        for part in ("train", "validation", "test")
        for name in ("pixels", "labels")
    }
    about = {name: getattr(images, name) for name in ("name", "classes", "mean", "std")}
    save_file(tensors, path, {"ionas": json.dumps(about)})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_images(path: Path) -> ImageSet:
    """Read what `write_images` wrote; processes of one machine share its memory."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["ionas"])
        train, validation, test = (
            Images(file.get_tensor(f"{part}_pixels"), file.get_tensor(f"{part}_labels"))
            for part in ("train", "validation", "test")
        )
    classes, mean, std = (tuple(about[name]) for name in ("classes", "mean", "std"))
    return ImageSet(about["name"], train, validation, test, classes, mean, std)


def augment(pixels: Tensor, generator: torch.Generator, black: Tensor, padding: int = 4) -> Tensor:
    """Surround each image by a black frame, crop it at random, and flip half of them (Table 1).

    Takes and returns (B, C, H, W). The frame is `padding` pixels wide and has the value `black`,
    (C,), because the authors pad before they normalise. The `generator` is on the CPU.
    """
    count, _, height, width = pixels.shape
    rows = torch.randint(2 * padding + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(2 * padding + 1, (count, 1), generator=generator) + torch.arange(width)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    framed = black.to(pixels).repeat(count, height + 2 * padding, width + 2 * padding, 1)
    framed[:, padding : padding + height, padding : padding + width] = pixels.permute(0, 2, 3, 1)
    image = torch.arange(count)[:, None, None]
    crops = framed[image, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return crops.permute(0, 3, 1, 2)


# Train pixels and labels, test pixels and labels, classes, and the value of a white pixel.
_Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...], float | np.float32]
_Chosen = Callable[[int], np.ndarray]


def _digits(_: Path, chosen: _Chosen) -> _Parts:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        data.images[:, None], data.target, test_size=500, random_state=0, stratify=data.target
    )
    rows = chosen(len(train_y))
    return train_x[rows], train_y[rows], test_x, test_y, tuple(map(str, data.target_names)), 16


def _cifar10(path: Path, chosen: _Chosen) -> _Parts:
    from torchvision.datasets import CIFAR10

    try:
        train, test = CIFAR10(path, train=True), CIFAR10(path, train=False)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"images 'cifar10': the files in {path} are incomplete or damaged; remove them and get "
            f"them again with: ionas data fetch cifar10 {path}"
        ) from error
    rows = np.random.default_rng(0).permutation(len(train))[chosen(len(train))]
    pixels, test_pixels = (data.data.transpose(0, 3, 1, 2) for data in (train, test))
    labels, test_labels = (np.array(data.targets) for data in (train, test))
    return pixels[rows], labels[rows], test_pixels, test_labels, tuple(train.classes), WHITE


def _folder(path: Path, chosen: _Chosen) -> _Parts:
    rng = np.random.default_rng(0)  # files come class by class
    folder = image_folder.find(path)
    train, test = (
        [files[k] for k in rng.permutation(len(files))] for files in (folder.train, folder.test)
    )
    train = [train[k] for k in chosen(len(train))]
    pixels, labels = folder.read(train + test)
    end = len(train)
    return pixels[:end], labels[:end], pixels[end:], labels[end:], folder.classes, WHITE
