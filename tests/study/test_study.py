"""The networks of a study: the paper's list to the last one, and how a study is chosen from."""

import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.collect import collect
from analysis.collect import main as collecting
from analysis.figures.write import drawings
from analysis.paper import published
from analysis.plotting.selection import relative_to_base
from analysis.report import page
from analysis.statistics.linear_model import BASE, estimate
from tests.helpers import composed
from tests.miniature import CPU, shrunk
from transferability.data.config import DatasetConfig
from transferability.data.description import ClassInfo
from transferability.data.pack import pack
from transferability.data.packed import open_dataset
from transferability.data.readers.imagenet import imagenet_groups
from transferability.errors import UserError
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study.cells import parse
from transferability.study.expand import study_specs
from transferability.study.jobs import cohort_key, group_into_jobs, job_specs, with_bases
from transferability.study.spec import RunSpec, make_spec
from transferability.training.loader import TaskLoader

ORIGINAL = ["dataset=imagenet", "network=caffenet", "recipe=paper"]


@pytest.fixture(scope="module")
def imagenet():
    """ILSVRC 2012 without its images."""
    classes = [ClassInfo(wnid, wnid, group) for wnid, group in sorted(imagenet_groups().items())]
    return SimpleNamespace(
        name="imagenet", checksum="0" * 64, image_size=256, encoding=None, classes=classes
    )


def original(*overrides):
    """A configuration that is not shrunk."""
    return composed(*ORIGINAL, *overrides)


def kinds(specs) -> Counter:
    """Networks by kind of split, treatment and whether their volume is reduced."""
    names = {"natural-manmade": "nm", "all": "all"}
    return Counter(
        (names.get(s.split, "random"), s.cell.treatment, s.images_per_class is not None)
        for s in specs
    )


def test_the_original_is_163_networks_and_7_with_random_filters(imagenet):
    specs = study_specs(original("study=paper"), imagenet)
    assert kinds(specs) == {
        ("random", "base", False): 8,
        ("random", "BnB", False): 28,
        ("random", "AnB", False): 56,
        ("random", "BnB+", False): 14,
        ("random", "AnB+", False): 28,
        ("nm", "base", False): 2,
        ("nm", "AnB", False): 14,
        ("all", "base", False): 1,
        ("all", "base", True): 12,
        ("all", "RnB", False): 7,
    }
    # every source is a network of the study itself
    assert len(specs) == len(with_bases(specs)) == 170


def test_the_original_has_its_odd_facts(imagenet):
    specs = study_specs(original("study=paper"), imagenet)
    reduced = [s for s in specs if s.images_per_class]
    assert [s.images_per_class for s in reduced] == [
        1,
        2,
        5,
        10,
        25,
        50,
        100,
        250,
        500,
        750,
        1000,
        1300,
    ]
    solvers = Counter(
        (s.recipe.lr, s.recipe.step_size, s.recipe.steps, s in reduced) for s in specs
    )
    assert solvers == {(0.01, 100_000, 450_000, False): 158, (0.0125, 64_000, 200_000, True): 12}
    assert {s.network.outputs for s in specs} == {1000}  # also for tasks of 500 classes
    assert {s.network.mean for s in specs} == {"image"}
    assert {len(s.classes) for s in specs if s.cell.treatment == "RnB" or s in reduced} == {1000}
    assert Counter(len(s.classes) for s in specs if s.split == "natural-manmade") == {
        449: 8,
        551: 8,
    }


def test_the_study_of_the_original_is_the_list_of_its_runs(imagenet):
    table = published().results
    theirs = Counter(zip(table.split, table.cell, table.images_per_class.fillna(0), strict=True))
    specs = study_specs(original("study=paper"), imagenet)
    assert Counter((s.split, str(s.cell), s.images_per_class or 0) for s in specs) == theirs


