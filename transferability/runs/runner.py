"""Train a list of runs: skip finished runs, resume interrupted ones, and train missing ones."""

import gc
import logging
import time
from dataclasses import replace

import torch
from filelock import FileLock

from transferability.console import pluralize
from transferability.data.packed import PackedDataset
from transferability.errors import UserError
from transferability.runs.locks import check_locks
from transferability.runs.pending import Pending
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers
from transferability.runs.wave import train_wave
from transferability.signals import raise_if_stopped, stop_requests
from transferability.study.jobs import check_volumes, group_into_jobs, with_bases
from transferability.study.spec import RunSpec
from transferability.study.trackers import TrackersConfig
from transferability.training import checkpoint as checkpoints
from transferability.training.devices import is_out_of_memory, training_device
from transferability.training.execution import Execution

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0


def train_missing(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    sources: str = "train",
    trackers: Trackers | None = None,
) -> None:
    """Train every run of ``specs`` that is not finished; wait for runs that another process trains.

    Networks that fail, and networks that start from them, are left out; all others are trained
    before the error is raised.

    Args:
        sources: ``train`` trains missing base networks first; ``require`` raises an error instead.
        trackers: receive the networks that train in this process.

    Raises:
        UserError: networks failed, or one does not fit into memory; a source is missing with
            ``sources="require"``; the locks of the store do not work; no GPU is free; there are too
            few images per class; the layers of a network do not reproduce the network that they
            were cut from; a tracker cannot be used.
    """
    if sources == "require":
        _require_sources(specs, store)
    specs = with_bases(specs)
    done = [spec for spec in specs if store.is_done(spec)]
    for spec in done:
        checkpoints.delete(store.folder(spec))
    if len(done) == len(specs):
        log.info("nothing to train: all %d networks are finished in %s", len(specs), store.root)
        return
    check_volumes(specs, dataset)  # report too few images before training begins
    check_locks(store.root)
    log.info(
        "to train: %s of %d, into %s",
        pluralize(len(specs) - len(done), "network"),
        len(specs),
        store.root,
    )
    for network in {spec.network for spec in specs}:
        network.verify()
    pending, trackers = Pending(specs, store), trackers or Trackers(TrackersConfig())
    with trackers.opened(), training_device(execution.device) as device:
        _train_in_waves(pending, dataset, replace(execution, device=device), trackers)
    pending.report_failures()


def _train_in_waves(
    pending: Pending, dataset: PackedDataset, execution: Execution, trackers: Trackers
) -> None:
    """Train unfinished runs in waves, and wait for runs that another process is training."""
    store = pending.store
    limit, told = execution.max_networks, False
    while runnable := pending.runnable():
        raise_if_stopped()
        claimed = _claim_wave(runnable, store, execution, limit)
        if not claimed:
            if not told:
                log.info("waiting for %d runs that another process is training", len(runnable))
                told = True
            time.sleep(POLL_SECONDS)
            continue
        wave = [spec for spec, _ in claimed]
        pending.tried |= {spec.run_id for spec in wave}
        try:
            with trackers.following(wave, store.step):
                train_wave(wave, pending, dataset, execution, trackers)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            limit = _smaller_limit(len(wave), execution)
            pending.tried -= {spec.run_id for spec in wave}
        finally:
            for _, lock in claimed:
                lock.release()
        with stop_requests():  # a finalizer would swallow a KeyboardInterrupt
            gc.collect()  # free this wave's networks before the next wave's are built
        if execution.device.type == "cuda":
            torch.cuda.empty_cache()


def _require_sources(specs: list[RunSpec], store: Store) -> None:
    for spec in specs:
        if spec.base and not store.is_done(spec.base):
            raise UserError(
                f"{spec.cell} starts from {spec.base.cell}, which is not finished in "
                f"{store.root} ({spec.base.run_id}): train it first, or set sources=train"
            )


def _smaller_limit(networks: int, execution: Execution) -> int:
    """The number of networks to hold at once after memory ran out with ``networks``.

    Raises:
        UserError: there is only one network, or the user has set ``max_networks``.
    """
    smaller = -(-networks // 2)
    if networks == 1:
        raise UserError(
            f"out of memory on {execution.device} with a single network: it needs a larger device, "
            "or a smaller recipe.batch_size (which makes a new study)"
        )
    if execution.max_networks is not None:
        raise UserError(
            f"out of memory on {execution.device} with {networks} networks held at once: set "
            f"max_networks={smaller}, or null to split cohorts automatically; "
            "results do not depend on it"
        )
    log.warning(
        "out of memory with %d networks held at once: continuing with %d (max_networks)",
        networks,
        smaller,
    )
    return smaller


def _claim_wave(
    ready: list[RunSpec], store: Store, execution: Execution, limit: int | None
) -> list[tuple[RunSpec, FileLock]]:
    """Lock runs that can train side by side: one cohort or, while threads would be idle, several
    cohorts with the same ``batching_key``.

    Runs that others start from come first.
    """
    limit = limit or len(ready)
    claimed: list[tuple[RunSpec, FileLock]] = []
    for group in group_into_jobs(ready):
        if claimed and (
            len(claimed) >= execution.threads
            or group[0].recipe.batching_key != claimed[0][0].recipe.batching_key
        ):
            continue
        for spec in group[: limit - len(claimed)]:
            if lock := store.lock(spec):
                if store.is_done(spec):  # finished by another process in the meantime
                    lock.release()
                else:
                    claimed.append((spec, lock))
    return claimed
