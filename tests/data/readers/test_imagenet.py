"""ImageNet, with folders of wnids and with a flat folder of validation images."""

import shutil
import zipfile

import cv2
import numpy as np
import pytest

from tests.helpers import (
    BACKPACK,
    GOLDFISH,
    GROUPS,
    WNIDS,
    config_of,
    found,
    imagenet,
    real,
    refusal,
    write_plain,
    zipped,
)
from transferability.data.pack import pack
from transferability.data.readers import read_dataset


def val_wnids(source, **settings):
    """The wnids of the six validation images in order of file name."""
    val = found(source, **settings, kind="imagenet")[2]
    return [wnid for wnid, _ in sorted(val, key=lambda pair: pair[1].rsplit("/", 1)[1])]


EXPECTED = [WNIDS[(i + 3) % 4] for i in range(6)]


def test_imagenet_as_folders(tmp_path):
    root = imagenet(tmp_path / "imagenet")
    names, train, val = found(root, kind="imagenet")
    assert names == list(WNIDS)
    assert sorted(train) == [(w, f"train/{w}/{w}_{i}.JPEG") for w in WNIDS for i in range(2)]
    assert len(val) == 6 and all(path.startswith(f"val/{wnid}/") for wnid, path in val)
    classes = read_dataset(config_of(root, kind="imagenet")).classes
    assert [(c.wnid, c.group) for c in classes] == list(zip(WNIDS, GROUPS, strict=True))
    assert val_wnids(zipped(root, tmp_path / "imagenet.zip", "a/b/")) == EXPECTED


@pytest.mark.parametrize(
    "line",
    [
        "{wnid}\n",
        "ILSVRC2012_val_{number:08d}.JPEG {wnid}\n",
        "ILSVRC2012_val_{number:08d}\t{wnid}\n",
        "ILSVRC2012_val_{number:08d},{wnid} 85 1 499 272 {wnid} 7 7 9 9\n",
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_imagenet_with_a_flat_validation_folder(tmp_path, line, backwards):
    root = imagenet(tmp_path / "imagenet", flat=True)
    lines = [line.format(number=i + 1, wnid=wnid) for i, wnid in enumerate(EXPECTED)]
    if "number" in line:  # lines that name their image may come in any order, below a heading
        lines = ["ImageId,PredictionString\n", *(reversed(lines) if backwards else lines)]
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(lines))
    assert val_wnids(root, val_labels=str(labels)) == EXPECTED
    assert val_wnids(zipped(root, tmp_path / "imagenet.zip"), val_labels=str(labels)) == EXPECTED


def test_validation_labels_that_do_not_fit_are_refused(tmp_path):
    root = imagenet(tmp_path / "imagenet", flat=True)
    assert "set dataset.val_labels" in refusal(root, kind="imagenet")
    assert "No such file" in refusal(root, val_labels=str(tmp_path / "absent.txt"), kind="imagenet")
    labels = tmp_path / "labels.txt"
    for wnids in (EXPECTED[:-1], [*EXPECTED, GOLDFISH]):
        labels.write_text("\n".join(wnids))
        message = refusal(root, val_labels=str(labels), kind="imagenet")
        assert f"has {len(wnids)} wnids" in message and "6 images" in message
    labels.write_text("".join(f"ILSVRC2012_val_{i:08d} {GOLDFISH}\n" for i in range(1, 6)))
    assert "no wnid for val/ILSVRC2012_val_00000006" in refusal(
        root, val_labels=str(labels), kind="imagenet"
    )
    # Caffe's numbers
    labels.write_text("".join(f"ILSVRC2012_val_{i:08d}.JPEG {i}\n" for i in range(1, 7)))
    assert "no wnid for" in refusal(root, val_labels=str(labels), kind="imagenet")
    labels.write_text("\n".join([*EXPECTED[:-1], "n01440764"]))
    assert "n01440764 has no training folder" in refusal(
        root, val_labels=str(labels), kind="imagenet"
    )


def test_what_is_not_imagenet_is_refused(tmp_path):
    write_plain(tmp_path / "flat" / "cat" / "x.png")
    assert "no folder train/" in refusal(tmp_path / "flat", kind="imagenet")
    write_plain(tmp_path / "pets" / "train" / "cat" / "x.png")
    message = refusal(tmp_path / "pets", kind="imagenet")
    assert "train/cat is not a wnid folder" in message and "dataset=folder" in message
    root = imagenet(tmp_path / "imagenet")
    shutil.rmtree(root / "train" / BACKPACK)
    assert f"{BACKPACK} has no training folder" in refusal(root, kind="imagenet")


def test_the_folders_of_annotations_beside_the_images_are_no_images(tmp_path):
    root = tmp_path / "ILSVRC"
    imagenet(root / "Data" / "CLS-LOC")
    for wnid in WNIDS:
        folder = root / "Annotations" / "CLS-LOC" / "train" / wnid
        folder.mkdir(parents=True)
        (folder / f"{wnid}_0.xml").write_text("<annotation/>")
    names, train, val = found(root, kind="imagenet")
    assert names == list(WNIDS) and len(train) == 8 and len(val) == 6


def test_a_hundred_images_of_imagenet_pack(tmp_path):
    with zipfile.ZipFile(real("ilsvrc-sample-100.zip")) as archive:
        archive.extractall(tmp_path)
    (train,) = tmp_path.rglob("train")
    shutil.copytree(train, train.with_name("val"))
    config = config_of(
        train.parent, tmp_path / "packed", kind="imagenet", image_size=256, resize="linear"
    )
    packed = pack(config)
    files = {p.parent.name: p for p in train.rglob("*.JPEG")}
    assert len(files) == 100
    assert packed.images.shape == (200, 256, 256, 3) and packed.n_train == 100
    assert packed.meta["skipped"] == {}
    assert [c.wnid for c in packed.classes] == sorted(files)
    assert {c.group for c in packed.classes} == {"natural", "man-made"}
    shapes = set()
    for label, wnid in enumerate(sorted(files)):
        image = cv2.imread(str(files[wnid]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        shapes.add(image.shape)
        squashed = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        for row in (*packed.train_rows([label]), *packed.val_rows([label])):
            assert np.array_equal(packed.images[row], squashed), files[wnid]
    assert len(shapes) > 10  # squashed from many shapes
