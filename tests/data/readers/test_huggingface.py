"""Datasets that the library ``datasets`` reads: parquet, arrow, folders of images, WebDataset."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers import SIDE, config_of, counts, lines, made, refusal
from transferability.data.pack import pack
from transferability.data.readers import huggingface, read_dataset
from transferability.data.readers.imagenet import imagenet_groups
from transferability.errors import UserError

NAMES = ["cat", "dog"]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Offline, with a cache of its own."""
    library = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    library.disable_progress_bars()
    return library


def picture(value):
    out = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def rows(library, count, first=0, labels=None, **more):
    """Grey pictures of their own number; labels alternate."""
    images = [{"bytes": picture(first + i), "path": None} for i in range(count)]
    labels = [i % 2 for i in range(count)] if labels is None else labels
    kinds = {"image": library.Image(), "label": library.ClassLabel(names=NAMES)}
    kinds |= {name: kind for name, (kind, _) in more.items()}
    columns = {"image": images, "label": labels} | {name: v for name, (_, v) in more.items()}
    return library.Dataset.from_dict(columns, features=library.Features(kinds))


def split_of(library):
    return library.DatasetDict(
        {
            "train": rows(library, 12),
            "validation": rows(library, 4, 50),
            "test": rows(library, 4, 80, [-1] * 4),
        }
    )


BOTH = [{"cat": 6, "dog": 6}, {"cat": 2, "dog": 2}, {}]


def check(source):
    assert counts(source, kind="huggingface") == BOTH
    opened = read_dataset(config_of(source, kind="huggingface"))
    assert [(i.label, int(i.load()[0, 0, 0])) for i in opened.train] == [
        (i % 2, i) for i in range(12)
    ]
    assert [int(item.load()[0, 0, 0]) for item in opened.val] == [50, 51, 52, 53]


def test_parquet_and_what_was_saved(datasets, tmp_path):
    data = split_of(datasets)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name, own in data.items():
        own.to_parquet(tmp_path / "hub" / "data" / f"{name}-00000-of-00001.parquet")
    check(tmp_path / "hub")
    data.save_to_disk(tmp_path / "saved")
    check(tmp_path / "saved")
    one = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    assert counts(one, kind="huggingface", val_fraction=0.5) == [
        {"cat": 3, "dog": 3}, {"cat": 3, "dog": 3}, {}
    ]  # fmt: skip
    packed = pack(config_of(tmp_path / "hub", tmp_path / "packed", "huggingface"))
    values = dict(zip(packed.images[:, 0, 0, 0].tolist(), packed.labels.tolist(), strict=True))
    assert values == {i: i % 2 for i in (*range(12), *range(50, 54))}


def test_a_folder_of_images_and_its_table(datasets, tmp_path):
    for part, first, count in (("train", 0, 12), ("validation", 50, 4)):
        (tmp_path / "own" / part).mkdir(parents=True)
        table = ["file_name,label"]
        for i in range(count):
            (tmp_path / "own" / part / f"{i:02d}.png").write_bytes(picture(first + i))
            table.append(f"{i:02d}.png,{NAMES[i % 2]}")
        (tmp_path / "own" / part / "metadata.csv").write_text("\n".join(table))
    check(tmp_path / "own")


def test_webdataset_shards(datasets, tmp_path):
    for part, first, count in (("train-0", 0, 6), ("train-1", 6, 6), ("validation-0", 50, 4)):
        (tmp_path / "shards").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "shards" / f"{part}.tar", "w") as out:
            for i in range(count):
                for ending, data in (("png", picture(first + i)), ("cls", str(i % 2).encode())):
                    info = tarfile.TarInfo(f"{first + i:04d}.{ending}")
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))
    found = counts(tmp_path / "shards", kind="huggingface")
    assert found == [{"0": 6, "1": 6}, {"0": 2, "1": 2}, {}]
    one = counts(tmp_path / "shards" / "train-0.tar", kind="huggingface", val_fraction=0.3)
    assert one == [{"0": 2, "1": 2}, {"0": 1, "1": 1}, {}]


