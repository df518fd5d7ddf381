"""The commands as a Python API for notebooks and scripts, with results as values.

>>> from transferability import Study, advise
>>> study = Study("experiment=demo", "split=random-0")
>>> study.train()
>>> study.networks()
>>> found = advise("photographs.zip", "tf_efficientnet_lite0.safetensors", minutes=10)
>>> found.best, found.plot()

Settings are those of the commands, one string each. Training shows a progress bar in a notebook. An
interrupt saves the networks in training, and the same call resumes them.
"""

import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from analysis.advised import Answer
from analysis.advised_figures import curve, race
from analysis.collect import collect
from analysis.metadata import add_choice
from analysis.plotting.layout import compose
from analysis.tables import StudyResults
from analysis.use import pasted
from experiments import pack, run
from experiments.advise import Advising, as_weights_want
from experiments.cli import configuration
from experiments.clock import Clock
from experiments.overrides import of_advice
from transferability.data.packed import PackedDataset, dataset_of
from transferability.errors import UserError
from transferability.runs.load import Run, load_run
from transferability.runs.store import Store
from transferability.study.expand import study_specs
from transferability.study.jobs import job_specs, with_bases
from transferability.study.spec import RunSpec


class Study:
    """The study that ``experiments.run`` trains with these settings.

    Attributes:
        config: the settings, including defaults.
        store: the run store of its networks.

    Raises:
        UserError: an unknown setting, or an invalid value.
    """

    def __init__(self, *settings: str):
        self.config = configuration(settings)
        self.store = Store(self.config.store)

    @cached_property
    def dataset(self) -> PackedDataset:
        """The packed images; synthetic images are packed on first use, others by :meth:`pack`."""
        return dataset_of(self.config.dataset)

    @property
    def specs(self) -> list[RunSpec]:
        """The networks that the settings select."""
        return job_specs(study_specs(self.config, self.dataset), self.config.job)

    def pack(self) -> None:
        """Pack ``dataset.source``, like ``experiments.pack``."""
        pack.main(self.config)

    def plan(self) -> None:
        """Print what is to be trained and how long it takes, like ``mode=plan``."""
        run.main(replace(self.config, mode="plan"))

    def train(self) -> None:
        """Train missing networks and resume unfinished ones, like ``experiments.run``."""
        run.main(replace(self.config, mode="train"))

    def networks(self) -> pd.DataFrame:
        """One row per network, including those that others start from: split, cell, treatment, n,
        target, seed, state (done | training | failed | partial | missing) and run, its folder in
        the store.
        """
        return pd.DataFrame(
            {
                "split": spec.split,
                "cell": str(spec.cell),
                "treatment": spec.cell.treatment,
                "n": spec.cell.n,
                "target": spec.cell.target,
                "seed": spec.seed,
                "state": self.store.state(spec),
                "run": spec.run_id,
            }
            for spec in with_bases(self.specs)
        )

    def results(self) -> StudyResults:
        """The tables of ``analysis.collect``: ``.networks`` has one row per network of the study,
        also of unfinished ones (state missing).
        """
        tables = collect(self.specs, self.store, self.dataset)
        add_choice(tables.metadata, self.config.study.choose_by)
        return tables

    def load(self, cell: str, split: str | None = None, seed: int | None = None) -> Run:
        """Load a finished network of the study, see :func:`transferability.load_run`.

        Raises:
            UserError: the network is not finished, or none or several match.
        """
        found = [
            spec
            for spec in with_bases(self.specs)
            if str(spec.cell) == cell and split in (None, spec.split) and seed in (None, spec.seed)
        ]
        if len(found) != 1:
            which = f"{len(found)} networks {cell}: say split= or seed=" if found else f"no {cell}"
            raise UserError(f"this study has {which}")
        return load_run(self.store.folder(found[0]))


class Advice:
    """The result of :func:`advise`.

    Attributes:
        answer: the complete result.
        page: the path of the report.
    """

    def __init__(self, advising: Advising, answer: Answer):
        self.answer, self.page, self._config = answer, advising.path.resolve(), advising.config

    @property
    def best(self) -> pd.Series:
        """The strategy that is best on validation images."""
        return self.answer.best

    @property
    def table(self) -> pd.DataFrame:
        """One row per strategy, see :class:`analysis.advised.Answer`."""
        return self.answer.strategies

    def __str__(self) -> str:
        return "\n".join([*self.answer.sentences, f"page: {self.page}"])

    __repr__ = __str__

    def plot(self) -> Figure:
        """Plot the accuracy at each depth and, if available, the race."""
        drawings = [one for one in (curve(self.answer), race(self.answer)) if one]
        both = replace(
            drawings[0],
            title="",
            caption=" ".join(one.caption for one in drawings),
            panels=[replace(panel, title=one.title) for one in drawings for panel in one.panels],
            marks=list(dict.fromkeys(mark for one in drawings for mark in one.marks)),
            columns=2,
        )
        figure = compose(both)
        plt.close(figure)  # a notebook would show an open figure again when it is returned
        return figure

    def load(self) -> Run:
        """Load the best network as it was measured."""
        return load_run(Path(self._config.store, self.answer.spec.run_id))

    def train_on_all(self) -> Run:
        """Train the best strategy again on all images, including validation and test: a network to
        use, whose accuracy no remaining images can measure.
        """
        study = Study(*pasted(self._config, self.answer.spec))
        study.train()
        return study.load(str(self.answer.spec.cell))


def advise(
    source: str | Path, weights: str | Path, *settings: str, minutes: float = 10.0
) -> Advice:
    """Find the best strategy for images and a pretrained network, like ``experiments.advise``.

    Args:
        source: a folder, zip or tar file with one folder per class.
        weights: a file, or the library's name for weights.
        settings: further settings of the command, such as ``store=runs``.
        minutes: the total time; the same call resumes.

    Raises:
        UserError: images or weights cannot be used.
        KeyboardInterrupt: it was interrupted before the first result.
    """
    words = [f"source={source}", f"weights={weights}", f"minutes={minutes}", *settings]
    began, config = time.monotonic(), configuration(of_advice(words))
    clock = Clock(60 * config.minutes, began)
    advising = Advising(as_weights_want(config), clock)  # which may download weights, and packs
    with suppress(KeyboardInterrupt):
        advising.run()
    if (answer := advising.page()) is None:
        raise KeyboardInterrupt
    return Advice(advising, answer)
