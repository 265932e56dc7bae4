"""Download the paper's data, NAS-Bench-101 and CIFAR-10, check them, and resume what stopped."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ionas.benchmark.tfrecord import PUBLISHED


class FetchError(ValueError):
    """A file that could not be fetched; the message says what to do, with or without a network."""


class Source(NamedTuple):
    """A published file: its address, its SHA-256, and its approximate size in MB."""

    address: str
    sha256: str
    megabytes: int


_NASBENCH = "https://storage.googleapis.com/nasbench"
_ONLY108, _FULL = PUBLISHED
SOURCES = {
    "nasbench101": Source(f"{_NASBENCH}/{PUBLISHED[_ONLY108]}", _ONLY108, 499),
    "nasbench101-full": Source(f"{_NASBENCH}/{PUBLISHED[_FULL]}", _FULL, 1989),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170,
    ),
}


def fetch(name: str, folder: Path) -> Path:
    """Download a data set of SOURCES into a folder, unless it is there, and check it.

    What an interrupted download left is kept in a hidden file beside the target, and the next call
    goes on from there. Returns the TFRecord file, or the folder in which CIFAR-10 is unpacked as
    `images.load_images` needs it.

    Raises FetchError if the name is unknown, the address cannot be reached, the folder cannot be
    written, or the file differs from the published one.
    """
    import pooch
    from requests import RequestException
    from torchvision.datasets import CIFAR10

    if name not in SOURCES:
        raise FetchError(f"there are no data {name!r}; choose from {', '.join(SOURCES)}")
    source = SOURCES[name]
    target = folder / source.address.rpartition("/")[2]
    pooch.get_logger().setLevel("WARNING")
    try:
        if name == "cifar10":
            with suppress(RuntimeError):  # raised unless it is there, unpacked
                CIFAR10(folder)
                return folder
        if target.exists() and pooch.file_hash(str(target)) != source.sha256:
            raise ValueError(f"{target} exists, but is a different file: remove or rename it")
        folder.mkdir(parents=True, exist_ok=True)
        known = f"sha256:{source.sha256}"
        pooch.retrieve(source.address, known, target.name, folder, downloader=_resume)
        if name == "cifar10":
            CIFAR10(folder, download=True)  # the archive is there, so this unpacks it
            return folder
        return target
    except (RequestException, OSError, ValueError, RuntimeError) as error:
        raise FetchError(
            f"{source.address} could not be fetched: {error}\n"
            "The same command goes on from where it stopped. Without a network here, fetch that "
            f"address elsewhere ({source.megabytes} MB), see that its SHA-256 is {source.sha256}, "
            f"put the file at {target} and give the same command."
        ) from error


def _resume(url: str, output: str, _: Any) -> None:
    """Download a file as pooch's downloaders do, but go on after the part that is there."""
    from pooch import HTTPDownloader

    partial = Path(output).with_name(f".{url.rpartition('/')[2]}.part")
    with partial.open("ab") as file:
        # One byte is fetched twice, so that there is always something left to ask for.
        start = file.truncate(max(0, file.tell() - 1))

        def start_over(response: Any, **_: Any) -> None:
            # The server sends the whole file, or has no such byte.
            if response.status_code in (200, 416):
                file.truncate(0)

        HTTPDownloader(
            progressbar=not os.environ.get("IONAS_PROGRESS"),
            chunk_size=1 << 20,
            headers={"Range": f"bytes={start}-", "Accept-Encoding": "identity"},
            hooks={"response": start_over},
        )(url, file, None)
    partial.replace(output)