def test_columns_are_known_by_their_kind_or_named(datasets, tmp_path):
    other = datasets.ClassLabel(names=["x", "y", "z"])
    two = rows(datasets, 12, label2=(other, [i % 3 for i in range(12)]))
    two.rename_column("label", "label1").save_to_disk(tmp_path / "two")
    message = refusal(tmp_path / "two", kind="huggingface")
    assert '2 columns of labels (label1, label2): set "dataset.columns={class: NAME}"' in message
    found = counts(tmp_path / "two", kind="huggingface", columns={"class": "label2"})
    assert found[0] == {"x": 3, "y": 3, "z": 3}
    assert "no column no" in refusal(tmp_path / "two", kind="huggingface", columns={"file": "no"})
    texts = rows(datasets, 12).cast_column("label", datasets.Value("int64"))
    texts.save_to_disk(tmp_path / "numbers")
    assert counts(tmp_path / "numbers", kind="huggingface")[0] == {"0": 5, "1": 5}


def test_what_cannot_be_told_is_refused(datasets, tmp_path):
    data = rows(datasets, 4)
    datasets.DatasetDict({"train": data, "extra": data}).save_to_disk(tmp_path / "a")
    assert "has the splits train, extra: it is unclear" in refusal(
        tmp_path / "a", kind="huggingface"
    )
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "b")
    assert "has no training split, only test" in refusal(tmp_path / "b", kind="huggingface")
    (tmp_path / "empty").mkdir()
    assert "cannot be opened by datasets.load_dataset" in refusal(
        tmp_path / "empty", kind="huggingface"
    )


def test_imagenet_is_known_by_its_names_and_in_the_order_of_wnids():
    wnids = sorted(imagenet_groups())
    names = [huggingface.IMAGENET[0], *map(str, range(998)), huggingface.IMAGENET[1]]
    for found in (huggingface._classes(names), huggingface._classes(wnids)):
        assert [(c.name, c.wnid) for c in found] == [(w, w) for w in wnids]
        assert {c.group for c in found} == {"natural", "man-made"}
    assert huggingface._classes(["cat", "dog"])[0].wnid is None


class Value:
    """A feature of the library that is no class by itself."""


class Rows:
    """As much of its rows as is read."""

    def __init__(self, labels):
        self.labels = labels
        self.features = {"image": type("Image", (), {})(), "label": Value()}

    def select_columns(self, names):
        return self

    def __getitem__(self, key):
        return {"label": self.labels}


def test_rows_without_a_class_are_left_out_with_a_line(monkeypatch, caplog):
    nan = float("nan")
    monkeypatch.setattr(huggingface, "_reader", lambda data, image: lambda row: picture(row))
    splits = {
        "train": Rows(["cat", "", "dog", None, "dog", nan, "cat", "  "]),
        "validation": Rows(["cat", "dog"]),
        "test": Rows([None] * 3),
    }
    monkeypatch.setattr(huggingface, "_loaded", lambda config: splits)
    assert counts("hub", kind="huggingface") == [{"cat": 2, "dog": 2}, {"cat": 1, "dog": 1}, {}]
    assert lines(caplog) == [
        "hub: 4 of 8 training images have no class and are left out",
        "hub: 3 of 3 test images have no class and are left out",
    ]
    splits["train"] = Rows(["", nan])
    message = refusal("hub", kind="huggingface")
    assert "hub: no training image has a class in the column label: if another says it" in message
    splits["train"] = Rows([1.0, 0.0, nan])
    splits["validation"] = Rows([0.0, 1.0])
    assert counts("hub", kind="huggingface")[0] == {"0.0": 1, "1.0": 1}


@pytest.mark.parametrize(
    ("names", "subsets"),
    [
        (["train", "validation", "test"], ["train", "val", "test"]),
        (["training", "dev", "evaluation"], ["train", "val", "test"]),
        (["train", "valid", "eval"], ["train", "val", "test"]),
        (["train_2020", "testing"], ["train", "test"]),
    ],
)
def test_splits_are_known_by_the_words_of_the_hub(names, subsets):
    assert huggingface._by_subset({n: n for n in names}, "x") == dict(
        zip(subsets, names, strict=True)
    )


def test_without_the_library_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs datasets: pip install '.\[huggingface\]'"):
        huggingface._datasets()


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "a.arrow", "shard/0.cls"])
def test_such_files_given_as_a_folder_name_the_configuration(tmp_path, name):
    root = made(tmp_path, "shard/0.png", **{name: b"0"})
    assert refusal(root).endswith("the files of huggingface: set dataset=huggingface")
