import csv
import hashlib
from importlib.resources import files
from types import SimpleNamespace

import pytest

from transferability.datasets import ClassInfo
from transferability.errors import UserError
from transferability.sources.imagenet import imagenet_groups
from transferability.splits import split_kind, split_name, tasks_of


def classes(n, groups=None):
    """What a split sees of a dataset."""
    infos = [ClassInfo(f"c{i}", f"n{i:08d}", groups[i] if groups else None) for i in range(n)]
    return SimpleNamespace(classes=infos, name="some")


with (files("transferability.reference") / "ilsvrc12_split_checksums.csv").open() as file:
    PUBLISHED = list(csv.DictReader(file))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda r: f"{r['split']}-{r['task']}")
def test_the_original_splits_of_ilsvrc_are_reproduced(row):
    groups = [g for _, g in sorted(imagenet_groups().items())]
    task = tasks_of(row["split"], classes(1000, groups))[row["task"]]
    assert len(task) == int(row["n_classes"])
    assert [*task[:3], task[-1]] == [int(row[k]) for k in ("first", "second", "third", "last")]
    assert sum(task) == int(row["sum_of_indices"])
    joined = ",".join(map(str, task))
    assert hashlib.sha256(joined.encode()).hexdigest() == row["sha256_of_comma_joined_indices"]


@pytest.mark.parametrize("n", [4, 10, 33, 200])
@pytest.mark.parametrize("k", [0, 1, 17])
def test_a_random_split_is_a_partition_into_halves(n, k):
    tasks = tasks_of(f"random-{k}", classes(n))
    assert sorted(tasks["A"] + tasks["B"]) == list(range(n))
    assert len(tasks["A"]) == n // 2
    assert tasks["A"] == sorted(tasks["A"]) and tasks["B"] == sorted(tasks["B"])
    assert tasks == tasks_of(f"random-{k}", classes(n))


def test_splits_of_other_kinds():
    known = classes(5, ["natural", "man-made", "natural", "man-made", "man-made"])
    assert tasks_of("natural-manmade", known) == {"A": [0, 2], "B": [1, 3, 4]}
    assert tasks_of("all", known) == {"all": [0, 1, 2, 3, 4]}
    assert (split_kind("random-12"), split_kind("all"), split_kind("x/my.yaml")) == (
        "random",
        "all",
        "user",
    )
    assert (split_name("random-12"), split_name("x/my.yaml")) == ("random-12", "my")


def test_lists_of_the_user(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("A: [c3, n00000001]\nB: [c0, c2]\n")
    assert tasks_of(str(path), classes(5)) == {"A": [1, 3], "B": [0, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: [c0, c1]\nB: [c1, c2]\n", "'c1' is in both A and B"),
        ("A: [c0, c1]\nB: [c9, c2]\n", "no class c9"),
        ("A: [c0, c1]\n", "exactly two lists"),
        ("A: c0\nB: [c1]\n", "exactly two lists"),
        ("A: [c0]\nB: [c1, c2]\n", "at least 2 classes"),
        ("A: [c0\n", "cannot be read"),
        ("A: [[c0, c1]]\nB: [c2, c3]\n", "exactly two lists"),
        ("A: &a [*a]\nB: [c2, c3]\n", "cannot be read"),
        ("[" * 1500, "cannot be read"),
        ('A: ["c0\\nx", c1]\nB: [c2, c3]\n', "no class c0.nx"),
        ("A: [c0, c1]\nB: [c2, \0]\n", "cannot be read"),
    ],
)
def test_bad_lists_are_one_clear_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        tasks_of(str(path), classes(5))
    assert "\n" not in str(error.value)


def test_names_in_lists_are_read_as_they_are_written(tmp_path):
    names = ["001", "010", "8", "no", "null", "1.0", "2001-99-99", "caf\u00e9"]
    dataset = SimpleNamespace(classes=[ClassInfo(name) for name in names], name="some")
    path = tmp_path / "mine.yaml"
    path.write_text("A: [001, 010, no, cafe\u0301]\nB: [8, null, 1.0, 2001-99-99]\n")
    assert tasks_of(str(path), dataset) == {"A": [0, 1, 3, 7], "B": [2, 4, 5, 6]}


def test_a_name_that_two_classes_have_must_be_a_wnid(tmp_path):
    infos = [
        ClassInfo("crane", "n1"),
        ClassInfo("crane", "n2"),
        ClassInfo("a", "n3"),
        ClassInfo("b", "n4"),
    ]
    dataset = SimpleNamespace(classes=infos, name="some")
    path = tmp_path / "mine.yaml"
    path.write_text("A: [crane, a]\nB: [b, n2]\n")
    with pytest.raises(UserError, match="some has 2 classes 'crane': write n1 or n2"):
        tasks_of(str(path), dataset)
    path.write_text("A: [n1, a]\nB: [b, n2]\n")
    assert tasks_of(str(path), dataset) == {"A": [0, 2], "B": [1, 3]}


@pytest.mark.parametrize("name", ["random-0.yaml", "all.yml", "natural-manmade.yaml"])
def test_lists_in_a_file_named_as_a_split_are_refused(tmp_path, name):
    (tmp_path / name).write_text("A: [c0, c1]\nB: [c2, c3]\n")
    with pytest.raises(
        UserError, match=r"runs would be named as those of split=.*: rename the file"
    ):
        tasks_of(str(tmp_path / name), classes(5))


def test_bad_splits_are_refused():
    for split, message in [
        ("random", "not known"),
        ("random-x", "not known"),
        ("random-\u0663", "not known"),
        ("random-4294967296", r"below 2\^32"),
        ("random-" + "9" * 5000, "not known"),
        ("natural-manmade", "does not say"),
    ]:
        with pytest.raises(UserError, match=message):
            tasks_of(split, classes(10))
    with pytest.raises(UserError, match="at least 2 classes"):
        tasks_of("random-0", classes(3))
    with pytest.raises(UserError, match="cannot be read"):
        tasks_of("absent.yaml", classes(10))
