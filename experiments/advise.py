"""Choose a transfer strategy for your images and a pretrained network within a given time: the
answer improves until the time is up.

python -m experiments.advise source=flowers.zip weights=tf_efficientnet_lite0.safetensors minutes=10
python -m experiments.advise source=PATH weights=resnet18.a1_in1k minutes=30

It packs the images, fits a linear classifier on every layer of the network, and lets strategies
race against each other while time is left. The page is written after the first classifier and
after each stage. Ctrl-C ends with the best answer so far; the same command resumes
from there, and so does one with more minutes. When no network is left to train, the command ends
before the time is up. On a large dataset, networks train on as many images per class as the time
allows.

Settings used most:
source=PATH          the images: a folder, a zip or tar file
weights=FILE         the pretrained network, or the library's name for its weights
minutes=10           the time for all of it
network.model=NAME   the network, unless the weights are named after it
network.input_size=96 dataset.image_size=108   fewer pixels than in pretraining: faster
dataset.name=NAME    the dataset's name in later commands (the name of its file)
store=FOLDER         where networks are kept (runs/)
out=FOLDER           where the page is written (figures/advice-NAME)
"""

from experiments.cli import run_module
from experiments.overrides import of_advice

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name, of_advice))

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.advised import Answer
from analysis.advised_page import write_page
from analysis.advised_strategies import answer
from analysis.measurements.depths import depths
from experiments.cli import STOPPED
from experiments.clock import Clock, Speed, said
from experiments.cost import Cost
from experiments.first_stage import known, sized
from experiments.race import (
    FINALISTS,
    SCRATCH,
    STEPS,
    TIMES,
    Arm,
    Task,
    candidates,
    fitting,
    survivors,
)
from transferability.data.config import DatasetConfig
from transferability.data.mirrors import mirrored
from transferability.data.pack import pack
from transferability.data.pack_identity import check_source_unchanged
from transferability.data.packed import PackedDataset, open_packed
from transferability.errors import UserError
from transferability.files import make_folder
from transferability.networks.config import WITH_CLASS_TOKEN
from transferability.networks.modules import extra_tokens
from transferability.networks.pretrained import load_pretrained
from transferability.networks.sequential import profile_layers
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers
from transferability.signals import interrupted_by_sigterm
from transferability.study.config import Config
from transferability.study.jobs import with_bases
from transferability.study.recipe import LBFGS
from transferability.study.spec import RunSpec
from transferability.training.execution import execution_of

log = logging.getLogger(__name__)


def main(config: Config) -> None:
    if not config.weights:
        raise UserError("say which pretrained network: weights=FILE, or a library's name for them")
    clock = Clock(60 * config.minutes, config.began or time.monotonic())
    config = as_weights_want(config)  # may download the weights
    with interrupted_by_sigterm():
        advice, status = Advising(config, clock), 0
        try:
            advice.run()
        except KeyboardInterrupt:
            status = 0 if clock.over else STOPPED
        try:
            found = advice.page()
        except KeyboardInterrupt:  # a second one: keep the last answer
            found, status = advice.known, STOPPED
    if found:
        print("\n".join(found.sentences))
        print(f"page: {advice.path.resolve()}")
    else:
        log.warning("stopped before there is an answer: the same command resumes")
    if status:
        sys.exit(status)


