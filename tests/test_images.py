"""Image sets: sizes, splits, normalisation, augmentation, and what is refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional

from ionas import images as module
from ionas.book.parameters import Pretraining
from ionas.book.provenance import data_hash
from ionas.images import Images, ImageSet, augment, check_source, load_images, subset


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


def test_subset_is_seeded_sorted_and_bounded():
    images = Images(torch.arange(20.0)[:, None, None, None], torch.arange(20))
    chosen = subset(images, 5, seed=1)
    assert torch.equal(chosen.labels, subset(images, 5, seed=1).labels)
    assert torch.equal(chosen.labels, chosen.labels.sort().values)
    assert not torch.equal(chosen.labels, subset(images, 5, seed=2).labels)
    assert len(subset(images, 0, seed=1)) == 20
    with pytest.raises(ValueError, match="only 20"):
        subset(images, 21, seed=0)


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
    with pytest.raises(ValueError, match="no folder"):
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

    def counted(name, read):
        decoded.append(name)
        return original(name, read)

    original = module._decoded
    monkeypatch.setattr(module, "_decoded", counted)
    path = zipped(folder, tmp_path / "z.zip")
    few = load_images("folder", str(path), validation_size=4, train_size=3)
    assert len(set(decoded[4:])) == 3 + 4 + 6  # before them, one of each class of each part
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


def test_parameters_take_a_zip_file_and_see_when_it_changes(folder, tmp_path):
    path = zipped(folder, tmp_path / "z.zip")
    parameters = Pretraining(images="folder", images_path=str(path))
    parameters.check({})
    assert parameters.data() == [path]
    before = data_hash(path)
    Image.new("RGB", (8, 8)).save(folder / "train" / "cat" / "0.png")
    zipped(folder, path)
    assert data_hash(path) != before
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/0.png", b"")
    with pytest.raises(ValueError, match=r"z\.zip needs images of at least two classes in train/"):
        parameters.check({})


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (png(8, 8)[:-30], ""),
        (png(8, 8)[:40] + b"????" + png(8, 8)[44:], ""),
        (png(5000, 5000), "5000x5000 pixels"),
        (png(20_000, 20_000), "exceeds limit"),
        (bytes(100_001), "100,001 bytes"),
    ],
    ids=["empty", "cut off", "broken", "large", "huge", "long"],
)
def test_a_bad_member_is_named(content, message, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_FILE", 100_000)
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


def test_a_set_that_does_not_fit_into_memory(folder, tmp_path, monkeypatch):
    def full(shape, dtype):
        if shape == (18, 3, 8, 8):
            raise MemoryError
        return np.zeros(shape, dtype)

    monkeypatch.setattr(module.np, "empty", full)
    with pytest.raises(ValueError, match="18 images of 8x8 pixels do not fit into memory"):
        load_images("folder", str(folder), validation_size=4)


@pytest.mark.shared
def test_cifar10_as_a_zip_file(shared_data):
    path = str(shared_data / "cifar10-images.zip")
    images = load_images("folder", path, validation_size=1000, train_size=1000)
    assert [len(images.train), len(images.validation), len(images.test)] == [1000, 1000, 10_000]
    assert images.train.pixels.shape == (1000, 3, 32, 32)
    assert images.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(images.test.labels).tolist() == [1000] * 10
    assert images.mean == pytest.approx(module.CIFAR10_MEAN, abs=0.02)
