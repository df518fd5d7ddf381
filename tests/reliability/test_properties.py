"""What holds for any input: cells, splits, specifications and their ids, draws, batches,
and what comes in.
"""

import copy
import io
import json
import os
import subprocess
import sys
import types
import zipfile
from dataclasses import fields, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.miniature import ROOT
from transferability.data import decode as decoding
from transferability.data import readers as sources
from transferability.data.config import DatasetConfig
from transferability.data.description import FORMAT, ClassInfo
from transferability.data.packed import PackedDataset
from transferability.errors import UserError, shown
from transferability.networks import EightLayerConfig, NetworkConfig
from transferability.rng import derive_seed, numpy_rng
from transferability.study.cells import Cell, expand, parse
from transferability.study.expand import study_specs
from transferability.study.jobs import with_bases
from transferability.study.recipe import RecipeConfig
from transferability.study.spec import DatasetId, RunSpec
from transferability.tasks.splits import tasks_of
from transferability.training.loader import TaskLoader


def times(factor: float) -> settings:
    """So many times as many examples as the profile has."""
    return settings(max_examples=round(factor * settings().max_examples))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


def one_line(error: UserError) -> bool:
    return bool(str(error)) and "\n" not in str(error) and "\r" not in str(error)


# --- cells ---

TASKS = st.sampled_from(["A", "B", "all"])


@cache
def all_cells(n_layers: int) -> list[Cell]:
    """Every network there is, from the two integers and the source of the table in ``cells.py``."""
    found = []
    for target in ("A", "B", "all"):
        found.append(Cell(target))
        for n in range(1, n_layers):
            found += [Cell(target, "R", 0, n), Cell(target, "R", 0, n, short=True)]
            for source in ("A", "B", "all"):
                found += [Cell(target, source, copied, n) for copied in range(n, n_layers)]
                found.append(Cell(target, source, n, 0))
                found += [Cell(target, source, n, frozen, short=True) for frozen in (n, 0)]
    return found


@pytest.mark.parametrize("n_layers", [2, 3, 8, 13])
def test_every_cell_has_a_name_of_its_own_that_parses_back(n_layers):
    cells = all_cells(n_layers)
    assert len({str(c) for c in cells}) == len(set(cells)) == len(cells)
    for cell in cells:
        assert parse(str(cell), n_layers) == cell


@given(
    st.text(max_size=40)
    | st.from_regex(r"(base)?(A|B|R|all)?\d{0,3}\.?(A|B|C|all)?(\+|~\d{0,2}|)\Z"),
    st.integers(2, 30),
)
@example("A3B\n", 8)
@example("A03B~0", 8)
@example("A\u0663B", 8)
@example("A" + "9" * 5000 + "B", 8)
@times(2.5)
def test_a_text_is_a_cell_or_one_clear_line(text, n_layers):
    try:
        cell = parse(text, n_layers)
    except UserError as error:
        assert one_line(error)
    else:
        assert cell in all_cells(n_layers)
        assert parse(str(cell), n_layers) == cell and str(parse(str(cell), n_layers)) == str(cell)


@given(st.sampled_from("AB"), st.lists(st.integers(1, 7), unique=True), st.data())
def test_a_treatment_expands_to_its_cells(target, layers, data):
    extra = data.draw(
        st.integers(1, 8 - max(layers, default=1)).filter(lambda k: max(layers, default=1) + k < 8)
        | st.none()
    )
    kinds = ["BnB", "BnB+", "AnB", "AnB+", "RnB", "An.B", "Bn.B+", "Rn.B"] + (
        [f"AnB~{extra}", f"BnB~{extra}"] if extra else []
    )
    treatment = data.draw(st.sampled_from(kinds))
    cells = expand(treatment, target, layers, 8)
    assert [c.n for c in cells] == layers
    assert {(c.treatment, c.target) for c in cells} <= {(treatment, target)}
    assert expand("base", target, layers, 8) == [Cell(target)]


@given(
    st.text(max_size=20) | st.from_regex(r"[ABR]?n\.?B?(\+|~\d*|~all)?\Z"),
    TASKS,
    st.lists(st.integers(-1, 9), max_size=3),
)
def test_a_text_is_a_treatment_or_one_clear_line(text, target, layers):
    try:
        cells = expand(text, target, layers, 8)
    except UserError as error:
        assert one_line(error)
    else:
        assert all(cell in all_cells(8) and cell.target == target for cell in cells)


