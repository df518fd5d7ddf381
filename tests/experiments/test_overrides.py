"""Texts on the command line are what was typed; what Hydra cannot read says how to write it."""

import os
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import experiments.cli
import experiments.run
import experiments.status
from experiments.cli import CONF
from experiments.overrides import as_typed, plainly
from transferability.errors import UserError
from transferability.study.config import Config, changed, load


def loaded(*words: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(compose("config", as_typed(list(words))))


TEXTS = [
    "2024.10",
    "1e3",
    "1_000",
    "007",
    "true",
    "nan",
    "a=b",
    "a,b",
    "(a)",
    "[a]",
    "{a}",
    "it's",
    '"a" b',
    "#a! ;&",
]
TEXTS += [
    "naïve",
    "猫",
    "a\"b'c",
    "x, y",
    "C:\\a b",
    "random-0",
    "-1",
    "+1",
    "%",
    "a:b",
    "a@b",
    "*",
    "{a: b}",
    "b][",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_was_typed(text):
    config = loaded(
        "dataset=folder",
        f"dataset.name={text}",
        f"dataset.source=/{text}",
        f"data_dir={text}",
        f"store={text}",
        f"out={text}/x",
    )
    assert (config.dataset.name, config.dataset.source) == (text, f"/{text}")
    assert config.data_dir == text and config.dataset.folder == f"{text}/{text}"
    assert config.store == text


@pytest.mark.parametrize(
    "path",
    [
        r"C:\data\flowers.zip",
        r"C:\my data\new\table (2).csv",
        r"D:\a,b\it's",
        r"\\server\share\photos",
        "C:\\data\\",
        r"C:\\data\\twice",
    ],
)
def test_a_path_of_windows_is_what_was_typed(path):
    words = [f"{key}={path}" for key in ("dataset.source", "store", "weights")]
    config = loaded("dataset=folder", "dataset.name=mine", *words)
    assert (config.dataset.source, config.store, config.weights) == (path, path, path)


def test_what_hydra_reads_as_a_text_is_left_to_it():
    for word in (
        "dataset.name='a b'",
        "dataset.name=null",
        "out=x/${dataset.name}",
        "recipe.lr=1e-3",
        "network=small",
        "study.splits=[a,b]",
        "+dataset.on_error=skip",
        "~out",
        "-m",
        "dataset.source=a\\(b\\)",
    ):
        assert as_typed([word]) == [word]
    sweep = ["-m", "split=random-0,natural-manmade", "dataset.name=2024.10,a", "target=choice(A,B)"]
    assert as_typed(sweep) == [*sweep[:2], 'dataset.name="2024.10",a', sweep[3]]


def test_a_text_that_was_read_as_a_number_is_refused():
    with pytest.raises(
        UserError,
        match=r"^study.splits\[1\] was read as 1000.0, a float, but it must be text: put it in quo",
    ):
        loaded("study.splits=[random-0,1e3]")
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(UserError, match=r"^dataset.name was read as t"),
    ):
        load(compose("config", ["dataset.name=true"]))
    config = loaded("+study.parts.x.recipe={name:2024.10}")
    with pytest.raises(UserError, match=r"^name was read as 2024.1, a float"):
        changed(config.recipe, config.study.parts["x"].recipe)


def test_a_list_that_is_left_open_keeps_its_default():
    assert loaded("study.images_per_class=???").study.images_per_class == [None]
    config = loaded("network.bias=???")
    assert changed(config.network, {"channels": "???"}) == config.network


@pytest.mark.parametrize(
    ("word", "way"),
    [
        ("study.splits=[a(b.yaml]", "study.splits=['...','...']"),
        ("hydra.sweep.dir=a(b", """'hydra.sweep.dir="a(b"'"""),
        ("hydra.sweep.dir=größe", """'hydra.sweep.dir="größe"'"""),
        ("what(", "is an unknown setting: write KEY=VALUE"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(cli, word, way):
    status, _, errors = cli(experiments.status.main, word)
    assert (
        status == 2
        and way in errors
        and errors.startswith("error: ")
        and len(errors.splitlines()) == 1
    ), errors


@pytest.mark.slow
def test_a_path_may_begin_at_home(monkeypatch, tmp_path, cli):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = [
        "dataset=imagenet",
        "data_dir=~/d",
        "store=~/s",
        "out=~/o",
        "weights=~/w.pth",
        "run=~/s/r",
        "dataset.source=~",
        "dataset.val_labels=~/v",
    ]
    config = loaded(*words)
    found = (
        config.data_dir,
        config.store,
        config.out,
        config.weights,
        config.run,
        config.dataset.source,
        config.dataset.val_labels,
    )
    assert found == tuple(
        f"{tmp_path}{part}" for part in ("/d", "/s", "/o", "/w.pth", "/s/r", "", "/v")
    )
    assert config.dataset.folder == f"{tmp_path}/d/imagenet" and loaded("store=./~").store == "./~"
    with pytest.raises(
        UserError,
        match=r"store=~nobody-here/x: there is no home folder ~nobody-here; .* \./~nobody",
    ):
        loaded("store=~nobody-here/x")
    (tmp_path / "mine.yaml").write_text(
        "A: [natural-00, natural-01]\nB: [no-such-class, natural-02]\n"
    )
    status, _, errors = cli(
        experiments.run.main, "split=~/mine.yaml", "mode=plan", "data_dir=~/d", "store=~/s"
    )
    assert status == 2 and "no class no-such-class" in errors, "it was read"
    sweep = [
        "-m",
        "seed=0",
        "mode=plan",
        "split=random-0",
        "cell=baseB",
        "store=~/s",
        "data_dir=~/d",
    ]
    monkeypatch.setattr(sys, "argv", ["command", *sweep])
    experiments.cli.command(experiments.run.main)()
    assert sorted(os.listdir(tmp_path)) == ["d", "mine.yaml", "s"], "no folder is called ~"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("recipe.stepz=3", "recipe.stepz is an unknown setting: did you mean recipe.steps?"),
        (
            "dataset.sorce=x dataset=imagenet",
            "dataset.sorce is an unknown setting: did you mean dataset.source?",
        ),
        ("chell=A3B", "chell is an unknown setting: did you mean cell?"),
        ("network.modle=x", "network.modle is an unknown setting: did you mean network.model?"),
        ("datset=cifar10", "datset is an unknown setting: did you mean dataset?"),
        (
            "dataset.source=x",
            "dataset.source is not a setting of this dataset: conf/dataset/ has those",
        ),
        ("recpie.steps=3", "recpie is an unknown setting: did you mean recipe?"),
        ("zzz=1", "zzz is an unknown setting; conf/ documents every one"),
        ("network=smal", "network=smal is unknown: did you mean small? Available: caff"),
        ("study=zzz", "study=zzz is unknown. Available: advice, batchnorm, "),
        ("hydra/launcher=slrum", "did you mean slurm? Available: basic, joblib,"),
    ],
)
def test_a_misspelt_word_is_told_the_nearest(word, said):
    with (
        pytest.raises((HydraException, OmegaConfBaseException)) as error,
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        compose("config", word.split())
    assert said in plainly(error.value)


def test_so_is_one_that_is_added():
    with (
        pytest.raises(OmegaConfBaseException) as error,
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        load(compose("config", ["+recipe.stepz=3"]))
    assert plainly(error.value) == "recipe.stepz is an unknown setting: did you mean recipe.steps?"
    assert plainly(HydraException("another message")) == "another message"


def test_an_older_name_of_a_setting_is_understood_and_the_new_one_told(caplog):
    """On the command line and in a file of one's own; ids hang on neither."""
    words = ["recipe.optimiser=adamw", "++study.parts.odd.network={normalisation: batch}"]
    assert as_typed(words)[0] == "recipe.optimizer=adamw"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        old = OmegaConf.to_container(compose("config", ["experiment=demo"]))
    old["recipe"]["optimiser"] = "adamw"
    old["study"]["parts"] = {"odd": {"network": {"normalisation": "batch"}}}
    config = load(OmegaConf.create(old))
    assert config.recipe.optimizer == "adamw"
    assert config.study.parts["odd"].network == {"normalization": "batch"}
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "recipe.optimiser is now called recipe.optimizer",
        "recipe.optimiser is now called recipe.optimizer",
        "study.parts.odd.network.normalisation is now called study.parts.odd.network.normalization",
    ]
