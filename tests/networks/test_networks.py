from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import batch_of, network_config, outputs
from transferability.data.batch import Batch
from transferability.networks.kernels import activation_reference, response_norm_reference
from transferability.networks.sequential import SequentialNetwork, copy_layers, profile_layers


@pytest.fixture(scope="module")
def caffenet() -> SequentialNetwork:
    return SequentialNetwork(network_config("caffenet"), np.full((256, 256, 3), 120.0, np.float32))


def test_caffenet_has_the_papers_shapes_and_parameters(caffenet):
    with torch.no_grad():
        found = [tuple(x.shape[1:]) for x in outputs(caffenet.eval(), batch_of(256, 227))]
    assert found == [
        (3, 227, 227),
        (96, 27, 27),
        (256, 13, 13),
        (384, 13, 13),
        (384, 13, 13),
        (256, 6, 6),
        (4096,),
        (4096,),
        (1000,),
    ]
    assert sum(p.numel() for p in caffenet.parameters()) == 60_965_224
    assert [tuple(caffenet.layers[i].conv.weight.shape) for i in range(5)] == [
        (96, 3, 11, 11),
        (256, 48, 5, 5),
        (384, 256, 3, 3),
        (384, 192, 3, 3),
        (256, 192, 3, 3),
    ]


def test_caffenet_starts_as_the_original_does(caffenet):
    stds = [0.01] * 5 + [0.005] * 2 + [0.01]
    biases = [0, 1, 0, 1, 1, 1, 1, 0]
    for layer, std, bias in zip(caffenet.layers, stds, biases, strict=True):
        main = layer.conv if hasattr(layer, "conv") else layer.fc
        count = main.weight.numel()
        # Five standard errors of the estimate of a standard deviation, and of a mean.
        assert abs(main.weight.std().item() / std - 1) < 5 / np.sqrt(2 * count)
        assert abs(main.weight.mean().item()) < 5 * std / np.sqrt(count)
        assert (main.bias == bias).all()


def test_the_grouped_convolution_sees_half_of_the_channels(caffenet):
    x = torch.randn(1, 96, 27, 27)
    conv = caffenet.layers[1].conv
    with torch.no_grad():
        changed = (
            (conv(x) - conv(torch.cat([x[:, :48], torch.zeros(1, 48, 27, 27)], 1)))
            .abs()
            .amax((0, 2, 3))
        )
    assert (changed[:128] == 0).all() and (changed[128:] > 0).all()


def test_lrn_is_caffes_formula(caffenet):
    x = torch.randn(2, 7, 3, 3, dtype=torch.float64) * 50
    wanted = torch.empty_like(x)
    for c in range(7):
        window = x[:, max(0, c - 2) : c + 3]
        wanted[:, c] = x[:, c] / (1 + 1e-4 / 5 * (window**2).sum(1)) ** 0.75
    torch.testing.assert_close(response_norm_reference(x), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        response_norm_reference(x.bfloat16()), wanted.bfloat16(), rtol=0.02, atol=0
    )
    torch.testing.assert_close(response_norm_reference(x), F.local_response_norm(x, 5))
    torch.autograd.gradcheck(response_norm_reference, x.requires_grad_())
    parts = [(layer.activation.pool, layer.activation.norm) for layer in caffenet.layers[:5]]
    assert parts == [(True, True), (True, True), (False, False), (False, False), (True, False)]


def test_pooling_rounds_up_and_commutes_with_relu():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    pool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
    found = activation_reference(x, pool=True, norm=False)
    assert found.shape[-1] == 4  # floor would give 3
    assert torch.equal(found, pool(x.relu())) and (found > 0).any()  # the original's order
    weights = torch.randn(2, 3, 4, 4)
    theirs, ours = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (pool(x.relu()), found))
    assert torch.equal(theirs, ours)
    full = activation_reference(x.detach().clone(), pool=False, norm=True)
    assert torch.equal(full, response_norm_reference(x.relu()))


def test_the_smaller_members_have_eight_layers_and_flops_that_add_up():
    for name, side in (("small", 32), ("medium", 64)):
        network = SequentialNetwork(
            network_config(name, outputs=11), np.zeros(3, np.float32)
        ).eval()
        assert len(network.layers) == 8
        with torch.no_grad():
            assert network(batch_of(side, side)).shape == (2, 11)
    # conv1 of caffenet by hand: 55 x 55 outputs of 96 channels, 3 x 11 x 11 each; fc8: 4096 x 1000
    costs = profile_layers(network_config("caffenet"))
    flops = [c.macs for c in costs]
    assert sum(c.parameters for c in costs) == 60_965_224
    assert (costs[0].activations, costs[0].passed, costs[4].passed) == (
        55 * 55 * 96,
        27 * 27 * 96,
        9216,
    )
    assert (flops[0], flops[7]) == (55 * 55 * 96 * 363, 4_096_000)
    assert len(flops) == 8


