"""How images are prepared for pretrained weights: what lies beside the file says it, or it is
assumed and said; check_weights finds what fits.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from experiments.check_weights import IMAGENET, NONE, best_input, ranked
from tests.helpers import network_of
from transferability.data.readers.base import Sample
from transferability.errors import UserError
from transferability.networks.pretrained import load_pretrained
from transferability.networks.zoo.pretrained_info import assumed

SIZE = 32
TIMM = {
    "architecture": "shufflenet_v2_x0_5",
    "pretrained_cfg": {
        "tag": "mine",
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "input_size": [3, 160, 160],
        "crop_pct": 0.8,
        "interpolation": "bilinear",
        "license": "mit",
    },
}
HUGGING_FACE = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "resample": 3,
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
}
PIXELS = HUGGING_FACE | {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [63.75] * 3}


def network(**settings):
    return network_of("torchvision shufflenet_v2_x0_5", input_size=SIZE, **settings)


@pytest.fixture(scope="module")
def tensors():
    """Of a network whose normalizations have seen images: its answers hang on its input."""
    torch.manual_seed(0)
    model = replace(network(), outputs=5).build()
    for _ in range(20):
        model(torch.randn(32, 3, SIZE, SIZE))
    with torch.no_grad():
        model.fc.bias -= model.eval()(torch.rand(32, 3, SIZE, SIZE)).mean(0)
    return model.state_dict()


def given_beside(folder, tensors, beside=None, header=None, **settings):
    path = folder / "model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata=header)
    for name, values in (beside or {}).items():
        (folder / name).write_text(values if isinstance(values, str) else json.dumps(values))
    return load_pretrained(str(path), network(**settings))


OF_TIMM = ((0, 0, 0), (1, 1, 1), 160, 200, "bilinear", "config.json, mine")
OF_HUGGING_FACE = ((0.5,) * 3, (0.25,) * 3, 224, 256, "bicubic", "preprocessor_config.json")


@pytest.mark.parametrize(
    ("beside", "header", "wanted"),
    [
        ({"config.json": TIMM}, None, OF_TIMM),
        ({"config.json": TIMM["pretrained_cfg"]}, None, OF_TIMM),  # as timm wrote it before
        ({"preprocessor_config.json": HUGGING_FACE}, None, OF_HUGGING_FACE),
        ({"preprocessor_config.json": PIXELS}, None, OF_HUGGING_FACE),
        (
            {"config.json": {"model_type": "x"}, "preprocessor_config.json": HUGGING_FACE},
            {"format": "pt"},
            OF_HUGGING_FACE,
        ),
        (
            None,
            {"format": "pt", "pretrained_cfg": json.dumps(TIMM["pretrained_cfg"])},
            (*OF_TIMM[:5], "the header of model.safetensors, mine"),
        ),
        (
            {"preprocessor_config.json": HUGGING_FACE},
            {"mean": "[0, 0, 0]", "std": "[1, 1, 1]"},
            ((0, 0, 0), (1, 1, 1), None, None, None, "the header of model.safetensors"),
        ),
        (
            {"preprocessor_config.json": HUGGING_FACE | {"do_normalize": False}},
            None,
            ((0.0,) * 3, (1.0,) * 3, *OF_HUGGING_FACE[2:]),
        ),
    ],
)
def test_what_lies_beside_the_file_is_read(tensors, tmp_path, beside, header, wanted):
    pretrained = given_beside(tmp_path, tensors, beside, header)
    f = pretrained.facts
    assert (f.mean, f.std, f.size, f.resized, f.interpolation, f.origin) == wanted
    assert (pretrained.network.channel_mean, pretrained.network.channel_std) == wanted[:2]
    assert "assumed" not in " ".join(pretrained.lines())


@pytest.mark.parametrize(
    "name", ["inception_v3.tv_in1k", "resnet50.tv_in1k", "vit_base_patch16_224.augreg_in1k"]
)
def test_images_are_resized_to_as_many_pixels_as_in_timm(name):
    """Rounded down: 341 for 299 / 0.875 = 341.7, 256 for 224 / 0.875, 248 for 224 / 0.9 = 248.9."""
    timm = pytest.importorskip("timm")
    model, _, tag = name.partition(".")
    config = timm.get_pretrained_cfg(name).to_dict()
    steps = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
    facts = network_of(f"timm {model}", input_size=224).info_of(tag)
    assert (facts.resized, facts.size) == (steps.transforms[0].size, steps.transforms[1].size[0])


GIVEN = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
SQUARE = {"height": 224, "width": 224}


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        # as their own classes do it: ViTImageProcessor, ConvNextImageProcessor, EfficientNet's
        ("preprocessor_config.json", GIVEN | {"size": SQUARE}, (0.5, 0.25, 224, 224, "squash")),
        (
            "preprocessor_config.json",
            GIVEN | {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
            (0.5, 0.25, 224, 256, None),
        ),
        (
            "preprocessor_config.json",
            GIVEN | {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
            (0.5, 0.25, 384, 384, "squash"),
        ),
        (
            "preprocessor_config.json",
            GIVEN | {"rescale_factor": 1 / 127.5},
            (0.25, 0.125, None, None, None),
        ),
        (
            "preprocessor_config.json",
            GIVEN | {"rescale_factor": 1 / 127.5, "rescale_offset": True},
            (0.75, 0.125, None, None, None),
        ),
        (
            "preprocessor_config.json",
            GIVEN | {"do_rescale": False, "do_normalize": False},
            (0.0, 1 / 255, None, None, None),
        ),
        (
            "config.json",
            TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | {"crop_mode": "squash"}},
            (0, 1, 160, 200, "squash"),
        ),
    ],
)
def test_images_are_scaled_and_cropped_as_the_library_does(tensors, tmp_path, name, values, wanted):
    f = given_beside(tmp_path, tensors, {name: values}).facts
    mean, std, *rest = wanted
    assert (f.mean, f.std) == ((pytest.approx(mean),) * 3, (pytest.approx(std),) * 3)
    assert [f.size, f.resized, f.fit] == rest


def test_a_library_that_squashes_images_says_so():
    network = network_of("timm coatnet_rmlp_2_rw_384", input_size=384)
    assert network.info_of("sw_in12k_ft_in1k").fit == "squash"
    assert network_of("timm test_vit", input_size=160).info_of("r160_in1k").fit is None


OTHER = TIMM | {"architecture": "resnet18.a1_in1k"}
MADE = {"num_classes": 5, "drop_rate": 0.2, "act_layer": "gelu", "scriptable": False}


@pytest.mark.parametrize(
    ("beside", "header", "said"),
    [
        (
            {"config.json": OTHER},
            None,
            "config.json says that they are of resnet18, and they are read as shufflenet_v2_x0_5: "
            "network.model=resnet18 reads them as it says",
        ),
        (
            {"config.json": TIMM | {"model_args": MADE}},
            None,
            "config.json says that their network was made with act_layer=gelu, and it is made "
            "without",
        ),
        (
            None,
            {
                "transferability": json.dumps(
                    {"model": "timm resnet18", "facts": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
                )
            },
            "the header of model.safetensors says that they are of timm resnet18, and they are "
            "read as torchvision shufflenet_v2_x0_5: network=timm network.model=resnet18 reads "
            "them as it says",
        ),
    ],
)
def test_another_network_with_the_same_tensors_is_named(tensors, tmp_path, beside, header, said):
    """Such networks differ in what is no tensor: padding, activations, normalizations."""
    for settings in ({}, {"channel_mean": NONE[0], "channel_std": NONE[1]}):
        assert said in given_beside(tmp_path, tensors, beside, header, **settings).facts.notes
    own = TIMM | {"model_args": {"num_classes": 5, "drop_rate": 0.2, "img_size": 64}}
    (tmp_path / "own").mkdir()
    plain = given_beside(tmp_path / "own", tensors, {"config.json": own})
    assert not any("they are" in note or "was made" in note for note in plain.facts.notes)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"config.json": TIMM | {"architecture": "resnet18.a1_in1k"}},  # of another network
        {"config.json": "{"},
        {"config.json": "[1]"},
        {"preprocessor_config.json": {"image_mean": [0.5, 0.5, 0.5]}},
    ],
)
def test_without_a_description_it_is_assumed_and_said(tensors, tmp_path, beside):
    pretrained = given_beside(tmp_path, tensors, beside)
    assert (pretrained.facts.mean, pretrained.facts.std) == IMAGENET
    assert (
        "(assumed, as nothing beside the file says it: torchvision, Shuffle"
        in pretrained.lines()[1]
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"mean": [0.5], "std": [0.5]}),
        ("config.json", {"mean": [0, 0, 0], "std": [0, 0, 0]}),
        ("preprocessor_config.json", {"image_mean": [124, 116, 104], "image_std": [58, 57, 57]}),
        ("preprocessor_config.json", {"image_mean": 0.5, "image_std": 0.5}),
    ],
)
def test_what_cannot_be_is_refused_and_settings_win(tensors, tmp_path, name, values):
    with pytest.raises(UserError, match=rf"^{name} says .* set network.channel_mean and network"):
        given_beside(tmp_path, tensors, {name: values})


def test_settings_win_and_are_said(tensors, tmp_path):
    own = (0.1, 0.2, 0.3)
    pretrained = given_beside(tmp_path, tensors, {"config.json": TIMM}, channel_mean=own)
    assert pretrained.facts.mean == pretrained.network.channel_mean == own
    assert "mean 0.1 0.2 0.3" in pretrained.lines()[1]
    assert "(mean and deviation as set; the rest config.json, mine)" in pretrained.lines()[1]


def test_tags_with_other_values_are_named():
    facts = assumed(network_of("timm mobilenetv3_large_100", input_size=64))
    assert facts.origin.endswith("timm, mobilenetv3_large_100.ra_in1k")
    assert facts.notes == (
        "other weights for this network need images prepared differently (miil_in21k, "
        "miil_in21k_ft_in1k mean 0 0 0 and standard deviation 1 1 1 and interpolation bilinear; "
        "ra4_e3600_r224_in1k mean 0.5 0.5 0.5 and standard deviation 0.5 0.5 0.5 and crop of the "
        "middle 0.95): experiments.check_weights says which mean and standard deviation fit",
    )
    assert assumed(network_of("torchvision resnet50", input_size=64)).notes == (
        "other weights for this network need images prepared differently (IMAGENET1K_V1 crop of "
        "the "
        "middle 0.88)",
    )
    assert assumed(network_of("timm tf_efficientnet_lite0", input_size=64)).notes == ()


def test_check_weights_says_which_values_fit(tensors, tmp_path):
    """Images labeled by what the network says of them, prepared with 0 and 1."""
    draw, shape = np.random.default_rng(0), (SIZE, SIZE, 3)
    images = [draw.integers(0, 256, shape, dtype=np.uint8) // (k % 4 + 1) for k in range(16)]

    def labelled(labels):
        return [
            Sample(label, str(k), lambda image=image: image)
            for k, (label, image) in enumerate(zip(labels, images, strict=True))
        ]

    pretrained = given_beside(tmp_path, tensors)
    ranks = [ranked(pretrained, labelled([label] * 16), known=NONE) for label in range(5)]
    items = labelled(np.argmin(ranks, axis=0).tolist())
    right = int((ranked(pretrained, items) == 0).sum())
    assert right < 16
    assert best_input(pretrained, items, right) == (
        "Another mean and standard deviation classifies more correctly, 16: "
        "'network.channel_mean=[0,0,0]' 'network.channel_std=[1,1,1]'"
    )
    own = given_beside(tmp_path, tensors, channel_mean=NONE[0], channel_std=NONE[1])
    assert best_input(own, items, 16).startswith("No other common mean and standard deviation")


def test_a_head_of_zeros_classifies_nothing_correctly(tensors, tmp_path):
    head = {name for name in tensors if name.startswith("fc.")}
    zeros = tensors | {name: torch.zeros_like(tensors[name]) for name in head}
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    items = [Sample(label, str(label), lambda: image) for label in range(5)]
    assert head and ranked(given_beside(tmp_path, zeros), items).tolist() == [4] * 5
