"""A miniature study: 16x16 images of a small grammar, a narrow 8-layer network, a few steps."""

import gc
import os

# Before torch is imported, here and in the commands that tests start: two processes of tests, each
# with as many threads as there are cores, wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._inductor
from hydra import compose, initialize_config_dir

from experiments.cli import CONF, command
from transferability import cells
from transferability.cohort import Execution
from transferability.config import Config, load
from transferability.pack import pack
from transferability.runner import ensure
from transferability.spec import make_spec
from transferability.store import Store

SHRUNK = [
    "dataset.grammar.levels=2",
    "dataset.grammar.classes_per_family=4",
    "dataset.grammar.train_per_class=12",
    "dataset.grammar.val_per_class=5",
    "dataset.image_size=16",
    "network.input_size=14",
    "network.channels=[4,6,8,8,6]",
    "network.hidden=[10,10]",
    "recipe.steps=8",
    "recipe.lr=0.03",
    "recipe.batch_size=6",
    "recipe.eval_every=4",
    "recipe.eval_batch_size=7",
    "recipe.warmup_steps=2",
    "recipe.mirror=true",
    "threads=2",
    "device=cpu",  # what is compared byte for byte
]
ROOT = Path(__file__).parent.parent
CPU = Execution(torch.device("cpu"), threads=2)


def shrunk(folder, *overrides: str) -> Config:
    """The real configuration, shrunk, with data and store below ``folder``; a network of a library
    is as large as ``overrides`` say.
    """
    library = any(word in ("network=torchvision", "network=timm") for word in overrides)
    small = [word for word in SHRUNK if not (library and word.startswith("network."))]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = [f"data_dir={folder}/data", f"store={folder}/runs"]
        return load(compose("config", [*small, *where, *overrides]))


def pytest_collection_finish():
    """Training collects garbage after every wave: it need not look through what is imported."""
    gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()  # so that extensions do not complain of what was left


@pytest.fixture
def cli(monkeypatch, capsys):
    """cli(main, *overrides) runs a command in this process.

    Returns its exit status (0 if it returns), and what it wrote to standard output and error.
    """

    def call(main, *overrides: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *overrides])
        status = 0
        try:
            command(main)()
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> Config:
    return shrunk(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def dataset(config):
    return pack(config.dataset)


@pytest.fixture(scope="session")
def spec_of(config, dataset):
    """spec_of("A3B+", network=..., recipe=..., seed=...):
    the specification of a cell, with settings replaced.
    """

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
    """trained(specs): a store in which they are finished; trained together, one call a list."""

    def make(specs, execution=CPU):
        store = Store(tmp_path_factory.mktemp("runs"))
        ensure(specs, store, dataset, execution)
        return store

    return make
