"""A race of strategies: which networks come next, by what those before them had on validation
images. Test images play no part.

RULE says it in words; it is printed in the page. Everything here is arithmetic on finished runs:
what trains them is elsewhere (``advise.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transferability.data.packed import PackedDataset
from transferability.networks import NetworkConfig
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.study import cells
from transferability.study.recipe import RecipeConfig, probe_recipe
from transferability.study.spec import RunSpec, make_spec

STEPS = 30  # of the first rung
TIMES = 4  # as many steps in the next rung
SHARE = 3  # one in so many goes on
SEEDS = 3  # of a finalist
FINALISTS = 2  # so many get every seed before one of them goes on
EPOCHS = 100  # no network of the race sees its images more often
RULE = (
    "Stage 1: a linear classifier (logistic regression) on every depth, on features that are "
    "computed once; the highest layer first, the others while time is left. Stage 2, a race: every "
    f"strategy is trained for {STEPS} steps, each with a schedule of its own to the end; the best "
    f"third by validation accuracy is trained again with {TIMES} times the steps, and so on while "
    "time is left. When two are left, they get a second and a third seed, and the mean decides "
    "which of them continues; so does the winner at every step that follows. What does not fit the "
    "time is left out, the worst by validation first; what is left of the time goes to the winner "
    "at twice the steps, and to training from scratch. The answer is the network or, of several "
    "seeds, the strategy with the highest validation accuracy, of equals the cheapest. Test images "
    "are looked at once, for what is reported; nothing is dropped for them."
)


# What AdamW has beside its rate. From a fitted classifier it goes on with the base's statistics:
# chosen on the validation images of hand signs, where 30 steps with the batch's brought SGD from
# 0.952 to 0.745, and SGD with the base's exploded at rates that train anything.
ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "bias_lr_multiplier": 1.0,
    "keep_statistics": True,
}


@dataclass(frozen=True)
class Arm:
    """A strategy at a learning rate; copied layers have ``copied_lr_multiplier`` times as much."""

    cell: str
    rate: float
    optimizer: str = "sgd"


SCRATCH = Arm("baseB", 0.03)


def candidates(best: int, top: int) -> list[Arm]:
    """What enters the race, the most promising first.

    Args:
        best: the depth whose linear classifier is best on validation images.
        top: the layers below the classifier.
    """
    arms = [
        Arm(f"A{best}.B++", 0.01, "adamw"),
        Arm(f"A{best}.B++", 0.003, "adamw"),
        Arm(f"A{top}.B++", 0.003, "adamw"),
        Arm(f"A{best}B+", 0.03),
        Arm(f"A{best}.B++", 0.1),
        Arm(f"A{best}B", 0.03),
        Arm(f"A{best}B~{top - best}", 0.03),
        Arm(f"A{top}B+", 0.03),
        SCRATCH,
    ]
    return list(dict.fromkeys(arm for arm in arms if not arm.cell.endswith("~0")))


@dataclass(frozen=True)
class Task:
    """What all networks of a race have in common.

    Attributes:
        seed: which SEEDS: those from ``SEEDS * seed`` on.
        images_per_class: training images; None: all.
    """

    dataset: PackedDataset
    network: NetworkConfig
    recipe: RecipeConfig
    pretrained: PretrainedBase
    seed: int = 0
    images_per_class: int | None = None

    @property
    def seeds(self) -> range:
        return range(SEEDS * self.seed, SEEDS * (self.seed + 1))

    def probe(self, n: int) -> RunSpec:
        """The linear classifier on layer ``n``."""
        return self._spec(f"A{n}.B", probe_recipe(self.recipe.mirror), 0)

    def probes(self) -> list[RunSpec]:
        """Those on every depth: the highest first, then halfway down, and so on, so that the first
        of them are spread over all.
        """
        top = self.network.n_layers - 1
        gaps = sorted(range(top), key=lambda gap: (gap > 0, -(gap & -gap)))
        return [self.probe(top - gap) for gap in gaps]

    def spec(self, arm: Arm, steps: int, seed: int | None = None) -> RunSpec:
        """A network of the race, of the first seed where none is said."""
        own = ADAMW if arm.optimizer == "adamw" else {}
        recipe = replace(
            self.recipe,
            **own,
            name=f"{arm.optimizer}, {steps} steps, rate {arm.rate:g}",
            steps=steps,
            lr=arm.rate,
            warmup_steps=steps // 10,
            eval_every=steps,
        )
        return self._spec(arm.cell, recipe, self.seeds[0] if seed is None else seed)

    def _spec(self, cell: str, recipe: RecipeConfig, seed: int) -> RunSpec:
        parsed = cells.parse(cell, self.network.n_layers)
        return make_spec(
            parsed,
            "pretrained",
            self.dataset,
            self.network,
            recipe,
            seed,
            pretrained=self.pretrained,
            images_per_class=self.images_per_class,
        )

    def every(self, arms: Sequence[Arm]) -> list[RunSpec]:
        """All that a race of these arms can ever train, its linear classifiers first."""
        return self.probes() + [
            self.spec(arm, steps, seed)
            for arm in arms
            for steps in self.lengths()
            for seed in self.seeds
        ]

    def lengths(self) -> list[int]:
        """Steps that a network of the race can have."""
        out = [STEPS // 2, STEPS]  # half: where the time is too short for any rung
        while 2 * out[-1] <= self.longest:
            out.append(2 * out[-1])
        return out

    @property
    def longest(self) -> int:
        """Steps after which every image was seen EPOCHS times."""
        rows = self.dataset.train_rows([*range(len(self.dataset.classes))], self.images_per_class)
        return max(STEPS, EPOCHS * len(rows) // self.recipe.batch_size)


def survivors(arms: Sequence[Arm], accuracy: Callable[[Arm], float]) -> list[Arm]:
    """The best third, rounded up, and no fewer than FINALISTS; of equals those that come first."""
    ranked = sorted(arms, key=accuracy, reverse=True)  # stable
    return ranked[: max(FINALISTS, -(-len(arms) // SHARE))]


def fitting(
    specs: Sequence[RunSpec], seconds: Callable[[list[RunSpec]], float], left: float
) -> int:
    """How many of ``specs``, from the first on, can be trained in the time that is ``left``."""
    return next(
        (count for count in range(len(specs), 0, -1) if seconds(list(specs[:count])) <= left), 0
    )