# --- splits ---


def dataset_of(n, groups=None):
    """What a split sees of a dataset."""
    infos = [ClassInfo(f"c{i}", f"n{i:08d}", groups[i] if groups else None) for i in range(n)]
    return SimpleNamespace(classes=infos, name="some")


@given(st.integers(0, 2**32 - 1), st.integers(4, 300))
def test_a_random_split_is_a_partition_whatever_the_classes_are_called(k, n):
    tasks = tasks_of(f"random-{k}", dataset_of(n))
    assert sorted(tasks["A"] + tasks["B"]) == list(range(n)) and len(tasks["A"]) == n // 2
    assert all(classes == sorted(classes) for classes in tasks.values())
    np.random.seed(k % 1000)  # numpy's global generator plays no part
    assert tasks_of(f"random-{k}", dataset_of(n, ["natural"] * n)) == tasks


@given(st.lists(st.sampled_from(["natural", "man-made", None]), max_size=30))
def test_natural_and_manmade_are_the_classes_whose_group_is_known(groups):
    def of(group):
        return [i for i, g in enumerate(groups) if g == group]

    try:
        tasks = tasks_of("natural-manmade", dataset_of(len(groups), groups))
    except UserError as error:
        assert one_line(error) and min(len(of("natural")), len(of("man-made"))) < 2
    else:
        assert tasks == {"A": of("natural"), "B": of("man-made")}


SPLITS_ELSEWHERE = """
import json, sys
from types import SimpleNamespace
from transferability.data.description import ClassInfo
from transferability.rng import derive_seed
from transferability.tasks.splits import tasks_of
dataset = SimpleNamespace(name="some", classes=[ClassInfo(f"c{i}") for i in range(57)])
splits = [tasks_of(f"random-{k}", dataset) for k in range(9)]
print(json.dumps([splits, derive_seed(3, "order", 7)]))
"""


def test_splits_and_draws_are_the_same_in_every_process():
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2",
    }
    command = [sys.executable, "-c", SPLITS_ELSEWHERE]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    here = [tasks_of(f"random-{k}", dataset_of(57)) for k in range(9)]
    assert json.loads(done.stdout) == [here, derive_seed(3, "order", 7)]


NAMES = st.sampled_from(["c0", "c1", "c2", "c3", "c4", "n00000001", "", "no", "2001-99-99"])
YAML_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.binary(max_size=5)
    | st.text(max_size=8)
    | NAMES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.sampled_from("AB"), inner, max_size=3)
    ),
    max_leaves=8,
)
USER_FILES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")),
    st.text("AB:[]{}&*!|>-?,#'\"% \nc012<", max_size=40).map(str.encode),
    YAML_VALUES.map(lambda v: yaml.safe_dump(v).encode()),
    st.fixed_dictionaries(
        {"A": YAML_VALUES | st.lists(NAMES), "B": YAML_VALUES | st.lists(NAMES)}
    ).map(lambda v: yaml.safe_dump(v).encode()),
)


@given(USER_FILES)
@example(b"A: [c0, c1]\nB: [c2, c3]\n")
@example(b"A: &a [c0, c1]\nB: *a\n")
@example(b"A: [c0, c1]\nB: [! c2, !!python/object/apply:os.abort []]\n")
@example(b"{? [a] : b}")
@times(2.5)
def test_a_file_of_lists_gives_two_tasks_or_one_clear_line(folder, content):
    path = folder / "mine.yaml"
    path.write_bytes(content)
    try:
        tasks = tasks_of(str(path), dataset_of(5))
    except UserError as error:
        assert one_line(error) and str(path) in str(error)
    else:
        assert set(tasks) == {"A", "B"} and not set(tasks["A"]) & set(tasks["B"])
        assert all(
            len(classes) >= 2 and set(classes) <= set(range(5)) for classes in tasks.values()
        )


