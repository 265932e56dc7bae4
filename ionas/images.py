"""Labeled images in three parts: digits (embedded), CIFAR-10, or a folder or ZIP file of one's own.

Pixels are kept as one normalised tensor per part, so that they move to a device once.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SOURCES = ("digits", "cifar10", "folder")
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)
PARTS = ("train", "test")
LARGEST_FILE = 1 << 26  # bytes of one image file
LARGEST_IMAGE = 1 << 24  # pixels of one image


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

    @property
    def black(self) -> Tensor:
        """(C,) the value that a black pixel is scaled to."""
        return -torch.tensor(self.mean) / torch.tensor(self.std)


def load_images(
    source: str = "digits",
    path: str = "",
    validation_size: int = 297,
    train_size: int = 0,
    augmented: bool = False,
) -> ImageSet:
    """Load a data set and hold out random images of its train part for validation (METHOD 3).

    The train part is put into a random order that is the same for every size; the images at its
    end are held out.

    Parameters
    ----------
    source
        `digits`: the 1,797 8x8 digits of scikit-learn, of which a third is the test part.
        `cifar10`: the files that torchvision keeps under `path`, scaled by the published mean and
        standard deviation of CIFAR-10.
        `folder`: `path`, a folder or a ZIP file, holds `train/` and `test/`, each with one folder
        of images per class. They are made RGB, and scaled by the mean and standard deviation of
        the train part.
    path
        Folder or ZIP file of the data; unused for digits.
    validation_size
        Images held out from the end of the train part.
    train_size
        Train images kept, from the start; 0 keeps all. Others are not even decoded.
    augmented
        Whether the networks are trained on augmented images. The authors' held-out images are
        augmented then, too: once, and the same for every network.

    Raises
    ------
    ValueError
        If the source is unknown, a file unreadable, or the train part too small.
    """
    check_source(source, path)

    def chosen(count: int) -> np.ndarray:
        """Positions in the train part, of `count` images, that are used."""
        end = count - validation_size
        if not 0 < validation_size < count or train_size > end:
            raise ValueError(
                f"{source} has {count} train images: that is too few for train_size={train_size} "
                f"and validation_size={validation_size}"
            )
        return np.r_[: train_size or end, end:count]

    pixels, labels, test_pixels, test_labels, classes = {
        "digits": _digits,
        "cifar10": _cifar10,
        "folder": _folder,
    }[source](Path(path), chosen)
    train, held_out = slice(-validation_size), slice(-validation_size, None)
    published = (CIFAR10_MEAN, CIFAR10_STD)
    mean, std = published if source == "cifar10" else _moments(pixels[train])

    def part(values: np.ndarray, targets: np.ndarray) -> Images:
        scaled = np.empty(values.shape, np.float32)
        for start in range(0, len(values), 1024):
            piece = _fractions(values[start : start + 1024])
            piece = (piece - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
            scaled[start : start + 1024] = piece
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
    plain = loaded.validation
    once = augment(plain.pixels, torch.Generator().manual_seed(0), loaded.black)
    return replace(loaded, validation=Images(once, plain.labels))


def check_source(source: str, path: str = "") -> None:
    """Raise a ValueError that says what is wrong with a source, without loading it."""
    if source not in SOURCES:
        raise ValueError(f"images source {source!r} is unknown; choose one of {', '.join(SOURCES)}")
    if source == "digits":
        return
    folder = Path(path)
    if source == "folder" and zipfile.is_zipfile(folder):
        _look(folder)
        return
    if not path or not folder.is_dir():
        also = " or the ZIP file" if source == "folder" else ""
        raise ValueError(
            f"images {source!r}: there is no folder {path!r}; give the folder{also} of the data"
        )
    if source == "cifar10":
        from torchvision.datasets import CIFAR10

        batches = folder / CIFAR10.base_folder
        files = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
        if lacking := [name for name in files if not (batches / name).is_file()]:
            raise ValueError(
                f"images 'cifar10': {path} has no {CIFAR10.base_folder}/{lacking[0]}; "
                f"get it with: ionas data fetch cifar10 {path}"
            )
    if source == "folder":
        _look(folder)


def augment(pixels: Tensor, generator: torch.Generator, black: Tensor, padding: int = 4) -> Tensor:
    """Crop each image at random from itself in a black frame, and flip half of them (Table 1).

    Parameters
    ----------
    pixels
        (B, C, H, W); so is the result.
    generator
        On the CPU.
    black
        (C,) the value of black, see `ImageSet.black`: the authors pad before they normalise.
    padding
        Width of the frame in pixels.
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


# Train pixels and labels, test pixels and labels, classes; uint8 pixels are 255 times fractions.
_Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]
_Chosen = Callable[[int], np.ndarray]


