"""Networks and pretrained weights at another size of image than they were made for."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from experiments.layers import print_layers
from tests.helpers import network_of
from transferability.errors import UserError
from transferability.networks.pretrained import load_pretrained, pretrained_state_dict
from transferability.networks.sequential import layers_of, profile_layers
from transferability.networks.state_dict import with_positions
from transferability.networks.zoo import base
from transferability.networks.zoo.partition import PartitionedLayer

timm = pytest.importorskip("timm", reason="timm is not installed")


@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
@pytest.mark.parametrize(("before", "after"), [(14, 6), (6, 14), (7, 8)])
def test_positions_are_resized_as_timm_does(tokens, before, after):
    from timm.layers import resample_abs_pos_embed

    torch.manual_seed(0)
    notes, old = [], torch.randn(1, before**2 + tokens, 4)
    shape = torch.Size((1, after**2 + tokens, 4))
    found = with_positions({"pos_embed": old, "x": old}, {"pos_embed": shape}, notes)
    theirs = resample_abs_pos_embed(old, [after, after], [before, before], tokens)
    assert torch.allclose(found["pos_embed"], theirs, atol=1e-6) and found["x"] is old
    assert notes == [f"pos_embed resized from {before}x{before} to {after}x{after} positions"]


def test_what_is_no_grid_of_places_stays():
    shapes = {"pos_embed": torch.Size((1, 37, 4)), "a.pos_embedding": torch.Size((1, 17, 4))}
    old = {"pos_embed": torch.zeros(1, 39, 4), "a.pos_embedding": torch.zeros(1, 17, 4)}
    assert with_positions(old, shapes, notes := []) == old and notes == []


@pytest.mark.parametrize("size", [96, pytest.param(224, marks=pytest.mark.slow)])
def test_a_transformer_takes_its_weights_to_another_size(tmp_path, size):
    """As timm itself loads them, and without a word at its own size."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    pretrained = load_pretrained(str(path), network_of("timm test_vit", input_size=size))
    own = 160 // 16
    assert (
        f"pos_embed resized from {own}x{own} to {size // 16}x{size // 16} positions"
        in pretrained.lines()
    )
    theirs = timm.create_model("test_vit", num_classes=3, img_size=size)
    theirs.load_state_dict(checkpoint_filter_fn(model.state_dict(), theirs))
    ours = {
        name.split(".", 2)[2]: t
        for name, t in pretrained_state_dict(pretrained).items()
        if name != "input.mean"
    }
    assert ours.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.allclose(tensor, ours[name], atol=1e-6), name
    pretrained = load_pretrained(str(path), network_of("timm test_vit", input_size=160))
    assert "resized from" not in " ".join(pretrained.lines())


@pytest.mark.parametrize(
    ("key", "size", "words"),
    [
        ("torchvision squeezenet1_1", 16, "Output size is too small): its weights are for 224"),
        ("torchvision alexnet", 32, "Output size is too small): its weights are for 224 pixels"),
        ("timm test_convnext", 16, "than actual input size): its weights are for 160 pixels"),
        ("timm test_vit", 50, "should be divisible by patch size (16).): its weights are for 160"),
    ],
)
def test_a_size_that_a_network_cannot_have_is_one_clear_line(key, size, words):
    """When the configuration is read, so already when packing."""
    with pytest.raises(UserError) as error:
        network_of(key, input_size=size).check()
    message, model = str(error.value), key.split()[1]
    assert message.startswith(
        f"network.input_size={size} is not possible for network.model={model}"
    )
    assert words in message and "\n" not in message and "tlparse" not in message


def test_layers_are_shown_without_the_proof(capsys, monkeypatch):
    """The proof computes on random images, the plan on none."""
    monkeypatch.setattr(torch, "randn", None)
    print_layers(network_of("torchvision squeezenet1_1", input_size=64))
    said = capsys.readouterr().out
    assert "so n goes from 1 to 9" in said and "Before training, the layers" in said


def test_layers_are_compared_on_request(capsys, monkeypatch):
    network = network_of("torchvision squeezenet1_1", input_size=64)
    print_layers(network, compare=True)
    said = capsys.readouterr().out
    assert "give the same as the whole network, bit for bit" in said and "Before" not in said
    forward = PartitionedLayer.forward
    monkeypatch.setattr(PartitionedLayer, "forward", lambda self, x: forward(self, x) + 1e-6)
    base.verify.cache_clear()
    with pytest.raises(
        UserError, match="in training its layers run one after the other give a diff"
    ):
        print_layers(network, compare=True)
    base.verify.cache_clear()


def test_channels_are_the_dimension_that_does_not_grow_with_the_image():
    """Of this network's equal dimensions, those of layer 5 alone are (C, H, W)."""
    config = network_of("timm mambaout_femto", input_size=192)
    layers = profile_layers(config)[1:6]
    assert [layer.output for layer in layers] == [(48, 48, 48)] * 4 + [(24, 24, 96)]
    assert [layer.channel_dim for layer in layers] == [2, 2, 2, 0, 2]


@pytest.mark.parametrize(
    ("key", "channels", "means"),
    [
        pytest.param("torchvision swin_t", 96, (1, 2), marks=pytest.mark.slow),
        ("timm convnext_femto", 48, (2, 3)),
    ],
)
def test_a_probe_pools_positions_where_as_many_as_channels_fit(key, channels, means):
    config = replace(network_of(key, input_size=4 * channels), depth=1, outputs=2)
    below = profile_layers(config.whole)[0]
    assert below.output == (channels, channels, channels)
    head = layers_of(config)[-1].eval()
    x = torch.rand(2, *below.output, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(x), head.linear(head.norm(x.mean(means))))
