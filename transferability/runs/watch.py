"""Show the progress of networks while they train."""

import logging
from collections.abc import Callable
from functools import lru_cache

from tqdm import tqdm

from transferability.console import duration, pluralize
from transferability.runs.estimate import Workload
from transferability.runs.progress import Due, Progress, ProgressWriter
from transferability.runs.trackers import Trackers
from transferability.training.state import TrainState

log = logging.getLogger(__name__)


def time_left(progress: Progress, work: Workload) -> str:
    """The rate and remaining time of the networks in training, and the time left of the command."""
    if progress.rates is None or progress.seconds_left is None:
        return "no rate yet"
    words = f"{progress.rates[0]:.3g} steps/s, {duration(progress.seconds_left)} left"
    if work.ahead:
        words += f"; of the whole command about {duration(work.seconds([progress]))}"
    if work.unlike:
        words += f", and {pluralize(work.unlike, 'network')} of a kind not measured yet"
    return words


class Watch:
    """Update the note for ``experiments.status``, the progress bar (or log lines) and the trackers
    after every step.
    """

    def __init__(
        self,
        notes: ProgressWriter,
        bar: tqdm,
        rest: Callable[[], Workload],
        trackers: Trackers,
    ):
        self.notes, self.bar, self.due, self.said = notes, bar, Due(notes.clock), ""
        self.trackers = trackers
        self.work = lru_cache(maxsize=1)(rest)  # computed when the first line is due

    def __call__(self, step: int, stepped: list[TrainState]) -> None:
        """Show training step ``step`` of the networks ``stepped``."""
        self.notes(step, stepped)
        recipe = self.notes.recipe
        place = f"step {step + 1}/{recipe.steps}"
        if self.due():
            self.said = time_left(self.notes.progress(), self.work())
            if self.bar.disable:
                log.info("%s: %s", place, self.said)
        self.bar.set_postfix_str(f"{place} {self.said}", refresh=False)
        self.bar.update(len(stepped) * recipe.batch_size)
        for state in stepped:
            self.trackers.log(state.spec, state.metrics)
        newest = [state.metrics[-1] for state in stepped if state.metrics]
        evaluated = [found["val_top1"] for found in newest if found["step"] == step + 1]
        if evaluated:
            log.info("%s: top-1 %.3f to %.3f", place, min(evaluated), max(evaluated))
