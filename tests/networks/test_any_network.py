"""Presets for one network serve any other, and any layout of folders."""

import logging

import pytest

from tests.helpers import composed, config_of, make_source
from transferability.data.pack import pack
from transferability.errors import UserError


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (["experiment=advice"], [5, 10, 15, 19]),  # of EfficientNet-lite0, as results/ have them
        (["experiment=pretrained"], [4, 8, 13, 17, 19]),
        (["experiment=advice", "network=torchvision", "network.model=resnet18"], [2, 5, 7, 9]),
        (["experiment=pretrained", "network=torchvision", "network.model=resnet18"],
         [2, 4, 6, 8, 9]),
        pytest.param(["experiment=advice", "network=torchvision", "network.model=alexnet"],
                     [2, 4, 6, 7], marks=pytest.mark.slow),
        (["experiment=advice", "network.model=test_resnet"], [2, 4, 6, 7]),
        (["experiment=advice", "network=timm", "study.layers=[4,7]"], [4, 7]),
        (["experiment=advice", "study.depths=[0.01,1]"], [1, 19]),
        (["study=advice"], None),  # every layer
    ],
)  # fmt: skip
def test_depths_are_spread_over_the_layers_that_the_network_has(words, layers):
    pytest.importorskip("timm", reason="timm is not installed")
    config = composed("dataset.name=mine", *words)
    assert config.study.layers == layers
    assert all(part.layers in (None, []) for part in config.study.parts.values())


@pytest.mark.parametrize("depths", ["[0]", "[1.1]", "[0.5,-1]"])
def test_depths_that_no_network_has_are_refused(depths):
    with pytest.raises(UserError, match=r"study\.depths=.* must be numbers above 0"):
        composed("dataset.name=mine", "experiment=advice", f"study.depths={depths}")


def test_a_share_for_test_is_moot_where_there_is_a_test_folder(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = make_source(tmp_path / "source")
    (tmp_path / "source" / "val").rename(tmp_path / "source" / "test")
    make_source(source, n_val=2)
    packed = [
        pack(config_of(source, tmp_path / name, test_fraction=share))
        for name, share in (("a", 0.0), ("b", 0.3))
    ]
    assert [(p.n_train, p.n_val, p.n_test) for p in packed] == [(21, 6, 9)] * 2
    assert packed[0].checksum == packed[1].checksum
    said = [r.getMessage() for r in caplog.records if "test_fraction" in r.getMessage()]
    assert said == [
        f"{source} has 9 test images of its own: dataset.test_fraction=0.3 holds out no others"
    ]
