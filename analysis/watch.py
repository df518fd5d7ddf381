"""Keep the tables and the report of a study up to date until its training is finished.
The page refreshes itself in the browser.

python -m analysis.watch
python -m analysis.watch experiment=tiny_imagenet out=figures/tiny

Settings used most, the same as in training:
experiment=NAME    or study=NAME dataset=KIND ..., as for experiments.run
store=FOLDER       the run store (runs/)
out=FOLDER         where tables and report go (figures/STUDY-DATASET)
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import sys
import time

from analysis.collect import collect_study
from analysis.report import write_report
from experiments.cli import STOPPED
from transferability.runs.store import Store
from transferability.study.config import Config
from transferability.study.jobs import with_bases
from transferability.study.spec import RunSpec

PAUSE = 60.0  # minimum pause in seconds
SHARE = 20  # minimum pause in durations of the last report, which leaves the machine to training


def watch(config: Config) -> None:
    """Update the report repeatedly; return when no further network of the study is expected."""
    while True:
        began = time.monotonic()
        folder, tables, specs = collect_study(config)
        path = write_report(folder).resolve()
        missing = set(tables.results.run[tables.results.state == "missing"])
        coming = to_come([s for s in specs if s.run_id in missing], Store(config.store))
        failed = len(missing) - len(coming)
        print(
            f"{time.strftime('%H:%M')} {len(specs) - len(missing)} of {len(specs)} networks are "
            f"finished{f', {failed} failed or wait for one that did' if failed else ''}: {path}",
            flush=True,
        )
        if not coming:
            return
        time.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))


def to_come(missing: list[RunSpec], store: Store) -> list[RunSpec]:
    """The runs that have not failed and do not start from a failed run."""
    return [s for s in missing if not any(map(store.failure, with_bases([s])))]


def main(config: Config) -> None:
    try:
        watch(config)
    except KeyboardInterrupt:
        print(
            "\nno longer watched; training continues, and the report stays as it is",
            file=sys.stderr,
        )
        sys.exit(STOPPED)
