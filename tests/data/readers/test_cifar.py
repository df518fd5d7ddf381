"""CIFAR through torchvision, and the groups of classes."""

import hashlib
import pickle
from collections import Counter
from importlib import resources

import numpy as np
import pytest
import yaml
from torchvision.datasets import CIFAR10, CIFAR100

from tests.helpers import config_of, refusal
from transferability.data.pack import pack
from transferability.data.readers.cifar import cifar_groups
from transferability.data.readers.imagenet import imagenet_groups


def cifar(root, kind, monkeypatch):
    """torchvision's files in miniature; returns (labels, images) of training and validation."""
    published, key = {
        "cifar10": (CIFAR10, "labels"),
        "cifar100": (CIFAR100, "fine_labels"),
    }[kind]
    names = sorted(cifar_groups(kind))
    draw = np.random.default_rng(0)
    folder = root / published.base_folder
    folder.mkdir(parents=True)

    def dump(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    subsets, lists = [], {}
    for subset, files, copies in (("train_list", ("one", "two"), 2), ("test_list", ("three",), 1)):
        labels, images, lists[subset] = [], [], []
        for file in files:
            drawn = draw.permutation(np.repeat(np.arange(len(names)), copies)).tolist()
            data = draw.integers(0, 256, (len(drawn), 3072), dtype=np.uint8)
            lists[subset].append([file, dump(file, {"data": data, key: drawn})])
            labels += drawn
            images += [row.reshape(3, 32, 32).transpose(1, 2, 0) for row in data]
        subsets.append((labels, images))
    meta = {
        **published.meta,
        "md5": dump(published.meta["filename"], {published.meta["key"]: names}),
    }
    for attribute, value in {**lists, "meta": meta}.items():  # the checksums of the published files
        monkeypatch.setattr(published, attribute, value)
    return subsets


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_comes_through_torchvision(tmp_path, monkeypatch, kind):
    expected = cifar(tmp_path / "torchvision", kind, monkeypatch)
    packed = pack(
        config_of(tmp_path / "torchvision", tmp_path / "packed", image_size=32, kind=kind)
    )
    n = {"cifar10": 10, "cifar100": 100}[kind]
    assert packed.n_train == 4 * n and packed.meta["n_val"] == n
    groups = cifar_groups(kind)
    assert [(c.name, c.group) for c in packed.classes] == sorted(groups.items())
    for rows, (labels, images) in zip((slice(0, 4 * n), slice(4 * n, None)), expected, strict=True):
        there = sorted(
            (int(label), image.tobytes()) for label, image in zip(labels, images, strict=True)
        )
        here = zip(packed.labels[rows], packed.images[rows], strict=True)
        assert sorted((int(label), image.tobytes()) for label, image in here) == there


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_that_cannot_be_downloaded_is_one_clear_line(tmp_path, monkeypatch, kind):
    for published in (CIFAR10, CIFAR100):
        # nobody answers there
        monkeypatch.setattr(published, "url", "http://127.0.0.1:1/cifar.tar.gz")
    message = refusal(tmp_path / "torchvision", kind=kind)
    assert (
        message.startswith(f"{kind} is not in dataset.source=")
        and "fetch http://127.0.0.1:1/cifar.tar.gz elsewhere, and put it there" in message
    )


def test_the_groups_of_classes():
    assert Counter(imagenet_groups().values()) == {"natural": 449, "man-made": 551}
    assert Counter(cifar_groups("cifar10").values()) == {"natural": 6, "man-made": 4}
    assert Counter(cifar_groups("cifar100").values()) == {"natural": 70, "man-made": 30}
    reference = resources.files("transferability.reference")
    parts = yaml.safe_load((reference / "cifar_natural_manmade.yaml").read_text())["cifar100"]
    superclasses = {name: states for part in parts.values() for name, states in part.items()}
    assert len(superclasses) == sum(map(len, parts.values())) == 20
    assert {len(states) for states in superclasses.values()} == {5}
    assert len({name for states in superclasses.values() for name in states}) == 100
    groups = cifar_groups("cifar100")
    assert (groups["oak_tree"], groups["rocket"], groups["baby"]) == (
        "natural",
        "man-made",
        "natural",
    )
