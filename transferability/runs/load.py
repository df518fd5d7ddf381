"""Load a finished run as a module, with its class names and preprocessing.

>>> from transferability import load_run
>>> run = load_run("runs/flowers-random-0-A3B+-s0-0123456789ab")
>>> run.classes[run(run.preprocess("daisy.jpg")).argmax()]
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from transferability.data.batch import Batch
from transferability.data.packed import PackedDataset
from transferability.data.transforms import IMAGE_ERRORS, Preprocessing, describe_failure
from transferability.errors import UserError
from transferability.networks.sequential import SequentialNetwork
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.runs.store import Store
from transferability.study.spec import RunSpec

log = logging.getLogger(__name__)


class Run(nn.Module):
    """A finished network, in evaluation mode.

    Attributes:
        spec: the specification of the run.
        classes: the class names, in the order of the outputs.
        preprocessing: how the dataset was packed: image_size, resize, fit, orientation, encoding.
        metrics: the evaluations, see ``Store.metrics``.
        network: the layers; ``network.layers[n - 1]`` is layer n.
    """

    def __init__(
        self,
        spec: RunSpec,
        network: SequentialNetwork,
        images: dict[str, Any],
        metrics: list[dict[str, Any]],
    ):
        super().__init__()
        self.spec, self.network, self.metrics = spec, network, metrics
        self.classes: list[str] = images["classes"]
        self.preprocessing = Preprocessing.of(images | {"encoding": spec.dataset.encoding})
        self._says_orientation = "orientation" in images
        self.eval()

    def preprocess(self, *images: str | Path | Image.Image | np.ndarray) -> Tensor:
        """Prepare images as the dataset was packed, (B, H, W, 3) uint8.

        Images are paths, PIL images or arrays. Arrays are upright: gray, (H, W), or RGB or RGBA,
        (H, W, 3 or 4), uint8 or uint16, of any size.

        Raises:
            UserError: an image is damaged or of an unsupported kind.
        """
        return torch.from_numpy(np.stack([self._row(image) for image in images]))

    def _row(self, image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
        try:
            row, asks = self.preprocessing(image)
        except IMAGE_ERRORS as error:
            name = image if isinstance(image, (str, Path)) else f"an image ({type(image).__name__})"
            raise UserError(f"{name} {describe_failure(error)}") from error
        if asks and not self._says_orientation:
            self._says_orientation = True  # warn only once
            log.warning(
                "%s was trained before runs kept dataset.orientation; images with a tag that "
                "asks for rotation are used as they are stored, as in its dataset unless that was "
                "packed with apply",
                self.spec.run_id,
            )
        return row

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, classes), of the center crops of preprocessed images, (B, H, W, 3) uint8."""
        return self.features(images, len(self.network.layers))[:, : len(self.classes)]

    def features(self, images: Tensor, layer: int) -> Tensor:
        """The output of layer ``layer`` (from 1) for the center crops of preprocessed images.

        ``layer=0`` is the input of layer 1.
        """
        start = torch.full(
            (len(images),),
            (self.preprocessing.image_size - self.spec.network.input_size) // 2,
            device=images.device,
        )
        batch = Batch(
            images, torch.zeros_like(start), start, start, start < 0, self.spec.network.input_size
        )
        x = self.network.input(batch)
        for module in self.network.layers[:layer]:
            x = module(x)
        return x

    def images_of(self, dataset: PackedDataset, subset: str) -> tuple[Tensor, Tensor]:
        """All images of the run's task in a subset (train, val, test) of ``dataset``, (N, H, W, 3)
        uint8, and their labels, indices into ``classes``, (N,) int64.

        Raises:
            UserError: the run was trained on other images.
        """
        if dataset.checksum != self.spec.dataset.checksum:
            raise UserError(
                f"{self.spec.run_id} was trained on other images than those in {dataset.folder}: "
                "open the dataset that it was trained on"
            )
        classes = list(self.spec.classes)
        rows_of = {"train": dataset.train_rows, "val": dataset.val_rows, "test": dataset.test_rows}
        rows = rows_of[subset](classes)
        labels = np.searchsorted(classes, dataset.labels[rows])
        return torch.from_numpy(dataset.read_rows(rows)), torch.from_numpy(labels)

    @property
    def filters(self) -> Tensor:
        """The weights of layer 1, (filters, 3, height, width)."""
        return self.network.weight(1).detach()


def load_run(folder: str | Path) -> Run:
    """Load the finished run in ``folder`` of a run store.

    Raises:
        UserError: ``folder`` is not a run, or the run is not finished, is damaged, or was trained
            by a version that did not store class names.
    """
    folder = Path(os.path.abspath(folder))  # "." has no name, which is the id of a run
    if not (folder / "spec.json").is_file():
        raise UserError(
            f"{folder} is not the folder of a run: `python -m experiments.status` lists them"
        )
    store = Store(folder.parent)
    spec = store.spec_in(folder / "spec.json")
    if not store.is_done(spec):
        raise UserError(
            f"{folder} is not finished: `python -m experiments.status "
            f"store={folder.parent}` shows its progress"
        )
    provenance = store.provenance(spec)
    images = provenance.get("images_of")
    if images is None:
        raise UserError(
            f"{folder} does not say what its classes are called: it was trained by an older version"
        )
    weights = store.weights(spec)
    network = SequentialNetwork(spec.network, weights["input.mean"].numpy())
    network.load_state_dict(weights)
    _warn_of_another_version(spec, provenance.get("network_made_by"))
    return Run(spec, network, images, store.metrics(spec))


def _warn_of_another_version(spec: RunSpec, made_by: str | None) -> None:
    """Warn if another library version made the network; with other layers it would not load."""
    network = spec.network
    if not isinstance(network, ZooNetworkConfig) or made_by in (None, network.library_version):
        return
    log.warning(
        "%s was trained with %s, and %s is installed: its outputs differ if %s does; compare its "
        "accuracy with run.metrics, or install that version",
        *(spec.run_id, made_by, network.library_version, network.model),
    )
