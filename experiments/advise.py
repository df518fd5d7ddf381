"""What to do with your images and a pretrained network: an answer after a minute, a better one
until the time is up.

python -m experiments.advise source=flowers.zip weights=tf_efficientnet_lite0.safetensors minutes=10
python -m experiments.advise source=PATH weights=resnet18.a1_in1k minutes=30

It packs the images, fits a linear classifier on every layer of the network, and lets ways to train
race against each other while time is left. The page is there after the first stage, and is written
again after each. Ctrl-C ends with the best answer so far; the same command goes on from there, and
more minutes do.

Settings used most:
source=PATH          the images: a folder, a zip or tar file
weights=FILE         the pretrained network, or the library's name for its weights
minutes=10           the time for all of it
network.model=NAME   which network it is, where the weights' name does not say it
dataset.name=NAME    what the dataset is called from now on (the name of its file)
store=FOLDER         where networks are kept (runs/)
out=FOLDER           where the page goes (figures/advice-NAME)
"""

from experiments.cli import run_module
from experiments.overrides import of_advice

if __name__ == "__main__":  # above the imports, which --help does without
    raise SystemExit(run_module(__spec__.name, of_advice))

import logging
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from analysis.advised import Answer, answer, write_page
from experiments.cli import STOPPED
from experiments.clock import Clock, Speed, said
from experiments.cost import Cost
from experiments.race import (
    FINALISTS,
    SCRATCH,
    SEEDS,
    STEPS,
    TIMES,
    Arm,
    Task,
    candidates,
    fitting,
    survivors,
)
from transferability.data.mirrors import mirrored
from transferability.data.pack import pack
from transferability.data.packed import PackedDataset, open_packed
from transferability.errors import UserError
from transferability.networks.pretrained import load_pretrained
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers
from transferability.study.config import Config
from transferability.study.jobs import with_bases
from transferability.study.recipe import LBFGS
from transferability.study.spec import RunSpec
from transferability.training.execution import execution_of

log = logging.getLogger(__name__)


def main(config: Config) -> None:
    if not config.weights:
        raise UserError("say which pretrained network: weights=FILE, or a library's name for them")
    clock = Clock(60 * config.minutes, time.monotonic() - time.process_time())
    advice = Advising(config, clock)
    status = 0
    try:
        advice.run()
    except KeyboardInterrupt:
        status = 0 if clock.over else STOPPED
    if found := advice.page():
        print("\n".join(found.sentences))
        print(f"page: {advice.path.resolve()}")
    else:
        log.warning("stopped before there is an answer: the same command goes on")
    if status:
        sys.exit(status)


class Advising:
    """One command: what it has trained, and its page."""

    def __init__(self, config: Config, clock: Clock):
        self.config, self.clock = config, clock
        pretrained = load_pretrained(str(config.weights), config.network)  # fails before packing
        self.dataset = _packed(config)
        self.folder = Path(config.out or f"figures/advice-{self.dataset.name}")
        self.path = self.folder / "report.html"
        recipe = config.recipe
        if recipe.mirror and (pairs := mirrored([c.name for c in self.dataset.classes])):
            log.info("classes %s and %s are mirror images: nothing is mirrored", *pairs[0])
            recipe = replace(recipe, mirror=False)
        self.task = Task(self.dataset, config.network, recipe, pretrained)
        self.store, self.execution = Store(config.store), execution_of(config)
        self.trackers = Trackers(config.tracker)
        self.speed = Speed(Cost(self.store, self.dataset, self.execution))
        self.stage = "packed"
        self.known: Answer | None = None

    def run(self) -> None:
        """Stage 1, then the race, until the time is up."""
        with self.clock.lines(lambda: said(self.stage, self.clock, self.leader)):
            self.stage = "stage 1, a linear classifier on every layer"
            self.train(self.task.probes())
            self.page()
            with self.clock.limit():
                self.race()

    def race(self) -> None:
        """Rung after rung; see ``race.RULE``."""
        arms, steps = self.arms, STEPS
        while steps <= self.task.longest:
            self.stage = f"race, {steps} steps"
            trained = self.rung(arms, steps)
            if not trained:
                break
            arms = survivors(trained, partial(self.accuracy, steps=steps))
            if len(arms) <= FINALISTS:
                self.rung(arms, steps, SEEDS)
                arms = [max(arms, key=partial(self.accuracy, steps=steps))]
            steps *= TIMES
        self.stage = "race, what fits the rest of the time"
        self.rest(arms[0], steps)

    def rest(self, winner: Arm, steps: int) -> None:
        """The time that is too short for ``steps``: half of these and, as a control, training from
        scratch for as many as fit.
        """
        fewer = [count for count in reversed(self.task.lengths()) if count < steps]
        for arm, choices in ((winner, fewer[:1]), (SCRATCH, fewer)):
            next((count for count in choices if self.rung([arm], count)), None)

    def rung(self, arms: list[Arm], steps: int, seeds: tuple[int, ...] = SEEDS[:1]) -> list[Arm]:
        """Train what fits the time, the first of ``arms`` before the others; returns those of which
        the first seed is finished.
        """
        specs = [self.task.spec(arm, steps, seed) for arm in arms for seed in seeds]
        count = fitting(specs, self.speed.seconds, self.clock.left)
        if self.train(specs[:count]):
            self.page()
        return [arm for arm in arms if self.store.is_done(self.task.spec(arm, steps))]

    def train(self, specs: list[RunSpec]) -> bool:
        """Finish ``specs``; returns whether there was anything to do."""
        left = [s for s in with_bases(specs) if not self.store.is_done(s)]
        if not left:
            return False
        probes = specs[0].recipe.optimizer == LBFGS
        with nullcontext() if probes else self.speed.measured(left):
            try:
                how = self.execution, "train", self.trackers
                train_missing(specs, self.store, self.dataset, *how)
            except UserError as error:  # of networks that failed the race does without
                if not any(map(self.store.failure, left)):
                    raise
                log.warning("%s", error)
        return True

    def accuracy(self, arm: Arm, steps: int) -> float:
        """The mean validation accuracy over the seeds that are finished."""
        specs = [self.task.spec(arm, steps, seed) for seed in SEEDS]
        found = [self.store.metrics(s)[-1]["val_top1"] for s in specs if self.store.is_done(s)]
        return sum(found) / len(found)

    def best_depth(self) -> int:
        """The depth whose classifier is best on validation images; of equals the lowest."""
        found = {s.cell.n: self.store.metrics(s)[-1]["val_top1"] for s in self.task.probes()}
        return max(found, key=lambda n: (found[n], -n))

    @property
    def arms(self) -> list[Arm]:
        """What races: known when stage 1 is finished."""
        return candidates(self.best_depth(), self.task.network.n_layers - 1)

    @property
    def leader(self) -> str:
        return self.known.leader if self.known else "none yet"

    def page(self) -> Answer | None:
        """Write the page of what is finished; None before stage 1 is."""
        began = time.monotonic()
        if not all(self.store.is_done(spec) for spec in self.task.probes()):
            return None
        done = [s for s in self.task.every(self.arms) if self.store.is_done(s)]
        self.known = answer(done, self.store, self.dataset)
        write_page(self.known, self.path, self.config, self.title)
        self.clock.page = time.monotonic() - began
        log.info("%s: %s", self.stage, self.known.leader)
        return self.known

    @property
    def title(self) -> str:
        return f"{self.dataset.name} and {self.config.network.name}"


def _packed(config: Config) -> PackedDataset:
    folder = Path(config.dataset.folder)
    return open_packed(config.dataset) if folder.exists() else pack(config.dataset)
