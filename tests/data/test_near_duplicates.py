"""The same photograph once more, changed a little: found, counted, and kept on one side."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.helpers import config_of, lines, own_folder
from transferability.data.duplicates import HASH, pixel_hash
from transferability.data.near_duplicates import (
    PERCEPTUAL,
    _alike,
    near_duplicates,
    perceptual_hash,
)
from transferability.data.pack import pack
from transferability.data.packed import open_dataset
from transferability.data.readers.base import RawDataset, Sample


def photograph(seed, side=72):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def saved(image, quality):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out)


CHANGES = {
    "saved again": lambda image: saved(image, 55),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored and saved": lambda im: saved(im.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 75),
    "smaller": lambda image: image.resize((40, 40), Image.Resampling.BICUBIC),
    "brighter": lambda image: image.point(lambda value: min(255, value + 20)),
    "less contrast": lambda image: image.point(lambda value: 60 + value // 2),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "gray": lambda image: image.convert("L").convert("RGB"),
}


def folder_of(root, images):
    """``images``: path -> PIL image, written as PNG."""
    for path, image in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / path)
    return root


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_in_another_part_is_found(tmp_path, caplog, change):
    images = {
        f"{part}/{c}/{i}.png": photograph(seed)
        for seed, (part, c, i) in enumerate(
            (p, c, i) for p in ("train", "val") for c in ("ant", "bee") for i in range(6)
        )
    }
    root = folder_of(tmp_path / "own", images)
    assert "near_duplicates" not in pack(config_of(root, tmp_path / "plain", image_size=36)).meta
    assert not caplog.records
    folder_of(root, {"val/bee/copy.png": CHANGES[change](images["train/ant/2.png"])})
    config = config_of(root, tmp_path / "packed", image_size=36)
    found = pack(config).meta["near_duplicates"]
    assert found == {
        "pictures": 2,
        "held out": 1,
        "first": [f"{root}/train/ant/2.png", f"{root}/val/bee/copy.png"],
    }
    pack(config)
    (line, again) = lines(caplog)
    assert line == again and line == (
        "some: 2 images have near-duplicates (saved again, mirrored or changed a little), 1 of "
        "the 13 held-out images in another subset (first "
        f"{root}/train/ant/2.png and {root}/val/bee/copy.png); they inflate accuracy: "
        '"dataset.group=PATTERN" keeps files in whose paths the pattern matches the same text on '
        "one side"
    )


def test_equal_pictures_plain_ones_and_others_are_no_near_duplicates(tmp_path):
    root = folder_of(tmp_path / "own", {"ant/a.png": photograph(0), "ant/b.png": photograph(0)})
    folder_of(root, {f"bee/{i}.png": Image.new("RGB", (20, 20), (i, 0, 0)) for i in range(9)})
    folder_of(root, {f"ant/{i}.png": photograph(i) for i in range(1, 60)})
    meta = pack(config_of(root, tmp_path / "packed", image_size=36)).meta
    assert meta["duplicates"].keys() == {"within a class"} and "near_duplicates" not in meta
    assert "near_duplicates" not in pack(config_of(own_folder(tmp_path / "c"), tmp_path / "d")).meta


def test_copies_of_an_augmentation_tool_are_all_found_and_what_is_offered_works(tmp_path, caplog):
    """The classes are of noise: with a twin in training, validation would be right all the same."""
    images, draw = {}, np.random.default_rng(0)
    for c in ("good", "bad"):
        for i in range(10):
            for k, quality in enumerate((95, 80, 65, 55)):
                image = saved(photograph(i + 100 * len(c)), quality)
                name = f"photo{i:02d}_jpg.rf.{draw.integers(1 << 40):010x}.png"
                images[f"{c}/{name}"] = CHANGES["mirrored"](image) if k % 2 else image
    root = folder_of(tmp_path / "own", images)
    config = config_of(root, tmp_path / "packed", image_size=36, val_fraction=0.2)
    found = pack(config).meta["near_duplicates"]
    assert found["pictures"] == 80 and found["held out"] == 16
    (line,) = lines(caplog)
    assert """: "dataset.group='([^/]+)[.]rf[.]'" keeps files in""" in line
    grouped = config_of(
        root, tmp_path / "g", image_size=36, val_fraction=0.2, group="([^/]+)[.]rf[.]"
    )
    caplog.clear()
    packed = pack(grouped)
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert not warned, "nothing to warn of"
    assert packed.n_val == 16 and packed.meta["near_duplicates"]["held out"] == 0


def test_mirroring_an_image_mirrors_its_hash():
    for seed in range(20):
        image = np.asarray(photograph(seed))
        hashes = np.array(
            [np.frombuffer(perceptual_hash(i), ">u8")[0] for i in (image, image[:, ::-1])]
        )
        first, second, mirrored = _alike(hashes.astype(np.uint64))
        assert (first.tolist(), second.tolist(), mirrored.tolist()) == ([0], [1], [True])


@pytest.mark.parametrize("count", [2000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_pairs_are_found_among_many(count):
    """All of them among some thousand; nearly all, in limited time, among more."""
    draw = np.random.default_rng(0)
    hashes = draw.integers(1, 1 << 63, count, dtype=np.uint64)
    copies = np.arange(count // 2, count // 2 + 400)
    bits = draw.integers(0, 7, 400)
    for copy, number in zip(copies, bits, strict=True):
        flips = draw.permutation(63)[:number]
        hashes[copy] = hashes[copy - count // 2] ^ np.bitwise_or.reduce(
            np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
        )
    first, second, mirrored = _alike(hashes)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    wanted = {(int(c) - count // 2, int(c)) for c in copies}
    assert not mirrored.any() and found <= wanted
    assert len(found & wanted) >= (400 if count == 2000 else 320)


def test_a_dataset_of_one_picture_saved_many_times_takes_no_memory_or_time():
    count = 3000
    image = np.asarray(photograph(0, 32))
    images = np.broadcast_to(image, (count, 32, 32, 3))
    source = RawDataset(
        [], [Sample(0, str(i), bytes) for i in range(count - 5)], [Sample(0, "v", bytes)] * 5
    )
    perceptual = np.tile(np.frombuffer(perceptual_hash(image), np.uint8), (count, 1))
    equal = np.arange(count * HASH, dtype=np.int64).astype(np.uint8).reshape(count, HASH)
    equal[:, :8] = np.arange(count)[:, None].view(np.uint8)
    assert perceptual.shape == (count, PERCEPTUAL) and len(pixel_hash(image)) == HASH
    found = near_duplicates(source, images, perceptual, equal)
    assert found["pictures"] > 0.99 * count and found["held out"] >= 4


def test_packing_goes_on_where_it_stopped_with_its_perceptual_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr("transferability.data.pack.CHECKPOINT_EVERY", 16)
    images = {f"{c}/{i}.png": photograph(i + 100 * len(c)) for c in ("a", "bb") for i in range(30)}
    root = folder_of(tmp_path / "own", images)
    folder_of(root, {"a/copy.png": CHANGES["saved again"](images["bb/7.png"])})
    config = config_of(root, tmp_path / "packed", image_size=36)
    whole = pack(config_of(root, tmp_path / "whole", image_size=36)).meta["near_duplicates"]
    real, calls = cv2.resize, []

    def dies(*args, **named):
        calls.append(1)
        if len(calls) > 90:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(cv2, "resize", dies)
    with pytest.raises(KeyboardInterrupt):
        pack(config, workers=1)
    monkeypatch.setattr(cv2, "resize", real)
    assert os.path.exists(tmp_path / ".packed.partial" / "progress.json")
    open_dataset.cache_clear()
    packed = pack(config)
    assert packed.meta["near_duplicates"] == whole
    assert {p.name for p in packed.folder.iterdir()} == {"images.npy", "labels.npy", "dataset.json"}