def test_the_complete_study_contains_the_original_and_treats_tasks_alike(imagenet):
    papers = study_specs(original("study=paper"), imagenet)
    complete = study_specs(original("study=paper-complete"), imagenet)
    assert {s.id for s in papers} < {s.id for s in complete}
    halves = pd.DataFrame(
        [(s.split, s.cell.target, s.cell.treatment) for s in complete if s.split != "all"]
    )
    assert set(halves.value_counts([0, 1])) == {29}  # 1 + 4 treatments x 7
    assert len(halves) == 290 and len(complete) == 310


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        (["split=natural-manmade"], 16),
        (["target=A"], 4 + 28 + 28 + 14 + 14 + 8),
        (["target=all"], 20),
        (["cell=A3B+"], 2),
        (["images_per_class=25"], 1),
        (["split=random-3", "target=B"], 8),
    ],
)
def test_a_study_of_parts_is_chosen_from(imagenet, choice, count):
    assert len(study_specs(original("study=paper", *choice), imagenet)) == count


@pytest.mark.parametrize("choice", ["split=random-4", "cell=B3B+", "seed=1", "images_per_class=3"])
def test_what_a_study_of_parts_does_not_have_is_an_error(imagenet, choice):
    overrides = ["study=paper", choice, *(["split=random-2"] if choice.startswith("cell") else [])]
    with pytest.raises(
        UserError, match=f"study=paper has no networks with .*{choice.replace('+', '.')}"
    ):
        study_specs(original(*overrides), imagenet)


def test_jobs_hold_every_run_once_sources_in_earlier_ones(imagenet):
    specs = study_specs(original("study=paper"), imagenet)
    every = group_into_jobs(specs)
    assert sum(map(len, every)) == 170 and len(every) == 11 + 12 + 10
    job_of = {s.id: i for i, job in enumerate(every) for s in job}
    assert all(job_of[s.source.id] < job_of[s.id] for s in specs if s.source)
    assert job_specs(specs, 11) == every[11] and job_specs(specs, None) == specs
    with pytest.raises(UserError, match="job=33 is not possible: the study has jobs 0 to 32"):
        job_specs(specs, 33)


@pytest.mark.parametrize(
    ("study", "count"),
    [
        ("random-filters", 6 * 2 * 2 * 8),  # kinds, targets, seeds, base and R1..R7
        ("batchnorm", 2 * 2 * 2 * (1 + 21)),
        ("longer", 2 * 2 * (2 + 14)),
        ("preserved", 2 * 2 * (1 + 14 + 6 + 5)),
        ("replicates", 4 * 2 * (1 + 4)),
        ("reduced", 4 * 2 * (1 + 14)),
        ("precision", 2 * 2 * (1 + 35 + 1 + 7)),
        ("calibration", 2 * (1 + 14)),
        ("tiny-imagenet", 2 * 36 + 2 * 22 + 2 * 29),
    ],
)
def test_the_small_studies_have_the_networks_that_they_say(tmp_path, dataset, study, count):
    specs = study_specs(shrunk(tmp_path, f"study={study}"), dataset)
    assert len(specs) == count
    if study == "reduced":
        assert {(s.recipe.steps, s.source.recipe.name) for s in specs if s.source} == {
            (steps, "demo") for steps in (5000, 3000, 2000)
        }


@pytest.mark.slow
def test_the_original_is_trained_collected_and_drawn_in_miniature(tmp_path):
    parts = "study.parts.reduced_volume"
    small = ["study=paper", "study.layers=[1,7]", f"{parts}.images_per_class=[1,5,12]"]
    config = shrunk(tmp_path, *small, f"{parts}.recipe={{name: reduced, steps: 4, step_size: 2}}")
    dataset, store = pack(config.dataset), Store(config.store)
    specs = study_specs(config, dataset)
    train_missing(specs, store, dataset, CPU)
    tables = collect(specs, store, dataset)
    assert (tables.results.state == "done").all() and len(
        tables.results
    ) == 8 + 8 + 16 + 4 + 8 + 2 + 4 + 1 + 2 + 3
    assert tables.metadata["recipe"]["name"] == "demo" and set(tables.results.recipe) == {
        "demo",
        "reduced",
    }
    made = {d.name: d for d in drawings(tables)[0]}
    assert made.keys() >= {"accuracy", "distance", "decomposition", "volume"}
    assert len(made["volume"].table) == 3 and "3 networks" in made["volume"].caption


