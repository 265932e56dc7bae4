"""Image sets: sizes, splits, normalisation, augmentation, and what is refused."""

import io
import os
import shutil
import unicodedata
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional

from ionas import image_folder
from ionas.book.provenance import data_hash
from ionas.files import files_of
from ionas.images import (
    CIFAR10_MEAN,
    ImageSet,
    augment,
    check_source,
    load_images,
    read_images,
    write_images,
)


def test_digits_are_split_without_overlap_and_normalised():
    images = load_images("digits", validation_size=297)
    parts = (images.train, images.validation, images.test)
    assert [len(part) for part in parts] == [1000, 297, 500]
    assert images.train.pixels.shape == (1000, 1, 8, 8)
    assert images.train.pixels.mean().item() == pytest.approx(0, abs=1e-6)
    assert images.train.pixels.std().item() == pytest.approx(1, abs=1e-3)
    everything = torch.cat([part.pixels for part in parts]) * images.std[0] + images.mean[0]
    found = {tuple(image.round(decimals=4).flatten().tolist()) for image in everything}
    true = {
        tuple(torch.tensor(image / 16).float().round(decimals=4).flatten().tolist())
        for image in load_digits().images
    }
    assert found == true
    counts = torch.bincount(images.test.labels)
    assert counts.min() >= 45


def test_validation_images_are_the_last_of_the_train_part():
    small, large = load_images(validation_size=100), load_images(validation_size=297)
    raw = [part.validation.pixels * part.std[0] + part.mean[0] for part in (small, large)]
    assert torch.allclose(raw[0], raw[1][-100:], atol=1e-6)


@pytest.mark.parametrize("sizes", [(0, 0), (1297, 0), (297, 1001)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="1297 train images"):
        load_images("digits", validation_size=sizes[0], train_size=sizes[1])


def test_unknown_source_is_named():
    with pytest.raises(ValueError, match="'digit' is unknown; choose one of digits, cifar10"):
        check_source("digit")


def test_augmentation_is_a_crop_and_a_flip_of_the_image_in_a_black_frame():
    pixels, black = torch.rand(6, 3, 5, 5), torch.tensor([-1.5, -2.0, -0.25])
    result = augment(pixels, torch.Generator().manual_seed(0), black, padding=2)
    for image, original in zip(result, pixels, strict=True):
        channels = zip(original, black.tolist(), strict=True)
        padded = torch.stack([functional.pad(part[None], [2], fill)[0] for part, fill in channels])
        crops = [functional.crop(padded, top, left, 5, 5) for top in range(5) for left in range(5)]
        crops += [functional.hflip(crop) for crop in crops]
        assert any(torch.equal(image, crop) for crop in crops)


def test_a_black_image_stays_black_when_augmented(folder):
    """Padding comes before normalisation: a frame of the mean colour would show."""
    Image.new("RGB", (8, 8)).save(folder / "test" / "cat" / "0.png")
    images = load_images("folder", str(folder), validation_size=4)
    dark = [image for image in images.test.pixels if image.flatten(1).std(1).max() == 0]
    assert len(dark) == 1
    result = augment(dark[0][None], torch.Generator().manual_seed(1), images.black)
    assert torch.allclose(result, dark[0].expand_as(result))


def test_held_out_images_are_augmented_once_if_the_networks_are_trained_so(folder):
    plain, first, second = (
        load_images("folder", str(folder), validation_size=4, augmented=augmented)
        for augmented in (False, True, True)
    )
    assert torch.equal(first.validation.pixels, second.validation.pixels)
    assert not torch.equal(first.validation.pixels, plain.validation.pixels)
    assert torch.equal(first.validation.labels, plain.validation.labels)
    for part in ("train", "test"):
        assert torch.equal(getattr(first, part).pixels, getattr(plain, part).pixels)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            target = tmp_path / part / name
            target.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(target / f"{index}.png")
    return tmp_path


def test_folder_of_images(folder):
    images = load_images("folder", str(folder), validation_size=4)
    assert images.classes == ("cat", "dog")
    assert [len(images.train), len(images.validation), len(images.test)] == [8, 4, 6]
    assert images.channels == 3
    restored = images.train.pixels[0] * torch.tensor(images.std)[:, None, None]
    restored += torch.tensor(images.mean)[:, None, None]
    files = [np.asarray(Image.open(name)) / 255 for name in folder.glob("train/*/*.png")]
    assert any(np.allclose(restored.permute(1, 2, 0), pixels, atol=1e-6) for pixels in files)


def test_unreadable_image_is_named(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png cannot be read as an image"):
        load_images("folder", str(folder), validation_size=4)


def test_images_of_two_sizes_are_named(folder):
    Image.new("RGB", (9, 8)).save(folder / "train" / "cat" / "0.png")
    with pytest.raises(ValueError, match="resize them to one size"):
        load_images("folder", str(folder), validation_size=4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "test" / "dog").rename(path / "test" / "wolf"), "dog, wolf"),
        (lambda path: [f.unlink() for f in path.glob("train/cat/*")], "two classes in train/"),
        (
            lambda path: (path / "test" / "dog").rename(path / "train" / "emu"),
            "two classes in test/",
        ),
        (lambda path: (path / "test" / "dog").rename(path / "other"), "two classes in test/"),
        (lambda path: (path / "train").rename(path / "trian"), "two classes in train/CLASS/"),
    ],
)
def test_malformed_folders_are_refused_before_loading(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        check_source("folder", str(folder))


@pytest.mark.parametrize("source", ["folder", "cifar10"])
def test_missing_folder_is_named(source, tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        check_source(source, str(tmp_path / "absent"))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match=r"no folder|is not a complete ZIP file"):
        check_source(source, str(tmp_path / "text.zip"))


def test_cifar10_folder_without_the_data_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match="get it with: ionas data fetch cifar10 "):
        check_source("cifar10", str(tmp_path))
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    with pytest.raises(ValueError, match="has no cifar-10-batches-py/data_batch_1; get it with"):
        check_source("cifar10", str(tmp_path))
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(b"damaged")
    check_source("cifar10", str(tmp_path))
    with pytest.raises(ValueError, match="incomplete or damaged; remove them and get them again"):
        load_images("cifar10", str(tmp_path))


