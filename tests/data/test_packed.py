"""The packed dataset: what opening and verifying find, and its rows."""

import json
import pickle

import numpy as np
import pytest

from tests.helpers import config_of, described, make_source, redescribed, resaved, rewritten
from transferability.data.description import FORMAT
from transferability.data.pack import pack
from transferability.data.packed import open_dataset, verify
from transferability.errors import UserError

# --- opening ---


def without(key):
    return lambda folder: described(folder, lambda d: d.pop(key))


KEYS = ("name", "settings", "image_size", "n_train", "n_val", "classes", "skipped", "checksum")
DAMAGE = [
    (rewritten("images.npy", lambda b: b[:-1]), "images.npy cannot be read"),
    (rewritten("images.npy", lambda b: b[:40]), "images.npy cannot be read"),
    (rewritten("images.npy", lambda b: b""), "images.npy cannot be read"),
    (rewritten("images.npy", lambda b: b + b"x"), r"images.npy has \d+ bytes instead of \d+"),
    (rewritten("images.npy", lambda b: b"PK\3\4" + b), "images.npy cannot be read"),
    (rewritten("labels.npy", lambda b: b[:-8]), "labels.npy cannot be read"),
    (rewritten("labels.npy", lambda b: b + b"x"), "labels.npy has"),
    (lambda folder: (folder / "images.npy").unlink(), "images.npy cannot be read .*No such file"),
    (lambda folder: (folder / "labels.npy").unlink(), "labels.npy cannot be read .*No such file"),
    (
        resaved("images.npy", lambda a: a.astype(np.float32)),
        r"float32, but dataset.json says .* uint8",
    ),
    (resaved("images.npy", lambda a: a[:, :, :, 0]), r"images.npy is \(9, 6, 6\)"),
    (resaved("labels.npy", lambda a: a.astype(np.int32)), "int32, but dataset.json says .* int64"),
    (resaved("labels.npy", lambda a: a[:-1]), r"labels.npy is \(8,\)"),
    (
        resaved("labels.npy", lambda a: a + 1),
        "labels.npy goes from 1 to 3, but dataset.json has 3 classes",
    ),
    (resaved("labels.npy", lambda a: a - 1), "labels.npy goes from -1 to 1"),
    (
        redescribed(n_train=7),
        r"images.npy is \(9, 6, 6, 3\) uint8, but dataset.json says \(10, 6, 6, 3\)",
    ),
    (redescribed(n_train=-1, n_val=10), "numbers above 0"),
    (redescribed(n_val=0), "numbers above 0"),
    (redescribed(n_train="6"), "n_train is not a int"),
    (redescribed(name="../../elsewhere"), "is not a valid folder name"),
    (redescribed(classes=["ant", "bee", "cat"]), "classes: "),
    (redescribed(classes=[{"name": 3}] * 3), "a name is not text"),
    (redescribed(classes=[{"name": "ant", "color": "red"}] * 3), "classes: .*color"),
    (redescribed(classes=[{"name": "ant"}]), "goes from 0 to 2, but dataset.json has 1 classes"),
    (redescribed(format=FORMAT + 1), f"has format {FORMAT + 1}, this program reads {FORMAT}"),
    (without("format"), "has format None"),
    *((without(key), f"dataset.json lacks {key}") for key in KEYS),
    (rewritten("dataset.json", lambda b: b[:-20]), "dataset.json is damaged"),
    (rewritten("dataset.json", lambda b: b"\xff" + b), "dataset.json is damaged"),
    (rewritten("dataset.json", lambda b: b""), "dataset.json is damaged"),
    (rewritten("dataset.json", lambda b: b"[1, 2]"), "not a description of a dataset"),
    (rewritten("dataset.json", lambda b: b"[" * 100_000), "dataset.json is damaged"),
]


@pytest.mark.parametrize("number", range(len(DAMAGE)), ids=lambda i: DAMAGE[i][1][:40])
def test_opening_checks_sizes_types_and_description(tmp_path, number):
    damage, message = DAMAGE[number]
    pack(config_of(make_source(tmp_path / "source", n_train=2, n_val=1), tmp_path / "packed"))
    damage(tmp_path / "packed")
    open_dataset.cache_clear()
    with pytest.raises(UserError, match=message) as error:
        open_dataset(str(tmp_path / "packed"))
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{tmp_path}/packed: ")
    assert text.endswith("; delete the folder and pack again")


@pytest.mark.parametrize("value", [0, -1, "3", True, None])
def test_a_number_of_test_images_that_is_none_is_damage(tmp_path, value):
    pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    redescribed(n_test=value)(tmp_path / "packed")
    with pytest.raises(UserError, match="n_test is a number above 0, or absent"):
        open_dataset(str(tmp_path / "packed"))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("bare", [False, True], ids=["object array", "bare pickle"])
