import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.miniature import shrunk
from transferability.networks.sequential import parameter_kinds
from transferability.study.recipe import RecipeConfig
from transferability.training.optim import (
    create_optimizer,
    learning_rate,
    optimizer_of,
    set_learning_rate,
)
from transferability.training.state import build_state


def test_the_papers_schedule_is_exact(tmp_path):
    from hydra import compose, initialize_config_dir

    from experiments.cli import CONF
    from transferability.study.config import load

    with initialize_config_dir(str(CONF), version_base="1.3"):
        recipe = load(compose("config", ["recipe=paper"])).recipe
    assert (recipe.steps, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (
        450_000,
        256,
        0.9,
        5e-4,
    )
    wanted = {
        0: 1e-2,
        99_999: 1e-2,
        100_000: 1e-3,
        199_999: 1e-3,
        200_000: 1e-4,
        300_000: 1e-5,
        449_999: 1e-6,
    }
    assert {step: learning_rate(step, recipe) for step in wanted} == pytest.approx(
        wanted, rel=1e-12
    )


def test_the_reduced_volume_schedule_of_the_original(tmp_path):
    reduced = replace(
        shrunk(tmp_path).recipe,
        schedule="step",
        lr=0.0125,
        step_size=64_000,
        steps=200_000,
        warmup_steps=0,
    )
    assert learning_rate(63_999, reduced) == 0.0125
    assert learning_rate(64_000, reduced) == pytest.approx(0.00125)
    assert learning_rate(199_999, reduced) == pytest.approx(0.0125 * 1e-3)


def test_cosine_warms_up_and_stays_above_zero(config):
    recipe = replace(config.recipe, schedule="cosine", lr=0.5, steps=100, warmup_steps=4)
    rates = [learning_rate(s, recipe) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.25 * (1 + math.cos(math.pi * 0.04)))
    assert rates[50] == pytest.approx(0.25)
    assert all(a > b > 0 for a, b in pairwise(rates[4:]))


def test_the_update_is_caffes_across_changes_of_rate():
    """v = momentum v + lr (g + decay w); w -= v,
    in float64 beside torch's SGD with our scaled momentum.
    """
    recipe = RecipeConfig(
        "t",
        12,
        1,
        0.1,
        "step",
        eval_every=1,
        eval_batch_size=1,
        step_size=4,
        gamma=0.1,
        weight_decay=0.05,
    )
    network = torch.nn.Module()
    network.layers = torch.nn.ModuleList([torch.nn.Sequential()])
    network.layers[0].add_module("fc", torch.nn.Linear(3, 2).double())
    fc = network.layers[0].fc
    w, b = fc.weight.detach().clone(), fc.bias.detach().clone()
    v_w, v_b = torch.zeros_like(w), torch.zeros_like(b)
    optimizer = create_optimizer(network, 0, recipe)
    torch.manual_seed(0)
    for step in range(12):
        g_w, g_b = torch.randn_like(w), torch.randn_like(b)
        fc.weight.grad, fc.bias.grad = g_w.clone(), g_b.clone()
        set_learning_rate(optimizer, step)
        optimizer.step()
        lr = 0.1 * 0.1 ** (step // 4)
        v_w = 0.9 * v_w + lr * (g_w + 0.05 * w)
        v_b = 0.9 * v_b + 2 * lr * g_b  # biases: twice the rate, no decay
        w, b = w - v_w, b - v_b
        torch.testing.assert_close(fc.weight, w, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(fc.bias, b, rtol=1e-12, atol=1e-12)


def test_groups_have_the_originals_multipliers_and_leave_frozen_layers_out(
    dataset, spec_of, config
):
    from transferability.training.loader import TaskLoader

    spec = spec_of(
        "A3B~2", network={"normalization": "batch"}, recipe={"copied_lr_multiplier": 0.1}
    )
    stream = TaskLoader(dataset, list(spec.classes), None, 0, spec.recipe, 14, torch.device("cpu"))
    source = build_state(spec.source, stream, None, None).network.state_dict()
    member = build_state(spec, stream, source, None)
    found = {}
    for group in member.optimizer.param_groups:
        for parameter in group["params"]:
            name = next(n for n, p in member.network.named_parameters() if p is parameter)
            found[name.removeprefix("layers.")] = (group["multiplier"], group["weight_decay"])
    assert all(int(name[0]) >= 3 for name in found), "layers 1-3 are frozen"
    # layers 4 and 5 are copied and trained
    assert found["3.conv.weight"] == pytest.approx((0.1, 5e-4))
    assert found["4.conv.bias"] == pytest.approx((0.2, 0))
    assert found["5.fc.weight"] == (1, 5e-4)
    assert found["7.fc.bias"] == (2, 0)
    assert found["5.norm.weight"] == found["5.norm.bias"] == (1, 0)
    trained = {
        n.removeprefix("layers.") for n, p in member.network.named_parameters() if p.requires_grad
    }
    assert trained == set(found)


def test_only_biases_have_their_multiplier():
    """A bias is recognized by its name: a scale outside normalization modules, such as timm's
    LayerScale or a PReLU, has one dimension, too.
    """
    scale = torch.nn.Module()
    scale.gamma = torch.nn.Parameter(torch.ones(4))
    parts = [torch.nn.Linear(4, 4), scale, torch.nn.PReLU(4), torch.nn.LayerNorm(4)]
    parts += [torch.nn.MultiheadAttention(4, 1), torch.nn.RNN(4, 4)]
    kinds = parameter_kinds(torch.nn.Sequential(*parts))
    assert kinds == {
        "0.weight": "weight",
        "0.bias": "bias",
        "1.gamma": "scale",
        "2.weight": "scale",
        "3.weight": "normalization",
        "3.bias": "normalization",
        "4.in_proj_weight": "weight",
        "4.in_proj_bias": "bias",
        "4.out_proj.weight": "weight",
        "4.out_proj.bias": "bias",
        "5.weight_ih_l0": "weight",
        "5.weight_hh_l0": "weight",
        "5.bias_ih_l0": "bias",
        "5.bias_hh_l0": "bias",
    }
    recipe = RecipeConfig("t", 1, 1, 0.1, "cosine", 1, 1, weight_decay=0.05)
    network = torch.nn.Module()
    network.layers = torch.nn.ModuleList([scale])
    (group,) = create_optimizer(network, 0, recipe).param_groups
    assert (group["multiplier"], group["weight_decay"]) == (1, 0)


def test_adamw_is_loshchilov_and_hutters_with_our_rates_and_multipliers():
    """w -= lr (decay w + m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + 1e-8)), by hand in float64;
    the momentum is beta1, and a change of rate leaves it alone.
    """
    recipe = RecipeConfig(
        "t", 12, 1, 0.1, "step", eval_every=1, eval_batch_size=1, step_size=4, gamma=0.1,
        weight_decay=0.05, momentum=0.8, optimizer="adamw",
    )  # fmt: skip
    parameter = torch.nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64))
    group = {"params": [parameter], "recipe": recipe, "multiplier": 2.0, "weight_decay": 0.05}
    optimizer = optimizer_of([group], recipe)
    w, m, v = parameter.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
    for step in range(12):
        gradient = torch.tensor([math.sin(step), 0.5 * step], dtype=torch.float64)
        parameter.grad = gradient.clone()
        set_learning_rate(optimizer, step)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.999 * v + 0.001 * gradient**2
        rate, t = 2.0 * learning_rate(step, recipe), step + 1
        w = w * (1 - rate * 0.05) - rate * (m / (1 - 0.8**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        assert torch.allclose(parameter.detach(), w, rtol=1e-9)
