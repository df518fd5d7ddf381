"""A setting that is added later moves no id, and a store made before it opens,
resumes and is skipped as before.
"""

from dataclasses import asdict, dataclass, field, replace

import pytest
import torch

from tests.helpers import snapshot
from tests.miniature import CPU, shrunk
from tests.study.test_golden_ids import DATASET, GOLDEN
from transferability import networks
from transferability.fingerprint import COSMETIC, omit_at, to_dict
from transferability.networks import EightLayerConfig
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study import spec
from transferability.study.cells import parse
from transferability.study.jobs import with_bases
from transferability.study.recipe import RecipeConfig
from transferability.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class GrownRecipe(RecipeConfig):
    smoothing: float = omit_at(0.0)
    nickname: str = field(default="", metadata=COSMETIC)


@dataclass(frozen=True, kw_only=True)
class GrownNetwork(EightLayerConfig):
    depths: tuple[int, ...] = omit_at(())


@pytest.fixture
def grow(monkeypatch):
    """grow(network, recipe): the same in classes that have a field more,
    which specifications know from now on.
    """
    monkeypatch.setattr(spec, "RecipeConfig", GrownRecipe)
    monkeypatch.setitem(networks.KINDS, "eight-layer", GrownNetwork)
    return lambda network, recipe: (GrownNetwork(**asdict(network)), GrownRecipe(**asdict(recipe)))


@pytest.mark.parametrize("key", GOLDEN, ids=lambda k: "-".join(k))
def test_golden_ids_stay_when_settings_are_added(key, grow, tmp_path):
    settings = shrunk(tmp_path)
    network, recipe = grow(settings.network, settings.recipe)
    cell, split = key

    def found(**changes):
        return spec.make_spec(parse(cell), split, DATASET, network, replace(recipe, **changes), 0)

    assert found().id == found(nickname="mine").id == GOLDEN[key]
    assert found(smoothing=0.1).id != GOLDEN[key]
    other = spec.make_spec(parse(cell), split, DATASET, replace(network, depths=(2,)), recipe, 0)
    assert other.id != GOLDEN[key]
    for one in (found(), found(smoothing=0.1), other):
        again = spec.RunSpec.from_dict(one.to_dict())
        assert again == one and again.id == one.id


def test_a_store_made_before_a_setting_was_added_goes_on(grow, spec_of, trained, dataset):
    done, half = spec_of("A3B"), spec_of("B5B+")
    store = trained([done])
    lock = store.lock(half)
    store.save_checkpoint(half, Checkpoint({"x": torch.ones(2)}, 5, [], 1.5))
    lock.release()
    before = snapshot(store.root)

    def grown(cell, **changes):
        network, recipe = grow(done.network, done.recipe)
        return spec.make_spec(
            parse(cell), "random-0", dataset, network, replace(recipe, **changes), 0
        )

    store = Store(store.root)
    assert {s.run_id for s in store.specs()} == {s.run_id for s in with_bases([done, half])} - {
        half.source.run_id
    }
    assert all(type(s.recipe) is GrownRecipe and s.recipe.smoothing == 0 for s in store.specs())
    assert store.verify() == (3, [])
    train_missing([grown("A3B")], store, dataset, CPU)
    assert snapshot(store.root) == before, "a finished run costs nothing"
    assert (
        store.state(grown("B5B+")) == "partial" and store.load_checkpoint(grown("B5B+")).step == 5
    )
    assert store.state(grown("A3B", smoothing=0.1)) == "missing"


def test_what_is_written_of_a_setting(spec_of):
    recipe = spec_of("baseB").recipe
    grown = GrownRecipe(**asdict(recipe), nickname="mine")
    assert to_dict(grown) == to_dict(recipe) | {"nickname": "mine"}
    assert to_dict(grown, labels=False) == {k: v for k, v in to_dict(recipe).items() if k != "name"}
    assert to_dict(replace(grown, smoothing=0.5))["smoothing"] == 0.5
