"""Train networks side by side, from their first step in this process to finished runs."""

import logging
import time

from tqdm.contrib.logging import logging_redirect_tqdm

from transferability.console import pluralize, progress_bar
from transferability.data.packed import PackedDataset
from transferability.networks.pretrained import pretrained_state_dict
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.runs.estimate import Workload, workload
from transferability.runs.pending import Pending
from transferability.runs.probes import fit_wave
from transferability.runs.progress import ProgressWriter
from transferability.runs.provenance import provenance
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers
from transferability.runs.watch import Watch
from transferability.signals import stop_requests
from transferability.study.jobs import cohort_key
from transferability.study.recipe import LBFGS
from transferability.study.spec import RunSpec
from transferability.training.devices import stopping_out_of_memory
from transferability.training.execution import Execution
from transferability.training.loader import TaskLoader
from transferability.training.loop import Cohort, predict, train
from transferability.training.state import TrainState, build_state

log = logging.getLogger(__name__)


def train_wave(
    specs: list[RunSpec],
    pending: Pending,
    dataset: PackedDataset,
    execution: Execution,
    trackers: Trackers,
) -> None:
    """Train and finish the runs ``specs``, whose sources must be finished.

    Raises:
        KeyboardInterrupt: on a stop request or Ctrl-C; finished runs and checkpoints are kept.
    """
    store, recipe = pending.store, specs[0].recipe
    if recipe.optimizer == LBFGS:
        return fit_wave(specs, store, dataset, execution, trackers)
    cohorts = make_cohorts(specs, store, dataset, execution)
    states = [state for cohort in cohorts for state in cohort.states]
    resumed = sum(state.step > 0 for state in states)
    name = " & ".join(dict.fromkeys(f"{s.split} → {s.cell.target}" for s in specs))
    label = f"{name}, {pluralize(len(states), 'network')}"
    again = f", {resumed} resumed" if resumed else ""
    log.info("%s: %d steps of %d images%s", label, recipe.steps, recipe.batch_size, again)
    images = sum(recipe.steps - state.step for state in states) * recipe.batch_size

    def rest() -> Workload:
        later = pending.after(specs)
        return workload([specs], [execution.threads], later, store.step, dataset)

    def save(state: TrainState) -> None:
        store.save_checkpoint(state.spec, state.checkpoint())

    def fail(state: TrainState, why: dict) -> None:
        spec = state.spec
        store.fail(spec, why)
        trackers.end(spec, "failed")
        where = (spec.split, spec.cell, why["step"], why["lr"])
        log.warning("%s %s failed at step %d, learning rate %.3g", *where)

    bar = progress_bar(total=images, desc=label, unit="img", unit_scale=True, dynamic_ncols=True)
    notes = ProgressWriter(store.root, cohorts, execution.threads)
    on_step, began = Watch(notes, bar, rest, trackers), time.monotonic()
    with bar, logging_redirect_tqdm(), stop_requests() as stop, stopping_out_of_memory(stop):
        try:
            train(cohorts, execution, save, fail, on_step, stop)
        except KeyboardInterrupt:
            if stop.requested:  # all states were saved
                log.info("%s: stopped, saved %s", label, _where(cohorts))
            raise
        seconds = time.monotonic() - began
        for cohort in cohorts:
            _finish(cohort, len(states), store, execution, trackers)
        log.info("%s: finished in %.0f s, %.0f network-images/s", label, seconds, images / seconds)


def make_cohorts(
    specs: list[RunSpec], store: Store, dataset: PackedDataset, execution: Execution
) -> list[Cohort]:
    """Build the networks of ``specs``, whose sources must be finished, and their streams."""
    cohorts = {}
    sources = {spec.source.id: spec.source for spec in specs if spec.source}
    weights = {
        id_: pretrained_state_dict(s) if isinstance(s, PretrainedBase) else store.weights(s)
        for id_, s in sources.items()
    }
    for spec in specs:
        key = cohort_key(spec)
        if key not in cohorts:
            cohorts[key] = Cohort(TaskLoader.of(spec, dataset, execution.device), [])
        source = weights[spec.source.id] if spec.source else None
        stream, checkpoint = cohorts[key].stream, store.load_checkpoint(spec)
        cohorts[key].states.append(build_state(spec, stream, source, checkpoint))
    return list(cohorts.values())


def _finish(
    cohort: Cohort, networks: int, store: Store, execution: Execution, trackers: Trackers
) -> None:
    """Write the results of a cohort. ``networks`` is how many networks trained side by side."""
    for state, predicted in zip(cohort.states, predict(cohort, execution), strict=True):
        spec, images = state.spec, state.step * state.spec.recipe.batch_size
        made = provenance(spec, state.seconds, images, networks, execution)
        made["images_of"] = cohort.stream.images_of
        store.finish(spec, state.network.state_dict(), state.metrics, made, predicted)
        trackers.log(spec, state.metrics)  # for networks resumed after their last step
        trackers.end(spec, "finished")


def _where(cohorts: list[Cohort]) -> str:
    """The number of networks and their steps, as text."""
    states = [state for cohort in cohorts for state in cohort.states]
    if not states:
        return "none: all have failed"
    steps = sorted({state.step for state in states})
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    return f"{len(states)} at {at} of {states[0].spec.recipe.steps}"
