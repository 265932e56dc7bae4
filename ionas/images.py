"""Labeled images in three parts: digits (embedded), CIFAR-10, or a folder of one's own.

Pixels are kept as one normalised tensor per part, so that they move to a device once.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SOURCES = ("digits", "cifar10", "folder")
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Images:
    """Images with their classes.

    Attributes
    ----------
    pixels
        (N, C, H, W) float32, normalised.
    labels
        (N,) int64, index into `ImageSet.classes`.
    """

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
    """The three parts of a data set, with the mean and standard deviation they were scaled by."""

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


def load_images(
    source: str = "digits", path: str = "", validation_size: int = 297, train_size: int = 0
) -> ImageSet:
    """Load a data set and hold out the last images of its train part for validation (METHOD 3).

    Parameters
    ----------
    source
        `digits`: the 1,797 8x8 digits of scikit-learn, of which a third is the test part.
        `cifar10`: the files that torchvision keeps under `path`.
        `folder`: `path` holds `train/` and `test/`, each with one folder of images per class.
    path
        Folder of the data; unused for digits.
    validation_size
        Images held out from the end of the train part.
    train_size
        Train images kept, from the start; 0 keeps all.

    Raises
    ------
    ValueError
        If the source is unknown, its folder unreadable, or the train part too small.
    """
    check_source(source, path)
    pixels, labels, test_pixels, test_labels, classes = {
        "digits": _digits,
        "cifar10": _cifar10,
        "folder": _folder,
    }[source](Path(path))
    train_end = len(labels) - validation_size
    if not 0 < validation_size < len(labels) or train_size > train_end:
        raise ValueError(
            f"{source} has {len(labels)} train images: that is too few for train_size={train_size} "
            f"and validation_size={validation_size}"
        )
    train_part = slice(0, train_size or train_end)
    known = source == "cifar10"
    mean, std = (CIFAR10_MEAN, CIFAR10_STD) if known else _moments(pixels[train_part])

    def part(values: np.ndarray, targets: np.ndarray) -> Images:
        scaled = (values - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
        return Images(
            torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(targets.astype(np.int64))
        )

    return ImageSet(
        name=source if source != "folder" else Path(path).name,
        train=part(pixels[train_part], labels[train_part]),
        validation=part(pixels[train_end:], labels[train_end:]),
        test=part(test_pixels, test_labels),
        classes=classes,
        mean=mean,
        std=std,
    )


def check_source(source: str, path: str = "") -> None:
    """Raise a ValueError that says what is wrong with a source, without loading it."""
    if source not in SOURCES:
        raise ValueError(f"images source {source!r} is unknown; choose one of {', '.join(SOURCES)}")
    if source == "digits":
        return
    folder = Path(path)
    if not path or not folder.is_dir():
        raise ValueError(
            f"images {source!r}: there is no folder {path!r}; give the folder of the data"
        )
    if source == "cifar10" and not (folder / "cifar-10-batches-py").is_dir():
        raise ValueError(
            f"images 'cifar10': {path} has no folder cifar-10-batches-py; "
            "download it with torchvision.datasets.CIFAR10(path, download=True)"
        )
    if source == "folder":
        classes = [_class_folders(folder / part) for part in ("train", "test")]
        if classes[0] != classes[1]:
            different = sorted(set(classes[0]) ^ set(classes[1]))
            raise ValueError(
                f"images 'folder': train and test of {path} differ in the classes "
                f"{', '.join(different)}; both need one folder for every class"
            )


def augment(pixels: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Crop each image at random from its zero-padded self and flip half of them (Table 1).

    `pixels` is (B, C, H, W) and so is the result; `generator` is on the CPU.
    """
    count, _, height, width = pixels.shape
    rows = torch.randint(2 * padding + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(2 * padding + 1, (count, 1), generator=generator) + torch.arange(width)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    padded = torch.nn.functional.pad(pixels, (padding,) * 4)
    image = torch.arange(count)[:, None, None]
    crops = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return crops.permute(0, 3, 1, 2)


def subset(images: Images, size: int, seed: int) -> Images:
    """Return `size` random images, in their order; all of them if `size` is 0.

    Raises
    ------
    ValueError
        If there are fewer than `size` images.
    """
    if size > len(images):
        raise ValueError(f"cannot draw {size} images: there are only {len(images)}")
    chosen = np.random.default_rng(seed).permutation(len(images))[: size or None]
    return images[torch.from_numpy(np.sort(chosen))]


_Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]


def _digits(_: Path) -> _Parts:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        data.images[:, None] / 16, data.target, test_size=500, random_state=0, stratify=data.target
    )
    return train_x, train_y, test_x, test_y, tuple(str(name) for name in data.target_names)


def _cifar10(path: Path) -> _Parts:
    from torchvision.datasets import CIFAR10

    train, test = CIFAR10(path, train=True), CIFAR10(path, train=False)
    parts = [
        value
        for data in (train, test)
        for value in (data.data.transpose(0, 3, 1, 2) / np.float32(255), np.array(data.targets))
    ]
    return (*parts, tuple(train.classes))  # type: ignore[return-value]


def _folder(path: Path) -> _Parts:
    from torchvision.datasets import ImageFolder

    train, test = ImageFolder(str(path / "train")), ImageFolder(str(path / "test"))
    rng = np.random.default_rng(0)  # folders come class by class
    parts: list[np.ndarray] = []
    size: tuple[int, int] | None = None
    for data in (train, test):
        order = rng.permutation(len(data))
        images = []
        for index in order:
            name = data.samples[index][0]
            try:
                image = data[index][0]
            except OSError as error:
                raise ValueError(
                    f"images 'folder': {name} cannot be read as an image; replace or remove it"
                ) from error
            size = size or image.size
            if image.size != size:
                raise ValueError(
                    f"images 'folder': {name} is {image.size[0]}x{image.size[1]} pixels, others "
                    f"{size[0]}x{size[1]}; resize them to one size"
                )
            images.append(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
        parts += [np.stack(images), np.array(data.targets)[order]]
    return (*parts, tuple(train.classes))  # type: ignore[return-value]


def _class_folders(folder: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        raise ValueError(
            f"images 'folder': {folder} cannot be read; it must hold one folder per class"
        ) from error
    if len(names) < 2:
        raise ValueError(f"images 'folder': {folder} needs at least two folders, one per class")
    for name in names:
        if not any((folder / name).iterdir()):
            raise ValueError(f"images 'folder': {folder / name} holds no image")
    return names


def _moments(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    axes = (0, 2, 3)
    mean, std = pixels.mean(axes, dtype=np.float64), pixels.std(axes, dtype=np.float64)
    return tuple(map(float, mean)), tuple(float(value) or 1.0 for value in std)
