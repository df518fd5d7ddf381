"""Two phases: a network is trained on frozen layers, then all of it is trained, head included."""

from dataclasses import replace

import pytest
import torch

from tests.helpers import equal
from tests.miniature import CPU
from transferability.networks.sequential import SequentialNetwork
from transferability.study import cells
from transferability.study.jobs import group_into_jobs, with_bases
from transferability.study.spec import RunSpec, make_spec
from transferability.training.loader import TaskLoader
from transferability.training.state import build_state

CELLS = ("A3B++", "A3.B++", "B5B++")
FIRST = {"lr": 0.1, "steps": 4, "warmup_steps": 1}


@pytest.fixture(scope="module")
def specs(config, dataset):
    first = replace(config.recipe, **FIRST)

    def make(cell: str) -> RunSpec:
        cell = cells.parse(cell)
        return make_spec(
            cell, "random-0", dataset, config.network, config.recipe, 0, source_recipe=first
        )

    return {cell: make(cell) for cell in CELLS}


@pytest.fixture(scope="module")
def store(specs, trained):
    return trained(list(specs.values()))


def test_its_source_is_the_first_phase_and_what_that_starts_from(specs, config):
    spec = specs["A3B++"]
    chain = [spec, spec.base, spec.base.base]
    assert [str(s.cell) for s in chain] == ["A3B++", "A3B", "baseA"]
    assert [s.recipe.lr for s in chain] == [config.recipe.lr, 0.1, config.recipe.lr]
    assert [s.stage for s in chain] == [2, 1, 0]
    assert with_bases([spec]) == chain[::-1] and len(group_into_jobs(chain)) == 3
    assert RunSpec.from_dict(spec.to_dict()) == spec
    other = replace(spec, source=replace(spec.base, seed=1))
    assert other.id != spec.id, "the first phase is in the identity"


@pytest.mark.parametrize("cell", CELLS)
def test_it_starts_as_the_first_phase_ended_in_every_tensor(cell, specs, store, dataset):
    spec, stream = specs[cell], TaskLoader.of(specs[cell], dataset, CPU.device)
    source = store.weights(spec.base)
    member = build_state(spec, stream, source, None)
    assert equal(dict(member.network.state_dict()), source)
    assert all(parameter.requires_grad for parameter in member.network.parameters())
    end = store.weights(spec)
    still = [name for name in end if torch.equal(end[name], source[name])]
    assert still == ["input.mean"], "all is trained but what is subtracted"


def test_every_layer_has_the_rate_of_copied_layers(specs, store, dataset):
    spec = specs["A3B++"]
    spec = replace(spec, recipe=replace(spec.recipe, copied_lr_multiplier=0.1))
    member = build_state(
        spec, TaskLoader.of(spec, dataset, CPU.device), store.weights(spec.base), None
    )
    rates = {group["multiplier"] for group in member.optimizer.param_groups}
    assert rates == {0.1, 0.2}, "weights, and biases at twice the rate"


@pytest.mark.parametrize("cell", CELLS)
def test_alone_it_ends_as_in_a_cohort(cell, specs, store, trained):
    spec = specs[cell]
    alone = trained([spec], replace(CPU, threads=1), store)
    assert equal(alone.weights(spec), store.weights(spec))


def test_its_layers_are_those_of_its_first_phase(specs):
    short, whole = (
        SequentialNetwork(specs[c].network, torch.zeros(3).numpy()) for c in ("A3.B++", "A3B++")
    )
    assert len(short.layers) == 4 and len(whole.layers) == 8


def test_with_the_statistics_kept_it_begins_as_the_function_that_it_goes_on_from(
    config, dataset, trained
):
    """In training mode the network says at step 0 what its source says in evaluation; and at the
    end its statistics are the source's, all that has a gradient is not.
    """
    network = replace(config.network, normalization="batch")
    recipe = replace(config.recipe, keep_statistics=True)
    spec = make_spec(cells.parse("A3.B++"), "random-0", dataset, network, recipe, 0)
    plain = replace(spec, recipe=config.recipe)
    assert plain.id != spec.id and "keep_statistics" not in plain.to_dict()["recipe"]
    store, stream = trained([spec, plain]), TaskLoader.of(spec, dataset, CPU.device)
    source = store.weights(spec.base)
    batch = stream.batch(0)
    member, other = (build_state(s, stream, source, None) for s in (spec, plain))
    said = member.network.train()(batch)
    torch.testing.assert_close(said, member.network.eval()(batch))
    assert not torch.allclose(said, other.network.train()(batch))
    end = store.weights(spec)
    still = {name for name in end if torch.equal(end[name], source[name])}
    assert still == {name for name in end if "running" in name or "num_batches" in name} | {
        "input.mean"
    }
    alone = trained([spec], replace(CPU, threads=1), store)
    assert equal(alone.weights(spec), end)