# --- ZIP files ---------------------------------------------------------------------------------


def zipped(folder: Path, path: Path, seed: int = 0) -> Path:
    """The files of a folder in a ZIP file, in a random order, beside some that are no images."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/train/cat/._0.png", b"nothing")
        archive.writestr("train/cat/._0.png", b"nothing")
        archive.writestr("train/cat/notes.txt", b"nothing")
        archive.writestr("train/", b"")
        for index in np.random.default_rng(seed).permutation(len(files)):
            archive.write(files[index], files[index].relative_to(folder).as_posix())
    return path


def same(one: ImageSet, two: ImageSet) -> bool:
    return (one.classes, one.mean, one.std) == (two.classes, two.mean, two.std) and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(
            (one.train, one.validation, one.test),
            (two.train, two.validation, two.test),
            strict=True,
        )
        for name in ("pixels", "labels")
    )


def test_a_zip_file_gives_what_its_folder_gives(folder, tmp_path):
    paths = [folder, *(zipped(folder, tmp_path / f"{k}.zip", seed=k) for k in range(2))]
    for path in paths:
        check_source("folder", str(path))
    loaded = [load_images("folder", str(path), validation_size=4) for path in paths]
    assert same(loaded[0], loaded[1])
    assert same(loaded[0], loaded[2]), "the order within the archive does not matter"
    assert loaded[1].name == "0"
    assert loaded[1].train.pixels.mean((0, 2, 3)) == pytest.approx(0, abs=1e-6)
    assert loaded[1].train.pixels.std((0, 2, 3), correction=0) == pytest.approx(1, abs=1e-5)


def test_folders_within_a_class_count_and_links_are_followed(folder, tmp_path):
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "more" / "0.png")
    (tmp_path / "elsewhere").mkdir()
    (folder / "test" / "dog").rename(tmp_path / "elsewhere" / "dog")
    (folder / "test" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    images = load_images("folder", str(folder), validation_size=4)
    assert [len(images.train), len(images.validation), len(images.test)] == [8, 4, 6]


def test_only_images_that_are_used_are_decoded(folder, tmp_path, monkeypatch):
    everything = load_images("folder", str(folder), validation_size=4)
    decoded = []

    def counted(name, *arguments):
        decoded.append(name)
        return original(name, *arguments)

    original = image_folder.decode
    monkeypatch.setattr(image_folder, "decode", counted)
    path = zipped(folder, tmp_path / "z.zip")
    few = load_images("folder", str(path), validation_size=4, train_size=3)
    assert len(set(decoded)) == 3 + 4 + 6
    for part, reference in ((few.train, everything.train), (few.test, everything.test)):
        assert torch.equal(part.labels, reference.labels[: len(part)])
    raw = [
        s.train.pixels[:3] * torch.tensor(s.std)[:, None, None]
        + torch.tensor(s.mean)[:, None, None]
        for s in (few, everything)
    ]
    assert torch.allclose(*raw, atol=1e-6)
    with pytest.raises(ValueError, match=r"folder has 12 train images.*train_size=9"):
        load_images("folder", str(path), validation_size=4, train_size=9)


def test_a_zip_file_is_seen_to_change(folder, tmp_path):
    path = zipped(folder, tmp_path / "z.zip")
    before = data_hash(path)
    Image.new("RGB", (8, 8)).save(folder / "train" / "cat" / "0.png")
    zipped(folder, path)
    assert data_hash(path) != before
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/0.png", b"")
    with pytest.raises(ValueError, match=r"z\.zip needs images of .* train/CLASS/.* has cat$"):
        check_source("folder", str(path))


def replaced(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        kept = {item: archive.read(item) for item in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item, data in (kept | {name: content}).items():
            archive.writestr(item, data)


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "png")
    return stream.getvalue()


def noise(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (png(8, 8)[:-30], ""),
        (png(8, 8)[:40] + b"????" + png(8, 8)[44:], ""),
        (png(5000, 5000), "5000x5000 pixels"),
        (png(20_000, 20_000), "exceeds limit"),
    ],
    ids=["empty", "cut off", "broken", "large", "huge"],
)
def test_a_bad_member_is_named(content, message, folder, tmp_path):
    path = zipped(folder, tmp_path / "z.zip")
    replaced(path, "train/dog/3.png", content)
    with pytest.raises(
        ValueError, match=rf"train/dog/3\.png cannot be read as an image .*{message}"
    ):
        load_images("folder", str(path), validation_size=4)


def test_a_damaged_archive_is_told(folder, tmp_path):
    path = zipped(folder, tmp_path / "z.zip")
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("test/cat/1.png").header_offset
    content = bytearray(path.read_bytes())
    content[at + 60] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"test/cat/1\.png cannot be read as an image"):
        load_images("folder", str(path), validation_size=4)
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"z\.zip"):
        check_source("folder", str(path))


# --- depth, containers, links ------------------------------------------------------------------


def first_pixel(folder: Path, name: str) -> list[int]:
    """What becomes of the first pixel of train/cat/NAME, 0 to 255, found by the smallest red."""
    for other in (folder / "train" / "cat").iterdir():
        if other.name != name:
            other.unlink()
    images = load_images("folder", folder, validation_size=1)
    both = torch.cat([images.train.pixels, images.validation.pixels])
    labels = torch.cat([images.train.labels, images.validation.labels])
    (cat,) = both[labels == 0]
    scaled = cat[:, 0, 0] * torch.tensor(images.std) + torch.tensor(images.mean)
    return (scaled * 255).round().int().tolist()


def grey16(maxval: int) -> bytes:
    return b"P5 8 8 %d\n" % maxval + np.full(64, 3, ">u2" if maxval > 255 else "u1").tobytes()


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("d.pgm", lambda path: path.write_bytes(grey16(15)), 51),
        ("e.pgm", lambda path: path.write_bytes(grey16(255)), 3),
        ("a.gif", lambda path: Image.new("P", (8, 8)).save(path), 0),
        ("a.PNG", lambda path: Image.new("1", (8, 8), 1).save(path), 255),
    ],
)
def test_every_depth_up_to_8_bits_is_scaled(folder, name, write, expected):
    write(folder / "train" / "cat" / name)
    check_source("folder", folder)
    assert first_pixel(folder, name) == [expected] * 3


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("a.png", np.full((8, 8), 1000, np.uint16), {}),
        ("a.tif", np.full((8, 8), 1000, np.uint16), {}),
        ("a.pgm", np.full((8, 8), 1000, np.uint16), {}),
        ("a.tif", np.full((8, 8), 70_000, np.int32), {}),
        ("a.tif", np.full((8, 8), 0.5, np.float32), {}),
        ("a.gif", np.zeros((8, 8), np.uint8), {"save_all": True, "append_images": [
            Image.new("L", (8, 8), 9)]}),
    ],
)  # fmt: skip
def test_images_without_one_meaning_are_named(folder, name, image, options):
    Image.fromarray(image).save(folder / "train" / "cat" / name, **options)
    for call in (check_source, partial(load_images, validation_size=4)):
        with pytest.raises(ValueError, match=rf"train/cat/{name} cannot be read as an image \(it"):
            call("folder", folder)


def test_a_constant_data_set_is_refused_before_loading(folder):
    *others, last = folder.glob("train/*/*")
    for path in others:
        Image.new("RGB", (8, 8), (9, 9, 9)).save(path)
    check_source("folder", folder)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(last)
    for call in (check_source, partial(load_images, validation_size=4)):
        with pytest.raises(ValueError, match=r"all train images .*are the same; check the files"):
            call("folder", folder)


def test_every_image_is_looked_at_before_loading(folder):
    Image.new("RGB", (9, 8)).save(folder / "train" / "dog" / "4.png")
    with pytest.raises(ValueError, match=r"train/dog/4\.png is 9x8 pixels, others 8x8; resize"):
        check_source("folder", folder)
    for content in (b"", grey16(4095), noise(8, 8)[:-30]):
        (folder / "train" / "dog" / "4.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"train/dog/4\.png cannot be read as an image"):
            check_source("folder", folder)


def test_a_password_is_told(folder, tmp_path):
    path = zipped(folder, tmp_path / "z.zip")
    content = path.read_bytes()
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):  # members become encrypted
        pieces = content.split(signature)
        marked = [piece[: flags - 4] + b"\x01" + piece[flags - 3 :] for piece in pieces[1:]]
        content = signature.join([pieces[0], *marked])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"z\.zip is protected by a password; give the folder"):
        check_source("folder", path)


def test_archives_within_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("photos.zip", b"")
    with pytest.raises(ValueError, match=r"in one place; it has photos\.zip"):
        check_source("folder", tmp_path / "outer.zip")


def test_what_is_left_out_is_said(folder):
    (folder / "train" / "cat" / ".DS_Store").touch()
    (folder / "notes.txt").touch()
    check_source("folder", folder)
    for name in ("train/cat/notes.txt", "train/cat/7.heic", "train/cat/7.jp2", "train/7.png"):
        (folder / name).touch()
        with pytest.warns(UserWarning, match=rf"{name} in .* left out"):
            check_source("folder", folder)
        (folder / name).unlink()


@pytest.mark.parametrize("around", ["photos", "my/photos"])
def test_a_folder_around_the_parts_is_found(folder, tmp_path, around):
    plain = load_images("folder", folder, validation_size=4)
    outer = tmp_path / "outer"
    (outer / around).mkdir(parents=True)
    (outer / "__MACOSX").mkdir()
    (outer / "readme.txt").touch()
    for part in ("train", "test"):
        (folder / part).rename(outer / around / part)
    path = zipped(outer, tmp_path / "z.zip")
    for place in (outer, path):
        if place == path:  # the helper's own junk would be a second place
            with zipfile.ZipFile(path, "w") as archive:
                for file in outer.rglob("*.*"):
                    archive.write(file, f".\\{file.relative_to(outer)}".replace("/", "\\"))
        check_source("folder", place)
        assert same(load_images("folder", place, validation_size=4), plain)
    before = data_hash(outer)
    Image.new("RGB", (8, 8)).save(outer / around / "train" / "cat" / "0.png")
    assert data_hash(outer) != before


def test_several_data_sets_are_named(folder, tmp_path):
    for name in ("a", "b"):
        for part in ("train", "test"):
            shutil.copytree(folder / part, tmp_path / "outer" / name / part)
    with pytest.raises(ValueError, match="in one place; it has a/, b/"):
        check_source("folder", tmp_path / "outer")
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / "outer" / name / "test")
    with pytest.raises(ValueError, match="in one place; it has a, b"):
        check_source("folder", tmp_path / "outer")


def test_class_names_agree_in_whatever_code_points(folder):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    (folder / "train" / "cat").rename(folder / "train" / composed)
    (folder / "test" / "cat").rename(folder / "test" / apart)
    images = load_images("folder", folder, validation_size=4)
    assert images.classes == ("dog", composed)
    assert torch.bincount(images.test.labels).tolist() == [3, 3]


def test_links_in_circles_and_pipes_add_nothing(folder, tmp_path):
    plain = load_images("folder", folder, validation_size=4)
    cat = folder / "train" / "cat"
    (cat / "again").symlink_to(cat)
    (cat / "up").symlink_to(folder)
    (folder / "train" / "dog" / "other").symlink_to(cat / "again")
    os.mkfifo(cat / "pipe.png")
    (cat / "null.png").symlink_to("/dev/null")
    (cat / "zero.png").symlink_to("/dev/zero")
    check_source("folder", folder)
    assert same(load_images("folder", folder, validation_size=4), plain)
    assert len(files_of(folder)) == 18
    assert data_hash(folder)


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_an_image_with_two_names_counts_once_in_each_part(folder, link):
    cat, dog = folder / "train" / "cat", folder / "train" / "dog"
    for name in ("again.png", "zz.png"):
        getattr(cat / name, link)(cat / "0.png")
    getattr(folder / "test" / "cat" / "of_train.png", link)(cat / "0.png")
    found = image_folder.find(folder)
    assert [len(found.train), len(found.test)] == [12, 7]
    (cat / "a dog.png").symlink_to(dog / "0.png")
    assert "train/dog/0.png" in files_of(folder), "what a link leads to keeps its own place"
    assert len(files_of(folder)) == 19


@pytest.mark.parametrize("target", ["not/fetched.png", "itself.png"])
def test_a_link_to_nothing_is_named(folder, target):
    (folder / "train" / "cat" / "itself.png").symlink_to(target)
    with pytest.raises(ValueError, match=r"itself\.png is a link to nothing"):
        check_source("folder", folder)


@pytest.mark.parametrize("name", [b"\xff", b"new\nline"])
def test_a_name_that_cannot_be_written_is_refused(folder, name):
    (folder / "train" / os.fsdecode(name)).mkdir()
    shutil.copy(folder / "train" / "cat" / "0.png", folder / "train" / os.fsdecode(name))
    with pytest.raises(ValueError, match=r"'(\\udcff|new\\nline)'; rename them"):
        check_source("folder", folder)


def test_what_is_no_folder_and_no_whole_zip_file_is_told_apart(folder, tmp_path):
    whole = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", folder))
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-99])
    os.mkfifo(tmp_path / "pipe.zip")
    check_source("folder", whole)
    with pytest.raises(ValueError, match=r"cut\.zip is not a complete ZIP file"):
        check_source("folder", tmp_path / "cut.zip")
    for name in ("pipe.zip", "nothing.zip"):
        with pytest.raises(ValueError, match=f"there is no folder or ZIP file .*{name}"):
            check_source("folder", tmp_path / name)


def test_many_links_to_each_other_end(tmp_path):
    for here in range(30):
        (tmp_path / str(here)).mkdir()
        (tmp_path / str(here) / "file").touch()
        for there in range(30):
            (tmp_path / str(here) / f"to{there}").symlink_to(tmp_path / str(there))
    assert sorted(files_of(tmp_path)) == sorted(f"{here}/file" for here in range(30))


@pytest.mark.parametrize("beside", [True, False])
def test_images_behind_links_are_hashed_as_they_are_read(folder, tmp_path, beside):
    """Also where both parts lead to folders that stand beside them or to the same one."""
    data = tmp_path / "data"
    data.mkdir()
    store = data if beside else tmp_path
    for part in ("train", "test"):
        (folder / part).rename(store / f"all_{part}")
        (data / part).symlink_to(store / f"all_{part}")
    assert len(load_images("folder", data, validation_size=4).train) == 8
    hashes = [data_hash(data)]
    Image.new("RGB", (8, 8)).save(store / "all_train" / "cat" / "0.png")
    hashes.append(data_hash(data))
    (data / "test").unlink()
    (data / "test").symlink_to(store / "all_train")
    hashes.append(data_hash(data))
    assert len(load_images("folder", data, validation_size=4).test) == 12
    assert len(set(hashes)) == 3


def test_a_written_data_set_is_read_again(folder, tmp_path):
    images = load_images("folder", folder, validation_size=4)
    hashes = [write_images(images, tmp_path / name) for name in ("a", "b")]
    assert hashes[0] == hashes[1]
    found = read_images(tmp_path / "a")
    assert same(found, images)
    assert found.name == images.name


@pytest.mark.shared
def test_cifar10_as_a_zip_file(shared_data):
    path = str(shared_data / "cifar10-images.zip")
    images = load_images("folder", path, validation_size=1000, train_size=1000)
    assert [len(images.train), len(images.validation), len(images.test)] == [1000, 1000, 10_000]
    assert images.train.pixels.shape == (1000, 3, 32, 32)
    assert images.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(images.test.labels).tolist() == [1000] * 10
    assert images.mean == pytest.approx(CIFAR10_MEAN, abs=0.02)
