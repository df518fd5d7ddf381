"""Fit the linear classifiers of a wave on features computed once, and store them as runs."""

import logging
import math
import time

from torch import Tensor
from tqdm import tqdm

from transferability.console import duration, pluralize, progress_bar
from transferability.data.packed import PackedDataset
from transferability.data.prefetch import prefetch
from transferability.networks.pretrained import pretrained_state_dict
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.runs.progress import Due
from transferability.runs.provenance import provenance
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers
from transferability.signals import StopRequest, stop_requests
from transferability.study.spec import RunSpec
from transferability.training.devices import stopping_out_of_memory
from transferability.training.execution import Execution
from transferability.training.features import Features, features_of
from transferability.training.loader import TaskLoader
from transferability.training.probe import Probe, fit_probe

log = logging.getLogger(__name__)
FEATURES = "features"  # the folder in a store


def fit_wave(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    trackers: Trackers,
) -> None:
    """Fit and finish the runs ``specs``, whose bases must be finished.

    Raises:
        KeyboardInterrupt: a stop was requested; finished runs are kept.
    """
    with stop_requests() as stop, stopping_out_of_memory(stop):
        for of_base in _by_base(specs):
            _fit(of_base, store, dataset, execution, trackers, stop)


def _by_base(specs: list[RunSpec]) -> list[list[RunSpec]]:
    groups: dict[tuple, list[RunSpec]] = {}
    for spec in specs:
        assert spec.source is not None  # of a linear classifier
        groups.setdefault((spec.source.id, spec.network.whole), []).append(spec)
    return list(groups.values())


def _fit(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    trackers: Trackers,
    stop: StopRequest,
) -> None:
    """Fit and finish the classifiers of one base."""
    began, source = time.monotonic(), _weights(specs[0], store)
    features = features_of_wave(specs, store, dataset, execution, stop)
    shared = (time.monotonic() - began) / len(specs)

    def fitted(spec: RunSpec) -> tuple[RunSpec, Probe, float]:
        started = time.monotonic()
        probe = fit_probe(spec, source, dataset, features, execution.device, stop)
        return spec, probe, time.monotonic() - started

    threads = execution.threads if execution.device.type == "cpu" else 1
    for spec, probe, seconds in prefetch(fitted, specs, threads):
        if not math.isfinite(probe.metrics[0]["train_loss"]):
            store.fail(spec, {"step": 0, "lr": spec.recipe.lr, "last": None})
            trackers.end(spec, "failed")
            continue
        made = provenance(spec, seconds + shared, probe.views, len(specs), execution)
        images_of = TaskLoader.of(spec, dataset, execution.device).images_of
        made |= {"l2": probe.strength, "images_of": images_of}
        store.finish(spec, probe.network.state_dict(), probe.metrics, made, probe.predictions)
        trackers.log(spec, probe.metrics)
        trackers.end(spec, "finished")
        if stop.requested:
            raise KeyboardInterrupt
    log.info(
        "%s: top-1 %.3f to %.3f",
        pluralize(len(specs), "linear classifier"),
        *_range([store.metrics(s)[-1]["val_top1"] for s in specs if store.is_done(s)]),
    )


def features_of_wave(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    stop: StopRequest | None = None,
) -> Features:
    """Features for the linear classifiers of one base, stored below the run store; computed if
    missing.
    """
    began = time.monotonic()
    with progress_bar(desc="features", unit="img", dynamic_ncols=True) as bar:
        told = _Told(bar, stop or StopRequest())
        features = features_of(
            specs,
            _weights(specs[0], store),
            dataset,
            store.root / FEATURES,
            execution.device,
            execution.threads,
            told,
        )
    if told.images:
        log.info(
            "features of %s images in %s, kept in %s",
            told.images,
            duration(time.monotonic() - began),
            features.folder,
        )
    return features


def _weights(spec: RunSpec, store: Store) -> dict[str, Tensor]:
    """The weights of the run's base."""
    base = spec.source
    assert base is not None  # of a linear classifier
    return pretrained_state_dict(base) if isinstance(base, PretrainedBase) else store.weights(base)


def _range(values: list[float]) -> tuple[float, float]:
    return min(values, default=math.nan), max(values, default=math.nan)


class _Told:
    """Show the progress of the features; raise KeyboardInterrupt once a stop is requested."""

    def __init__(self, bar: tqdm, stop: StopRequest):
        self.bar, self.stop = bar, stop
        self.due, self.began, self.images = Due(), time.monotonic(), 0

    def __call__(self, done: int, total: int) -> None:
        if self.stop.requested:
            raise KeyboardInterrupt
        self.bar.total, self.images = total, total
        self.bar.update(done - self.bar.n)
        if self.due() and self.bar.disable:
            left = (time.monotonic() - self.began) * (total - done) / done
            log.info("features: %d of %d images, %s left", done, total, duration(left))
