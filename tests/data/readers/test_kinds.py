"""Every kind of dataset that READERS lists: a new one is tested here as soon as it is listed."""

import pytest
from hydra import compose, initialize_config_dir

from experiments.cli import CONF
from transferability.data.config import READERS, DatasetConfig
from transferability.data.readers import read_dataset
from transferability.errors import UserError
from transferability.study.config import load


def test_every_kind_has_a_configuration_and_every_configuration_a_kind():
    names = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        # A name is what the configuration of one's own folder leaves open.
        configs = [
            load(compose("config", [f"dataset={name}", "dataset.name=some"])) for name in names
        ]
    assert {config.dataset.kind for config in configs} == READERS.keys()


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "procedural"])
def test_a_kind_that_reads_images_wants_to_know_where_they_are(kind):
    with pytest.raises(
        UserError,
        match=r"^dataset.source is not set: set dataset.source=PATH to the images of some",
    ):
        read_dataset(DatasetConfig(kind, "some", "unused", 32))