def _digits(_: Path, chosen: _Chosen) -> _Parts:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        data.images[:, None] / 16, data.target, test_size=500, random_state=0, stratify=data.target
    )
    rows = chosen(len(train_y))
    names = tuple(str(name) for name in data.target_names)
    return train_x[rows], train_y[rows], test_x, test_y, names


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
    return pixels[rows], labels[rows], test_pixels, test_labels, tuple(train.classes)


def _folder(path: Path, chosen: _Chosen) -> _Parts:
    classes, train, test = _grouped(path)
    rng = np.random.default_rng(0)  # files come class by class
    train = [train[index] for index in rng.permutation(len(train))]
    test = [test[index] for index in rng.permutation(len(test))]
    files = [train[index] for index in chosen(len(train))] + test
    end = len(files) - len(test)
    labels = np.array([classes.index(name.split("/")[1]) for name in files])
    with _reader(path) as read:
        size = _decoded(files[0], read).shape[1:]
        try:
            pixels = np.empty((len(files), 3, *size), np.uint8)
        except MemoryError as error:
            raise ValueError(
                f"images 'folder': {len(files)} images of {size[1]}x{size[0]} pixels do not fit "
                "into memory; make them smaller"
            ) from error
        for index, name in enumerate(files):
            image = _decoded(name, read)
            if image.shape[1:] != size:
                raise ValueError(
                    f"images 'folder': {name} is {image.shape[2]}x{image.shape[1]} pixels, others "
                    f"{size[1]}x{size[0]}; resize them to one size"
                )
            pixels[index] = image
    return pixels[:end], labels[:end], pixels[end:], labels[end:], classes


def _look(path: Path) -> None:
    """Raise ValueError unless the files are in order and the first image of each class is one."""
    _, train, test = _grouped(path)
    first = {name.rsplit("/", 1)[0]: name for name in reversed(train + test)}
    with _reader(path) as read:
        for name in first.values():
            _decoded(name, read)


def _grouped(path: Path) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Classes and image files of the train and the test part, in the order of their names."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in sorted(_files(path), key=lambda name: name.split("/")):
        part, *inner = name.split("/")
        hidden = any(piece.startswith(".") for piece in inner)
        if (
            part in found
            and len(inner) > 1
            and not hidden
            and name.lower().endswith(IMG_EXTENSIONS)
        ):
            found[part].append(name)
    classes = {part: {name.split("/")[1] for name in names} for part, names in found.items()}
    for part in PARTS:
        if len(classes[part]) < 2:
            raise ValueError(
                f"images 'folder': {path} needs images of at least two classes in {part}/CLASS/"
            )
    if different := sorted(classes["train"] ^ classes["test"]):
        raise ValueError(
            f"images 'folder': train and test of {path} differ in the classes "
            f"{', '.join(different)}; both need a folder with images for every class"
        )
    return tuple(sorted(classes["train"])), found["train"], found["test"]


def _files(path: Path) -> set[str]:
    """Files of a folder or a ZIP file, as paths relative to it with slashes."""
    if path.is_dir():
        return {
            (Path(folder) / name).relative_to(path).as_posix()
            for part in PARTS
            for folder, _, names in os.walk(path / part, followlinks=True)
            for name in names
        }
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"images 'folder': {path} is no ZIP file that can be read ({error})"
        ) from error


@contextmanager
def _reader(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Give a function that reads one file of a folder or a ZIP file."""

    def checked(name: str, size: int) -> None:
        if size > LARGEST_FILE:
            raise OSError(f"it has {size:,} bytes")

    if path.is_dir():

        def read(name: str) -> bytes:
            checked(name, (path / name).stat().st_size)
            return (path / name).read_bytes()

        yield read
        return
    with zipfile.ZipFile(path) as archive:

        def extract(name: str) -> bytes:
            checked(name, archive.getinfo(name).file_size)
            return archive.read(name)

        yield extract


def _decoded(name: str, read: Callable[[str], bytes]) -> np.ndarray:
    """One image, (3, H, W) uint8; raises ValueError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read(name))) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise OSError(f"it has {image.width}x{image.height} pixels")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # ZIP files and decoders of images raise nearly anything
        raise ValueError(
            f"images 'folder': {name} cannot be read as an image ({error}); replace or remove it"
        ) from error


def _fractions(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels


def _moments(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as fractions."""
    axes = (0, 2, 3)
    if pixels.dtype == np.uint8:  # a piece at a time saves memory, and sums of integers are exact
        pieces = [pixels[start : start + 1024] for start in range(0, len(pixels), 1024)]
        size = pixels[:, 0].size
        mean = sum(piece.sum(axes, dtype=np.float64) for piece in pieces) / size
        squares = sum((piece.astype(np.float64) ** 2).sum(axes) for piece in pieces) / size
        mean, std = mean / 255, np.sqrt(np.maximum(squares - mean**2, 0)) / 255
    else:
        mean, std = pixels.mean(axes, dtype=np.float64), pixels.std(axes, dtype=np.float64)
    return tuple(map(float, mean)), tuple(float(value) or 1.0 for value in std)
