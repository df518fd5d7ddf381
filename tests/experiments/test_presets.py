"""experiment=NAME is the words that it stands for; words on the command line win;
every command takes it.
"""

import re
from types import ModuleType

import cv2
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import analysis.collect
import experiments.pack
import experiments.run
import experiments.status
from experiments.cli import CONF
from experiments.plan import UnpackedImagenet
from tests.helpers import overrides
from transferability.study.config import load
from transferability.study.expand import study_specs

FILES = sorted((CONF / "experiment").glob("*.yaml"))
TINY = "dataset=tiny_imagenet network=small-bn recipe=tiny_imagenet"
WORDS = {  # as results/ and the history of the README have them
    "advice": "dataset=folder network=timm recipe=photographs study=advice "
    "dataset.image_size=108 dataset.resize=bicubic dataset.fit=crop dataset.orientation=apply "
    "dataset.test_fraction=0.15 "
    "network.model=tf_efficientnet_lite0 network.input_size=96 study.depths=[0.26,0.53,0.79,1] "
    "recipe.steps=200 recipe.warmup_steps=20",
    "calibration": "study=calibration dataset=hierarchy recipe.steps=1500 recipe.eval_every=250",
    "cifar100": "dataset=cifar100 recipe=cifar network.input_size=28",
    "demo": "study.name=demo dataset.name=demo dataset.image_size=16 dataset.grammar.patch=2 "
    "dataset.grammar.shift=0 dataset.grammar.noise=0.15 dataset.grammar.train_per_class=60 "
    "network.input_size=16 recipe.name=demo-300-steps recipe.steps=300 recipe.lr=0.03 "
    "recipe.warmup_steps=30",
    "distance": f"study=distance {TINY} recipe.steps=4000 recipe.eval_every=400 "
    "recipe.name=4000-steps",
    "folder": "dataset=folder network=small-bn recipe=tiny_imagenet study.splits=[random-0]",
    "imagenet": "study=paper dataset=imagenet network=caffenet recipe=paper",
    "longer-tiny": f"study=longer {TINY} study.targets=[B] study.seeds=[0] recipe.name=12500-steps "
    "study.parts.twice.recipe.steps=25000 study.parts.twice.recipe.name=25000-steps",
    "pretrained": "dataset=folder network=timm recipe=photographs study=pretrained "
    "dataset.image_size=108 dataset.resize=bicubic dataset.fit=crop dataset.orientation=apply "
    "dataset.test_fraction=0.15 "
    "network.model=tf_efficientnet_lite0 network.input_size=96 "
    "study.depths=[0.21,0.42,0.68,0.89,1]",
    "reduced": f"study=reduced {TINY}",
    "replicates": f"study=replicates {TINY}",
    "replicates-longer": f"study=replicates study.splits=[random-0,random-1] {TINY} "
    "recipe.steps=25000 recipe.name=25000-steps",
    "shortcuts": "study=shortcuts network=residual dataset.name=rules2 "
    "dataset.grammar.train_per_class=1000 recipe.name=300-steps recipe.lr=0.4 recipe.steps=300 "
    "recipe.eval_every=60",
    "tiny_imagenet": f"study=tiny-imagenet {TINY}",
    "tiny_imagenet-splits": f"study=splits {TINY}",
}


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


def test_every_experiment_is_listed_here():
    assert {file.stem for file in FILES} == WORDS.keys()


@pytest.mark.parametrize("name", WORDS)
def test_it_is_the_words_that_it_stands_for(name):
    assert composed(f"experiment={name}") == composed(*WORDS[name].split())


@pytest.mark.parametrize(
    ("name", "size", "networks"), [("tiny_imagenet", 36, 174), ("imagenet", 256, 170)]
)
def test_its_runs_are_those_of_the_words(name, size, networks):
    dataset = UnpackedImagenet(name, size)
    one, other = (
        [spec.run_id for spec in study_specs(load(composed(*words)), dataset)]
        for words in ([f"experiment={name}"], WORDS[name].split())
    )
    assert one == other and len(set(one)) == networks


def test_other_words_win_before_and_after_it():
    for words in (["network=medium", "study=figures"], ["recipe.steps=100"]):
        for given in (["experiment=tiny_imagenet", *words], [*words, "experiment=tiny_imagenet"]):
            assert composed(*given) == composed(*WORDS["tiny_imagenet"].split(), *words)
    bf16 = composed("experiment=imagenet", "recipe.precision=bf16", "study=paper-complete")
    assert (bf16.recipe.precision, bf16.recipe.name, bf16.study.name) == (
        "bf16",
        "paper",
        "paper-complete",
    )


def test_what_a_file_sets_itself_stays_with_another_choice_of_the_group():
    config = composed("experiment=cifar100", "network=medium")
    assert (config.network.name, config.network.input_size) == ("medium", 28)
    assert (
        composed(
            "experiment=cifar100", "network=medium", "network.input_size=32"
        ).network.input_size
        == 32
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_opens_with_its_commands_and_its_cost(file):
    head = file.read_text().partition("defaults:")[0]
    commands = re.findall(r"^#   ((?:python -m|make) .*?)(?:    .*)?$", head, re.M)
    assert commands and re.search(r"^# Cost: .*(networks|networks,)", head, re.M)
    accuracy = head.partition("# Accuracy: ")[2]
    assert re.search("measured|logs", accuracy), "or that it was not"
    measured = re.search(r"^# Results: (results/[\w/-]+)", head, re.M)
    assert measured is None or (CONF.parent / measured[1] / "README.md").exists()
    for command in commands:
        words = overrides(command)
        assert f"experiment={file.stem}" in words or command == f"make {file.stem}"
        load(composed(*words))


@pytest.mark.slow
def test_every_command_takes_it(cli, tmp_path):
    for i in range(32):
        path = tmp_path / "images" / f"class-{i % 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8))
    here = [
        "experiment=folder",
        "dataset.name=mine",
        f"data_dir={tmp_path}/data",
        f"store={tmp_path}/runs",
    ]
    short = [
        "recipe.steps=2",
        "recipe.eval_every=2",
        "recipe.batch_size=4",
        "recipe.warmup_steps=0",
    ]
    short += ["study.layers=[7]", "device=cpu"]

    def said(command: ModuleType, *words: str) -> str:
        status, out, errors = cli(command.main, *here, *words)
        assert status == 0, errors
        return out

    assert "4 classes" in said(experiments.pack, f"dataset.source={tmp_path}/images")
    assert "random-0 → A" in said(experiments.run, *short, "mode=plan")
    said(experiments.run, *short, "target=A")
    said(analysis.collect, *short, f"out={tmp_path}/out")
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert (
        set(rows[rows.state == "done"].network) == {"small-bn"}
        and (rows.recipe == "tiny_imagenet").all()
    )
    assert "small-bn, tiny_imagenet (2 x 4)" in said(experiments.status)
