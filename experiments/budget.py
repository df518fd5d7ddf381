"""What of a study fits a given time: fewer layers, rates, seeds, nothing trained longer.

python -m experiments.run mode=plan budget_minutes=30     the settings of a part that fits, and what
                                                          it leaves out
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from experiments.cost import Cost
from transferability.console import duration, pluralize
from transferability.errors import UserError
from transferability.study.config import Config
from transferability.study.expand import study_specs
from transferability.study.jobs import group_into_jobs, with_bases

DEPTHS = (8, 6, 4, 3, 2, 1)  # so many values of n, evenly spread, the highest among them


@dataclass(frozen=True)
class Part:
    """A part of a study: these values of n, learning rates (none: the recipe's) and seeds, and
    whether what trains longer is in it.
    """

    layers: tuple[int, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    longer: bool

    def of(self, config: Config) -> Config:
        """The configuration with this part as its study."""
        left_out = [] if self.longer else _longer(config)
        parts = {
            name: replace(part, seeds=[]) if name in left_out else part
            for name, part in config.study.parts.items()
        }
        own = {"layers": list(self.layers), "rates": list(self.rates) or None}
        study = replace(config.study, **own, seeds=list(self.seeds), parts=parts)
        return replace(config, study=study)

    @property
    def worth(self) -> tuple:
        """What is better: first three values of n, then every rate, then seeds, then the rest."""
        depths = len(self.layers)
        return min(depths, 3), len(self.rates), len(self.seeds), depths, self.longer

    def settings(self, whole: "Part", config: Config) -> list[str]:
        """What makes a study this part of ``whole``."""
        changed = [
            f"'study.{name}={_list(own)}'"
            for name in ("layers", "rates", "seeds")
            if (own := getattr(self, name)) != getattr(whole, name)
        ]
        if whole.longer and not self.longer:
            changed += [f"'++study.parts.{name}.seeds=[]'" for name in _longer(config)]
        return changed


def _longer(config: Config) -> list[str]:
    """The parts of a study whose networks train longer than its others."""
    steps = config.recipe.steps
    parts = config.study.parts.items()
    return [name for name, part in parts if (part.recipe or {}).get("steps", steps) > steps]


def _list(values: tuple) -> str:
    return f"[{','.join(f'{value:g}' for value in values)}]"


def print_budget(config: Config, cost: Cost) -> None:
    """The best part of a study that takes at most ``config.budget_minutes``.

    Raises:
        UserError: not even the smallest does.
    """
    study, inner = config.study, range(1, config.network.n_layers)
    whole = Part(
        tuple(study.layers or inner),
        tuple(study.rates or ()),
        tuple(study.seeds),
        bool(_longer(config)),
    )
    specs = {part: study_specs(part.of(config), cost.dataset) for part in _parts(whole)}
    times = {
        part: sum(map(cost.seconds, group_into_jobs(with_bases(own)))) / cost.execution.threads / 60
        for part, own in specs.items()
    }
    fitting = [part for part, time in times.items() if time <= config.budget_minutes]
    if not fitting:
        raise UserError(
            f"budget_minutes={config.budget_minutes:g} is not enough: the smallest part of the "
            f"study takes about {duration(60 * min(times.values()))}; fewer recipe.steps or a "
            "smaller network.input_size make another study"
        )
    best = max(fitting, key=lambda part: part.worth)
    took, every = duration(60 * times[best]), duration(60 * times[whole])
    if best == whole:
        print(f"\nbudget_minutes={config.budget_minutes:g}: the whole study fits, about {took}.")
        return
    print(
        f"\nbudget_minutes={config.budget_minutes:g}: {pluralize(len(specs[best]), 'network')} of "
        f"{len(specs[whole])} fit, about {took} of {every}:\n"
        f"  {' '.join(best.settings(whole, config))}"
    )
    for name in ("layers", "rates", "seeds"):
        left = tuple(v for v in getattr(whole, name) if v not in getattr(best, name))
        if left:
            print(f"left out: {name} {', '.join(f'{value:g}' for value in left)}")
    if whole.longer and not best.longer:
        print("left out: what trains longer")


def _parts(whole: Part) -> Iterator[Part]:
    count = len(whole.layers)
    layers = [whole.layers] + [
        tuple(whole.layers[round(i)] for i in np.linspace(count - 1, 0, depths)[::-1])
        for depths in DEPTHS
        if depths < count
    ]
    rates = dict.fromkeys([whole.rates, whole.rates[-1:]])
    seeds = [whole.seeds[:number] for number in range(len(whole.seeds), 0, -1)]
    for choice in product(layers, rates, seeds, dict.fromkeys([whole.longer, False])):
        yield Part(*choice)