class Advising:
    """One run of the command: its networks and its page."""

    def __init__(self, config: Config, clock: Clock):
        self.config, self.clock = config, clock
        pretrained = load_pretrained(str(config.weights), config.network)
        out = make_folder(Path(config.out or f"figures/advice-{config.dataset.name}"), "out")
        self.path = out / "report.html"
        self.dataset = packed(config.dataset)
        recipe = config.recipe
        if recipe.mirror and (pairs := mirrored([c.name for c in self.dataset.classes])):
            log.info("classes %s and %s are mirror images: nothing is mirrored", *pairs[0])
            recipe = replace(recipe, mirror=False)
        self.task = Task(self.dataset, config.network, recipe, pretrained, config.seed or 0)
        self.store, self.execution = Store(config.store), execution_of(config)
        self.trackers = Trackers(config.tracker)
        self.speed = Speed(Cost(self.store, self.dataset, self.execution, clock.now))
        self.stage = "packed"
        self.known: Answer | None = None
        self.lacked_time = False  # whether networks were left out for lack of time
        self.ended = False  # whether more time would change nothing

    def run(self) -> None:
        """Run stage 1, then the race, until the time is up."""
        with self.clock.lines(lambda: said(self.stage, self.clock, self.leader)):
            self.stage = "stage 1, a linear classifier on every layer"
            self.task = sized(self.task, self.store, self.execution, self.clock)
            probes = self.task.probes()
            self.train(probes[:1])  # even beyond the time limit: it is needed for any answer
            self.page()
            with self.clock.limit():
                if self.train(probes):
                    self.page()
                self.race()
                self.ended = not (self.lacked_time or self.task.images_per_class)

    def race(self) -> None:
        """Run the rungs of the race; see ``race.RULE``."""
        arms, steps = self.arms, STEPS
        while steps <= self.task.longest:
            self.stage = f"race, {steps} steps"
            trained = self.rung(arms, steps)
            if not trained:
                break
            arms = survivors(trained, partial(self.accuracy, steps=steps))
            if len(arms) <= FINALISTS:
                arms = [self.winner(arms, steps)]
            steps *= TIMES
        self.stage = "race, what fits the rest of the time"
        self.rest(arms[0], steps)

    def rest(self, winner: Arm, steps: int) -> None:
        """Use time that is too short for ``steps``: train the winner for half as many and, as a
        control, from scratch for as many as fit.
        """
        fewer = [count for count in reversed(self.task.lengths()) if count < steps]
        for arm, choices in ((winner, fewer[:1]), (SCRATCH, fewer)):
            next((count for count in choices if self.rung([arm], count)), None)

    def winner(self, finalists: list[Arm], steps: int) -> Arm:
        """The finalist with the best mean accuracy, over as many seeds as fit the time for all."""
        for seed in self.task.seeds[1:]:
            if len(self.rung(finalists, steps, seed)) < len(finalists):
                break
        return max(finalists, key=partial(self.accuracy, steps=steps, among=finalists))

    def rung(self, arms: list[Arm], steps: int, seed: int | None = None) -> list[Arm]:
        """Train as many of ``arms`` as fit the time, in order; return the finished ones."""
        specs = [self.task.spec(arm, steps, seed) for arm in arms]
        count = fitting(specs, self.speed.seconds, self.clock.left)
        self.lacked_time |= count < len(specs)
        if self.train(specs[:count]):
            self.page()
        return [arm for arm, spec in zip(arms, specs, strict=True) if self.store.is_done(spec)]

    def train(self, specs: list[RunSpec]) -> bool:
        """Train ``specs`` and their bases; return whether any was unfinished."""
        left = [s for s in with_bases(specs) if not self.store.is_done(s)]
        if not left:
            return False
        probes = specs[0].recipe.optimizer == LBFGS
        with nullcontext() if probes else self.speed.measured(left):
            try:
                how = self.execution, "train", self.trackers
                train_missing(specs, self.store, self.dataset, *how)
            except UserError as error:  # the race continues without failed networks
                if not any(map(self.store.failure, left)):
                    raise
                log.warning("%s", error)
        return True

    def accuracy(self, arm: Arm, steps: int, among: Sequence[Arm] = ()) -> float:
        """The mean validation accuracy over the seeds that ``arm`` and all ``among`` finished."""
        found = [
            self.store.metrics(self.task.spec(arm, steps, seed))[-1]["val_top1"]
            for seed in self.task.seeds
            if all(self.store.is_done(self.task.spec(a, steps, seed)) for a in (arm, *among))
        ]
        return sum(found) / len(found)

    def best_depth(self) -> int:
        """The depth of the finished probe with the best validation accuracy; the lowest of ties."""
        done = filter(self.store.is_done, self.task.probes())
        found = {spec.cell.n: self.store.metrics(spec)[-1]["val_top1"] for spec in done}
        return max(found, key=lambda n: (found[n], -n))

    @property
    def arms(self) -> list[Arm]:
        """The arms of the race, by the probes that are finished."""
        return candidates(self.best_depth(), self.task.network.n_layers - 1)

    @cached_property
    def depths(self) -> pd.DataFrame:
        """Transferability metrics at every depth, from the features of the probes."""
        return depths(self.task.probes(), self.store, self.dataset, self.execution)

    @property
    def leader(self) -> str:
        return self.known.leader if self.known else "none yet"

    def page(self) -> Answer | None:
        """Write the page from finished networks; before a probe on these images is finished, from
        networks trained on fewer. Return the answer; None if no probe is finished.
        """
        began = self.clock.now()
        if not any(map(self.store.is_done, self.task.probes())):
            if not (earlier := known(self.task, self.store)):
                return None
            self.task = earlier
        done = [s for s in self.task.every(self.arms) if self.store.is_done(s)]
        race = self.depths, self.ended, self.task.lengths()[-1]
        self.known = answer(done, self.store, self.dataset, *race)
        write_page(self.known, self.path, self.config, self.title)
        self.clock.page = self.clock.now() - began
        log.info("%s: %s", self.stage, self.known.leader)
        return self.known

    @property
    def title(self) -> str:
        return f"{self.dataset.name} and {self.config.network.name}"


