"""What a user can get wrong ends in one clear line and status 2, and leaves nothing behind."""

import shutil
from itertools import zip_longest

import pytest
from hydra import compose, initialize_config_dir

import experiments.pack
import experiments.run
import experiments.verify
from experiments.cli import CONF
from tests.miniature import SHRUNK, shrunk
from transferability.errors import UserError
from transferability.study.config import load


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.lr=-1", "recipe.lr=-1.0 must be"),
        ("recipe.steps=0", "recipe.steps=0"),
        ("recipe.schedule=linear", "step or cosine"),
        ("recipe.precision=fp16", "float32 or bf16"),
        ("network.kernels=[3]", "one number per convolutional layer"),
        ("network.normalization=group", "none, lrn or batch"),
        ("network.dropout=1", "below 1"),
        (
            "network.strides=[0,1,1,1,1]",
            r"network.strides=\[0, 1, 1, 1, 1\] must be numbers above 0",
        ),
        ("network.hidden=[0,8]", r"network.hidden=\[0, 8\]"),
        ("network.paddings=[-1,0,0,0,0]", "at least 0"),
        ("network.groups=[1,4,1,1,1]", "divisors of the channels of their layers"),
        ("network.pools=[6]", "layers from 1 to 5"),
        ("network.outputs=0", "a number above 0, or null"),
        ("network.input_size=3", "larger for small: nothing is left of an image after layer 2"),
        ("recipe.lr=inf", "recipe.lr=inf"),
        ("recipe.weight_decay=-1", "at least 0"),
        ("+recipe={schedule:step,step_size:-2}", "recipe.step_size=-2"),
        ("+recipe={schedule:step,step_size:2,gamma:0}", "recipe.gamma=0"),
        ("study.layers=[0,3]", "must be from 1 to 7"),
        ("study.layers=[8]", "must be from 1 to 7"),
        ("mode=dry", "train or plan"),
        ("recipe.name=''", "recipe.name= must be a name"),
        ("network.name=' '", "network.name=  must be a name"),
        ("max_networks=0", "max_networks=0"),
        ("+dataset.on_error=ignore", "fail or skip"),
        ("dataset.kind=mnist", "procedural, tiny_imagenet, cifar10"),
    ],
)
def test_impossible_values_are_one_line(tmp_path, override, message):
    with pytest.raises(UserError, match=message) as error:
        shrunk(tmp_path, override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe.rate=1"], "recipe.rate is an unknown setting; conf/ documents every one"),
        (["network=alexnet"], "network=alexnet is unknown. Available: caffenet, medium"),
        (["recipe.lr=fast"], "error: recipe.lr=fast must be a number\n"),
        (["minutes="], "error: minutes= must be a number\n"),
        (["recipe.steps=1.5"], "error: recipe.steps=1.5 must be a whole number\n"),
        (["recipe.mirror=maybe"], "error: recipe.mirror=maybe must be true or false\n"),
        (["study.seeds=[a]"], "error: study.seeds[0]=a must be a whole number\n"),
        (["cell=A9B"], "'A9B': n=9 is outside 1..7"),
        (["cell=X3B"], "'X3B' is not a cell"),
        (["split=halves"], "split=halves is not known"),
        (["cell=baseall"], "split=random-0 has tasks A, B, not all"),
        (["network.input_size=17"], "the packed images of procedural are 16x16 pixels"),
        (["target=C"], "target=C is not a task"),
        (["target=A", "split=random-0", "cell=A3B"], "cell=A3B is not of target=A"),
        (["split=random-00"], "split=random-00 is not known"),
        (["images_per_class=13"], "no class of the task has more than 12 training images"),
        (["images_per_class=13", "mode=plan"], "no class of the task has more than 12 training"),
        (
            ["+study.parts.x.network={input_size:17}"],
            "the packed images of procedural are 16x16 pixels",
        ),
        (
            ["network.normalization=batch", "recipe.batch_size=1"],
            "recipe.batch_size=1 is not possible",
        ),
        (["stacked=true", "device=cpu"], "stacked=true is not possible on device=cpu"),
        (["network.outputs=3"], "must be at least 4, the classes of task"),
        (["device=cuda:99"], "device=cuda:99 is not available"),
        (["dataset=tiny_imagenet"], "no packed dataset in"),
        (["dataset=folder"], "dataset.name"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line_and_status_2(tmp_path, cli, overrides, message):
    where = [f"data_dir={tmp_path}/data", f"store={tmp_path}/runs"]
    shrink = SHRUNK if not any("dataset=" in o for o in overrides) else []
    status, _, errors = cli(experiments.run.main, *shrink, *where, *overrides)
    assert status == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: "), errors
    assert not list(tmp_path.glob("runs/*"))


def test_pack_says_what_is_missing(tmp_path, cli):
    overrides = ["dataset=tiny_imagenet", f"data_dir={tmp_path}"]
    status, _, errors = cli(experiments.pack.main, *overrides)
    assert status == 2 and "dataset.source=PATH" in errors
    status, _, errors = cli(experiments.pack.main, *overrides, "dataset.source=/absent.zip")
    assert status == 2 and errors == "error: dataset.source=/absent.zip does not exist\n"


def test_verify_names_what_is_damaged_and_another_packing_is_noticed(tmp_path, cli):
    where = [
        *SHRUNK,
        f"data_dir={tmp_path}/data",
        f"store={tmp_path}/runs",
        "split=random-0",
        "cell=baseB",
    ]
    assert cli(experiments.run.main, *where)[0] == 0
    images, (weights,) = (
        tmp_path / "data/procedural/images.npy",
        tmp_path.glob("runs/*/weights.safetensors"),
    )
    for path in (images, weights):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    status, _, errors = cli(experiments.verify.main, *where)
    assert status == 1 and len(errors.splitlines()) == 2
    assert str(weights) in errors and "images.npy is not as packed" in errors
    unpacked = ["dataset=tiny_imagenet", *where[-4:]]
    status, _, errors = cli(experiments.verify.main, *unpacked)
    assert status == 1 and str(weights) in errors and "no packed dataset in" in errors, (
        "nothing found is lost"
    )
    shutil.rmtree(tmp_path / "data")
    status, output, errors = cli(
        experiments.run.main, *where, "dataset.grammar.noise=0.3", "mode=plan"
    )
    assert "holds 1 runs of procedural packed from other images" in errors + output


NEEDED = {  # by choices that do not stand alone
    "dataset=folder": ["dataset.name=mine"],
    "dataset=torchvision": ["dataset.name=mine"],
    "dataset=huggingface": ["dataset.name=mine"],
    "network=torchvision": ["network.model=resnet18"],
    "network=timm": ["network.model=tf_efficientnet_lite0"],
    "network=medium": ["dataset=imagenet"],
    "network=caffenet": ["dataset=imagenet"],
    "network=zfnet": ["dataset=imagenet"],
}


@pytest.mark.parametrize("groups", [["dataset"], ["network", "recipe", "study", "tracker"]])
def test_every_choice_of_every_group_composes(groups):
    """Choices of several groups side by side; test_presets.py composes every experiment."""
    choices = [sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in groups]
    for together in zip_longest(*choices):
        words = [f"{g}={c}" for g, c in zip(groups, together, strict=True) if c]
        words += [more for word in words for more in NEEDED.get(word, [])]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert load(compose("config", words))
