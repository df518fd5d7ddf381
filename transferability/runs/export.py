"""Export the network of a finished run, as weights for its library or as a torch.export program."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from transferability.errors import UserError
from transferability.files import replacing, save_tensors
from transferability.networks.state_dict import HEADER
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.networks.zoo.pretrained_info import PretrainedInfo
from transferability.runs.load import Run

PROGRAM = ".pt2"  # the suffix of torch.export files


class _FromPixels(nn.Module):
    """The network for images as (B, 3, side, side) float32, 0 to 1."""

    def __init__(self, run: Run):
        super().__init__()
        self.network, self.classes = run.network, len(run.classes)

    def forward(self, x: Tensor) -> Tensor:
        own = self.network.input
        x = 255 * x.permute(0, 2, 3, 1)
        x = ((x - own.mean) * own.scale).permute(0, 3, 1, 2)
        for layer in self.network.layers:
            x = layer(x)
        return x[:, : self.classes]


def export_program(run: Run, path: Path) -> None:
    """Write the network of a finished run, whole or truncated, as a ``torch.export`` program.

    The program needs only torch. It maps images, (B, 3, side, side) float32 from 0 to 1, to logits,
    (B, classes). Its ``classes.json`` has the class names and the preprocessing.

    Raises:
        UserError: the network subtracts a mean image, or the file cannot be written.
    """
    _require_channels(run)
    side = run.spec.network.input_size
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        _FromPixels(run).eval(), (torch.rand(2, 3, side, side),), dynamic_shapes=(batch,)
    )
    about = {"classes": run.classes, "crop": side, **asdict(run.preprocessing)}
    with replacing(path) as temporary:
        named = temporary.with_suffix(PROGRAM)
        torch.export.save(program, named, extra_files={"classes.json": json.dumps(about)})
        named.rename(temporary)


def _require_channels(run: Run) -> None:
    if run.network.input.mean.dim() > 1:
        raise UserError(
            f"{run.spec.run_id} subtracts a mean image, which such files cannot hold: train it "
            "with network.mean=channel"
        )


def export(run: Run, path: Path) -> None:
    """Write the weights of a finished run with its library's parameter names, to be used as a
    pretrained network. The header describes the preprocessing.

    Raises:
        UserError: the network is not from a library, is truncated, or subtracts a mean image; or
            the file cannot be written.
    """
    network, state = run.spec.network, run.network.state_dict()
    if not isinstance(network, ZooNetworkConfig):
        raise UserError(
            f"{run.spec.run_id} is not a network of torchvision or timm: weights.safetensors in "
            "its folder has its own parameter names"
        )
    if network.depth:
        raise UserError(
            f"{run.spec.run_id} is truncated above layer {network.depth}, which {network.kind} has "
            f"no network for: out={path.with_suffix(PROGRAM)} writes it as a torch.export program"
        )
    _require_channels(run)
    mean = state.pop("input.mean")
    facts = PretrainedInfo(
        f"exported from {run.spec.run_id}",
        mean=network.channel_mean,
        std=network.channel_std,
        size=network.input_size,
        resized=run.preprocessing.image_size,
        interpolation=run.preprocessing.resize,
        fit=run.preprocessing.fit,
        orientation=run.preprocessing.orientation,
        encoding=run.preprocessing.encoding,
        classes=tuple(run.classes),
    )
    header = {
        "model": f"{network.kind} {network.model}",
        "input_mean": mean.tolist(),
        "input_scale": network.input_scale,
        "facts": asdict(facts),
    }
    tensors = {name.split(".", 2)[2]: tensor for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_tensors(tensors, temporary, {HEADER: json.dumps(header)})
