"""Networks of torchvision and timm: golden plans, the same bits as the library's own network,
the rules of training.
"""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from tests.helpers import equal, network_config, network_of
from tests.miniature import CPU
from transferability.errors import UserError
from transferability.networks.sequential import SequentialNetwork, profile_layers
from transferability.networks.zoo import base as library
from transferability.networks.zoo.partition import PartitionedLayer
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.study.cells import parse
from transferability.study.spec import make_spec
from transferability.training.state import PrefixCache, one_thread

GOLDEN = json.loads((Path(__file__).parent / "golden_plans.json").read_text())


FAST = [  # a network of each kind; the others are larger, or like one of these
    "torchvision resnet18",
    "torchvision squeezenet1_0",
    "timm vit_tiny_patch16_224",
]


def slow_but(fast, keys) -> list:
    return [k if k in fast else pytest.param(k, marks=pytest.mark.slow) for k in keys]


@pytest.fixture
def quick_draws(monkeypatch):
    """Weights are the same 65,521 random numbers (a prime: no two rows of a matrix are alike) again
    and again: most of the time of building a large network is drawing.
    """
    draw = torch.Generator().manual_seed(0)
    block = torch.rand(65521, generator=draw)
    normal = torch.randn(65521, generator=draw).clamp_(-1.9, 1.9)  # what truncates draws no other

    def fill(tensor, numbers):
        many = numbers.repeat(-(-tensor.numel() // len(numbers)))
        return tensor.copy_(many[: tensor.numel()].view(tensor.shape))

    def uniform_(tensor, low=0.0, high=1.0, generator=None):
        return fill(tensor, low + (high - low) * block)

    def normal_(tensor, mean=0.0, std=1.0, generator=None):
        return fill(tensor, mean + std * normal)

    monkeypatch.setattr(torch.Tensor, "uniform_", uniform_)
    monkeypatch.setattr(torch.Tensor, "normal_", normal_)


@pytest.mark.usefixtures("quick_draws")
@pytest.mark.parametrize("key", slow_but(FAST, GOLDEN))
def test_plans_are_pinned_and_chains_are_the_librarys_network(key):
    """The layers, and bit for bit outputs, gradients and buffers in training and evaluation at two
    sizes of batch.
    """
    golden = GOLDEN[key]
    network = network_of(key, input_size=golden["input_size"]).resolved(1000)
    assert [cost.modules for cost in profile_layers(network)] == golden["layers"]
    assert hashlib.sha256("\n".join(network.plan).encode()).hexdigest()[:16] == golden["plan"]
    network.verify()
    chain = SequentialNetwork(network, np.zeros(3)).eval()
    own = {
        name.split(".", 2)[2]: tensor
        for name, tensor in chain.state_dict().items()
        if name.startswith("layers.")
    }
    model = network.build().eval()  # untouched: with its own dropout, writing in place
    drawn = {name for name, parameter in model.named_parameters() if parameter.any()}
    assert drawn == {name for name, _ in model.named_parameters() if own[name].any()}
    assert model.load_state_dict(own, strict=False).missing_keys == []
    for parameter in model.parameters():  # another order in memory is another order of sums
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    assert {n for n, _ in model.named_parameters()} == {
        n.split(".", 2)[2] for n, _ in chain.named_parameters()
    }
    x = torch.randn(
        2, 3, network.input_size, network.input_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        y = x
        for layer in chain.layers:
            y = layer(y)
        assert torch.equal(y, model(x))


def test_alexnet_and_vgg_have_the_layers_of_their_papers():
    counts = {key: len(plan["layers"]) for key, plan in GOLDEN.items()}
    assert counts["torchvision alexnet"] == 8 and counts["torchvision vgg16"] == 16
    assert {counts[f"torchvision {n}"] for n in ("resnet18", "resnet50", "vit_b_16", "swin_t")} == {
        10,
        18,
        14,
        17,
    }


@pytest.mark.parametrize(
    ("key", "size", "why"),
    [
        pytest.param("timm crossvit_tiny_240", 240, "there is no place", marks=pytest.mark.slow),
        ("timm ghostnet_100", 32, "applies dropout with a function"),
        ("torchvision resnet19", 32, "torchvision has no network of this name"),
    ],
)
def test_what_cannot_be_chopped_is_refused_by_name(key, size, why):
    with pytest.raises(UserError, match=f"network.model={key.split()[1]} .*{why}") as error:
        network_of(key, input_size=size).check()
    assert "\n" not in str(error.value)


def test_layers_that_are_not_the_network_are_refused(monkeypatch):
    """The check before training fails where the layers compute something else,
    or write into what others share.
    """
    network = network_of("torchvision resnet18", input_size=32).resolved(7)

    def broken(plan, model, forward):
        layer = PartitionedLayer(plan, model)
        layer.forward = lambda x: forward(PartitionedLayer.forward(layer, x), x)
        return layer

    for forward, why in (
        (lambda y, x: y + 1e-6, "give a different output"),
        (_overwriting, "writes into its input"),
    ):
        library.verify.cache_clear()
        monkeypatch.setattr(
            library, "PartitionedLayer", lambda plan, model, f=forward: broken(plan, model, f)
        )
        with pytest.raises(UserError, match=why):
            network.verify()
    monkeypatch.undo()
    library.verify.cache_clear()
    network.verify()


def _overwriting(y, x):
    with torch.no_grad():
        x.zero_()
    return y


RULES = [
    "blocks residual",
    "blocks plain",
    "blocks vit",
    "torchvision efficientnet_b0",
    "timm test_resnet",
    "timm test_efficientnet",
    "timm test_vit",
]
# tiny networks that timm has for tests; efficientnet_b0 has dropout and stochastic depth
FAST_RULES = ["blocks residual", "timm test_efficientnet", "timm test_vit"]


@pytest.fixture(scope="module", params=slow_but(FAST_RULES, RULES))
def runs(request, config, dataset, trained):
    """spec_of(cell) for a network, and a store with a cohort of its cells;
    stochastic depth and dropout are on where it has them.
    """
    kind, name = request.param.split()
    if kind == "blocks":
        network = network_config(name, input_size=16)
    else:
        network = network_of(request.param, input_size=16)

    def spec_of(cell):
        recipe = replace(config.recipe, steps=4, eval_every=2, warmup_steps=0, lr=0.01)
        return make_spec(parse(cell), "random-0", dataset, network, recipe, 0)

    return spec_of, trained([spec_of(c) for c in ("A3B", "A3B+", "B5B", "R2B", "A2B~2")])


def states(store, spec, numbers) -> dict:
    prefixes = tuple(f"layers.{n - 1}." for n in numbers)
    return {k: v for k, v in store.weights(spec).items() if k.startswith(prefixes)}


def test_frozen_is_frozen_and_the_rest_is_trained(runs):
    spec_of, store = runs
    spec = spec_of("A3B")
    n_layers, base = spec.network.n_layers, spec.source
    library_version = store.provenance(spec)["network_made_by"]
    if spec.network.library_version:
        assert re.fullmatch(r"(torchvision|timm) [0-9.]+.*", library_version)
    else:
        assert library_version is None
    assert equal(states(store, spec, (1, 2, 3)), states(store, base, (1, 2, 3))), (
        "statistics of BatchNorm as well"
    )
    for number in range(1, n_layers + 1):
        tuned = equal(states(store, spec_of("A3B+"), [number]), states(store, base, [number]))
        assert not tuned, number
    assert equal(states(store, spec_of("A2B~2"), (1, 2)), states(store, base, (1, 2)))
    assert not equal(states(store, spec_of("A2B~2"), [3]), states(store, base, [3]))


@pytest.mark.parametrize("cell", ["A3B", "A3B+", "R2B"])
def test_alone_equals_in_a_cohort(runs, cell, trained):
    spec_of, store = runs
    alone = trained([spec_of(cell)], replace(CPU, threads=1), store)
    assert equal(alone.weights(spec_of(cell)), store.weights(spec_of(cell)))
    assert alone.metrics(spec_of(cell)) == store.metrics(spec_of(cell))


def test_stopped_equals_not_stopped(runs, dataset, tmp_path):
    """Every state after a step can be gone on from: here that after the second,
    through a checkpoint.
    """
    spec_of, store = runs
    spec = spec_of("baseB")
    stopped = Store(tmp_path)
    for _ in range(2):
        lock = stopped.lock(spec)
        (cohort,) = make_cohorts([spec], stopped, dataset, CPU)
        (member,) = cohort.states
        network = member.network.train()
        for step in range(member.step, member.step + 2):
            batch = cohort.stream.batch(step)
            with one_thread():
                member.train_step(batch, PrefixCache(batch))
        stopped.save_checkpoint(spec, member.checkpoint())
        lock.release()
    assert member.step == spec.recipe.steps == 4
    assert equal(dict(network.state_dict()), store.weights(spec))


def test_dropout_and_stochastic_depth_are_functions_of_network_and_step():
    network = network_of("torchvision efficientnet_b0", input_size=32).resolved(5)
    one, again, other = (
        SequentialNetwork(network, np.zeros(3), (0, key)) for key in ("A3B", "A3B", "A4B")
    )
    kinds = {(m.dims, m.p > 0) for m in one.modules() if type(m).__name__ == "Dropout"}
    assert {(None, True), (1, True)} <= kinds
    other.load_state_dict(one.state_dict())
    assert not [
        m for m in one.modules() if isinstance(m, (nn.Dropout, torchvision.ops.StochasticDepth))
    ]
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def out(chain, step):
        chain.train().reseed_dropout(step)
        y = x
        with torch.no_grad():
            for layer in chain.layers:
                y = layer(y)
        return y

    first = out(one, 3)
    assert torch.equal(first, out(again, 3))
    assert not torch.equal(first, out(other, 3)) and not torch.equal(first, out(one, 4))
    one.freeze(5)
    assert not any(m.training for layer in one.layers[:5] for m in layer.modules()), (
        "a frozen prefix is in evaluation mode whole"
    )
    assert not one.has_active_dropout(5) and one.has_active_dropout(network.n_layers)


def test_the_plan_is_in_the_identity(config, dataset):
    network = network_of("torchvision resnet18", input_size=16)
    spec = make_spec(parse("A3B"), "random-0", dataset, network, config.recipe, 0)
    assert spec.to_dict()["network"]["plan"][1].split()[0] == "layer1.0.conv1.weight"
    merged = (" ".join(spec.network.plan[:2]), *spec.network.plan[2:])
    with pytest.raises(UserError, match="has other layers in the installed torchvision"):
        SequentialNetwork(replace(spec.network, plan=merged), np.zeros(3))
    assert replace(spec, network=replace(spec.network, plan=merged)).id != spec.id
    assert replace(spec, network=replace(spec.network, name="mine")).id == spec.id
    assert type(spec).from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
