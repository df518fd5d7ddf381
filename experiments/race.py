"""A race of strategies: which networks to train next, by the validation accuracies of finished
networks. Test images are not used.

RULE states the procedure and is printed on the page. ``advise.py`` trains the networks.
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
SHARE = 3  # one of SHARE arms survives a rung
SEEDS = 3  # of a finalist
FINALISTS = 2  # arms that get all seeds before one of them continues
EPOCHS = 100  # of a network in the race, at most
RULE = (
    "Stage 1: a linear classifier (logistic regression) on every depth, on features that are "
    "computed once; the highest layer first, the others while time is left. Stage 2, a race: every "
    f"strategy is trained for {STEPS} steps, each with a schedule of its own to the end; the best "
    f"third by validation accuracy is trained again with {TIMES} times the steps, and so on while "
    f"time is left, up to {EPOCHS} epochs. When two are left, they get a second and a third seed, "
    "and the mean decides which of them continues; the winner gets them, too, at every number of "
    "steps that follows. What does not fit the time is left out: at first in a fixed order, "
    "training from scratch before all others, then the worst by validation. What is left of the "
    "time goes to the winner at twice the steps, and to training from scratch. The answer is the "
    "network or, of several seeds, the strategy with the highest validation accuracy, of equals "
    "the cheapest. No choice is made on test images, if there are any: they are only for what is "
    "reported, and nothing is dropped for them."
)


# Settings of AdamW besides the learning rate. Training that starts from a fitted classifier keeps
# the base's BatchNorm statistics. Chosen on the validation images of hand signs: 30 steps of SGD
# with batch statistics reduced accuracy from 0.952 to 0.745, and SGD with the base's statistics
# diverged at every learning rate that trains at all.
ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "bias_lr_multiplier": 1.0,
    "keep_statistics": True,
}


@dataclass(frozen=True)
class Arm:
    """A strategy at a learning rate; that of copied layers is ``copied_lr_multiplier`` times it."""

    cell: str
    rate: float
    optimizer: str = "sgd"


SCRATCH = Arm("baseB", 0.03)


def candidates(best: int, top: int) -> list[Arm]:
    """The arms that enter the race, the most promising first.

    Args:
        best: the depth of the linear probe with the highest validation accuracy.
        top: the number of layers below the classifier.
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
    """The settings shared by all networks of a race.

    Attributes:
        seed: the race uses the SEEDS seeds from ``SEEDS * seed`` on.
        images_per_class: training images per class; None: all.
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
        """The linear probe at layer ``n``."""
        return self._spec(f"A{n}.B", probe_recipe(self.recipe.mirror), 0)

    def probes(self) -> list[RunSpec]:
        """Linear probes at every depth: the highest first, then halfway down, and so on, so that
        the first few are spread over all depths.
        """
        top = self.network.n_layers - 1
        gaps = sorted(range(top), key=lambda gap: (gap > 0, -(gap & -gap)))
        return [self.probe(top - gap) for gap in gaps]

    def spec(self, arm: Arm, steps: int, seed: int | None = None) -> RunSpec:
        """A network of the race; ``seed`` defaults to the first seed of the race."""
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
        """All networks that a race of ``arms`` can train, the linear probes first."""
        return self.probes() + [
            self.spec(arm, steps, seed)
            for arm in arms
            for steps in self.lengths()
            for seed in self.seeds
        ]

    def lengths(self) -> list[int]:
        """The possible numbers of steps of a network in the race."""
        out = [STEPS // 2, STEPS]  # half: if the time is too short for any rung
        while 2 * out[-1] <= self.longest:
            out.append(2 * out[-1])
        return out

    @property
    def longest(self) -> int:
        """The steps of EPOCHS epochs, and at least STEPS."""
        rows = self.dataset.train_rows([*range(len(self.dataset.classes))], self.images_per_class)
        return max(STEPS, EPOCHS * len(rows) // self.recipe.batch_size)


def survivors(arms: Sequence[Arm], accuracy: Callable[[Arm], float]) -> list[Arm]:
    """The best third, rounded up, and at least FINALISTS; ties go to the arms that come first."""
    ranked = sorted(arms, key=accuracy, reverse=True)  # stable
    return ranked[: max(FINALISTS, -(-len(arms) // SHARE))]


def fitting(
    specs: Sequence[RunSpec], seconds: Callable[[list[RunSpec]], float], left: float
) -> int:
    """The number of ``specs``, from the first on, that can be trained in ``left`` seconds."""
    return next(
        (count for count in range(len(specs), 0, -1) if seconds(list(specs[:count])) <= left), 0
    )
