"""Classes that are mirror images of each other are named where training images are mirrored."""

import pytest

import experiments.run
from experiments.pack import main as pack_main
from tests.helpers import own_folder
from transferability.data.mirrors import mirrored


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left", "right"], [("left", "right")]),
        (["straight", "turn_right", "turn_left"], [("turn_right", "turn_left")]),
        (["TurnLeft", "TurnRight", "bright"], [("TurnLeft", "TurnRight")]),
        (["pfeil-links", "pfeil-rechts"], [("pfeil-links", "pfeil-rechts")]),
        (["izquierda", "derecha"], [("izquierda", "derecha")]),
        (["arrow_l", "arrow_r"], [("arrow_l", "arrow_r")]),
        (["a", "b", "c", "d", "p", "q"], [("b", "d"), ("p", "q")]),
        (["letter b", "letter d"], [("letter b", "letter d")]),
        (["clockwise", "counterclockwise"], [("clockwise", "counterclockwise")]),
        (["A", "B", "C", "D", "P", "Q"], []),  # of capitals none is another one mirrored
        (["left", "straight"], []),
        (["bright", "blight", "dad", "bad"], []),
        (["rose", "daisy", "western", "easter"], []),
        (["north", "south"], []),
    ],
)
def test_names_say_it(names, pairs):
    assert mirrored(names) == pairs


def test_a_run_names_them_and_its_plan_says_whether_images_are_mirrored(tmp_path, cli):
    source = own_folder(tmp_path / "images", classes=("arrow left", "arrow right"))
    words = (
        *("dataset=folder", "dataset.name=arrows", "network=small-bn", "recipe=tiny_imagenet"),
        *(f"data_dir={tmp_path}/data", f"store={tmp_path}/runs", "split=all", "cell=baseall"),
        *("seed=0", "mode=plan", "device=cpu", "recipe.steps=3", "recipe.warmup_steps=0"),
    )
    status, _, log = cli(pack_main, *words, f"dataset.source={source}")
    assert status == 0 and log.endswith(
        "the classes arrow left and arrow right look like mirror images of each other: train with "
        "recipe.mirror=false\n"
    )
    _, said, log = cli(experiments.run.main, *words)
    assert "Training images are mirrored at random (recipe.mirror=false turns this off)." in said
    assert (
        "the classes arrow left and arrow right look like mirror images of each other, and "
        "training images are mirrored: set recipe.mirror=false\n"
    ) in log
    _, said, log = cli(experiments.run.main, *words, "recipe.mirror=false")
    assert "Training images are not mirrored" in said and "mirror" not in log
