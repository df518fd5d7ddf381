"""From a list of runs to finished runs: what is done is skipped, what is half done resumed,
what is missing trained.
"""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import torch
from filelock import FileLock
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from transferability.console import duration, pluralize, progress_bar
from transferability.data.packed import PackedDataset
from transferability.errors import UserError
from transferability.networks.pretrained import pretrained_state_dict
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.runs.estimate import Workload, workload
from transferability.runs.probes import fit_wave
from transferability.runs.progress import Due, Progress, ProgressWriter
from transferability.runs.provenance import provenance
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers
from transferability.signals import raise_if_stopped, stop_requests
from transferability.study.jobs import cohort_key, group_into_jobs, with_bases
from transferability.study.recipe import LBFGS
from transferability.study.spec import RunSpec
from transferability.study.trackers import TrackersConfig
from transferability.training import checkpoint as checkpoints
from transferability.training.devices import is_out_of_memory, training_device
from transferability.training.loader import TaskLoader
from transferability.training.loop import Cohort, Execution, predict, train
from transferability.training.state import TrainState, build_state

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
    """Return when every run of ``specs`` is finished, by this process or by another.

    Networks that fail are left out, with those that start from them; all others are trained first.

    Args:
        sources: ``train`` trains missing base networks first;
            ``require`` makes a missing one an error.
        trackers: what hears of the networks that train here.

    Raises:
        UserError: networks failed, or one does not fit into memory (the message names them); no GPU
            is free; there are too few images a class; the layers of a network are not the network;
            a tracker cannot be used.
    """
    if sources == "require":
        _require_sources(specs, store)
    pending = with_bases(specs)
    done = [s for s in pending if store.is_done(s)]
    for spec in done:
        checkpoints.delete(store.folder(spec))
    if len(done) == len(pending):
        log.info("nothing to train: all %d networks are finished in %s", len(pending), store.root)
        return
    for classes, images in {(s.classes, s.images_per_class) for s in pending if s.images_per_class}:
        dataset.train_rows(list(classes), images)  # too few are named before anything is trained
    store.check_locks()
    log.info(
        "to train: %s of %d, into %s",
        pluralize(len(pending) - len(done), "network"),
        len(pending),
        store.root,
    )
    for network in {s.network for s in pending}:
        network.verify()
    trackers = trackers or Trackers(TrackersConfig())
    with trackers.opened(), training_device(execution.device) as device:
        _train_pending(pending, store, dataset, replace(execution, device=device), trackers)
    _report_failures(pending, store)


def _train_pending(
    pending: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    trackers: Trackers,
) -> None:
    """Train what is not finished, wave after wave,
    and wait for what another process is training.
    """
    # failures of earlier tries are tried again
    before = {s.run_id: store.failure(s) for s in pending}
    tried: set[str] = set()
    limit, told = execution.max_networks, False
    while ready := _ready(pending, store, before, tried):
        raise_if_stopped()
        claimed = _claim_wave(ready, store, execution, limit)
        if claimed:
            tried |= {s.run_id for s, _ in claimed}
            try:
                wave = [s for s, _ in claimed]
                to_begin = partial(_to_begin, pending, wave, store, before, tried)
                with trackers.following(wave, store.step):
                    _train_wave(wave, store, dataset, execution, to_begin, trackers)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                limit = _smaller_limit(len(claimed), execution)
                tried -= {s.run_id for s, _ in claimed}
            finally:
                for _, lock in claimed:
                    lock.release()
            gc.collect()  # the networks of this wave, before those of the next are built
            if execution.device.type == "cuda":
                torch.cuda.empty_cache()
        else:
            if not told:
                log.info("waiting for %d runs that another process is training", len(ready))
                told = True
            time.sleep(POLL_SECONDS)


def _require_sources(specs: list[RunSpec], store: Store) -> None:
    for spec in specs:
        if spec.base and not store.is_done(spec.base):
            raise UserError(
                f"{spec.cell} starts from {spec.base.cell}, which is not finished in "
                f"{store.root} ({spec.base.run_id}): train it first, or set sources=train"
            )


