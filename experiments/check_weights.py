r"""Measure pretrained weights on labeled images of their own task, prepared as in their training.

python -m experiments.check_weights network=timm network.model=tf_efficientnet_lite0 \
    network.input_size=224 weights=FILE dataset=folder dataset.name=sample dataset.source=PATH

The images (all of the source; nothing is packed) lie in folders named after the weights' classes;
for 1000 classes, ImageNet's WordNet ids also work. If accuracy is far below the published
value, weights were read or images prepared differently than in pretraining. Other common means and
standard deviations are tried, too.

Settings used most:
network=KIND network.model=NAME    the network, of torchvision or timm
network.input_size=N               image size in pixels that the weights were trained for
weights=FILE                       the weights, or the library's name for them
dataset.source=PATH                the images
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import torch

from transferability.data.batch import Batch
from transferability.data.readers.base import Sample, file_item
from transferability.data.readers.file_tree import FileTree, require_images
from transferability.data.readers.imagenet import imagenet_groups
from transferability.data.transforms import IMAGE_ERRORS, Preprocessing, describe_failure
from transferability.errors import UserError, and_more
from transferability.networks.modules import channels_subtracted
from transferability.networks.pretrained import load_pretrained, pretrained_state_dict
from transferability.networks.sequential import SequentialNetwork
from transferability.networks.zoo.pretrained_info import PretrainedBase, PretrainedInfo
from transferability.study.config import Config

AT_ONCE = 25  # images
# Common means and standard deviations of the three channels, for values from 0 to 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # of TensorFlow's and Google's networks
NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CLIP = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)


def main(config: Config) -> None:
    if not config.weights:
        raise UserError("set weights= to the weights to be measured")
    pretrained = load_pretrained(config.weights, config.network)
    for line in pretrained.lines():
        print(line)
    tree = FileTree(str(config.dataset.source))
    require_images(tree)
    names = tree.images("")
    outputs = _outputs(pretrained, [PurePosixPath(name).parent.name for name in names])
    items = [
        file_item(tree, config.dataset, output, n) for output, n in zip(outputs, names, strict=True)
    ]
    ranks = ranked(pretrained, items, config.dataset.orientation)
    first, five = (int((ranks < k).sum()) for k in (1, 5))
    print(
        f"{first} of {len(ranks)} images classified correctly, {five} in the top five, at "
        f"{pretrained.network.input_size} pixels"
    )
    print(best_input(pretrained, items, first, config.dataset.orientation))


def best_input(
    pretrained: PretrainedBase, images: list[Sample], first: int, orientation: str = "ignore"
) -> str:
    """A sentence on whether another common mean and standard deviation gives higher accuracy.

    Args:
        first: the number of images classified correctly with the weights' own.
    """
    own = (pretrained.network.channel_mean, pretrained.network.channel_std)
    right = {
        known: int((ranked(pretrained, images, orientation, known) == 0).sum())
        for known in (IMAGENET, HALF, NONE, CLIP)
        if known != own
    }
    best = max(right, key=right.__getitem__)
    if right[best] <= first:
        return (
            "No other common mean and standard deviation classifies more correctly "
            f"(at most {right[best]})."
        )
    mean, std = (",".join(f"{value:g}" for value in values) for values in best)
    return (
        f"Another mean and standard deviation classifies more correctly, {right[best]}: "
        f"'network.channel_mean=[{mean}]' 'network.channel_std=[{std}]'"
    )


def ranked(
    pretrained: PretrainedBase,
    images: list[Sample],
    orientation: str = "ignore",
    known: tuple[tuple, tuple] | None = None,
) -> np.ndarray:
    """The rank of the correct output of every image, (images,); 0 is the highest output. Equal
    outputs, such as those of an untrained head of zeros, rank before the correct one.

    Args:
        images: labeled by the index of the correct output.
        orientation: ignore or apply; used if the weights do not specify one.
        known: a mean and standard deviation that replace the weights' own.

    Raises:
        UserError: the weights have no classification head, or an image is damaged.
    """
    network, state = pretrained.network, pretrained_state_dict(pretrained)
    if known:
        network = replace(network, channel_mean=known[0], channel_std=known[1])
        state = state | {"input.mean": torch.from_numpy(channels_subtracted(network))}
    try:
        chain = SequentialNetwork(network, state["input.mean"].numpy())
        chain.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"weights={pretrained.weights} has no classification head to measure"
        ) from error
    chain.eval()
    crop = network.input_size
    facts = pretrained.facts
    side = round(crop * facts.resized / facts.size) if facts.size and facts.resized else crop
    preprocessing = Preprocessing(
        side,
        facts.interpolation or "bilinear",
        facts.fit or "crop",
        facts.orientation or orientation,
        facts.encoding,
    )
    ranks = []
    for start in range(0, len(images), AT_ONCE):
        items = images[start : start + AT_ONCE]
        pixels = [_prepared(item, preprocessing) for item in items]
        middle = torch.full((len(items),), (side - crop) // 2)
        batch = Batch(
            torch.from_numpy(np.stack(pixels)), middle * 0, middle, middle, middle < 0, crop
        )
        with torch.no_grad():
            logits = chain(batch)
        right = logits[torch.arange(len(items)), [i.label for i in items]]
        ranks += ((logits >= right[:, None]).sum(1) - 1).tolist()
    return np.array(ranks)


def _prepared(item: Sample, preprocessing: Preprocessing) -> np.ndarray:
    try:
        return preprocessing(item.read())[0]
    except IMAGE_ERRORS as error:
        raise UserError(f"{item.name} {describe_failure(error)}: fix or remove it") from error


def _outputs(pretrained: PretrainedBase, classes: list[str]) -> list[int]:
    """The index of the output of each class.

    Raises:
        UserError: the weights lack a class.
    """
    known = _names(pretrained.facts, pretrained.network.outputs)
    if unknown := sorted(set(classes) - set(known)):
        raise UserError(
            f"weights={pretrained.weights} have no class {unknown[0]!r}{and_more(unknown)}: put "
            "images in folders named after their classes, ImageNet's by WordNet id"
        )
    return [known[name] for name in classes]


def _names(facts: PretrainedInfo, outputs: int | None) -> dict[str, int]:
    """The output of each class by name and, for as many classes as ImageNet has, by WordNet id."""
    wnids = sorted(imagenet_groups())
    names = {name: i for i, name in enumerate(facts.classes or ())}
    if outputs == len(wnids):
        names |= {wnid: i for i, wnid in enumerate(wnids)}
    return names
