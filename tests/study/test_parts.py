"""Parts of a study: networks that tables could not tell apart are refused."""

import pytest

from tests.miniature import shrunk
from transferability.errors import UserError
from transferability.study.expand import study_specs

USUAL = ["split=random-0", "study.layers=[3]", "+study.parts.usual={}"]


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("recipe: {steps: 16, lr: 0.1}", "recipe.lr, recipe.steps"),
        ("network: {normalization: batch}", "network.normalization"),
        ("source_recipe: {steps: 16}", "source.recipe.steps"),
    ],
)
def test_two_networks_of_all_the_same_names_are_refused(part, settings, config, dataset):
    """Their mean was shown as the accuracy of one network that was trained twice."""
    with pytest.raises(UserError) as error:
        study_specs(shrunk(config.store, *USUAL, f"+study.parts.other={{{part}}}"), dataset)
    assert f"differ in {settings}, and the names of network and recipe are small" in str(
        error.value
    )
    assert "study.parts.PART.recipe.name=NAME" in str(error.value)


@pytest.mark.parametrize(
    "part",
    [
        "recipe: {name: longer, steps: 16}",
        "network: {name: other, normalization: batch}",
        # as AnB+ at a smaller rate, beside the usual bases
        "recipe: {lr: 0.001}, treatments: {random: ['AnB~1']}",
        "recipe: {lr: 0.001}, images_per_class: [4]",
        "recipe: {name: another name of the same}",
    ],
)
def test_names_treatments_and_volumes_tell_parts_apart(part, config, dataset):
    before = study_specs(shrunk(config.store, *USUAL), dataset)
    after = study_specs(shrunk(config.store, *USUAL, f"+study.parts.other={{{part}}}"), dataset)
    assert len(after) > len(before) or "another name" in part