def _ready(
    pending: list[RunSpec], store: Store, before: dict[str, dict | None], tried: set[str]
) -> list[RunSpec]:
    """The runs that can be trained now: not finished, source finished,
    and not failed in this try.
    """
    left = [s for s in pending if not store.is_done(s) and not _failed(s, store, before, tried)]
    return [s for s in left if s.base is None or store.is_done(s.base)]


def _to_begin(
    pending: list[RunSpec],
    wave: list[RunSpec],
    store: Store,
    before: dict[str, dict | None],
    tried: set[str],
) -> list[RunSpec]:
    """The runs that are to be trained after those of ``wave``."""
    now = {s.run_id for s in wave}
    return [
        s
        for s in pending
        if s.run_id not in now
        and not store.is_done(s)
        and not any(_failed(one, store, before, tried) for one in with_bases([s]))
    ]


def _failed(spec: RunSpec, store: Store, before: dict[str, dict | None], tried: set[str]) -> bool:
    """Whether the run has failed in this try; ``before``: how it had failed by then."""
    failure = store.failure(spec)
    return failure is not None and (spec.run_id in tried or failure != before[spec.run_id])


def _report_failures(pending: list[RunSpec], store: Store) -> None:
    """Raise if networks failed, naming them and counting those that wait for them."""
    failures = [(s, why) for s in pending if not store.is_done(s) and (why := store.failure(s))]
    if not failures:
        return
    waiting = sum(not store.is_done(s) for s in pending) - len(failures)
    names = [
        f"{s.split} {s.cell} seed {s.seed} (step {w['step']}, rate {w['lr']:.3g}, last validation "
        f"{w['last']['val_top1'] if w['last'] else 'none'})"
        for s, w in failures
    ]
    raise UserError(
        f"the loss of {len(failures)} of {len(pending)} networks became infinite or no number: "
        f"{', '.join(names[:5])}"
        f"{' ...' if len(names) > 5 else ''}; {waiting} that start from them were not trained, all "
        "others are finished. The same command tries these again; "
        "a smaller recipe.lr makes a new study"
    )


def _smaller_limit(networks: int, execution: Execution) -> int:
    """How many networks to hold at once after memory ran out with ``networks``.

    Raises:
        UserError: there is nothing to split, or the user has set the number.
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
            f"max_networks={smaller}, or null to have cohorts split by themselves; "
            "results do not depend on it"
        )
    log.warning(
        "out of memory with %d networks held at once: going on with %d (max_networks)",
        networks,
        smaller,
    )
    return smaller


def _claim_wave(
    ready: list[RunSpec], store: Store, execution: Execution, limit: int | None
) -> list[tuple[RunSpec, FileLock]]:
    """Lock runs that can train side by side: one cohort or, while threads would idle,
    several of one pace.

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


def make_cohorts(
    specs: list[RunSpec], store: Store, dataset: PackedDataset, execution: Execution
) -> list[Cohort]:
    """Build the networks of ``specs``, whose sources are finished,
    and the streams that feed them.
    """
    cohorts = {}
    weights = {
        s.source.id: pretrained_state_dict(s.source)
        if isinstance(s.source, PretrainedBase)
        else store.weights(s.source)
        for s in specs
        if s.source
    }
    for spec in specs:
        key = cohort_key(spec)
        if key not in cohorts:
            cohorts[key] = Cohort(TaskLoader.of(spec, dataset, execution.device), [])
        source = weights[spec.source.id] if spec.source else None
        member = build_state(spec, cohorts[key].stream, source, store.load_checkpoint(spec))
        cohorts[key].states.append(member)
    return list(cohorts.values())


def time_left(progress: Progress, work: Workload) -> str:
    """The rate of the networks that train, and the time left of them and of the whole command."""
    if progress.rates is None or progress.seconds_left is None:
        return "no rate yet"
    words = f"{progress.rates[0]:.3g} steps/s, {duration(progress.seconds_left)} left"
    if work.ahead:
        words += f"; of the whole command about {duration(work.seconds([progress]))}"
    if work.unlike:
        words += f", and {pluralize(work.unlike, 'network')} of a kind not measured yet"
    return words


