"""Images of one's own: a folder or ZIP file with `train/CLASS/` and `test/CLASS/`.

Images whose meaning is not certain are refused by name: those of more than 8 bits per colour, of
several frames, damaged ones, and classes that are in one part only. Files that are not images are
left out, and named.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unicodedata import category, normalize

import numpy as np
from PIL import Image

from ionas.files import files_of

SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".ppm", ".pnm"),
}
UNWRITABLE = ("Cc", "Cs")  # Unicode categories: control characters, and what is not UTF-8
LARGEST = 1 << 24  # pixels of one image
ENCRYPTED = 1  # flag of a member of a ZIP file
File = tuple[str, Callable[[], bytes]]  # its name, and a function that returns its content


@dataclass(frozen=True)
class ImageFolder:
    """The image files of both parts, named `train/CLASS/...`, sorted; names of other files."""

    classes: tuple[str, ...]
    train: list[File]
    test: list[File]
    others: list[str]

    def read(self, files: list[File]) -> tuple[np.ndarray, np.ndarray]:
        """Read pixels (N, 3, H, W) uint8 and labels (N,); ValueError if a file does not fit."""
        pixels = np.empty((len(files), *decode(*files[0]).shape), np.uint8)
        for row, (name, content) in zip(pixels, files, strict=True):
            image = decode(name, content)
            _check_size(name, image.shape[:0:-1], row.shape[:0:-1])
            row[:] = image
        return pixels, np.array([self.classes.index(name.split("/")[1]) for name, _ in files])


def find(path: Path) -> ImageFolder:
    """Find the images of a folder or ZIP file; `train` and `test` may be within a folder there.

    Raises ValueError unless both are in one place and have the same classes, at least two.
    """
    # Systems write the same name in different code points; the order of images depends on names.
    found = [(normalize("NFC", name), content) for name, content in _contents(path)]
    pieces = sorted({piece for name, _ in found for piece in name.split("/")})
    if bad := [ascii(piece) for piece in pieces if any(category(c) in UNWRITABLE for c in piece)]:
        raise _wrong(f"{path} has names that cannot be written: {_listed(bad)}; rename them")
    found.sort(key=lambda file: file[0].split("/"))
    root = _root(path, [name.split("/") for name, _ in found])
    parts: dict[str, list[File]] = {"train": [], "test": []}
    others = []
    for name, content in found:
        part, *inner = name.removeprefix(root).split("/")
        if not name.startswith(root) or part not in parts or not inner:
            continue
        if len(inner) > 1 and Path(name).suffix.lower() in SUFFIXES:
            parts[part].append((name.removeprefix(root), content))
        else:
            others.append(name)
    classes = {part: {name.split("/")[1] for name, _ in files} for part, files in parts.items()}
    for part, names in classes.items():
        if len(names) < 2:
            raise _wrong(f"{path} needs images of at least two classes in {part}/CLASS/")
    if different := sorted(classes["train"] ^ classes["test"]):
        raise _wrong(f"train and test of {path} differ in the classes {_listed(different)}")
    return ImageFolder(tuple(sorted(classes["train"])), parts["train"], parts["test"], others)


def look(path: Path) -> tuple[int, int, int]:
    """Return the pixels of the shorter side and the numbers of train and test images.

    Every image is decoded, in about the time that loading them takes. Raises ValueError unless all
    names are in order, all files are images of one size, and the train images are not all the same.
    """
    folder = find(path)
    first = decode(*folder.train[0])
    constant = True
    for part, files in (("train", folder.train), ("test", folder.test)):
        for file in files:
            image = decode(*file)
            _check_size(file[0], image.shape[:0:-1], first.shape[:0:-1])
            constant &= part == "test" or np.array_equal(image, first)
    if constant:
        raise _wrong(f"all train images of {path} are the same; check the files")
    if folder.others:
        warnings.warn(
            f"images 'folder': {_listed(folder.others)} in {path} are left out: they are not PNG, "
            "JPEG, GIF, BMP, WebP, TIFF or PNM files within train/CLASS/ or test/CLASS/",
            stacklevel=3,
        )
    return min(first.shape[1:]), len(folder.train), len(folder.test)


def decode(name: str, content: Callable[[], bytes]) -> np.ndarray:
    """Decode one image to (3, H, W) uint8; raises ValueError if it cannot be."""
    try:
        with Image.open(io.BytesIO(content())) as image:
            if image.width * image.height > LARGEST:
                raise OSError(f"it has {image.width}x{image.height} pixels")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a photograph with its preview
                raise OSError(f"it has {frames} frames or pages")
            if image.mode[0] in "IF":  # whose black and white are not always known
                raise OSError("it has more than 8 bits of grey")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # ZIP files and decoders of images raise nearly anything
        why = str(error).partition(" <")[0]  # where in memory
        mend = "make it an 8-bit PNG or JPEG file, or remove it"
        raise _wrong(f"{name} cannot be read as an image ({why}); {mend}") from error


def _check_size(name: str, size: tuple[int, ...], usual: tuple[int, ...]) -> None:
    if size != usual:
        given, others = ("x".join(map(str, pixels)) for pixels in (size, usual))
        raise _wrong(f"{name} is {given} pixels, others {others}; resize them to one size")


def _contents(path: Path) -> Iterable[File]:
    if path.is_dir():
        return [(name, file.read_bytes) for name, file in files_of(path).items()]
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise _wrong(f"{path} cannot be read as a ZIP file ({error})") from error
    if any(member.flag_bits & ENCRYPTED for member in archive.infolist()):
        raise _wrong(f"{path} is protected by a password; give the folder that it unpacks to")
    members = {
        member.filename.replace("\\", "/").removeprefix("./"): partial(archive.read, member)
        for member in archive.infolist()
        if not member.is_dir()
    }
    hidden = {name for name in members if any(piece[:1] in ("", ".") for piece in name.split("/"))}
    return [(name, content) for name, content in members.items() if name not in hidden]


def _root(path: Path, files: list[list[str]]) -> str:
    """Folder that holds both `train` and `test`, with a slash at its end; "" at the top."""
    places: dict[str, set[str]] = {"train": set(), "test": set()}
    for *folders, _ in files:
        for depth, name in enumerate(folders):
            if name in places:
                places[name].add("".join(f"{outer}/" for outer in folders[:depth]))
    roots = places["train"] & places["test"]
    if "" in places["train"] | places["test"]:
        return ""
    if len(roots) == 1:
        return roots.pop()
    seen = sorted(roots or {file[0] for file in files})
    raise _wrong(
        f"{path} needs images of at least two classes in train/CLASS/ and test/CLASS/, in one "
        f"place; it has {_listed(seen) or 'nothing'}"
    )


def _listed(names: list[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _wrong(what: str) -> ValueError:
    return ValueError(f"images 'folder': {what}")
