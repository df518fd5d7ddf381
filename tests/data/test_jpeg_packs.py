"""Packs that hold JPEG files."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import config_of, described, packing_refusal, resaved, rewritten, write
from transferability.data.pack import pack
from transferability.data.packed import open_dataset, verify
from transferability.errors import UserError


def photographs(root, count=3):
    """Smooth pictures of 40x60 in two classes."""
    draw = np.random.default_rng(0)
    for subset in ("train", "val"):
        for c in ("a", "b"):
            for i in range(count):
                small = draw.integers(0, 256, (4, 6, 3), dtype=np.uint8)
                write(
                    root / subset / c / f"{i}.png",
                    cv2.resize(small, (60, 40), interpolation=cv2.INTER_CUBIC),
                )
    return root


def test_a_jpeg_pack_holds_files_that_any_program_reads(tmp_path):
    source = photographs(tmp_path / "source")
    raw = pack(config_of(source, tmp_path / "raw", image_size=32))
    packed = pack(config_of(source, tmp_path / "jpeg", image_size=32, encoding="jpeg"))
    assert {p.name for p in packed.folder.iterdir()} == {
        "jpegs.npy",
        "offsets.npy",
        "labels.npy",
        "dataset.json",
    }
    assert packed.encoding == "jpeg q95 4:4:4" and raw.encoding is None
    assert packed.labels.tolist() == raw.labels.tolist() and packed.n_train == 6
    blob, offsets = np.load(packed.folder / "jpegs.npy"), np.load(packed.folder / "offsets.npy")
    assert (
        blob.ndim == 1 and offsets.shape == (13,) and offsets[0] == 0 and offsets[-1] == len(blob)
    )
    for row in range(12):
        data = blob[offsets[row] : offsets[row + 1]].tobytes()
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG" and [c[1:3] for c in image.layer] == [(1, 1)] * 3  # 4:4:4
            pillows = np.asarray(image).astype(int)
        assert np.abs(packed.images[row] - pillows).max() <= 2  # decoders may round differently
        assert 0 < np.abs(packed.images[row] - raw.images[row].astype(int)).mean() < 3
    some = np.array([7, 0, 7])
    assert np.array_equal(packed.read_rows(some), np.stack([packed.images[int(i)] for i in some]))
    assert np.array_equal(packed.images[2:5], packed.read_rows(np.arange(2, 5)))
    assert np.array_equal(packed.images_on(torch.device("cpu")).numpy(), packed.images[:])
    assert np.array_equal(
        packed.mean_image(some),
        packed.images[some].mean(axis=0, dtype=np.float64).astype(np.float32),
    )
    assert packed.images.nbytes == raw.images.nbytes and len(packed.images) == 12
    verify(packed)


def test_another_quality_is_another_pack(tmp_path):
    source = photographs(tmp_path / "source")
    settings = [{}, {"encoding": "jpeg"}, {"encoding": "jpeg", "jpeg_quality": 60}]
    packs = [
        pack(config_of(source, tmp_path / str(i), image_size=32, **s))
        for i, s in enumerate(settings)
    ]
    assert len({p.checksum for p in packs}) == 3
    assert (packs[2].folder / "jpegs.npy").stat().st_size < (
        packs[1].folder / "jpegs.npy"
    ).stat().st_size
    assert "(encoding, jpeg_quality)" in packing_refusal(
        config_of(source, packs[0].folder, image_size=32, encoding="jpeg")
    )
    assert "(jpeg_quality)" in packing_refusal(
        config_of(source, packs[2].folder, image_size=32, encoding="jpeg")
    )
    assert not {"encoding", "jpeg_quality"} & packs[0].meta["settings"].keys(), (
        "packs made before are raw"
    )
    for key, value in (("encoding", "png"), ("jpeg_quality", 0)):
        with pytest.raises(UserError, match=f"dataset.{key}={value} must be"):
            config_of(source, tmp_path, **{key: value}).check()


JPEG_DAMAGE = [
    (rewritten("jpegs.npy", lambda b: b[:-1]), "jpegs.npy cannot be read"),
    (rewritten("jpegs.npy", lambda b: b + b"x"), r"jpegs.npy has \d+ bytes instead of \d+"),
    (rewritten("offsets.npy", lambda b: b[:-8]), "offsets.npy cannot be read"),
    (lambda folder: (folder / "offsets.npy").unlink(), "offsets.npy cannot be read .*No such file"),
    (
        resaved("offsets.npy", lambda a: a[:-1]),
        r"offsets.npy is \(12,\) int64, but dataset.json says \(13,\)",
    ),
    (resaved("offsets.npy", lambda a: a + 1), "does not rise from 0"),
    (resaved("offsets.npy", lambda a: a[[0, 2, 1, *range(3, 13)]]), "does not rise from 0"),
    (resaved("offsets.npy", lambda a: a + (np.arange(13) == 12)), "but offsets.npy says"),
    (resaved("offsets.npy", lambda a: a.astype(np.float64)), "float64, but dataset.json says"),
    (lambda f: described(f, lambda d: d["settings"].update(encoding="heic")), "encoding heic"),
    (lambda f: described(f, lambda d: d["settings"].pop("jpeg_quality")), "jpeg_quality None"),
]


@pytest.mark.parametrize("number", range(len(JPEG_DAMAGE)), ids=lambda i: JPEG_DAMAGE[i][1][:40])
def test_opening_a_jpeg_pack_checks_sizes_and_offsets(tmp_path, number):
    damage, message = JPEG_DAMAGE[number]
    pack(
        config_of(
            photographs(tmp_path / "source"), tmp_path / "packed", image_size=32, encoding="jpeg"
        )
    )
    damage(tmp_path / "packed")
    open_dataset.cache_clear()
    with pytest.raises(UserError, match=message) as error:
        open_dataset(str(tmp_path / "packed"))
    assert "\n" not in str(error.value) and str(error.value).endswith(
        "; delete the folder and pack again"
    )


def test_a_damaged_jpeg_in_a_pack_is_named_when_it_is_read(tmp_path):
    packed = pack(
        config_of(
            photographs(tmp_path / "source"), tmp_path / "packed", image_size=32, encoding="jpeg"
        )
    )
    at = 128 + int(packed.images.offsets[4])
    rewritten("jpegs.npy", lambda b: b[:at] + b"no" + b[at + 2 :])(packed.folder)
    open_dataset.cache_clear()
    opened = open_dataset(str(packed.folder))
    assert opened.read_rows(np.array([3, 5])).shape == (2, 32, 32, 3)
    with pytest.raises(
        UserError, match=r"row 4 in jpegs.npy is no longer an image; delete the folder"
    ):
        opened.read_rows(np.array([3, 4, 5]))
    with pytest.raises(UserError, match=r"jpegs.npy or offsets.npy is not as packed \(SHA-256"):
        verify(packed.folder)


def test_verify_sees_an_offset_that_moved(tmp_path):
    packed = pack(
        config_of(
            photographs(tmp_path / "source"), tmp_path / "packed", image_size=32, encoding="jpeg"
        )
    )
    resaved("offsets.npy", lambda a: a + (np.arange(13) == 6))(packed.folder)
    with pytest.raises(UserError, match=r"jpegs.npy or offsets.npy is not as packed"):
        verify(packed.folder)
