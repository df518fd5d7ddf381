"""Advice within a time (``experiments.advise``), compared with alternatives at equal processor
time: fastai's ``fine_tune``, and the script of fine-tuning tutorials (``rivals.py``).

python -m experiments.benchmarks.advice source=flowers.zip weights=resnet18.safetensors minutes=1

All tools use the same weights, the same packed training, validation and test images, the same input
size (96 pixels, or what you set), and one thread. A minute is 100 seconds of processor time (user
and system), including imports, predictions, and trial runs that are part of a tool. Packing is not
counted. Every result is a line of OUT/tools.csv. Rerunning the command measures missing results and
prints the table; -m minutes=1,3,10 seed=0,1,2 measures all times and seeds. Delete a line to have
it measured again. python -m analysis.tools OUT draws the figure.

Settings used most:
source=PATH weights=FILE   as for experiments.advise; the weights as .safetensors
minutes=1                  the time of each tool
seed=0                     the seed of every tool; it does not change the packed subsets
out=FOLDER                 where the results are kept (figures/benchmark-advice)

fastai is left out where it is not installed (pip install '.[timm,fastai]'); FASTAI_PYTHON, in the
environment, names another Python that has it, with timm and safetensors.
"""

from experiments.cli import run_module
from experiments.overrides import of_advice

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name, of_advice))

import importlib.util
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from analysis.tools import FILE, LABELS, OWN, print_tables, read, summary
from experiments.advise import Advising, packed
from experiments.clock import Clock
from transferability.data.packed import PackedDataset
from transferability.errors import UserError
from transferability.files import write_atomic
from transferability.networks.pretrained import load_pretrained
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.study.config import Config

log = logging.getLogger(__name__)
SECONDS = 100.0  # of processor time per minute: two cores that are busy most of the time
RUN = "import sys; sys.path.append(sys.argv[1]); import rivals; rivals.main(sys.argv[2])"


@dataclass(frozen=True)
class Result:
    """One line of the results: what a tool achieved in the time.

    Attributes:
        name, images: the name of the dataset, and the checksum of the packed dataset.
        weights: the digest of the weights.
        pixels: pixels per side of the network's input.
        seconds: processor time that the tool took.
        did: what the tool trained, in its own words.
        validation: accuracy on validation images.
        right: 1 or 0 per test image, in the order of the packed file.
    """

    name: str
    images: str
    weights: str
    pixels: int
    minutes: float
    seed: int
    tool: str
    seconds: float
    did: str
    validation: float
    right: str


def main(config: Config) -> None:
    if not str(config.weights).endswith(".safetensors"):
        raise UserError("the tools share one weights file: set weights=FILE.safetensors")
    dataset = packed(config.dataset)
    pretrained = load_pretrained(str(config.weights), config.network)
    path = Path(config.out or "figures/benchmark-advice") / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "images": dataset.checksum[:12],
        "weights": pretrained.digest[:12],
        "pixels": config.network.input_size,
        "minutes": config.minutes,
        "seed": config.seed or 0,
    }
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes started below
    with tempfile.TemporaryDirectory() as name:
        for tool in LABELS:
            if _known(path, common | {"tool": tool}):
                continue
            log.info("%s: %s, %g minutes, seed %d", dataset.name, tool, *list(common.values())[3:])
            own = tool == OWN
            folder = Path(name)
            found = (
                _own(config, folder) if own else _rival(tool, config, dataset, pretrained, folder)
            )
            if found:
                _keep(path, Result(name=dataset.name, tool=tool, **common, **found))
    print_tables(summary(read(path)))


def _known(path: Path, key: dict) -> bool:
    there = read(path)
    return bool(len(there) and (there[list(key)] == pd.Series(key)).all(axis=1).any())


def _keep(path: Path, result: Result) -> None:
    with FileLock(path.with_name(".lock")):
        line = pd.DataFrame([asdict(result)])
        rows = pd.concat([read(path), line]) if path.exists() else line
        write_atomic(path, rows.to_csv(index=False))


