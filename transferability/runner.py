"""From a list of runs to finished runs: what is done is skipped, what is half done resumed,
what is missing trained.
"""

import gc
import logging
import time
from dataclasses import replace

import torch
from filelock import FileLock
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from transferability import checkpoints
from transferability.cohort import Cohort, Execution, predict, train
from transferability.datasets import PackedDataset
from transferability.devices import is_out_of_memory, training_device
from transferability.errors import UserError
from transferability.jobs import cohort_key, jobs, with_sources
from transferability.member import Member, build_member
from transferability.networks.given import Given, state_of
from transferability.progress import Notes
from transferability.provenance import provenance
from transferability.spec import RunSpec
from transferability.stopping import check, stop_requests
from transferability.store import Store
from transferability.stream import Stream

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0


def ensure(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    execution: Execution,
    sources: str = "train",
) -> None:
    """Return when every run of ``specs`` is finished, by this process or by another.

    Networks that fail are left out, with those that start from them; all others are trained first.

    Args:
        sources: ``train`` trains missing base networks first;
            ``require`` makes a missing one an error.

    Raises:
        UserError: networks failed, or one does not fit into memory (the message names them); no GPU
            is free; there are too few images a class; the layers of a network are not the network.
    """
    if sources == "require":
        _require_sources(specs, store)
    pending = with_sources(specs)
    done = [s for s in pending if store.is_done(s)]
    for spec in done:
        checkpoints.drop(store.folder(spec))
    if len(done) == len(pending):
        log.info("nothing to train: all %d networks are finished in %s", len(pending), store.root)
        return
    for classes, images in {(s.classes, s.images_per_class) for s in pending if s.images_per_class}:
        dataset.train_rows(list(classes), images)  # too few are named before anything is trained
    for network in {s.network for s in pending}:
        network.verify()
    store.check_locks()
    with training_device(execution.device) as device:
        _train_pending(pending, store, dataset, replace(execution, device=device))
    _report_failures(pending, store)


def _train_pending(
    pending: list[RunSpec], store: Store, dataset: PackedDataset, execution: Execution
) -> None:
    """Train what is not finished, wave after wave,
    and wait for what another process is training.
    """
    # failures of earlier tries are tried again
    before = {s.run_id: store.failure(s) for s in pending}
    tried: set[str] = set()
    limit, told = execution.max_networks, False
    while ready := _ready(pending, store, before, tried):
        check()
        claimed = _claim_wave(ready, store, execution, limit)
        if claimed:
            tried |= {s.run_id for s, _ in claimed}
            try:
                _train_wave([s for s, _ in claimed], store, dataset, execution)
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

    def failed(spec: RunSpec) -> bool:
        failure = store.failure(spec)
        return failure is not None and (spec.run_id in tried or failure != before[spec.run_id])

    left = [s for s in pending if not store.is_done(s) and not failed(s)]
    return [s for s in left if s.base is None or store.is_done(s.base)]


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
    for group in jobs(ready):
        if claimed and (
            len(claimed) >= execution.threads or group[0].recipe.pace != claimed[0][0].recipe.pace
        ):
            continue
        for spec in group[: limit - len(claimed)]:
            if lock := store.claim(spec):
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
        s.source.id: state_of(s.source) if isinstance(s.source, Given) else store.weights(s.source)
        for s in specs
        if s.source
    }
    for spec in specs:
        key = cohort_key(spec)
        if key not in cohorts:
            cohorts[key] = Cohort(Stream.of(spec, dataset, execution.device), [])
        source = weights[spec.source.id] if spec.source else None
        member = build_member(spec, cohorts[key].stream, source, store.load_checkpoint(spec))
        cohorts[key].members.append(member)
    return list(cohorts.values())


def _train_wave(
    specs: list[RunSpec], store: Store, dataset: PackedDataset, execution: Execution
) -> None:
    cohorts = make_cohorts(specs, store, dataset, execution)
    recipe = specs[0].recipe
    members = [m for c in cohorts for m in c.members]
    resumed = sum(m.step > 0 for m in members)
    name = " & ".join(dict.fromkeys(f"{s.split} → {s.cell.target}" for s in specs))
    label = f"{name}, {len(members)} network{'s' * (len(members) > 1)}"
    again = f", {resumed} resumed" if resumed else ""
    log.info("%s: %d steps of %d images%s", label, recipe.steps, recipe.batch_size, again)
    todo = sum(recipe.steps - m.step for m in members) * recipe.batch_size
    bar = tqdm(
        total=todo, desc=label, unit="img", unit_scale=True, disable=None, dynamic_ncols=True
    )

    note = Notes(store.root, cohorts)

    def on_step(step: int, active: list[Member]) -> None:
        note(step, active)
        bar.set_postfix_str(f"step {step + 1}/{recipe.steps}", refresh=False)
        bar.update(len(active) * recipe.batch_size)
        evaluated = [
            m.metrics[-1]["val_top1"]
            for m in active
            if m.metrics and m.metrics[-1]["step"] == step + 1
        ]
        if evaluated:
            log.info(
                "step %d/%d: top-1 %.3f to %.3f",
                step + 1,
                recipe.steps,
                min(evaluated),
                max(evaluated),
            )

    def fail(member: Member, why: dict) -> None:
        store.fail(member.spec, why)
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
                    "%s: stopped, saved %s", label, _where([m for c in cohorts for m in c.members])
                )
            raise
        seconds = time.monotonic() - began
        for cohort in cohorts:
            for m, predicted in zip(cohort.members, predict(cohort, execution), strict=True):
                made = {
                    **provenance(m, len(members), execution),
                    "images_of": cohort.stream.images_of,
                }
                store.finish(m.spec, m.network.state_dict(), m.metrics, made, predicted)
        log.info("%s: finished in %.0f s, %.0f network-images/s", label, seconds, todo / seconds)
        if stop.is_set():  # asked for after the last step
            raise KeyboardInterrupt


def _where(members: list[Member]) -> str:
    """How many networks there are, and at which step they stand."""
    steps = sorted({m.step for m in members})
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    return (
        f"{len(members)} at {at} of {members[0].spec.recipe.steps}"
        if members
        else "none: all have failed"
    )
