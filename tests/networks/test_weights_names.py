"""Names of networks and of a library's weights: as people write them, or the nearest is named."""

import pytest

from tests.helpers import network_of
from transferability.errors import UserError
from transferability.networks.pretrained import is_file, load_pretrained
from transferability.networks.zoo.timm import TimmConfig
from transferability.networks.zoo.torchvision import TorchvisionConfig

RESNET, OF_TIMM = "torchvision resnet18", "timm mobilenetv3_large_100"


@pytest.mark.parametrize(
    ("key", "written", "tag"),
    [
        (RESNET, "IMAGENET1K_V1", "IMAGENET1K_V1"),
        (RESNET, "DEFAULT", "IMAGENET1K_V1"),
        (RESNET, "ResNet18_Weights.IMAGENET1K_V1", "IMAGENET1K_V1"),
        (RESNET, "ResNet18_Weights.DEFAULT", "IMAGENET1K_V1"),
        (RESNET, "imagenet1k_v1", "IMAGENET1K_V1"),
        ("torchvision resnet50", "DEFAULT", "IMAGENET1K_V2"),
        ("torchvision efficientnet_b0", "EfficientNet_B0_Weights.DEFAULT", "IMAGENET1K_V1"),
        (OF_TIMM, "default", "ra_in1k"),
        (OF_TIMM, "miil_in21k_ft_in1k", "miil_in21k_ft_in1k"),
        (OF_TIMM, "mobilenetv3_large_100.miil_in21k_ft_in1k", "miil_in21k_ft_in1k"),
        (OF_TIMM, "hf-hub:timm/mobilenetv3_large_100.miil_in21k_ft_in1k", "miil_in21k_ft_in1k"),
        (OF_TIMM, "hf_hub:timm/mobilenetv3_large_100.ra_in1k", "ra_in1k"),
    ],
)
def test_weights_are_understood(key, written, tag):
    network = network_of(key, input_size=64)
    assert not is_file(written)
    assert network.tag_of(written) == tag and tag in network.tags()


@pytest.mark.parametrize(
    ("key", "written", "words"),
    [
        (RESNET, "ResNet50_Weights.IMAGENET1K_V1", "it has IMAGENET1K_V1"),
        (RESNET, "IMAGENET_V1", "did you mean IMAGENET1K_V1?"),
        (OF_TIMM, "miil_in21k_ft_in1", "did you mean miil_in21k_ft_in1k?"),
        (OF_TIMM, "hf-hub:somebody/model", "nor a name of weights that timm has for"),
        (OF_TIMM, "https://example.org/w.pth", "fetch the file and give its path"),
    ],
)
def test_the_nearest_weights_are_named(key, written, words):
    with pytest.raises(UserError) as error:
        load_pretrained(written, network_of(key, input_size=64))
    assert str(error.value).startswith(f"weights={written}") and words in str(error.value)


@pytest.mark.parametrize(
    ("kind", "model", "meant"),
    [
        (TorchvisionConfig, "ResNet18", "network.model=resnet18?"),
        (TorchvisionConfig, "resnet-18", "network.model=resnet18?"),
        (TorchvisionConfig, "EfficientNet-B0", "network.model=efficientnet_b0?"),
        (TorchvisionConfig, "resnet81", "network.model=resnet18?"),
        (TorchvisionConfig, "vit_b16", "network.model=vit_b_16?"),
        (TimmConfig, "resnet18.tv_in1k", "network.model=resnet18 weights=tv_in1k?"),
        (TimmConfig, "hf-hub:timm/resnet18.a1_in1k", "network.model=resnet18 weights=a1_in1k?"),
        (TimmConfig, "resnet18.nothing", "network.model=resnet18?"),
    ],
)
def test_the_nearest_network_is_named(kind, model, meant):
    """And what is named is there."""
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(UserError) as error:
        kind(name="x", kind=kind.__name__, model=model, input_size=32).check()
    assert str(error.value).endswith(f"has no network of this name: did you mean {meant}")
    assert "\n" not in str(error.value)


def test_a_name_near_to_none_is_refused_as_it_is():
    with pytest.raises(UserError, match=r"has no network of this name$"):
        TorchvisionConfig(name="x", kind="torchvision", model="qqq", input_size=32).check()
