"""What the store holds: finished, running, half-done and missing networks, a line a cohort.

python -m experiments.status
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