def test_zfnet_has_the_sizes_of_its_papers_figure_3():
    costs = profile_layers(network_config("zfnet", outputs=1000))
    assert [c.output for c in costs[:5]] == [
        (96, 55, 55),
        (256, 13, 13),
        (384, 13, 13),
        (384, 13, 13),
        (256, 6, 6),
    ]
    assert (costs[0].activations, costs[1].activations) == (96 * 110 * 110, 256 * 26 * 26)


def test_kaiming_has_the_variance_of_he():
    network = SequentialNetwork(network_config("medium", outputs=10), np.zeros(3, np.float32))
    for layer in network.layers[:-1]:
        main = layer.conv if hasattr(layer, "conv") else layer.fc
        fan_in = main.weight[0].numel()
        assert main.weight.std().item() == pytest.approx(
            (2 / fan_in) ** 0.5, rel=5 / np.sqrt(2 * main.weight.numel())
        )
        assert (main.bias == 0).all()


def test_initial_weights_are_a_function_of_the_key_alone():
    config, mean = network_config("small", outputs=5), np.zeros(3, np.float32)
    one, again, other = (
        SequentialNetwork(config, mean, key) for key in ((0, "A3B"), (0, "A3B"), (1, "A3B"))
    )
    for number in range(1, 9):
        a, b, c = (network.weight(number) for network in (one, again, other))
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_mean_image_is_cropped_and_mirrored_as_the_image_is():
    mean = np.arange(6 * 6 * 3, dtype=np.float32).reshape(6, 6, 3)
    config = network_config("small", outputs=2, mean="image", input_size=16, input_scale=1.0)
    network = SequentialNetwork(config, mean)
    images = torch.from_numpy(mean).to(torch.uint8).expand(3, 6, 6, 3).contiguous()
    batch = Batch(
        images,
        torch.zeros(3).long(),
        torch.tensor([0, 1, 2]),
        torch.tensor([2, 0, 1]),
        torch.tensor([True, False, True]),
        4,
    )
    assert (network.input(batch) == 0).all(), (
        "an image equal to the mean is zero wherever it is cropped"
    )
    plain = images[1, 1:5, 0:4]
    assert torch.equal(batch.pixels[1], plain)
    assert torch.equal(batch.pixels[0], images[0, 0:4, 2:6].flip(1))


def test_dropout_masks_depend_on_network_and_step_and_scale_as_caffes():
    config = network_config("small", outputs=5, dropout=0.5)
    networks = [
        SequentialNetwork(config, np.zeros(3, np.float32), (0, name))
        for name in ("A3B", "A3B", "A4B")
    ]
    x = torch.ones(4, 128)

    def drop(network, step):
        network.reseed_dropout(step)
        return network.layers[6].drop(x)

    first = drop(networks[0], 3)
    assert torch.equal(first, drop(networks[1], 3))
    assert not torch.equal(first, drop(networks[2], 3)) and not torch.equal(
        first, drop(networks[0], 4)
    )
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(first, networks[0].layers[7].drop(x)), (
        "the two dropouts of a step differ"
    )
    networks[0].freeze(7)
    assert torch.equal(first, drop(networks[0], 3)), "dropout stays on in frozen layers"
    assert torch.equal(drop(networks[0].eval(), 3), x)


def test_copying_is_strict_both_ways():
    config, mean = network_config("small", outputs=5), np.zeros(3, np.float32)
    source = SequentialNetwork(config, mean, (0, "a")).state_dict()
    # another classifier is no hindrance below it
    network = SequentialNetwork(replace(config, outputs=7), mean, (0, "b"))
    assert copy_layers(source, network, 2) == [
        "input.mean",
        *(f"layers.{i}.conv.{p}" for i in range(2) for p in ("weight", "bias")),
    ]
    with pytest.raises(ValueError, match=r"layers\.1\.conv\.bias"):
        copy_layers({k: v for k, v in source.items() if k != "layers.1.conv.bias"}, network, 2)
    with pytest.raises(ValueError, match=r"layers\.0\.norm"):
        copy_layers(
            source,
            SequentialNetwork(network_config("small", normalization="batch", outputs=5), mean),
            1,
        )
    with pytest.raises(ValueError, match=r"layers\.7\.fc\.weight"):
        copy_layers(source, network, 8)