def _own(config: Config, folder: Path) -> dict:
    """The result of ``experiments.advise``, in its own process, whose processor time counts."""
    own = replace(
        config, store=str(folder / "runs"), out=str(folder / "page"), device="cpu", threads=1
    )
    alone = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=alone) as pool:
        return pool.submit(_advised, own, config.words).result()


def _advised(config: Config, words: tuple[str, ...]) -> dict:
    config.words = words  # type: ignore[misc] # a ClassVar, so it is not a setting
    clock = Clock(SECONDS * config.minutes, 0.0, time.process_time)
    advice = Advising(config, clock)
    try:
        advice.run()
    except KeyboardInterrupt:
        if not clock.over:
            raise
    found = advice.page()
    assert found is not None  # the first probe is finished even after the time limit
    seconds = time.process_time()
    labels = advice.store.predictions(found.spec) or {}
    taken = {part: own.numpy() for part, own in labels.items()}
    return _found(seconds, found.leader.partition(", validation")[0], taken, advice.dataset)


def _found(seconds: float, did: str, taken: dict[str, np.ndarray], dataset: PackedDataset) -> dict:
    """The fields of a result that a tool determines.

    Args:
        taken: the predicted class of each image, for validation and test.
    """
    rows = rows_of(dataset)
    right = {part: own == dataset.labels[rows[part]] for part, own in taken.items()}
    return {
        "seconds": round(seconds, 1),
        "did": did,
        "validation": round(float(right["validation"].mean()), 4),
        "right": "".join(map(str, right["test"].astype(int))),
    }


def rows_of(dataset: PackedDataset) -> dict[str, np.ndarray]:
    """The rows of training, validation and test images in the packed dataset."""
    classes = list(range(len(dataset.classes)))
    return {
        "train": dataset.train_rows(classes),
        "validation": dataset.val_rows(classes),
        "test": dataset.test_rows(classes),
    }


FOLDERS = {"train": "train", "validation": "val", "test": "test"}  # subset -> its folder


def _export(dataset: PackedDataset, folder: Path) -> Path:
    """Write the packed images as PNG files SUBSET/CLASS/ROW.png, unless ``folder`` exists."""
    if not folder.exists():
        for part, rows in rows_of(dataset).items():
            for row in rows:
                path = folder / FOLDERS[part] / f"{dataset.labels[row]:04d}" / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(dataset.read_rows(np.array([row]))[0]).save(path)
    return folder


def _rival(
    tool: str, config: Config, dataset: PackedDataset, pretrained: PretrainedBase, folder: Path
) -> dict | None:
    """The result of another tool, in its own process; None, with a warning, if there is none."""
    out = folder / "found.json"
    mean, std = pretrained.network.channel_mean, pretrained.network.channel_std
    job = {
        "tool": tool,
        "images": str(_export(dataset, folder / "images")),
        "weights": str(config.weights),
        "model": pretrained.network.model,
        "size": config.network.input_size,
        "mean": mean,
        "std": std,
        "seconds": SECONDS * config.minutes,
        "seed": config.seed or 0,
        "out": str(out),
    }
    python = sys.executable
    if tool.startswith("fastai"):
        here = sys.executable if importlib.util.find_spec("fastai") else ""
        python = os.environ.get("FASTAI_PYTHON", here)
        if not python:
            log.warning("%s is left out: pip install '.[timm,fastai]'", tool)
            return None
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-P", "-c", RUN, str(Path(__file__).parent), json.dumps(job)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        log.warning("%s is left out: %s", tool, done.stderr.strip().splitlines()[-1])
        return None
    found = json.loads(out.read_text(encoding="utf-8"))
    taken = {
        part: np.array([found["labels"][FOLDERS[part]][str(row)] for row in rows])
        for part, rows in rows_of(dataset).items()
        if part != "train"
    }
    return _found(found["seconds"], found["did"], taken, dataset)
