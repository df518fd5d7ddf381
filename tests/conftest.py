"""A miniature study: 16x16 images of a small grammar, a narrow 8-layer network, a few steps."""

import gc
import os

# Before torch is imported, here and in the commands that tests start: two processes of tests, each
# with as many threads as there are cores, wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch._inductor
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, settings

from analysis import collect
from experiments import run
from experiments.cli import CONF, command
from transferability.data.pack import pack
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study import cells
from transferability.study.config import Config, load
from transferability.study.spec import make_spec
from transferability.training.execution import Execution

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


def captured(main: Callable[[], None], *words: str) -> tuple[int, str, str]:
    """Call ``main`` in this process with ``words`` on its command line.

    Returns:
        Its exit status (0 if it returns), and what it wrote to standard output and error.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    status = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["command", *words])
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    return status, *(stream.buffer.getvalue().decode() for stream in (out, err))


@pytest.fixture
def cli() -> Callable[..., tuple[int, str, str]]:
    """cli(main, *overrides) runs a command in this process; returns what :func:`captured` does."""
    return lambda main, *overrides: captured(command(main), *overrides)


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that ``make`` fills, in the first process of tests that asks for it; do not
    change what is in it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of all processes of one run
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


class Miniature(NamedTuple):
    """The whole study in miniature, finished and collected."""

    folder: Path  # data/ and runs/
    tables: Path
    printed: dict[str, str]  # by the commands

    @property
    def overrides(self) -> list[str]:
        return [*SHRUNK, f"data_dir={self.folder}/data", f"store={self.folder}/runs"]


@pytest.fixture(scope="session")
def miniature(tmp_path_factory) -> Miniature:
    """Do not change what is in its folders."""

    def make(folder: Path) -> None:
        printed, of = {}, Miniature(folder, folder / "tables", {}).overrides
        commands = {
            "plan": (run.main, "mode=plan"),
            "run": (run.main,),
            "plan after": (run.main, "mode=plan"),
            "collect": (collect.main, f"out={folder}/tables"),
        }
        for name, (main, *words) in commands.items():
            status, printed[name], err = captured(command(main), *of, *words)
            assert status == 0, err
        (folder / "printed.json").write_text(json.dumps(printed))

    folder = made_once(tmp_path_factory, "miniature", make)
    printed = json.loads((folder / "printed.json").read_text())
    return Miniature(folder, folder / "tables", printed)


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
    """trained(specs): a store in which they are finished; trained together, one call a list.

    What they start from is not trained again where ``bases``, another store, has it.
    """

    def make(specs, execution=CPU, bases=None):
        store = Store(tmp_path_factory.mktemp("runs"))
        sources = {s.source.run_id: s.source for s in specs if s.source and bases}
        for source in sources.values():
            run = bases.folder(source)
            shutil.copytree(run, store.root / run.name, copy_function=os.link)
        train_missing(specs, store, dataset, execution)
        return store

    return make
