"""What the store holds: finished, running, half-done and missing networks, a line a cohort.

python -m experiments.status
python -m experiments.status store=/shared/runs

Settings used most:
store=FOLDER       the run store (runs/)
experiment=NAME    only the networks of this study; or study=NAME dataset=KIND ...
"""

from experiments.cli import command
from experiments.plan import print_states
from transferability.config import Config
from transferability.store import Store


def main(config: Config) -> None:
    store = Store(config.store)
    runs = store.specs()
    if not runs:
        print(f"{store.root} holds no runs yet")
    else:
        print_states(runs, store)


if __name__ == "__main__":
    command(main)()
