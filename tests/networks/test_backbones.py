"""Networks that a library makes to put out features: they get a classifier, or are refused."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers import network_of
from transferability.errors import UserError
from transferability.networks.pretrained import load_pretrained, pretrained_state_dict
from transferability.networks.sequential import SequentialNetwork
from transferability.networks.zoo.partition import partition

timm = pytest.importorskip("timm", reason="timm is not installed")
KEY, SIZE = "timm eva02_tiny_patch14_224", 28  # as DINOv2, made without a classifier; smaller


def test_the_classifier_is_a_layer_of_its_own(tmp_path):
    """And no block stands in one layer with it: such a block could not be kept."""
    network = network_of(KEY, input_size=SIZE).resolved(5)
    assert network.n_layers == 14 and network.plan[-1] == "head.weight head.bias"
    network.verify()
    torch.manual_seed(0)
    own = timm.create_model(KEY.split()[1], img_size=SIZE).state_dict()
    assert not any(name.startswith("head.") for name in own)
    torch.save(own, tmp_path / "w.pth")
    pretrained = load_pretrained(str(tmp_path / "w.pth"), network_of(KEY, input_size=SIZE))
    state = pretrained_state_dict(pretrained)
    assert pretrained.facts.notes == ("without a classifier, which no network takes over",)
    read = {name.split(".", 2)[2]: t for name, t in state.items() if name != "input.mean"}
    assert read.keys() == own.keys() and all(torch.equal(read[name], own[name]) for name in own)


@pytest.mark.parametrize(
    ("key", "name"), [("timm test_vit", "patch_embed.proj"), ("timm test_resnet", "conv1.0")]
)
def test_the_weight_of_a_layer_is_that_of_its_first_operation(key, name):
    """And not a token or the positions, which a transformer has beside its modules."""
    network = SequentialNetwork(network_of(key, input_size=32).resolved(5), np.zeros(3))
    assert network.weight(1) is network.layers[0].get_submodule(name).weight
    assert network.weight(1).shape[1] == 3


class Features(nn.Module):
    """Four convolutions, and whatever ``out`` makes of what they put out."""

    def __init__(self, out):
        super().__init__()
        self.body = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        self.out = out

    def forward(self, x: Tensor):
        return self.out(self.body(x))


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (lambda x: x, "2x3x8x8"),
        (lambda x: (x.mean((2, 3)), x), "several tensors"),
        (lambda x: {"logits": x.mean((2, 3))}, "several tensors"),
    ],
)
def test_what_puts_out_no_classes_is_refused(out, said):
    with pytest.raises(UserError, match=f"is not a classifier: for 2 images it returns {said}"):
        partition(Features(out), 8)


def test_what_puts_out_a_row_for_each_image_is_chopped():
    assert len(partition(Features(lambda x: x.mean((2, 3))), 8)) == 4
