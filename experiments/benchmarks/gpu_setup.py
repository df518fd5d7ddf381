"""The inputs shared by all parts of the GPU benchmark: generated images, a device, and the networks
to train.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import joblib
import numpy as np
from hydra import compose

from experiments.benchmarks import gpu_checks
from experiments.benchmarks.timing import step_seconds, untrained_cohort
from transferability.data.config import DatasetConfig
from transferability.data.pack import pack
from transferability.networks import EightLayerConfig, NetworkConfig
from transferability.study import cells
from transferability.study.config import Config, load
from transferability.study.recipe import RecipeConfig
from transferability.study.spec import RunSpec, make_spec
from transferability.training import loader as stream
from transferability.training.execution import Execution, execution_of
from transferability.training.loop import Cohort


@dataclass(frozen=True)
class Size:
    """The size of the benchmark."""

    photos: int  # JPEG files
    side: tuple[int, int]  # width and height of a photo in pixels
    packed: int  # pixels per side as packed
    matrix: int  # rows and columns in the product that measures the rate of arithmetic
    copied: int  # bytes of the copy that measures the bandwidth
    steps: int  # timed steps of a cohort
    plain_steps: int
    workers: int  # of the plain script


FULL = Size(4096, (500, 375), 256, 8192, 4 << 30, 20, 6, 16)
TOY = Size(96, (80, 60), 72, 256, 1 << 22, 2, 1, 1)


def toy_network(network: EightLayerConfig) -> EightLayerConfig:
    """The same layers with fewer channels, for small images."""
    channels, hidden = (16,) * len(network.channels), (32,) * len(network.hidden)
    return replace(network, input_size=67, outputs=20, channels=channels, hidden=hidden)


class Bench:
    """One run of the benchmark: the generated images, the device, and the checks that failed."""

    def __init__(self, config: Config, size: Size, folder: Path):
        self.size, self.folder, self.began = size, folder, time.perf_counter()
        files = generate(folder / "photos", size)
        data = DatasetConfig(
            "folder", "bench", str(folder / "packed"), size.packed, str(files), "linear"
        )
        recipe = replace(config.recipe, steps=10**9, eval_every=10**9)
        self.config = replace(config, dataset=data, recipe=recipe, data_dir=str(folder))
        self.dataset, self.execution = pack(data), execution_of(self.config)
        self.device = self.execution.device
        self.failed: list[str] = []
        # Images are read and copied batch by batch, as is necessary for ImageNet.
        stream.ON_DEVICE_BYTES = 0

    def small_network(self) -> NetworkConfig:
        """The network for small images."""
        if self.size == TOY:
            return replace(self.config.network, name="toy")
        return load(compose("config", ["network=medium"])).network

    def transfers(self, network: NetworkConfig) -> list[str]:
        """The cells of BnB, BnB+, AnB and AnB+ with target B, for every n."""
        names = []
        for treatment in ("BnB", "BnB+", "AnB", "AnB+"):
            names += [str(cell) for cell in cells.expand(treatment, "B", None, network.n_layers)]
        return names

    def cohort(
        self,
        names: list[str],
        network: NetworkConfig | None = None,
        recipe: RecipeConfig | None = None,
    ) -> Cohort:
        """An untrained cohort of cells, by default with the configured network and recipe."""
        config = replace(
            self.config, network=network or self.config.network, recipe=recipe or self.config.recipe
        )
        return untrained_cohort(
            config, [self.spec(name, config.network, config.recipe) for name in names]
        )

    def spec(self, name: str, network: NetworkConfig, recipe: RecipeConfig) -> RunSpec:
        return make_spec(
            cells.parse(name, network.n_layers), "random-0", self.dataset, network, recipe, 0
        )

    def seconds(self, cohort: Cohort, execution: Execution | None = None) -> float:
        """Seconds per step."""
        return step_seconds([cohort], execution or self.execution, self.size.steps)

    def note(self, check: gpu_checks.Check) -> None:
        """Print a check, and keep its name if it failed."""
        if not check.passed:
            self.failed.append(check.what)
        print(f"   {check}", flush=True)

    def elapsed(self) -> str:
        return f"{time.perf_counter() - self.began:.0f} s after the start"


def generate(folder: Path, size: Size) -> Path:
    """Write JPEG files in class folders and return ``folder``; at FULL size, the files have the
    image size and about the bytes of ImageNet's.
    """

    def write(i: int) -> None:
        draw = np.random.default_rng(i)
        coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size.side, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        image += draw.normal(0, 20, image.shape)
        subset = "val" if i % 8 == 0 else "train"
        path = folder / subset / f"class-{i // 8 % 8}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(path), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90]
        )

    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        list(pool.map(write, range(size.photos)))
    return folder
