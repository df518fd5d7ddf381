"""The number of training images that fit the time of advice: on a large dataset, a few minutes are
too short for one pass over all images.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.clock import Clock
from experiments.race import Task
from transferability.console import duration
from transferability.networks.pretrained import pretrained_state_dict
from transferability.runs.store import Store
from transferability.training.execution import Execution
from transferability.training.features import IMAGES, View, features_of_batch, frozen, images_read
from transferability.training.state import one_thread

log = logging.getLogger(__name__)
FEWER = (500, 200, 100, 50, 20, 10, 5)  # training images per class
SHARE = 0.8  # of the time left, for the features and the first linear classifier
EVALUATIONS = 150  # of loss and gradient per linear classifier, all weight decays together


def sized(task: Task, store: Store, execution: Execution, clock: Clock) -> Task:
    """``task`` with as many training images per class as the first stage has time for: all if they
    fit, and no fewer than a finished probe in the store has.
    """
    tasks, found, most = _of_sizes(task), known(task, store), _most(task)
    if found == tasks[0]:
        return tasks[0]
    seconds, left = _seconds(task, execution, clock.now), clock.left
    chosen = next((t for t in tasks if t == found or seconds(t) <= SHARE * left), tasks[-1])
    if chosen.images_per_class:
        log.info(
            "in the time that is left networks see the first %d training images of each class, of "
            "up to %d: the first linear classifier takes about %s, of all images %s",
            chosen.images_per_class,
            most,
            duration(seconds(chosen)),
            duration(seconds(task)),
        )
    return chosen


def known(task: Task, store: Store) -> Task | None:
    """``task`` with the largest training-set size of a finished probe; None if there is none."""
    return next((t for t in _of_sizes(task) if any(map(store.is_done, t.probes()))), None)


def _of_sizes(task: Task) -> list[Task]:
    """``task`` with every possible training-set size, the largest first."""
    sizes = [None, *(size for size in FEWER if size < _most(task))]
    return [replace(task, images_per_class=size) for size in sizes]


def _most(task: Task) -> int:
    """Training images of the largest class."""
    return int(task.dataset.train_counts.max())


def _seconds(task: Task, execution: Execution, now: Callable[[], float]) -> Callable[[Task], float]:
    """A function for the seconds of a task's features and first linear classifier: by its number of
    images, at the measured speed of one batch and one matrix product.
    """
    dataset, (spec, *_) = task.dataset, task.probes()
    network = frozen(spec, pretrained_state_dict(task.pretrained)).to(execution.device)
    view = View(False, np.arange(min(IMAGES, len(dataset.labels))), False)
    forward = partial(features_of_batch, network, network.channel_dims, dataset, view, 0)
    first, per_batch = _timed(forward, now)
    channels, classes = first[-1].shape[1], len(dataset.classes)
    x = torch.ones(1024, channels, device=execution.device)
    weight = torch.ones(classes, channels, device=execution.device)
    with one_thread():
        per_product = min(_timed(lambda: (x @ weight.T).sum().item(), now)[1] for _ in range(5))
    threads = execution.threads if execution.device.type == "cpu" else 1

    def seconds(task: Task) -> float:
        specs = task.probes()[:1]
        images = images_read(specs, dataset)
        return images * (
            per_batch / len(view.rows) / threads + 2 * EVALUATIONS * per_product / len(x)
        )

    return seconds


def _timed(call: Callable[[], Any], now: Callable[[], float]) -> tuple[Any, float]:
    """The result of a second call and its seconds; the first call warms up."""
    call()
    began = now()
    return call(), now() - began
