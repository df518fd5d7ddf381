"""The network of a finished run as a file of weights of its library."""

import json
from dataclasses import asdict
from pathlib import Path

from transferability.errors import UserError
from transferability.files import replacing, save_tensors
from transferability.networks.state_dict import HEADER
from transferability.networks.zoo.config import ZooNetworkConfig
from transferability.networks.zoo.pretrained_info import PretrainedInfo
from transferability.runs.load import Run


def export(run: Run, path: Path) -> None:
    """Write the network of a finished run under the names of its library, as weights that can be
    given; the header says what was done to its images.

    Raises:
        UserError: it is no network of a library, or a part of one, subtracts a whole image, or
            cannot be written.
    """
    network, state = run.spec.network, run.network.state_dict()
    if not isinstance(network, ZooNetworkConfig):
        raise UserError(
            f"{run.spec.run_id} is no network of torchvision or timm: its own names are those in "
            "weights.safetensors in its folder"
        )
    if network.depth:
        raise UserError(
            f"{run.spec.run_id} is cut short above layer {network.depth}, which {network.kind} has "
            "no network for"
        )
    if (mean := state.pop("input.mean")).dim() > 1:
        raise UserError(
            f"{run.spec.run_id} subtracts a mean image, which is no part of such files: train it "
            "with network.mean=channel"
        )
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
