"""Fixtures: a miniature study (tests/miniature.py), its images, its networks.

The project is imported where a fixture needs it: the process that hands tests to the others
imports this file, too, and runs none.
"""

import gc
import os

# Before torch is imported, here and in the commands that tests start: two processes of tests, each
# with as many threads as there are cores, wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings

# pytest --hypothesis-profile=ci tries four times as many examples
for profile, examples in (("default", 20), ("ci", 80)):
    settings.register_profile(
        profile,
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=examples,
        # of another value of a boolean
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
settings.load_profile("default")


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """Training collects garbage after every wave: it need not look through what is imported."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()  # so that extensions do not complain of what was left


@pytest.fixture
def cli() -> Callable[..., tuple[int, str, str]]:
    """cli(main, *overrides) runs a command in this process; returns what ``captured`` does."""
    from experiments.cli import command
    from tests.miniature import captured

    return lambda main, *overrides: captured(command(main), *overrides)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """A ``Miniature``: the whole study, finished; do not change what is in its folders."""
    from tests.miniature import Miniature, made_once, train_miniature

    folder = made_once(tmp_path_factory, "miniature", train_miniature)
    printed = json.loads((folder / "printed.json").read_text())
    return Miniature(folder, folder / "tables", printed)


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    from tests.miniature import shrunk

    return shrunk(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def dataset(config):
    from transferability.data.pack import pack

    return pack(config.dataset)


@pytest.fixture(scope="session")
def spec_of(config, dataset):
    """spec_of("A3B+", network=..., recipe=..., seed=...):
    the specification of a cell, with settings replaced.
    """
    from transferability.study import cells
    from transferability.study.spec import make_spec

    def make(cell, split="random-0", seed=0, images_per_class=None, network=None, recipe=None):
        return make_spec(
            cells.parse(cell),
            split,
            dataset,
            replace(config.network, **(network or {})),
            replace(config.recipe, **(recipe or {})),
            seed,
            images_per_class,
        )

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory, dataset):
    """trained(specs): a store in which they are finished; trained together, one call a list.

    What they start from is not trained again where ``bases``, another store, has it.
    """
    from tests.miniature import CPU
    from transferability.runs.runner import train_missing
    from transferability.runs.store import Store

    def make(specs, execution=CPU, bases=None):
        store = Store(tmp_path_factory.mktemp("runs"))
        sources = {s.source.run_id: s.source for s in specs if s.source and bases}
        for source in sources.values():
            run = bases.folder(source)
            shutil.copytree(run, store.root / run.name, copy_function=os.link)
        train_missing(specs, store, dataset, execution)
        return store

    return make


@pytest.fixture
def interruptible():
    """As in a terminal: jobs that a shell starts in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
