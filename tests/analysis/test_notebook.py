"""``Study`` and ``advise``: the commands' own numbers, as values."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure
from pandas.testing import assert_frame_equal

from analysis.advised_figures import curve
from analysis.tables import StudyResults
from tests.helpers import network_of, write
from transferability import Study, advise, load_run
from transferability.errors import UserError


def test_the_package_alone_imports_nothing_and_names_what_there_is():
    ask = (
        "import json, sys; import transferability as t; "
        "print(json.dumps([sorted(sys.modules), t.__all__]))"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    modules, names = json.loads(done.stdout)
    assert not {"torch", "numpy", "pandas", "hydra", "analysis", "experiments"} & set(modules)
    assert names == ["Study", "advise", "load_run"]
    with pytest.raises(ImportError, match="cannot import name 'studdy'"):
        from transferability import studdy  # noqa: F401


def test_a_study_has_the_tables_of_the_command(miniature):
    study = Study(*miniature.overrides)
    networks, collected = study.networks(), StudyResults.read(miniature.tables)
    assert set(networks.state) == {"done"}
    assert set(networks.run) == set(collected.results.run)
    found = study.results()
    columns = ["run", "cell", "n", "top1", "val_loss", "seconds"]
    assert_frame_equal(found.results[columns], collected.results[columns], check_dtype=False)
    for run, labels in collected.predictions.items():
        assert np.array_equal(found.predictions[run], labels)


def test_a_study_shows_the_accuracy_by_which_it_chooses(miniature):
    study = Study(*miniature.overrides)
    balanced = replace(study.config.study, choose_by="balanced_accuracy")
    study.config = replace(study.config, study=balanced)
    found = study.results()
    assert found.measure == "balanced" and found.metadata["choose_by"] == "balanced_accuracy"
    assert found.networks.accuracy.equals(found.networks.top1_balanced.rename("accuracy"))


def test_a_finished_study_trains_nothing_and_says_so(miniature, capsys):
    study = Study(*miniature.overrides, "split=random-0", "cell=A2B+")
    before = {p: p.stat().st_mtime_ns for p in study.store.root.rglob("*/*")}
    study.train()
    assert capsys.readouterr().out.startswith("random-0 A2B+: top-1 ")
    study.plan()
    assert "Nothing to train: every network is finished." in capsys.readouterr().out
    after = {p: p.stat().st_mtime_ns for p in study.store.root.rglob("*/*") if p.name != ".lock"}
    assert after == {p: t for p, t in before.items() if p.name != ".lock"}


def test_a_network_of_a_study_is_loaded_by_its_name(miniature):
    study = Study(*miniature.overrides)
    run = study.load("A2B+", split="random-0")
    assert (str(run.spec.cell), run.spec.split) == ("A2B+", "random-0")
    with pytest.raises(UserError, match="has 2 networks A2B: say split= or seed="):
        study.load("A2B")
    with pytest.raises(UserError, match="this study has no A2B~1"):
        study.load("A2B~1")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recipe.stepz=1", "recipe.stepz is an unknown setting: did you mean recipe.steps"),
        ("dataset=nix", "dataset=nix is unknown"),
        ("recipe.steps=0", "recipe.steps=0 must be"),
        ("recipe.steps=many", "many"),
        ("random-0", "'random-0' is an unknown setting: write KEY=VALUE"),
        ("study.seeds=[0", "cannot be read"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(setting, said):
    with pytest.raises(UserError, match=said) as error:
        Study(setting)
    assert "\n" not in str(error.value)


def given(tmp_path):
    """20 images in each of two classes that differ in brightness, and weights for them."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        for i in range(20):
            image = draw.integers(90 * label, 90 * label + 150, (40, 36, 3))
            write(tmp_path / "photos" / name / f"{i}.png", image.astype(np.uint8))
    torch.manual_seed(0)
    weights = network_of("timm test_resnet", input_size=32).build().state_dict()
    safetensors.torch.save_file(weights, tmp_path / "test_resnet.safetensors")
    return tmp_path / "photos", tmp_path / "test_resnet.safetensors"


def test_advice_from_python_has_the_input_size_of_the_weights(tmp_path):
    """As the command has it: a file beside the weights says it."""
    photos, weights = given(tmp_path)
    draw = np.random.default_rng(1)
    for i in range(10):  # light images that are dark: not all are classified correctly
        image = draw.integers(0, 150, (40, 36, 3))
        write(photos / "light" / f"{i}.png", image.astype(np.uint8))
    described = {"architecture": "test_resnet", "mean": [0.5] * 3, "std": [0.5] * 3}
    described |= {"input_size": [3, 48, 48], "crop_pct": 0.8, "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps(described))
    where = [f"data_dir={tmp_path}/data", f"store={tmp_path}/runs", f"out={tmp_path}/page"]
    found = advise(photos, weights, *where, "device=cpu", "threads=1", minutes=0.001)
    assert found.answer.spec.network.input_size == 48
    (best,) = found.table.itertuples()
    assert best.test < 1
    assert found.answer.interval == (best.low, best.high), "nothing was chosen"
    assert "race" not in curve(found.answer).caption


@pytest.mark.slow
def test_advice_from_python_is_the_commands(tmp_path):
    photos, weights = given(tmp_path)
    small = ["dataset.image_size=36", "network.input_size=32", "device=cpu", "threads=1"]
    where = [f"data_dir={tmp_path}/data", f"store={tmp_path}/runs", f"out={tmp_path}/page"]

    def ask(minutes):
        return advise(photos, weights, *small, *where, minutes=minutes)

    found = ask(0.05)
    assert len(found.table) >= 1, "one linear classifier, whatever the time"
    assert isinstance(found.best, pd.Series) and found.best.equals(found.table.iloc[0])
    assert found.best.validation == found.table.validation.max()
    assert found.page == (tmp_path / "page/report.html").resolve() and found.page.exists()
    assert str(found).splitlines()[-1] == f"page: {found.page}"
    figure = found.plot()
    assert isinstance(figure, Figure) and figure.axes[0].get_title() == "What each depth is worth"
    measured = found.load()
    assert measured.metrics[-1]["val_top1"] == pytest.approx(found.best.validation)
    final = found.train_on_all()
    assert final.spec.all_images and final.classes == ["dark", "light"]
    recipe = replace(final.spec.recipe, name=measured.spec.recipe.name)
    assert (final.spec.cell, recipe) == (measured.spec.cell, measured.spec.recipe)
    assert load_run(tmp_path / "runs" / final.spec.run_id).spec == final.spec
    again = ask(0.05)  # goes on
    assert len(again.table) >= len(found.table)
