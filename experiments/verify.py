"""Read every file of the run store, and the packed dataset, and name every
file that does not match its checksum.

python -m experiments.verify
python -m experiments.verify experiment=tiny_imagenet store=/shared/runs

Settings used most:
store=FOLDER       the run store (runs/)
dataset=KIND       the packed dataset; or experiment=NAME
data_dir=FOLDER    where packed datasets are (data/)
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import sys

from transferability.console import output
from transferability.data.packed import dataset_of, verify
from transferability.errors import UserError
from transferability.runs.store import Store
from transferability.study.config import Config


def main(config: Config) -> None:
    runs, damaged = Store(config.store).verify()
    try:
        verify(dataset_of(config.dataset))
    except UserError as error:
        damaged.append(str(error))
    with output():  # if nobody reads the lines, the exit status reports damage
        for line in damaged:
            print(f"damaged: {line}", file=sys.stderr)
        print(
            f"{runs} runs in {config.store} and {config.dataset.name} read: "
            f"{len(damaged) or 'nothing'} damaged"
        )
    if damaged:
        sys.exit(1)
