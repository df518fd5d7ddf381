"""What of a study fits a given time: fewer layers, rates, seeds, nothing trained longer.

python -m experiments.run mode=plan budget_minutes=30     the settings of a part that fits, and what
                                                          it leaves out
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from experiments.plan import Cost, counted, duration
from transferability.config import Config
from transferability.errors import UserError
from transferability.jobs import jobs, with_sources
from transferability.spec import RunSpec

DEPTHS = (8, 6, 4, 3, 2, 1)  # so many values of n, evenly spread, the highest among them


@dataclass(frozen=True)
class Part:
    """A part of a study: these values of n, learning rates and seeds, and what trains longer."""

    layers: tuple[int, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    longer: bool

    def has(self, spec: RunSpec, usual: int) -> bool:
        """Whether a network of the study is in it; ``usual``: steps of the shortest."""
        cell = spec.cell
        all_tuned = cell.copied == spec.network.n_layers - 1 and not cell.frozen
        return (
            (cell.is_base or all_tuned or cell.n in self.layers)
            and spec.recipe.lr in self.rates
            and spec.seed in self.seeds
            and (self.longer or spec.recipe.steps == usual)
        )

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
            steps = config.recipe.steps
            changed += [
                f"'++study.parts.{name}.seeds=[]'"
                for name, part in config.study.parts.items()
                if (part.recipe or {}).get("steps", steps) > steps
            ]
        return changed


def _list(values: tuple) -> str:
    return f"[{','.join(f'{value:g}' for value in values)}]"


def print_budget(config: Config, specs: list[RunSpec], cost: Cost) -> None:
    """The best part of the study ``specs`` that takes at most ``config.budget_minutes``.

    Raises:
        UserError: not even the smallest does.
    """
    usual = min(spec.recipe.steps for spec in specs)
    whole = Part(
        tuple(sorted({s.cell.n for s in specs if s.cell.n})),
        tuple(sorted({s.recipe.lr for s in specs})),
        tuple(sorted({s.seed for s in specs})),
        any(s.recipe.steps > usual for s in specs),
    )

    def minutes(part: Part) -> float:
        works = jobs(with_sources([s for s in specs if part.has(s, usual)]))
        return sum(map(cost.seconds, works)) / cost.execution.threads / 60

    times = {part: minutes(part) for part in _parts(whole)}
    fitting = {part: time for part, time in times.items() if time <= config.budget_minutes}
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
    own = [s for s in specs if best.has(s, usual)]
    print(
        f"\nbudget_minutes={config.budget_minutes:g}: {counted(len(own), 'network')} of "
        f"{len(specs)} fit, about {took} of {every}:\n  {' '.join(best.settings(whole, config))}"
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
