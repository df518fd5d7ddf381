"""A miniature study: 16x16 images of a small grammar, a narrow 8-layer network, a few steps."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir

from analysis import collect
from experiments import run
from experiments.cli import CONF, command
from transferability.study.config import Config, load
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


def shrunk(folder, *overrides: str) -> Config:
    """The real configuration, shrunk, with data and store below ``folder``; a network of a library
    is as large as ``overrides`` say.
    """
    library = any(word in ("network=torchvision", "network=timm") for word in overrides)
    small = [word for word in SHRUNK if not (library and word.startswith("network."))]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = [f"data_dir={folder}/data", f"store={folder}/runs"]
        return load(compose("config", [*small, *where, *overrides]))


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


def train_miniature(folder: Path) -> None:
    """Train and collect :class:`Miniature` in ``folder``."""
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
