"""Networks of equal blocks: what a shortcut is, shapes and parameters known by hand."""

import numpy as np
import pytest
import torch

from tests.helpers import batch_of, network_config, outputs
from transferability.errors import UserError
from transferability.networks.sequential import SequentialNetwork, profile_layers


def made(name: str, **values) -> SequentialNetwork:
    return SequentialNetwork(network_config(name, outputs=10, **values), np.zeros(3, np.float32))


def test_residual_and_plain_have_the_same_layers_and_initial_weights():
    residual, plain = made("residual"), made("plain")
    assert residual.config.n_layers == plain.config.n_layers == 8
    for network in (residual, plain):
        assert [tuple(x.shape[1:]) for x in outputs(network.eval(), batch_of(32, 32))[1:]] == [
            *[(16, 16, 16)] * 3,
            *[(32, 8, 8)] * 2,
            *[(64, 4, 4)] * 2,
            (10,),
        ]
    ours, theirs = residual.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # a block from 32 to 64 channels: two 3x3 convolutions, scale and shift for each
    assert profile_layers(residual.config)[5].parameters == 9 * 32 * 64 + 9 * 64 * 64 + 4 * 64
    assert profile_layers(residual.config) == profile_layers(plain.config)


def test_a_shortcut_passes_on_what_the_convolutions_leave_out():
    """With the scale of the second normalization at 0 nothing comes from the convolutions: a block
    then hands on every other place of its input, and zeros in its new channels; without a shortcut
    nothing.
    """
    x = torch.rand(2, 16, 16, 16)
    for name, expected in (("residual", x[:, :, ::2, ::2]), ("plain", torch.zeros(2, 16, 8, 8))):
        block = made(name).layers[3].eval()
        torch.nn.init.zeros_(block.norm2.weight)
        y = block(x)
        assert torch.equal(y[:, :16], expected) and torch.equal(y[:, 16:], torch.zeros(2, 16, 8, 8))


def test_a_transformer_sees_patches_at_places():
    network = made("vit").eval()
    shapes = [tuple(x.shape[1:]) for x in outputs(network, batch_of(32, 32))[1:]]
    assert shapes == [*[(16, 64)] * 7, (10,)]  # 4 x 4 patches of 64 values
    # attention: queries, keys, values and what is put out; a perceptron; two normalizations
    attention, perceptron = 4 * (64 * 64 + 64), 64 * 256 + 256 + 256 * 64 + 64
    assert profile_layers(network.config)[1].parameters == attention + perceptron + 2 * 2 * 64
    image = torch.rand(1, 3, 32, 32)
    patches = network.layers[0]
    tokens = patches(image)
    moved = patches(image.roll(8, dims=3))  # by one patch to the right
    vectors = patches[1].vectors
    assert torch.allclose((tokens - vectors)[0, 0], (moved - vectors)[0, 1], atol=1e-6)
    assert not torch.allclose(tokens[0, 0], moved[0, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("residual", {"block": "dense"}, "network.block=dense must be residual, plain or"),
        ("residual", {"widths": [32, 16]}, "widths.*a shortcut cannot have fewer channels"),
        ("residual", {"blocks": 0}, "network.blocks=0 must be a number above 0"),
        ("vit", {"widths": [64, 64]}, "one number for a transformer"),
        ("vit", {"heads": 5}, "network.heads=5 must be a divisor of the width"),
        ("vit", {"stride": 5}, "network.stride=5 must be a divisor of network.input_size"),
    ],
)
def test_what_is_no_network_is_refused(name, values, message):
    with pytest.raises(UserError, match=message):
        network_config(name, **values)
