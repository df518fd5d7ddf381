"""docs/fidelity.md is true of the code: its numbers, and the tests that it names."""

import inspect
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import network_config
from tests.miniature import ROOT
from transferability.networks.modules import BatchNorm, LinearProbeHead
from transferability.networks.sequential import SequentialNetwork
from transferability.study.config import RecipeConfig
from transferability.training.optim import create_optimizer, learning_rate
from transferability.training.state import measure_statistics

TEXT = (ROOT / "docs/fidelity.md").read_text()
TABLE = TEXT.partition("## What a reimplementation needs")[2].partition("## ")[0]
ROWS = dict(re.findall(r"^\| (.+?) \| (.+?) \| `[\w/]*test_\w+\.py` \|$", TABLE, re.M))


@pytest.fixture(scope="module")
def small_bn():
    return SequentialNetwork(network_config("small-bn", outputs=10), np.zeros(3, np.float32))


def recipe(**settings):
    return replace(
        RecipeConfig("t", 100, 1, 0.5, "cosine", eval_every=1, eval_batch_size=1), **settings
    )


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:\w+/)*test_\w+\.py)`", TEXT))
    assert len(ROWS) > 10 and len(named) > 8
    assert {name for name in named if not (ROOT / "tests" / name).exists()} == set()


def test_initialization(small_bn):
    said = ROWS["`initialization: kaiming`"]
    assert "gain √2, but **1 in the classification head**; biases 0" in said
    for number, layer in enumerate(small_bn.layers, 1):
        main = layer.conv if hasattr(layer, "conv") else layer.fc
        fan_in = main.weight[0].numel()
        gain = main.weight.std().item() * math.sqrt(fan_in)
        wanted = 1 if number == len(small_bn.layers) else math.sqrt(2)
        assert gain == pytest.approx(wanted, rel=5 / math.sqrt(2 * main.weight.numel()))
        assert (main.bias == 0).all()


def test_batch_norm(small_bn):
    said = ROWS["BatchNorm in `small-bn`"]
    norms = [m for m in small_bn.modules() if isinstance(m, BatchNorm)]
    assert len(norms) == len(small_bn.layers) - 1, "after every layer but the head"
    assert {f"eps {norm.eps}, momentum {norm.momentum};" in said for norm in norms} == {True}
    kinds = [type(m).__name__ for m in small_bn.layers[0]]
    assert kinds == ["Conv2d", "BatchNorm2d", "Activation"], "before pooling and ReLU"
    assert all(m.bias is not None for m in small_bn.modules() if isinstance(m, nn.Conv2d))


def test_statistics_of_random_layers():
    batches = inspect.signature(measure_statistics).parameters["batches"].default
    assert f"the first {batches} training batches" in ROWS["BatchNorm in random frozen layers"]


def test_learning_rate():
    said = ROWS["learning rate at step t"]
    assert "schedule(t) × min(1, (t + 1) / (warmup_steps + 1))" in said
    assert "lr × (1 + cos(π t / steps)) / 2" in said
    for t in (0, 3, 9, 10, 50, 99):
        cosine = 0.5 * (1 + math.cos(math.pi * t / 100)) / 2
        wanted = cosine * min(1, (t + 1) / (10 + 1))
        assert learning_rate(t, recipe(warmup_steps=10)) == pytest.approx(wanted, rel=1e-12)


def test_rates_and_decay_of_each_kind_of_parameter(small_bn):
    said = ROWS["per kind of parameter"]
    groups = create_optimizer(small_bn, 0, recipe()).param_groups
    found = {id(p): (g["multiplier"], g["weight_decay"]) for g in groups for p in g["params"]}
    first, decay, biases = small_bn.layers[0], recipe().weight_decay, recipe().bias_lr_multiplier
    assert f"`bias_lr_multiplier` ({biases:g}), no decay" in said
    assert "weights: rate × 1, decay × 1" in said and found[id(first.conv.weight)] == (1, decay)
    assert found[id(first.conv.bias)] == (biases, 0)
    assert "scale and shift: rate × 1, no decay" in said
    assert found[id(first.norm.weight)] == found[id(first.norm.bias)] == (1, 0)


def test_training_loss_is_of_the_steps_since_the_evaluation_before(spec_of, trained):
    """4 of 8 steps: with a loss that is logged at each, the mean of the last ones."""
    assert "the steps since the evaluation before the last" in ROWS["`train_loss` in the tables"]
    spec = spec_of("baseA")
    every = spec_of("baseA", recipe={"eval_every": 1})
    losses, last = ([m["train_loss"] for m in trained([s]).metrics(s)] for s in (every, spec))
    assert (len(losses), len(last)) == (8, 2)
    assert last == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-6)


def test_a_linear_probe_standardizes_what_it_pools():
    assert "standardization (BatchNorm without scale and shift)" in ROWS["linear probe `An.B`"]
    head = LinearProbeHead((5, 3, 3), 0, 2)
    assert not head.norm.affine and torch.equal(head.norm.running_var, torch.ones(5))
