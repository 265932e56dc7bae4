"""The files of a folder of images: those that are read, and so those that are hashed."""

from collections import deque
from pathlib import Path


def files_of(folder: Path) -> dict[str, Path]:
    """Files below a folder by their paths relative to it, with slashes; sorted.

    Links are followed, but not back to a folder that they are in, and nothing is entered twice, so
    that circles of links end and each file is found once, however many links lead to it. `train`
    and `test` are separate data sets: a file or folder may be there once below each. Hidden files,
    pipes and devices are left out. Raises ValueError if the target of a link does not exist.
    """
    top = folder.resolve()
    found: dict[str, Path] = {}
    entered: set[tuple[str, int, int]] = set()
    paths, links = deque([top]), deque[Path]()
    while paths or links:
        here = (paths or links).popleft()  # links last: what they lead to keeps its own place
        inner, status = here.relative_to(top).parts, here.stat()
        part = next((name for name in inner if name in ("train", "test")), "")
        place = part, status.st_dev, status.st_ino
        back = here.is_symlink() and here.resolve() in {parent.resolve() for parent in here.parents}
        if back or place in entered:
            continue
        entered.add(place)
        if here.is_file():
            found["/".join(inner)] = here
            continue
        for path in sorted(here.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_symlink() and not path.exists():
                raise ValueError(f"{path} is a link to nothing; mend or remove it")
            if path.is_dir() or path.is_file():
                (links if path.is_symlink() else paths).append(path)
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))
