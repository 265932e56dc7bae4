"""Image sets: sizes, splits, normalisation, augmentation, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional

from ionas.images import Images, augment, check_source, load_images, subset


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


def test_augmentation_is_a_crop_and_a_flip_of_the_padded_image():
    pixels = torch.rand(6, 3, 5, 5)
    result = augment(pixels, torch.Generator().manual_seed(0), padding=2)
    for image, original in zip(result, pixels, strict=True):
        padded = functional.pad(original, [2])
        crops = [functional.crop(padded, top, left, 5, 5) for top in range(5) for left in range(5)]
        crops += [functional.hflip(crop) for crop in crops]
        assert any(torch.equal(image, crop) for crop in crops)


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
        (lambda path: [f.unlink() for f in path.glob("train/cat/*")], "holds no image"),
        (lambda path: (path / "train").rename(path / "trian"), "cannot be read"),
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


def test_cifar10_folder_without_the_data_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match="download=True"):
        check_source("cifar10", str(tmp_path))
