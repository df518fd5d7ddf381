"""A run's identity must not move: an id that changes orphans everybody's finished runs."""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest

from tests.miniature import shrunk
from transferability.data.description import ClassInfo
from transferability.study.cells import parse
from transferability.study.spec import RunSpec, make_spec

DATASET = SimpleNamespace(
    name="golden",
    checksum="0" * 64,
    image_size=16,
    encoding=None,
    classes=[ClassInfo(f"c{i}", None, "natural" if i < 5 else "man-made") for i in range(10)],
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return shrunk(tmp_path_factory.mktemp("golden"))


def spec(settings, cell, split="random-0", seed=0, **values) -> RunSpec:
    return make_spec(parse(cell), split, DATASET, settings.network, settings.recipe, seed, **values)


GOLDEN = {
    ("baseB", "random-0"): "4096ab620e96",
    ("A3B", "random-0"): "204017a834e7",
    ("A3B+", "random-0"): "a82bc3624a84",
    ("R2B", "natural-manmade"): "e754be1dfe00",
    ("A3B~1", "natural-manmade"): "a3fd72eb8791",
}


@pytest.mark.parametrize("key", GOLDEN, ids=lambda k: "-".join(k))
def test_ids_are_pinned(key, settings):
    found = spec(settings, *key)
    assert found.id == GOLDEN[key]
    assert found.run_id == f"golden-{key[1]}-{key[0]}-s0-{GOLDEN[key]}"


def test_specs_survive_json(settings):
    for cell in ("baseB", "A3B+", "A3B~1", "R2B"):
        one = spec(settings, cell, images_per_class=3)
        again = RunSpec.from_dict(one.to_dict())
        assert again == one and again.id == one.id


def _other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1)
    if isinstance(value, str):
        return value + "x"
    return 7 if value is None else value + 1


@pytest.mark.parametrize("part", ["network", "recipe"])
def test_every_setting_that_counts_changes_the_id_of_a_run_and_of_what_starts_from_it(
    part, settings
):
    base, transfer = spec(settings, "baseA"), spec(settings, "A3B")
    for field in fields(getattr(base, part)):
        changed = replace(
            getattr(base, part), **{field.name: _other(getattr(getattr(base, part), field.name))}
        )
        other = replace(base, **{part: changed})
        of_other = replace(transfer, source=other)
        if field.name == "name":  # a label
            assert (other.id, of_other.id) == (base.id, transfer.id)
        else:
            assert other.id != base.id, field.name
            assert of_other.id != transfer.id, field.name


def test_what_else_counts(settings):
    base = spec(settings, "A3B")
    others = [
        spec(settings, "A3B", seed=1),
        spec(settings, "A3B", split="random-1"),
        spec(settings, "A3B", images_per_class=3),
        spec(settings, "A3B+"),
        spec(settings, "A4B"),
        spec(settings, "B3A"),
        replace(base, dataset=replace(base.dataset, checksum="1" * 64)),
    ]
    assert len({s.id for s in [base, *others]}) == 8
    assert spec(settings, "A0B").id == spec(settings, "baseB").id
    assert replace(base, dataset=replace(base.dataset, name="renamed")).id == base.id


def test_reduced_volume_reaches_the_source_of_a_selffer_only(settings):
    assert spec(settings, "B3B", images_per_class=3).source.images_per_class == 3
    assert spec(settings, "A3B", images_per_class=3).source.images_per_class is None


def test_execution_is_no_part_of_the_id(tmp_path, settings):
    other = shrunk(tmp_path, "threads=1", "max_networks=3", "checkpoint_seconds=1", "device=cpu")
    assert spec(other, "A3B").id == spec(settings, "A3B").id
