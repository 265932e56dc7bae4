"""Fetch the paper's data, NAS-Bench-101 and CIFAR-10: checked, and resumed where they stopped."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ionas.benchmark.tfrecord import PUBLISHED


class FetchError(ValueError):
    """A file that could not be fetched; the message says what to do, also without a network."""


@dataclass(frozen=True)
class Source:
    """A published file: where it is, its SHA-256, and about how large it is in MB."""

    address: str
    sha256: str
    megabytes: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]


_NASBENCH = "https://storage.googleapis.com/nasbench"
_SHA256 = {name: digest for digest, name in PUBLISHED.items()}
SOURCES = {
    "nasbench101": Source(
        f"{_NASBENCH}/nasbench_only108.tfrecord", _SHA256["nasbench_only108.tfrecord"], 499
    ),
    "nasbench101-full": Source(
        f"{_NASBENCH}/nasbench_full.tfrecord", _SHA256["nasbench_full.tfrecord"], 1989
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170,
    ),
}


def fetch(name: str, folder: Path) -> Path:
    """Download a data set into a folder, unless it is there, and check it.

    What a broken download left is kept in a hidden file beside the target and the next call goes on
    from there. CIFAR-10 is unpacked, too, as `images.load_images` wants it.

    Parameters
    ----------
    name
        One of SOURCES.

    Returns
    -------
    Path
        The TFRecord file, or the folder with CIFAR-10.

    Raises
    ------
    FetchError
        If the name is unknown, the address cannot be reached, the folder cannot be written, or the
        file is another one than the published; it says what to do offline.
    """
    import pooch
    from requests import RequestException
    from torchvision.datasets import CIFAR10

    if name not in SOURCES:
        raise FetchError(f"there are no data {name!r}; choose from {', '.join(SOURCES)}")
    source = SOURCES[name]
    target = folder / source.name
    pooch.get_logger().setLevel("WARNING")
    try:
        if name == "cifar10" and _holds_cifar10(folder):
            return folder
        if target.exists() and pooch.file_hash(str(target)) != source.sha256:
            raise ValueError(f"{target} is there, but it is another file: remove or rename it")
        folder.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            source.address,
            known_hash=f"sha256:{source.sha256}",
            fname=source.name,
            path=folder,
            downloader=_resuming(folder / f".{source.name}.part"),
        )
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


def _resuming(partial: Path) -> Any:
    """A downloader for pooch that appends to what is there of a file."""

    def download(url: str, output: str, _: Any) -> None:
        from pooch import HTTPDownloader

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

    return download


def _holds_cifar10(folder: Path) -> bool:
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(folder)
    except RuntimeError:
        return False
    return True
