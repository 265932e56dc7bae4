"""The files of a folder of one's own data: what is read of it, and so what is hashed."""

from pathlib import Path


def files_of(folder: Path) -> dict[str, Path]:
    """Files below a folder by their paths relative to it, with slashes; sorted.

    Links are followed, but not back to a folder that they are in, and no folder is entered twice:
    so circles end, and each file is met once. Only below `train` and `test`, which are data sets of
    their own, all is met once more. Hidden files, pipes and devices are left out. Raises ValueError
    if a link leads to nothing, since its file would be missed without a word.
    """
    top = folder.resolve()
    found: dict[str, Path] = {}
    entered: set[tuple[str, Path]] = set()
    folders, links = [top], list[Path]()
    while folders or links:
        here = (folders or links).pop(0)  # links last: a folder keeps its own place
        inner = here.relative_to(top).parts
        place = next((name for name in inner if name in ("train", "test")), ""), here.resolve()
        back = here.is_symlink() and place[1] in {parent.resolve() for parent in here.parents}
        if back or place in entered:
            continue
        entered.add(place)
        for path in sorted(here.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            elif path.is_file():
                found["/".join((*inner, path.name))] = path
            elif path.is_symlink() and not path.exists():
                raise ValueError(f"{path} is a link to nothing; mend or remove it")
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))