class Watch:
    """What is shown of networks that train: a note for ``experiments.status``, a bar or, where
    there is no terminal, lines of the log, and trackers; called after every step.
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
        self.work = lru_cache(maxsize=1)(rest)  # asked for when the first line is due

    def __call__(self, step: int, stepped: list[TrainState]) -> None:
        """After training step ``step``, which ``stepped`` made."""
        self.notes(step, stepped)
        recipe = self.notes.recipe
        place = f"step {step + 1}/{recipe.steps}"
        if self.due():
            self.said = time_left(self.notes.progress(), self.work())
            if self.bar.disable:
                log.info("%s: %s", place, self.said)
        self.bar.set_postfix_str(f"{place} {self.said}", refresh=False)
        self.bar.update(len(stepped) * recipe.batch_size)
        for m in stepped:
            self.trackers.log(m.spec, m.metrics)
        newest = [m.metrics[-1] for m in stepped if m.metrics]
        evaluated = [found["val_top1"] for found in newest if found["step"] == step + 1]
        if evaluated:
            log.info("%s: top-1 %.3f to %.3f", place, min(evaluated), max(evaluated))


def _workload(
    specs: list[RunSpec],
    to_begin: Callable[[], list[RunSpec]],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
) -> Workload:
    """That of this process, which trains ``specs``."""
    return workload([specs], [execution.threads], to_begin(), store.step, dataset)


def _train_wave(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    to_begin: Callable[[], list[RunSpec]],
    trackers: Trackers,
) -> None:
    if specs[0].recipe.optimizer == LBFGS:
        return fit_wave(specs, store, dataset, execution, trackers)
    cohorts = make_cohorts(specs, store, dataset, execution)
    recipe = specs[0].recipe
    states = [m for c in cohorts for m in c.states]
    resumed = sum(m.step > 0 for m in states)
    name = " & ".join(dict.fromkeys(f"{s.split} → {s.cell.target}" for s in specs))
    label = f"{name}, {len(states)} network{'s' * (len(states) > 1)}"
    again = f", {resumed} resumed" if resumed else ""
    log.info("%s: %d steps of %d images%s", label, recipe.steps, recipe.batch_size, again)
    todo = sum(recipe.steps - m.step for m in states) * recipe.batch_size
    bar = progress_bar(total=todo, desc=label, unit="img", unit_scale=True, dynamic_ncols=True)

    rest = partial(_workload, specs, to_begin, store, dataset, execution)
    on_step = Watch(ProgressWriter(store.root, cohorts, execution.threads), bar, rest, trackers)

    def fail(member: TrainState, why: dict) -> None:
        store.fail(member.spec, why)
        trackers.end(member.spec, "failed")
        log.warning(
            "%s %s failed at step %d, rate %.3g",
            member.spec.split,
            member.spec.cell,
            why["step"],
            why["lr"],
        )

    began = time.monotonic()
    with bar, logging_redirect_tqdm(), stop_requests() as stop:
        try:
            train(
                cohorts,
                execution,
                lambda m: store.save_checkpoint(m.spec, m.checkpoint()),
                fail,
                on_step,
                stop,
            )
        except KeyboardInterrupt:
            if stop.is_set():  # everything was saved
                log.info(
                    "%s: stopped, saved %s", label, _where([m for c in cohorts for m in c.states])
                )
            raise
        seconds = time.monotonic() - began
        for cohort in cohorts:
            for m, predicted in zip(cohort.states, predict(cohort, execution), strict=True):
                made = {
                    **provenance(m.spec, m.seconds, _images(m), len(states), execution),
                    "images_of": cohort.stream.images_of,
                }
                store.finish(m.spec, m.network.state_dict(), m.metrics, made, predicted)
                trackers.log(m.spec, m.metrics)  # of one whose last step was saved before
                trackers.end(m.spec, "finished")
        log.info("%s: finished in %.0f s, %.0f network-images/s", label, seconds, todo / seconds)
        if stop.is_set():  # asked for after the last step
            raise KeyboardInterrupt


def _images(member: TrainState) -> int:
    """How many it was trained on, each as often as it came."""
    return member.step * member.spec.recipe.batch_size


def _where(states: list[TrainState]) -> str:
    """How many networks there are, and at which step they stand."""
    steps = sorted({m.step for m in states})
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    return (
        f"{len(states)} at {at} of {states[0].spec.recipe.steps}"
        if states
        else "none: all have failed"
    )
