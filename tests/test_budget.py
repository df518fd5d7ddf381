"""What of a study fits a given time: the settings that are printed make the networks that were
counted.
"""

import shlex

import pytest

from experiments.budget import Part, _parts, print_budget
from experiments.cost import Cost
from tests.conftest import CPU, shrunk
from transferability.errors import UserError
from transferability.runs.store import Store
from transferability.study.expand import study_specs

STUDY = [
    "study.splits=[random-0]",
    "study.targets=[B]",
    "study.seeds=[0,1]",
    "study.layers=[1,3,4,5,7]",
    "study.rates=[0.01,0.03]",
    "study.treatments={random:[]}",
    '+study.parts.strategies={treatments:{random:[base,AnB,AnB+,"AnB~all","An.B"]}}',
    # as it says itself, whatever the study says
    "+study.parts.few={treatments:{random:[base]},seeds:[1],rates:[0.03],images_per_class:[5]}",
    "+study.parts.longer={treatments:{random:[base,AnB~all]},layers:[],recipe:{steps:99}}".replace(
        "AnB~all", '"AnB~all"'
    ),
]


@pytest.mark.parametrize("stride", [13, pytest.param(3, marks=pytest.mark.slow)])
def test_the_settings_of_every_part_make_its_networks(dataset, tmp_path, stride):
    config = shrunk(tmp_path, *STUDY)
    specs = study_specs(config, dataset)
    usual = {s.recipe.steps for s in specs}
    assert usual == {min(usual), 99}
    whole = Part((1, 3, 4, 5, 7), (0.01, 0.03), (0, 1), longer=True)
    assert ids(whole.of(config), dataset) == {s.run_id for s in specs}
    parts = list(_parts(whole))
    assert parts[0] == whole and len(set(parts)) == len(parts) == 5 * 2 * 2 * 2
    assert {part.layers for part in parts} == {
        *((1, 3, 4, 5, 7), (1, 3, 5, 7), (1, 4, 7), (1, 7), (7,))
    }
    for part in parts[::stride]:
        words = [shlex.split(word)[0] for word in part.settings(whole, config)]
        made = ids(shrunk(tmp_path, *STUDY, *words), dataset)
        assert made == ids(part.of(config), dataset), part
        assert made < {s.run_id for s in specs} or part == whole


def ids(config, dataset) -> set[str]:
    return {s.run_id for s in study_specs(config, dataset)}


def test_the_plan_says_what_fits_and_what_it_leaves_out(dataset, tmp_path, capsys):
    study = [*STUDY, "study.layers=[1,4,7]", "study.seeds=[0]"]  # 12 parts, not 40
    cost = Cost(Store(tmp_path / "runs"), dataset, CPU)

    def said(minutes):
        config = shrunk(tmp_path, *study, "mode=plan", f"budget_minutes={minutes}")
        print_budget(config, cost)
        return capsys.readouterr().out

    assert "the whole study fits" in said(1e6)
    with pytest.raises(UserError, match="the smallest part of the study takes about"):
        said(1e-9)
    specs = study_specs(shrunk(tmp_path, *study), dataset)
    every = sum(map(cost.seconds, ([s] for s in specs))) / 60
    out = said(every / 6)
    assert "left out:" in out and f"of {len(specs)} fit" in out and len(specs) == 29


def test_a_budget_is_for_a_plan(tmp_path):
    with pytest.raises(UserError, match="budget_minutes is for mode=plan"):
        shrunk(tmp_path, "budget_minutes=10")
