"""The report's "use it" is pasted: it trains the best network on all images, with all settings that
the study had.
"""

import html
import re
import shlex

import pytest
import safetensors.torch
import torch

import analysis.collect
import experiments.run
from analysis.report import write_report
from analysis.use import settings_of, use_of
from experiments.pack import main as pack_main
from tests.helpers import network_of, own_folder
from tests.miniature import shrunk
from transferability import load_run

WORDS = (
    *("experiment=advice", "dataset.name=my own", "dataset.image_size=32", "dataset.parts={}"),
    *("dataset.test_fraction=0.2", "network=torchvision", "network.model=shufflenet_v2_x0_5"),
    *("network.input_size=32", "recipe.batch_size=8", "recipe.weight_decay=0.001"),
    *("recipe.steps=2", "recipe.warmup_steps=0", "recipe.eval_every=1", "device=cpu"),
    *("study.layers=[9]", "study.seeds=[0]", "study.rates=[0.02]"),
    *("++study.parts.strategies.treatments.pretrained=[base,AnB]",),
    *("++study.parts.longer.recipe.steps=3", "++study.parts.longer.recipe.momentum=0.8"),
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("given") / "w.safetensors"
    network = network_of("torchvision shufflenet_v2_x0_5", input_size=32)
    safetensors.torch.save_file(network.build().state_dict(), path)
    return path


@pytest.mark.slow
def test_what_the_report_says_is_pasted_and_trains_it(tmp_path, weights, cli):
    places = (f"data_dir={tmp_path}/my data", f"store={tmp_path}/my runs", f"weights={weights}")
    source = own_folder(tmp_path / "images")
    assert cli(pack_main, *WORDS, *places, f"dataset.source={source}")[0] == 0
    assert cli(experiments.run.main, *WORDS, *places)[0] == 0
    out = (f"out={tmp_path}/out", "mode=train", f"dataset.source={source}")
    assert cli(analysis.collect.main, *WORDS, *places, *out)[0] == 0
    page = html.unescape(write_report(tmp_path / "out").read_text())
    (code,) = re.findall(r"<code>(from transferability.*?)run.classes", page, re.S)
    scope = {}
    exec(code, scope)
    best = scope["run"].spec
    assert best == load_run(tmp_path / "my runs" / best.run_id).spec
    (pasted,) = re.findall(r"<code>python -m experiments.run (.*?)</code>", page)
    assert "images" not in re.sub("all_images|image_size", "", pasted), "packed already"
    before = set((tmp_path / "my runs").iterdir())
    status, said, _ = cli(experiments.run.main, *shlex.split(pasted))
    assert status == 0 and "has no networks" not in said
    (made,) = {path for path in (tmp_path / "my runs").iterdir() if path.is_dir()} - before
    spec = load_run(made).spec
    assert spec.all_images and not best.all_images
    assert (spec.cell, spec.classes, spec.network, spec.dataset) == (
        *(best.cell, best.classes, best.network, best.dataset),
    )
    one, other = ({**vars(s.recipe), "name": ""} for s in (spec, best))
    assert one == other and best.recipe.weight_decay == 0.001


def test_what_a_part_of_a_study_changes_is_in_its_command(tmp_path):
    config = shrunk(tmp_path, "study.splits=[mine.yaml]", "recipe.lr=0.1")
    config.words = ("recipe.lr=0.1", "study.seeds=[0]", "seed=1", "recipe.mirror=false", "out=x")

    class Spec:
        images_per_class, recipe = None, config.recipe

    use = use_of(config, [Spec])
    assert use["settings"] == ["recipe.lr=0.1", "recipe.mirror=false", "split=mine.yaml"]
    assert use["recipes"] == {config.recipe.name: []}

    class Advice:
        class best:
            cell, recipe = "A2B", "slow"

    use["recipes"]["slow"] = ["recipe.lr=0.01", "recipe.steps=8"]
    wanted = ["recipe.mirror=false", "split=mine.yaml", "recipe.lr=0.01", "recipe.steps=8"]
    wanted += ["study=pretrained", "all_images=true", "cell=A2B", "seed=0"]
    assert settings_of({"use": use}, Advice) == wanted