def test_settings_of_a_part_are_checked(tmp_path, dataset):
    part = "+study.parts.x.splits=[random-0]"
    config = shrunk(
        tmp_path, part, "+study.parts.x.recipe={lr:0.5}", "+study.parts.x.network={dropout:0.25}"
    )
    found = study_specs(config, dataset)
    assert {(s.recipe.lr, s.network.dropout) for s in with_bases(found)} == {(0.5, 0.25)}
    longer = shrunk(
        tmp_path, part, "+study.parts.x.recipe={lr:0.5}", "+study.parts.x.source_recipe={steps:9}"
    )
    found = [s for s in study_specs(longer, dataset) if s.source]
    usual = longer.recipe
    assert {(s.recipe.lr, s.recipe.steps) for s in found} == {(0.5, usual.steps)}
    assert {(s.source.recipe.lr, s.source.recipe.steps) for s in found} == {
        (usual.lr, 9)
    } and usual.steps != 9
    with pytest.raises(UserError, match=r"recipe.lr=-1\.0 must be"):
        study_specs(shrunk(tmp_path, part, "+study.parts.x.recipe={lr:-1}"), dataset)
    for wrong in ("layers=[8]", "images_per_class=[0]"):
        with pytest.raises(UserError, match=f"study.parts.x.{wrong[:6]}"):
            shrunk(tmp_path, f"+study.parts.x.{wrong}")


# 6 s of a CPU: two stores and a page
@pytest.mark.slow
def test_a_test_part_and_equal_pictures_are_told_and_nothing_reads_the_test_part(tmp_path, config):
    """A folder of four classes, of which training has one picture twice and a quarter is
    held out for test.
    """
    for value in range(4 * 8):
        image = np.random.default_rng(value).integers(0, 256, (16, 16, 3), np.uint8)
        path = tmp_path / "own" / f"c{value // 8}" / f"{value}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "own" / "c3" / "again.png").write_bytes(
        (tmp_path / "own" / "c3" / "31.png").read_bytes()
    )
    settings = {"kind": "folder", "name": "own", "image_size": 16, "source": str(tmp_path / "own")}
    dataset = pack(DatasetConfig(**settings, folder=str(tmp_path / "packed"), test_fraction=0.25))
    assert (dataset.n_train, dataset.n_val, dataset.n_test) == (21, 4, 8)
    specs = [
        make_spec(parse(cell), "random-0", dataset, config.network, config.recipe, 0)
        for cell in ("baseA", "A2B")
    ]
    store = Store(tmp_path / "runs")
    train_missing(specs, store, dataset, CPU)
    tables = collect(specs, store, dataset)
    about = tables.metadata["dataset"]
    assert (about["training_images"], about["validation_images"], about["test_images"]) == (
        21,
        4,
        8,
    )
    assert about["duplicates"].startswith("duplicate images: 1 ") and "/" not in about["duplicates"]
    assert set(tables.results.val_images) == {2}
    text = page(tables)
    assert (
        "21 training and 4 validation images of 16x16 pixels, "
        "and 8 test images that no network has seen"
    ) in text
    assert about["duplicates"] in text
    other = np.array(dataset.images)  # other test images, the same everything: the same networks
    other[25:] = 255 - other[25:]
    shutil.copytree(tmp_path / "packed", tmp_path / "changed")
    np.save(tmp_path / "changed" / "images.npy", other)
    again = Store(tmp_path / "again")
    train_missing(specs, again, open_dataset(str(tmp_path / "changed")), CPU)
    for spec in specs:
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (store.folder(spec) / name).read_bytes() == (
                again.folder(spec) / name
            ).read_bytes()


def own_splits(folder, dataset, files: dict[str, tuple[list[int], list[int]]]) -> str:
    """study.splits=[...] of files with the classes of A and B, by their numbers."""
    for path, tasks in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        lists = zip(
            "AB", ([dataset.classes[i].name for i in classes] for classes in tasks), strict=True
        )
        (folder / path).write_text("".join(f"{task}: {names}\n" for task, names in lists))
    return f"study.splits=[{','.join(str(folder / path) for path in files)}]"


