import csv
import hashlib
from importlib.resources import files
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from transferability.data.description import ClassInfo
from transferability.data.readers.imagenet import imagenet_groups
from transferability.errors import UserError
from transferability.tasks.splits import split_kind, split_name, tasks_of
from transferability.tasks.wordnet import mean_distance, path_distances


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
        UserError, match=r"runs would have the same names as those of split=.*: rename the file"
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


def test_path_distances_in_wordnet_known_by_hand():
    """ILSVRC's tench and goldfish are cyprinids (2); tench to great white shark goes up to fish:
    tench, cyprinid, cypriniform fish, soft-finned fish, teleost fish, bony fish, fish (6 up), and
    down cartilaginous fish, elasmobranch, shark, mackerel shark, great white shark (5).
    """
    tench, goldfish, shark = "n01440764", "n01443537", "n01484850"
    assert path_distances([tench], [tench, goldfish, shark]).tolist() == [[0, 2, 11]]
    assert path_distances([shark, goldfish], [tench]).tolist() == [[11], [2]]
    assert mean_distance([tench, goldfish], [shark]) == 11.0


WNIDS = sorted(imagenet_groups())
# half of ILSVRC's classes, some of them with fewer images
IMAGES = np.where(np.arange(500) % 50 == 7, 732, 1300)
ILSVRC = SimpleNamespace(
    classes=[ClassInfo(w, w) for w in WNIDS[::2]], name="half", train_counts=IMAGES
)


# 5 s of a CPU: ten draws of tasks
@pytest.mark.slow
@pytest.mark.parametrize("draw", ["", "-1", "-2"])
def test_tasks_at_rising_distances(draw):
    splits = [tasks_of(f"distance-{step}{draw}", ILSVRC) for step in range(5)]
    assert len({tuple(tasks["B"]) for tasks in splits}) == 1  # the target stays
    assert {len(task) for tasks in splits for task in tasks.values()} == {490 // 6}
    for tasks in splits:
        assert not set(tasks["A"]) & set(tasks["B"])
        assert tasks["A"] == sorted(tasks["A"]) and tasks["B"] == sorted(tasks["B"])
        assert {IMAGES[i] for task in tasks.values() for i in task} == {1300}
    far = [mean_distance(*([WNIDS[::2][i] for i in tasks[t]] for t in "AB")) for tasks in splits]
    assert all(b - a > 0.5 for a, b in pairwise(far)), far
    assert splits == [tasks_of(f"distance-{step}{draw}", ILSVRC) for step in range(5)]


def test_distances_of_the_papers_splits_are_on_the_same_axis():
    groups = imagenet_groups()
    ilsvrc = SimpleNamespace(
        classes=[ClassInfo(w, w, groups[w]) for w in WNIDS], name="ilsvrc", train_counts=[]
    )
    for split, expected in (("random-0", 12.588), ("natural-manmade", 15.177)):
        tasks = tasks_of(split, ilsvrc)
        assert mean_distance(*([WNIDS[i] for i in tasks[t]] for t in "AB")) == pytest.approx(
            expected, abs=5e-4
        )


def test_distances_are_known_for_classes_of_ilsvrc_only():
    assert split_kind("distance-3") == split_kind("distance-0-12") == "distance"
    for unknown in ("distance-5", "distance-0-0", "distance-", "distance-1-01"):
        with pytest.raises(UserError, match=r"is not known: .*distance-0 to distance-4"):
            tasks_of(unknown, ILSVRC)
    with pytest.raises(
        UserError, match="split=distance-0: some has classes that are not in ILSVRC"
    ):
        tasks_of("distance-0", classes(20))
