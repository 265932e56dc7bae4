"""Parts of a computation: complete, or missing."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from ionas import parts


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_what_is_written_is_read(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert parts.read(folder, "a") is None
    for content in (b"one", b"", b"three" * 10_000):
        parts.write(folder, "a", content)
        assert parts.read(folder, "a") == content
    parts.write(folder, "b.json", b"[]")
    assert parts.read(folder, "a") == b"three" * 10_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, 0),
        lambda path: flip(path, -1),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.with_name("a.sha256").unlink(),
        lambda path: path.with_name("a.sha256").write_bytes(b"\xff\x00"),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_part_is_missing_and_removed(tmp_path, damage):
    parts.write(tmp_path, "a", b"content")
    damage(tmp_path / "a")
    assert parts.read(tmp_path, "a") is None
    assert not (tmp_path / "a").exists()
    parts.write(tmp_path, "a", b"again")
    assert parts.read(tmp_path, "a") == b"again"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from ionas import parts

    points = iter(range(100))

    def last(function):
        def call(*arguments):
            if next(points) == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return call

    os.fsync, Path.replace = last(os.fsync), last(Path.replace)
    parts.write(Path(sys.argv[1]), "a", b"new" * 1000)
"""


def test_a_write_that_is_killed_anywhere_leaves_the_old_part_or_the_new(tmp_path):
    """Kills before each fsync and each rename, over an old part and over what kills have left."""
    found = []
    for point in range(5):
        parts.write(tmp_path, "a", b"old")
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(point)]
        for _ in range(2):
            code = subprocess.run(command, check=False).returncode
            found.append(parts.read(tmp_path, "a"))
        assert (code == 0) == (point == 4)
    assert found == [b"old"] * 8 + [b"new" * 1000] * 2
    parts.write(tmp_path, "b", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.sha256", "b", "b.sha256"]


def test_temporary_files_of_living_processes_and_other_machines_stay(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        node = parts.platform.node()
        names = [f".a.{node}.{alive.pid}.tmp", ".a.elsewhere.1.tmp"]
        for name in names:
            (tmp_path / name).touch()
        parts.write(tmp_path, "b", b"")
        assert all((tmp_path / name).exists() for name in names)
        alive.communicate(b"\n")
    parts.write_whole(tmp_path / "c.json", b"")
    assert not (tmp_path / names[0]).exists()


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"/a\.json: No space left on device"):
        parts.write_whole(tmp_path / "a.json", b"content")
    assert not list(tmp_path.iterdir())