@given(st.text(max_size=30) | st.from_regex(r"(random|natural|all)[-0-9a-z]{0,12}\Z"))
def test_a_text_is_a_split_or_one_clear_line(text):
    assume(not text.endswith((".yaml", ".yml")))
    try:
        tasks = tasks_of(text, dataset_of(6, ["natural"] * 3 + ["man-made"] * 3))
    except UserError as error:
        assert one_line(error)
    else:
        assert sorted(c for classes in tasks.values() for c in classes) == list(range(6))


# --- specifications ---


def values_of(hint: Any) -> st.SearchStrategy:
    """Any value of a field's type; a type that is not here yet is an error,
    so that a new field is thought of.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(i) for i in inner])
    if origin is list:
        return st.lists(values_of(inner[0]), max_size=4)
    if origin is tuple:
        return st.lists(values_of(inner[0]), min_size=1, max_size=4).map(tuple)
    simple = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**40), 2**40),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=8),
        Cell: st.sampled_from(all_cells(8)),
        NetworkConfig: configs(
            EightLayerConfig, kind=st.just("eight-layer"), channels=numbers(5), hidden=numbers(2)
        ),
        RecipeConfig: configs(RecipeConfig),
    }
    return simple[hint]


def numbers(count: int) -> st.SearchStrategy:
    return st.lists(st.integers(0, 99), min_size=count, max_size=count).map(tuple)


def built(made: type, special: dict[str, st.SearchStrategy]) -> st.SearchStrategy:
    """Any object of a dataclass; ``special`` for fields with a rule of their own."""
    hints, wanted = get_type_hints(made), [f.name for f in fields(made) if f.init]
    return st.builds(
        made,
        **{name: special[name] if name in special else values_of(hints[name]) for name in wanted},
    )


def configs(made: type, **special: st.SearchStrategy) -> st.SearchStrategy:
    """Any network or recipe."""
    return st.deferred(lambda: built(made, special))


DATASETS = st.builds(
    DatasetId, st.text(max_size=5), st.integers(1, 999), st.text(), st.none() | st.text(max_size=5)
)
BASES = {"cell": st.sampled_from([Cell("A"), Cell("B"), Cell("all")]), "source": st.none()}


def specs(**special: st.SearchStrategy) -> st.SearchStrategy:
    return built(RunSpec, {"dataset": DATASETS, **special})


SOURCES = st.none() | specs(**BASES)
SPECS = specs(source=SOURCES)
# all else counts
LABELS = {
    RunSpec: {"split"},
    DatasetId: {"name"},
    EightLayerConfig: {"name"},
    RecipeConfig: {"name"},
}


@given(SPECS)
def test_a_specification_survives_json(spec):
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.id == spec.id and again.to_dict() == spec.to_dict()


def another(data, kind, field, value):
    """A value of the field that differs from ``value``."""
    values = (
        SOURCES
        if (kind, field.name) == (RunSpec, "source")
        else values_of(get_type_hints(kind)[field.name])
    )
    return data.draw(values.filter(lambda v: v != value))


@given(SPECS, st.data())
@times(0.2)
def test_every_field_but_a_label_changes_the_id(spec, data):
    for field in fields(RunSpec):
        if field.name in ("dataset", "network", "recipe", "format"):
            continue
        other = replace(
            spec, **{field.name: another(data, RunSpec, field, getattr(spec, field.name))}
        )
        same_source = field.name == "source" and _counted(other) == _counted(spec)
        assert (other.id == spec.id) == (field.name in LABELS[RunSpec] or same_source), field.name
    for part in ("dataset", "network", "recipe"):
        config = getattr(spec, part)
        for field in fields(config):
            if field.name in ("kind", "format"):  # there is one of each
                continue
            changed = replace(
                config,
                **{field.name: another(data, type(config), field, getattr(config, field.name))},
            )
            other = replace(spec, **{part: changed})
            assert (other.id == spec.id) == (field.name in LABELS[type(config)]), (part, field.name)


def _counted(spec: RunSpec) -> Any:
    """The source without its labels, written another way than ``spec.py`` does."""
    if spec.source is None:
        return None
    values = copy.deepcopy(spec.source.to_dict())
    del (
        values["split"],
        values["dataset"]["name"],
        values["network"]["name"],
        values["recipe"]["name"],
    )
    return values


@given(SPECS.filter(lambda s: s.source), st.data())
@times(0.2)
def test_what_changes_a_source_changes_what_starts_from_it(spec, data):
    field = data.draw(st.sampled_from(fields(RecipeConfig)))
    recipe = spec.source.recipe
    changed = replace(
        recipe, **{field.name: another(data, RecipeConfig, field, getattr(recipe, field.name))}
    )
    other = replace(spec, source=replace(spec.source, recipe=changed))
    assert (other.id == spec.id) == (field.name in LABELS[RecipeConfig])
    assert replace(spec, source=replace(spec.source, split=spec.source.split + "x")).id == spec.id


# --- draws ---

KEYS = st.lists(
    st.integers() | st.text("ab'\"\\\x1f,1 ", max_size=6) | st.text(max_size=4), max_size=5
).map(tuple)


@given(KEYS, KEYS)
@example(("a", "b"), ("ab",))
@example(("a", "b"), ("a\x1fb",))
@example(("a", "b"), ("a'\x1f'b",))
@example((1,), ("1",))
@example((1, 23), (12, 3))
@example((), ("",))
@example(("a",), ("a", ""))
@times(4)
def test_keys_that_differ_draw_different_numbers(one, other):
    assert 0 <= derive_seed(*one) < 2**63 and derive_seed(*one) == derive_seed(*one)
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert np.array_equal(numpy_rng(*one).random(3), numpy_rng(*one).random(3))


# --- batches ---

RECIPE = RecipeConfig(
    "r", steps=1, batch_size=1, lr=1.0, schedule="cosine", eval_every=1, eval_batch_size=1
)


def stream_of(n_train, n_val, seed, **recipe):
    """A stream over rows that are not the whole dataset: every third row belongs to the task."""
    train, val = 3 * np.arange(n_train), 3 * (n_train + np.arange(n_val))
    dataset = SimpleNamespace(
        classes=[None] * 2,
        labels=np.ones(3 * (n_train + n_val), np.int64),
        image_size=1,
        train_rows=lambda classes, images_per_class: train,
        val_rows=lambda classes: val,
        test_rows=lambda classes: val[:0],
        read_rows=lambda rows: np.repeat(rows[:, None], 3, 1).astype(np.int32).reshape(-1, 1, 1, 3),
    )
    return (
        TaskLoader(dataset, [1], None, seed, replace(RECIPE, **recipe), 1, torch.device("cpu")),
        train,
        val,
    )


@given(st.integers(1, 90), st.integers(1, 200), st.integers(0, 2**31), st.booleans())
@example(1, 1, 0, True)
@example(1, 200, 0, True)
@example(90, 90, 0, True)
@example(89, 90, 0, False)
def test_every_epoch_visits_every_training_image_once(n_train, batch_size, seed, reshuffle):
    stream, train, _ = stream_of(n_train, 1, seed, batch_size=batch_size, reshuffle=reshuffle)
    steps = -(-3 * n_train // batch_size)
    batches = {step: stream.rows(step) for step in reversed(range(steps))}  # in any order
    assert all(len(rows) == batch_size for rows in batches.values())
    visits = np.concatenate([batches[step] for step in range(steps)])[: 3 * n_train].reshape(
        3, n_train
    )
    assert (np.sort(visits, axis=1) == train).all()
    assert reshuffle or (visits == train).all()


@given(st.integers(1, 60), st.integers(1, 80))
def test_validation_visits_every_image_once(n_val, batch_size):
    stream, _, val = stream_of(2, n_val, 0, eval_batch_size=batch_size)
    seen = torch.cat([batch.pixels[:, 0, 0, 0] for batch in stream.validation()])
    assert seen.tolist() == val.tolist()


# --- what comes in ---


@given(
    st.permutations([f"{c}/{i}.png" for c in ("ant", "bee", "cat") for i in range(4)]),
    st.integers(0, 99),
)
@times(0.5)
def test_the_order_of_files_in_a_source_does_not_matter(folder, names, seed):
    def opened(order):
        path = folder / "z.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in order:
                archive.writestr(name, b"x")
        config = DatasetConfig(
            "folder", "some", "unused", 4, source=str(path), val_fraction=0.3, seed=seed
        )
        source = sources.read_dataset(config)
        return source.classes, *(
            [(i.label, i.name) for i in items] for items in (source.train, source.val)
        )

    classes, train, val = opened(names)
    assert (classes, train, val) == opened(sorted(names))
    assert len({name for _, name in train + val}) == len(train + val) == 12


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(out, kind)
    return out.getvalue()


WHOLE = {kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")}


@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=4),
    st.data(),
)
@times(2.5)
def test_a_damaged_image_is_an_image_or_one_clear_line(kind, changes, data):
    damaged = bytearray(WHOLE[kind])
    for at, value in changes:
        damaged[at % len(damaged)] = value
    cut = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MAX_PIXELS", 1 << 20)
        try:
            image = decoding.decode(bytes(damaged[:cut]))
        except ValueError as error:
            assert one_line(error)
        else:
            assert (
                image.dtype == np.uint8
                and image.ndim == 3
                and image.shape[2] == 3
                and image.size <= 3 << 20
            )


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_bytes_that_are_no_image_are_one_clear_line(content):
    with pytest.raises(ValueError) as error:
        decoding.decode(content)
    assert one_line(error.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
DESCRIPTION = {
    **{"format": FORMAT, "name": "d", "settings": {}, "image_size": 2, "n_train": 2, "n_val": 2},
    **{"classes": [{"name": "a"}, {"name": "b"}], "skipped": {}, "checksum": "none"},
}


@given(
    st.dictionaries(st.sampled_from(sorted(DESCRIPTION)), JSON_VALUES, max_size=2),
    JSON_VALUES | st.none(),
)
@times(2.5)
def test_a_description_of_a_dataset_fits_or_is_one_clear_line(folder, changes, instead):
    packed = folder / "packed"
    packed.mkdir(exist_ok=True)
    np.save(packed / "images.npy", np.zeros((4, 2, 2, 3), np.uint8))
    np.save(packed / "labels.npy", np.array([0, 1, 0, 1]))
    description = {**DESCRIPTION, **changes} if instead is None or changes else instead
    (packed / "dataset.json").write_text(json.dumps(description))
    try:
        opened = PackedDataset(packed)
    except UserError as error:
        assert one_line(error) and str(packed) in str(error)
    else:
        assert opened.n_train == opened.meta["n_val"] == 2 and opened.images.shape == (4, 2, 2, 3)
        assert len(opened.classes) >= 2


@given(st.text(alphabet=st.characters(codec=None), max_size=30))
def test_a_name_is_shown_in_one_printable_line(name):
    assert shown(name).isprintable()
    shown(name).encode()  # no lone surrogate
    assert shown(name) == name or not name.isprintable()
    assert str(UserError(f"class {name}: add some")) == f"class {shown(name)}: add some"


# --- plans ---


@given(
    st.lists(st.integers(1, 7), min_size=1, unique=True),
    st.lists(
        st.sampled_from(["base", "BnB", "BnB+", "AnB", "AnB+", "RnB"]), min_size=1, unique=True
    ),
    st.lists(st.sampled_from(["A", "B"]), min_size=1, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
@times(0.25)
def test_a_plan_has_every_network_once_and_sources_before_what_starts_from_them(
    config, dataset, layers, treatments, targets, seeds
):
    study = replace(
        config.study,
        splits=["random-0"],
        layers=layers,
        treatments={"random": treatments},
        targets=targets,
        seeds=seeds,
    )
    planned = study_specs(replace(config, study=study), dataset)
    copies = sum(1 if t == "base" else len(layers) for t in treatments)
    assert len(planned) == len({s.run_id for s in planned}) == copies * len(targets) * len(seeds)
    ordered = with_bases(planned)
    places = {s.run_id: i for i, s in enumerate(ordered)}
    assert len(places) == len(ordered) and {s.run_id for s in planned} <= places.keys()
    assert all(places[s.source.run_id] < places[s.run_id] for s in ordered if s.source)
    again = study_specs(
        replace(config, study=replace(study, layers=layers[::-1], seeds=seeds[::-1])), dataset
    )
    assert {s.run_id for s in again} == {s.run_id for s in planned}
