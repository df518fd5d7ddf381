"""A plain script that trains one network with torch and torchvision alone."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.benchmarks.timing import now
from transferability.data.packed import dataset_of
from transferability.data.readers.file_tree import FileTree
from transferability.networks import EightLayerConfig
from transferability.study.config import Config
from transferability.study.spec import RunSpec

WORKERS = 2  # of the DataLoader
FILES_PER_CLASS = 100  # at most


def plain_network(config: EightLayerConfig, outputs: int) -> nn.Sequential:
    """The layers of ``networks.eight_layer`` in the order of the paper: convolution, ReLU, pool."""
    layers, channels, size = [], 3, config.input_size
    for i, out in enumerate(config.channels):
        kernel, stride, padding = config.kernels[i], config.strides[i], config.paddings[i]
        conv = nn.Conv2d(channels, out, kernel, stride, padding, groups=config.groups[i])
        parts: list[nn.Module] = [conv]
        size = (size + 2 * padding - kernel) // stride + 1
        if config.normalization == "batch":
            parts.append(nn.BatchNorm2d(out))
        parts.append(nn.ReLU(inplace=True))
        if i + 1 in config.pools:
            parts.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            size = size // 2
            if config.normalization == "lrn" and i < 2:
                parts.append(nn.LocalResponseNorm(5))
        layers.append(nn.Sequential(*parts))
        channels = out
    features = channels * size * size
    for i, out in enumerate([*config.hidden, outputs]):
        parts = [nn.Dropout(config.dropout) if i else nn.Flatten(), nn.Linear(features, out)]
        if i < len(config.hidden):
            if config.normalization == "batch":
                parts.append(nn.BatchNorm1d(out))
            parts.append(nn.ReLU(inplace=True))
        layers.append(nn.Sequential(*parts))
        features = out
    return nn.Sequential(*layers)


def plain_batches(
    folder: Path, config: Config, mean: np.ndarray, workers: int = WORKERS
) -> Generator[list[Tensor]]:
    """Endless batches of an ImageFolder; ``mean`` is the mean per channel, from 0 to 255."""
    # imported here, so that torchvision takes no memory or time where lockstep is measured
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    network, size = config.network, config.dataset.image_size
    files = ImageFolder(folder)
    steps = [transforms.RandomCrop(network.input_size)]
    if files[0][0].size != (size, size):
        steps.insert(0, transforms.Resize((size, size)))
    if config.recipe.mirror:
        steps.append(transforms.RandomHorizontalFlip())
    scale = 1 / (255 * network.input_scale)
    steps += [transforms.ToTensor(), transforms.Normalize((mean / 255).tolist(), [scale] * 3)]
    files.transform = transforms.Compose(steps)
    loader = DataLoader(
        files,
        config.recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    while True:
        yield from loader


def plain_training(
    batches: Iterator, frozen: int, outputs: int, config: Config, device: torch.device, steps: int
) -> float:
    """Train one network with its first ``frozen`` layers frozen; return seconds per step, after a
    warm-up step.
    """
    recipe = config.recipe
    network = plain_network(cast(EightLayerConfig, config.network), outputs).to(device)
    network = network.to(memory_format=torch.channels_last)
    network[:frozen].requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        trained, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    for step in range(1 + steps):
        if step == 1:
            began = now(device)
        images, labels = next(batches)
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return (now(device) - began) / steps


def export_images(config: Config, specs: list[RunSpec], folder: Path) -> str:
    """Fill an ImageFolder with training images of the task of ``specs``; return their description.

    The images are Tiny-ImageNet's JPEG files if ``dataset.source`` is set, else the packed images
    as PNG files.
    """
    dataset, tree = dataset_of(config.dataset), None
    if config.dataset.kind == "tiny_imagenet" and config.dataset.source:
        tree = FileTree(config.dataset.source)
    for c in specs[0].classes:
        (folder / f"{c:04d}").mkdir()
        if tree:
            train = f"{tree.find('wnids.txt')}train/{dataset.classes[c].wnid}/"
            for i, name in enumerate(tree.images(train)[:FILES_PER_CLASS]):
                (folder / f"{c:04d}" / f"{i}.jpeg").write_bytes(tree.read(name))
        else:
            for row in dataset.train_rows([c])[:FILES_PER_CLASS]:
                Image.fromarray(dataset.images[row]).save(folder / f"{c:04d}" / f"{row}.png")
    return "the original JPEG files" if tree else "the packed images as PNG files"