def as_weights_want(config: Config) -> Config:
    """Set the input size, crop and resampling that the weights were trained with, as far as their
    file or library states them; use the class token of a transformer besides the mean of its
    tokens. Settings on the command line take precedence; another input size scales the crop.
    """
    facts = load_pretrained(str(config.weights), config.network).facts  # fails before packing
    own = {word.partition("=")[0].lstrip("+") for word in config.words}
    wanted: dict[str, Any] = {}
    if facts.size and "dataset.image_size" not in own:
        if "network.input_size" not in own:
            wanted["network.input_size"] = facts.size
        size = wanted.get("network.input_size", config.network.input_size)
        wanted["dataset.image_size"] = max(round((facts.resized or 0) / facts.size * size), size)
    if facts.interpolation in ("bilinear", "bicubic") and "dataset.resize" not in own:
        wanted["dataset.resize"] = facts.interpolation
    if facts.fit and "dataset.fit" not in own:
        wanted["dataset.fit"] = facts.fit
    if wanted:
        said = " ".join(f"{key}={value}" for key, value in wanted.items())
        fewer = "; fewer pixels take less time" if "dataset.image_size" in wanted else ""
        log.info("%s (%s)%s", said, facts.origin, fewer)
    network = replace(config.network, **_below("network", wanted))
    layers = profile_layers(network.resolved(2))
    if "network.token_pool" not in own and any(extra_tokens(one.output) for one in layers):
        wanted["network.token_pool"] = WITH_CLASS_TOKEN
    found = replace(
        config,
        network=replace(network, **_below("network", wanted)),
        dataset=replace(config.dataset, **_below("dataset", wanted)),
    )
    words = [f"{key}={value}" for key, value in wanted.items()]
    found.words = (*config.words, *words)  # type: ignore[misc] # a ClassVar
    return found


def _below(section: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {k.partition(".")[2]: v for k, v in settings.items() if k.startswith(f"{section}.")}


def packed(config: DatasetConfig) -> PackedDataset:
    """The packed dataset; packs the images if they are not packed yet.

    Raises:
        UserError: the images cannot be packed, or are not those that were packed.
    """
    if not Path(config.folder).exists():
        return pack(config)
    dataset = open_packed(config)
    check_source_unchanged(config, dataset)
    return dataset