def test_two_splits_of_one_name_are_refused(tmp_path, dataset):
    """In tables and figures they would be one."""
    splits = own_splits(
        tmp_path, dataset, {"a/mine.yaml": ([0, 1], [2, 3]), "b/mine.yaml": ([0, 1], [2, 4])}
    )
    with pytest.raises(
        UserError, match="two splits named mine, with different classes in task B: rename one"
    ):
        study_specs(shrunk(tmp_path, splits), dataset)
    # of the task that they share, from layers of two that they do not
    only = "study.treatments={user:[AnB]}"
    with pytest.raises(UserError, match="two splits named mine, with different classes in task B"):
        study_specs(shrunk(tmp_path, splits, only, "target=A"), dataset)
    same = own_splits(
        tmp_path, dataset, {"a/mine.yaml": ([0, 1], [2, 3]), "b/mine.yaml": ([1, 0], [3, 2])}
    )
    alone = study_specs(shrunk(tmp_path, f"split={tmp_path}/a/mine.yaml"), dataset)
    assert study_specs(shrunk(tmp_path, same), dataset) == alone


def test_a_task_of_two_splits_is_trained_and_counted_once(tmp_path, dataset):
    files = {
        "one.yaml": ([0, 1], [2, 3]),
        "two.yaml": ([4, 5], [2, 3]),
        "three.yaml": ([2, 3], [0, 1]),
    }
    splits = own_splits(tmp_path, dataset, files)
    config = shrunk(tmp_path, splits, "study.layers=[3]", "study.treatments={user:[base,BnB,AnB]}")
    specs, store = study_specs(config, dataset), Store(config.store)
    assert len(with_bases(specs)) == len({spec.id for spec in specs}) == len(specs)
    assert Counter(str(spec.cell) for spec in specs if spec.split == "one") == dict.fromkeys(
        ["baseA", "baseB", "A3A", "B3B", "B3A", "A3B"], 1
    )
    assert sorted(str(spec.cell) for spec in specs if spec.split == "two") == [
        "A3A",
        "A3B",
        "B3A",
        "baseA",
    ]
    assert len([spec for spec in specs if spec.split == "three"]) == 6, (
        "randomly initialized layers are drawn under the cell's name"
    )
    train_missing(specs, store, dataset, CPU)
    tables = collect(specs, store, dataset)
    assert (tables.results.state == "done").all() and tables.results.task.nunique() == 3
    joint = estimate(tables.networks, {("BnB", 3): 1.0, BASE: -1.0})
    assert (joint.networks, joint.tasks) == (10, 3)
    relative = relative_to_base(tables.networks)
    assert relative.accuracy.notna().all(), (
        "AnB of the second split is compared with its task's base, of the first"
    )


def test_on_all_images_a_network_is_another_run_with_a_stream_of_its_own(dataset, tmp_path):
    """It trains on what is held out elsewhere, so nothing collects its accuracy."""
    words = ("cell=A3B", "split=random-0", "seed=0")
    (usual,) = study_specs(shrunk(tmp_path, *words), dataset)
    (every,) = study_specs(shrunk(tmp_path, *words, "all_images=true"), dataset)
    assert every.all_images and every.id != usual.id and every.source.id == usual.source.id
    assert replace(every, all_images=False).id == usual.id
    assert RunSpec.from_dict(every.to_dict()) == every and "all_images" not in usual.to_dict()
    assert cohort_key(every) != cohort_key(usual)
    rows = TaskLoader.of(every, dataset, CPU.device).train_rows
    held = [part(list(every.classes)) for part in (dataset.val_rows, dataset.test_rows)]
    own = TaskLoader.of(usual, dataset, CPU.device).train_rows
    assert rows.tolist() == np.concatenate([own, *held]).tolist() and len(held[0])
    store = Store(tmp_path / "runs")
    train_missing([every], store, dataset, CPU)
    assert store.is_done(every) and not store.is_done(usual)
    with pytest.raises(UserError, match="all_images=true is not possible with images_per_class"):
        study_specs(shrunk(tmp_path, *words, "all_images=true", "images_per_class=2"), dataset)
    with pytest.raises(UserError, match="leaves no images to measure accuracy on"):
        collecting(shrunk(tmp_path, *words, "all_images=true"))
