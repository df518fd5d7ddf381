"""The paper's optimizer, Caffe's SGD with its multipliers for biases, and AdamW for transformers.

Both use the same multipliers, and learning-rate schedules that are pure functions of the step.
"""

import inspect
import math
from typing import TypeVar, cast

import torch
from torch import nn

from transferability.networks.sequential import BIAS, WEIGHT, SequentialNetwork, parameter_kinds
from transferability.study.recipe import RecipeConfig

_Class = TypeVar("_Class", bound=type[torch.optim.Optimizer])


def _without_compiler(optimizer: _Class) -> _Class:
    """Derive an optimizer whose first call does not import all of torch.compile (1.4 s).

    torch wraps these methods in markers for its compiler; nothing here compiles them.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(optimizer.step))
    made = type(optimizer.__name__, (optimizer,), plain | {"step": step})
    return cast(_Class, made)


SGD = _without_compiler(torch.optim.SGD)
AdamW = _without_compiler(torch.optim.AdamW)


def learning_rate(step: int, recipe: RecipeConfig) -> float:
    """The learning rate of step ``step``, before multipliers; above 0 at every step.

    ``step`` is Caffe's policy (``solver.prototxt``: base_lr x gamma^floor(step / stepsize)).
    ``cosine`` falls to zero at ``recipe.steps``. A warm-up rises linearly to the schedule.
    """
    if recipe.schedule == "step":
        assert recipe.step_size is not None  # by RecipeConfig.check
        rate = recipe.lr * recipe.gamma ** (step // recipe.step_size)
    else:
        rate = recipe.lr * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return rate * min(1.0, (step + 1) / (recipe.warmup_steps + 1))


def create_optimizer(
    network: SequentialNetwork, copied: int, recipe: RecipeConfig
) -> torch.optim.Optimizer:
    """Create the recipe's optimizer over every parameter that is not frozen.

    Weights: rate x 1, decay x 1. Biases: rate x ``bias_lr_multiplier``, no decay (in the paper 2
    and 0). Scales, and shifts of normalization: rate x 1, no decay. In copied layers (1..copied),
    all rates are also multiplied by ``copied_lr_multiplier``. Each group keeps its ``recipe`` and
    ``multiplier``; :func:`set_learning_rate` applies them.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for index, layer in enumerate(network.layers):
        of_layer = recipe.copied_lr_multiplier if index < copied else 1.0
        role = parameter_kinds(layer)
        for name, parameter in layer.named_parameters():
            if not parameter.requires_grad:
                continue
            multiplier = of_layer * (recipe.bias_lr_multiplier if role[name] == BIAS else 1.0)
            decay = recipe.weight_decay if role[name] == WEIGHT else 0.0
            groups.setdefault((multiplier, decay), []).append(parameter)
    return optimizer_of(
        [
            {
                "params": parameters,
                "recipe": recipe,
                "multiplier": multiplier,
                "weight_decay": decay,
            }
            for (multiplier, decay), parameters in groups.items()
        ],
        recipe,
    )


def optimizer_of(groups: list[dict], recipe: RecipeConfig) -> torch.optim.Optimizer:
    """Create the recipe's optimizer over these parameter groups. For AdamW (Loshchilov & Hutter,
    2019), the recipe's momentum is the first beta.
    """
    if recipe.optimizer == "adamw":
        return AdamW(groups, recipe.lr, (recipe.momentum, 0.999), fused=True)
    return SGD(groups, recipe.lr, recipe.momentum, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Set the learning rate of step ``step`` for each group by its recipe.

    For SGD, Caffe keeps ``v = momentum v + lr g; w -= v``, and a change of rate leaves v unchanged.
    torch keeps ``b = momentum b + g; w -= lr b`` with v = lr b, so a change of rate rescales v.
    Scaling the momentum by the ratio of the old and new rate makes torch's rule exactly Caffe's.
    """
    for group in optimizer.param_groups:
        recipe = group["recipe"]
        rate = learning_rate(step, recipe)
        ratio = learning_rate(step - 1, recipe) / rate if step else 1.0
        group["lr"] = rate * group["multiplier"]
        if "momentum" in group:
            group["momentum"] = recipe.momentum * ratio
