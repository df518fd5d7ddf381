"""Show what the store holds: finished, running, interrupted and missing networks, one line per
cohort; for those that are training, the step, the speed, the time left and the newest accuracies.

python -m experiments.status
python -m experiments.status experiment=tiny_imagenet      also the time left for the whole study

It only reads files, so it runs on any machine that has access to the store.

Settings used most:
store=FOLDER       the run store (runs/)
experiment=NAME    the study; or study=NAME dataset=KIND ..., as in training
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import statistics
import time

from experiments.plan import data_of, print_states
from transferability.console import duration, pluralize
from transferability.data.packed import PackedDataset, open_packed
from transferability.errors import UserError
from transferability.runs.progress import Progress, read
from transferability.runs.store import Store
from transferability.study.config import Config
from transferability.study.expand import study_specs
from transferability.study.jobs import group_into_jobs, with_bases
from transferability.study.spec import RunSpec

SILENT = 60.0  # seconds without a note before this is reported; an evaluation may take longer
Wave = tuple[list[RunSpec], Progress | None]  # the runs of one process, and its progress


def main(config: Config) -> None:
    store = Store(config.store)
    runs = store.specs()
    if not runs:
        print(f"{store.root} holds no runs yet")
        return
    states = {s.run_id: store.state(s) for s in runs}
    print_states(runs, states)
    if waves := training([s for s in runs if states[s.run_id] == "training"], store):
        print(
            "\nTraining now (top-1: median of the networks, previous evaluation → newest "
            "evaluation; in parentheses the lowest and the highest):"
        )
        for specs, progress in waves:
            print("\n".join(lines(specs, progress, store)))
        print(f"\n{whole_study(config, store, waves)}")


def training(specs: list[RunSpec], store: Store) -> list[Wave]:
    """Group running ``specs`` by process, and by job those without a progress note."""
    by_id = {s.run_id: s for s in specs}
    notes = [note for s in specs if (note := read(store.folder(s)))]
    noted = [([by_id[run] for run in note.runs if run in by_id], note) for note in notes]
    known = {run for note in notes for run in note.runs}
    return [
        *noted,
        *((job, None) for job in group_into_jobs([s for s in specs if s.run_id not in known])),
    ]


def lines(specs: list[RunSpec], progress: Progress | None, store: Store) -> list[str]:
    """The runs of one process, their progress and their newest accuracies, as lines."""
    data = " & ".join(dict.fromkeys(map(data_of, specs)))
    failed = sum(store.failure(s) is not None for s in specs)
    what = f"{data}, {pluralize(len(specs), 'network')}{f' ({failed} failed)' if failed else ''}"
    steps = specs[0].recipe.steps
    if progress is None:
        saved = min(map(store.step, specs))
        return [f"{what}: step {saved:,} of {steps:,} saved; nothing newer is known yet"]
    told = [f"step {progress.step:,} of {steps:,}"]
    if progress.rates:
        a_second, images = progress.rates
        told.append(f"{a_second:.3g} steps/s, {images:,.0f} network-images/s")
    if progress.step == steps:
        told.append("finishing")
    else:
        seconds = progress.seconds_left
        told.append("no rate yet" if seconds is None else f"{duration(seconds)} left")
    if (silent := time.time() - progress.written) > SILENT:
        told.append(f"silent for {duration(silent)} (process {progress.process})")
    return [f"{what}: {', '.join(told)}", *accuracies(specs, progress)]


def accuracies(specs: list[RunSpec], progress: Progress) -> list[str]:
    """A line with the median top-1 of the previous and the newest evaluation of each treatment, and
    the range over networks; no line before the first evaluation.
    """
    groups: dict[str, list[list[tuple[int, float]]]] = {}
    for spec in specs:
        if found := progress.top1.get(spec.run_id):
            groups.setdefault(spec.cell.treatment, []).append(found)
    if not groups:
        return []
    words = []
    for treatment, networks in groups.items():
        newest = [found[-1][1] for found in networks]
        before = [found[0][1] for found in networks if len(found) > 1]
        rise = f"{statistics.median(before):.3f} → " if before else ""
        spread = f" ({min(newest):.3f} to {max(newest):.3f})" if len(newest) > 1 else ""
        words.append(f"{treatment} {rise}{statistics.median(newest):.3f}{spread}")
    step = max(found[-1][0] for networks in groups.values() for found in networks)
    chance = 1 / len(specs[0].classes)
    return [f"    top-1 at step {step:,} (chance {chance:.3f}): {', '.join(words)}"]


def whole_study(config: Config, store: Store, waves: list[Wave]) -> str:
    """A line with the progress of the configured study and the time left for it."""
    try:
        dataset = open_packed(config.dataset)
    except UserError:  # then another study is training
        study = []
    else:
        study = with_bases(study_specs(config, dataset))
    asked = {s.run_id for s in study}
    mine = [wave for wave in waves if any(s.run_id in asked for s in wave[0])]
    if not mine:
        return (
            "None of these is in the study of these settings: for the time left for all of "
            "theirs, give the settings that it was started with."
        )
    now = {s.run_id for specs, _ in mine for s in specs}
    left = [s for s in study if s.run_id not in now and not store.is_done(s)]
    failed = [s for s in left if any(map(store.failure, with_bases([s])))]
    to_begin = [s for s in left if s not in failed]
    running = len(now & asked)
    waiting = f", {len(failed)} failed or waiting for one that did" if failed else ""
    return (
        f"The study: {len(study) - len(left) - running} of "
        f"{pluralize(len(study), 'network')} done, {running} training, "
        f"{len(to_begin)} to begin{waiting}; {time_left(mine, to_begin, store, dataset)}."
    )


def time_left(
    waves: list[Wave], to_begin: list[RunSpec], store: Store, dataset: PackedDataset
) -> str:
    """The time left for ``waves`` and ``to_begin``, in words; see ``estimate.py``."""
    if any(progress is None or progress.rates is None for _, progress in waves):
        return "the time left is not known yet, because a speed is not measured"
    from transferability.runs.estimate import workload  # imports torch to count multiply-adds

    notes = [progress for _, progress in waves if progress]
    networks, threads = [specs for specs, _ in waves], [note.threads for note in notes]
    work = workload(networks, threads, to_begin, store.step, dataset)
    seconds, unlike = work.seconds(notes), work.unlike
    others = f", and {pluralize(unlike, 'network')} of a kind not measured yet" if unlike else ""
    processes = "process that trains" if len(waves) == 1 else f"{len(waves)} processes that train"
    return f"about {duration(seconds)} left with the {processes} it now{others}"