def test_a_pickle_in_a_packed_dataset_is_never_loaded(tmp_path, name, bare):
    packed = pack(
        config_of(make_source(tmp_path / "source", n_train=2, n_val=1), tmp_path / "packed")
    ).folder
    trap, sprung = Trap(tmp_path / "sprung"), tmp_path / "sprung"
    if bare:
        (packed / name).write_bytes(pickle.dumps(trap))
    else:
        np.save(packed / name, np.array([trap] * 9, dtype=object), allow_pickle=True)
        np.load(packed / name, allow_pickle=True)
        assert sprung.exists(), "the trap works"
        sprung.unlink()
    open_dataset.cache_clear()
    for look in (open_dataset, verify):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            look(str(packed))
    assert not sprung.exists()


# --- the whole, byte by byte ---


def flipped(name, at, bit=0):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1 << bit
        (folder / name).write_bytes(data)

    return damage


def swapped(labels):
    labels[[0, -1]] = labels[[-1, 0]]
    assert labels[0] != labels[-1]
    return labels


def test_verify_accepts_what_was_packed(tmp_path):
    packed = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    for way in (packed, packed.folder, str(packed.folder)):
        assert verify(way) is None
    with pytest.raises(UserError, match=r"no packed dataset in .*experiments\.pack"):
        verify(tmp_path / "absent")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *(
            (flipped("images.npy", at, bit), r"images.npy is not as packed")
            for at in (128, -1, -500)
            for bit in (0, 7)
        ),
        (resaved("labels.npy", swapped), "the labels in labels.npy are not those that were packed"),
        (
            lambda folder: described(folder, lambda d: d["classes"][1].update(name="bug")),
            "the classes in dataset.json are not those that were packed",
        ),
        (redescribed(checksum="0" * 64), r"dataset.json says 000000000000\.\.\."),
    ],
)
def test_verify_finds_what_opening_does_not(tmp_path, damage, message):
    packed = pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    damage(packed.folder)
    open_dataset.cache_clear()
    open_dataset(str(packed.folder))
    for way in (packed, packed.folder):
        with pytest.raises(UserError, match=message) as error:
            verify(way)
        assert "\n" not in str(error.value) and str(packed.folder) in str(error.value)


# --- rows ---


def made(folder, images, labels, n_train):
    """A packed dataset of given rows."""
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    description = {
        "format": FORMAT,
        "name": "made",
        "settings": {},
        "image_size": images.shape[1],
        "n_train": n_train,
        "n_val": len(images) - n_train,
        "classes": [
            {"name": f"c{i}", "wnid": None, "group": None} for i in range(labels.max() + 1)
        ],
        "skipped": {},
        "checksum": "none",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return open_dataset(str(folder))


@pytest.fixture
def rows(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2600, 4, 4, 3), dtype=np.uint8)
    return made(tmp_path / "rows", images, draw.integers(0, 5, 2600), 2000)


def test_rows_of_classes_are_in_file_order(rows):
    for classes in ([0], [3, 1], [0, 1, 2, 3, 4]):
        expected = [i for i in range(2600) if rows.labels[i] in classes]
        assert rows.train_rows(classes).tolist() == [i for i in expected if i < 2000]
        assert rows.val_rows(classes).tolist() == [i for i in expected if i >= 2000]
    assert np.array_equal(rows.read_rows(np.array([7, 3])), rows.images[[7, 3]])


def test_images_per_class_takes_the_first_of_each_class(rows):
    found = rows.train_rows([4, 2], 9)
    expected = [i for c in (2, 4) for i in [i for i in range(2000) if rows.labels[i] == c][:9]]
    assert found.tolist() == sorted(expected)
    more = rows.train_rows([4, 2], 10)
    assert len(more) == 20 and set(found) < set(more)
    counts = {c: int((rows.labels[:2000] == c).sum()) for c in (2, 4)}
    fewer, most = sorted(counts, key=counts.get)
    assert counts[fewer] < counts[most]
    # every image of the smaller class, as in the original
    whole = rows.train_rows([2, 4], counts[most])
    assert whole.tolist() == rows.train_rows([2, 4]).tolist()
    with pytest.raises(
        UserError,
        match=rf"images_per_class={counts[most] + 1}, but no class .* than {counts[most]} ",
    ):
        rows.train_rows([2, 4], counts[most] + 1)


def test_the_mean_image_is_exact(rows):
    some = rows.train_rows([0, 1, 2, 3])  # more than the 1024 rows that are summed at once
    assert len(some) > 1024
    mean = rows.mean_image(some)
    assert mean.shape == (4, 4, 3) and mean.dtype == np.float32
    assert np.array_equal(
        mean, np.array(rows.images)[some].mean(axis=0, dtype=np.float64).astype(np.float32)
    )
    assert np.array_equal(mean, rows.mean_image(np.random.default_rng(1).permutation(some)))
    assert not np.array_equal(mean, rows.mean_image(some[:-1]))


def test_a_folder_that_holds_no_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no packed dataset in .*experiments\.pack"):
        open_dataset(str(tmp_path / "absent"))
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.zeros(6, int)
    made(tmp_path / "cut", images, labels, 4)
    np.save(tmp_path / "cut" / "images.npy", images[:5])
    open_dataset.cache_clear()
    with pytest.raises(UserError, match=r"images.npy is \(5, 4, 4, 3\)"):
        open_dataset(str(tmp_path / "cut"))
