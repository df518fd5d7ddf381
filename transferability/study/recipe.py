"""How networks are trained: the settings of ``conf/recipe/``."""

from dataclasses import dataclass, field
from typing import Annotated

from transferability.bounds import NAMED, SHARE, above, at_least, between, check_bounds, one_of
from transferability.errors import require
from transferability.fingerprint import COSMETIC, omit_at

LBFGS = "lbfgs"  # the optimizer of linear classifiers


@dataclass(frozen=True)
class RecipeConfig:
    """How a network is trained.

    The learning rate is a pure function of the step, see ``optim.py``.
    """

    name: Annotated[str, NAMED] = field(metadata=COSMETIC)
    steps: Annotated[int, above(0)]
    batch_size: Annotated[int, above(0)]
    lr: Annotated[float, above(0)]
    # step: lr x gamma^(step // step_size) | cosine: to zero at the last step
    schedule: Annotated[str, one_of("step", "cosine")]
    # steps between validations; the paper's statistic is a mean over validations
    eval_every: Annotated[int, above(0)]
    eval_batch_size: Annotated[int, above(0)]
    step_size: Annotated[int | None, above(0)] = None
    gamma: Annotated[float, above(0)] = 0.1
    warmup_steps: Annotated[int, at_least(0)] = 0
    momentum: Annotated[float, between(0, 1)] = 0.9
    # for weights, not for biases and normalization
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    bias_lr_multiplier: Annotated[float, at_least(0)] = 2.0
    # for fine-tuned copied layers; common advice is 0.1
    copied_lr_multiplier: Annotated[float, at_least(0)] = 1.0
    mirror: bool = True
    # false: every epoch in the order of the packed file, as Caffe reads its leveldb
    reshuffle: bool = True
    # bf16: autocast, float32 weights
    precision: Annotated[str, one_of("float32", "bf16")] = "float32"
    # sgd: Caffe's; adamw: momentum is the first beta; lbfgs: for An.B only, fits the classifier in
    # at most ``steps`` iterations, see probe.py; of the other settings, only ``mirror`` is used
    optimizer: Annotated[str, one_of("sgd", "adamw", LBFGS)] = omit_at("sgd", stored="optimiser")
    # BatchNorm of copied layers normalizes with the source's statistics, also in training
    keep_statistics: bool = omit_at(False)
    # below 1: training images are random resized crops, of at least this share of the packed
    # image's area (sides 3:4 to 4:3); 1: crops of the network's size
    crop_scale: Annotated[float, SHARE] = omit_at(1.0)
    # brightness, contrast and saturation of training images times 1 - this to 1 + this
    color_jitter: Annotated[float, between(0, 1)] = omit_at(0.0)
    # in the training loss
    label_smoothing: Annotated[float, between(0, 1)] = omit_at(0.0)

    @property
    def batching_key(self) -> tuple:
        """The settings that determine batches, precision and evaluations: networks with equal keys
        can train in one cohort, at any learning rates.
        """
        return (
            self.steps,
            self.batch_size,
            self.mirror,
            self.reshuffle,
            self.precision,
            self.optimizer,
            self.eval_every,
            self.eval_batch_size,
            self.crop_scale,
            self.color_jitter,
        )

    def check(self) -> None:
        """Raise :class:`UserError` for an impossible value."""
        check_bounds(self, "recipe.")
        needed = self.schedule != "step" or self.step_size is not None
        wanted = "a number above 0 with schedule=step"
        require(needed, "recipe.step_size", self.step_size, wanted)
        fits = self.warmup_steps < self.steps
        wanted = f"at least 0 and below steps={self.steps}"
        require(fits, "recipe.warmup_steps", self.warmup_steps, wanted)


def probe_recipe(mirror: bool) -> RecipeConfig:
    """The recipe of linear classifiers, as in conf/recipe/probe.yaml."""
    return RecipeConfig(
        name="probe",
        steps=200,
        batch_size=64,
        lr=1.0,
        schedule="cosine",
        eval_every=200,
        eval_batch_size=250,
        momentum=0.0,
        weight_decay=0.0,
        bias_lr_multiplier=1.0,
        mirror=mirror,
        optimizer=LBFGS,
    )
