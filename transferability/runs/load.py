"""A finished run in Python: the network as a module,
with its class names and what was done to its images.

>>> from transferability import load_run
>>> run = load_run("runs/flowers-random-0-A3B+-s0-0123456789ab")
>>> run.classes[run(run.preprocess("daisy.jpg")).argmax()]
"""

import logging
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
        spec: all that it is.
        classes: the names of its classes, in the order of its outputs.
        preprocessing: how the dataset was packed: image_size, resize, fit, orientation, encoding.
        metrics: its evaluations, see ``Store.metrics``.
        network: the layers, ``network.layers[n - 1]`` is layer n.
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
        """Images as the dataset was packed, (B, H, W, 3) uint8: paths, PIL's, or arrays.

        An array is taken as upright: gray, (H, W), RGB or RGBA, (H, W, 3 or 4), uint8 or uint16,
        of any size.

        Raises:
            UserError: an image is damaged, or of a kind that is not read; says which.
        """
        return torch.from_numpy(np.stack([self._row(image) for image in images]))

    def _row(self, image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
        try:
            row, asks = self.preprocessing(image)
        except IMAGE_ERRORS as error:
            name = image if isinstance(image, (str, Path)) else f"an image ({type(image).__name__})"
            raise UserError(f"{name} {describe_failure(error)}") from error
        if asks and not self._says_orientation:
            self._says_orientation = True  # once is enough
            log.warning(
                "%s was trained before runs kept dataset.orientation; images with a tag that "
                "asks for rotation are used as they are stored, as in its dataset unless that was "
                "packed with apply",
                self.spec.run_id,
            )
        return row

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, classes), of the middle of :meth:`preprocess`'s images."""
        return self.features(images, len(self.network.layers))[:, : len(self.classes)]

    def features(self, images: Tensor, layer: int) -> Tensor:
        """What layer ``layer`` (from 1) puts out for :meth:`preprocess`'s images;
        0: what goes into layer 1.
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
        """All images of its task in a subset (train, val, test) of ``dataset``, (N, H, W, 3) uint8,
        and the place of each one's class in ``classes``, (N,) int64.

        Raises:
            UserError: it was trained on other images.
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
    """The finished run in ``folder`` of a run store.

    Raises:
        UserError: it is not finished, damaged, or was trained before runs kept the names of
            their classes.
    """
    folder = Path(folder)
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
    """Of a network whose library has the same layers in both versions; others are refused."""
    network = spec.network
    if not isinstance(network, ZooNetworkConfig) or made_by in (None, network.library_version):
        return
    log.warning(
        "%s was trained with %s, and %s is installed: its outputs differ if %s does; compare its "
        "accuracy with run.metrics, or install that version",
        *(spec.run_id, made_by, network.library_version, network.model),
    )
