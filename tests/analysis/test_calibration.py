"""The calibration finds the layer at which a made-up loss happens, and says what it cannot use."""

import json

import pandas as pd
import pytest

from analysis import calibration
from analysis.plotting.layout import compose, save
from analysis.tables import RESULTS, StudyResults
from transferability.errors import UserError

BASE = 0.8


def study(folder, shared, grammar, breaks_at, levels=4):
    """Tables of a study whose AnB loses nothing below layer ``breaks_at``,
    and 0.6 from there on.
    """
    rows = []
    for target in ("A", "B"):
        cells = [("base", 0, BASE)]
        cells += [("BnB", n, BASE) for n in range(1, 8)]
        cells += [("AnB", n, BASE - 0.6 * (n >= breaks_at)) for n in range(1, 8)]
        for treatment, n, top1 in cells:
            rows.append(
                dict.fromkeys(RESULTS)
                | {
                    "dataset": "d",
                    "split": "natural-manmade",
                    "split_kind": "natural-manmade",
                    "treatment": treatment,
                }
                | {
                    "cell": f"{treatment}{n}",
                    "target": target,
                    "n": n,
                    "seed": 0,
                    "classes": 20,
                    "state": "done",
                }
                | {
                    "top1": top1,
                    "in_study": True,
                    "val_images": 100,
                    "recipe": "r",
                    "network": "small",
                }
            )
    about = {
        "title": "t",
        "statistic": "top1",
        "statistic_label": "top-1",
        "network": {"name": "small"},
    }
    about["dataset"] = {
        "name": "d",
        "grammar": {"levels": levels, "shared_levels": shared, "seed": grammar},
    }
    results = pd.DataFrame(rows, columns=RESULTS)
    results = results.assign(run=[f"run-{i}" for i in results.index])
    StudyResults(about, results).write(folder / f"shared{shared}-grammar{grammar}")


def test_the_half_loss_layer_is_found_and_moves_with_the_shared_level(tmp_path):
    for grammar, late in ((0, 0), (1, 1)):
        for shared in (1, 2, 3):
            study(tmp_path, shared, grammar, breaks_at=2 * shared + late)
    networks, levels = calibration.read(tmp_path)
    assert levels == 4 and len(networks) == 2 * 3 * 2 * 15
    found = calibration.half_layers(networks)
    assert (
        len(found) == 6
        and found.loss.tolist() == pytest.approx([0.6] * 6)
        and (found.base == BASE).all()
    )
    # A step between n - 1 and n: half of it is interpolated half-way.
    # Later grammars break one layer later.
    assert found.half_layer.tolist() == pytest.approx(
        (2 * found.shared + found.grammar - 0.5).tolist()
    )
    table = calibration.summary(found).set_index("shared levels")
    assert table["half-loss layer"].tolist() == pytest.approx([2.0, 4.0, 6.0])
    half = 12.7062 * 0.5  # Student's t with one degree of freedom, standard error of 1.5 and 2.5
    assert (table.low[1], table.high[1]) == (
        pytest.approx(2 - half, abs=1e-3),
        pytest.approx(2 + half, abs=1e-3),
    )
    assert calibration.slope(found) == (
        pytest.approx(2.0),
        pytest.approx(2.0),
        pytest.approx(2.0),
        2,
    )
    made = calibration.drawing(networks, levels)
    assert (
        "180 networks: 2 grammars" in made.caption
        and "moves the half-loss layer by 2.00 [2.00, 2.00]" in made.caption
    )
    assert all(
        path.stat().st_size > 10_000 for path in save(compose(made), tmp_path / "calibration")
    )


def test_directions_are_averaged_before_the_layer_is_sought(tmp_path):
    """A base that is better than the other makes AnB better in one direction and
    worse in the other.
    """
    study(tmp_path, 1, 0, breaks_at=4)
    path = tmp_path / "shared1-grammar0" / "results.csv"
    table = pd.read_csv(path)
    transfers = table.treatment == "AnB"
    table.loc[transfers & (table.target == "A"), "top1"] += 0.1
    table.loc[transfers & (table.target == "B"), "top1"] -= 0.1
    table.to_csv(path, index=False)
    assert calibration.half_layers(
        calibration.read(tmp_path)[0]
    ).half_layer.tolist() == pytest.approx([3.5])
    table[table.target == "A"].to_csv(path, index=False)
    with pytest.raises(UserError, match="both directions"):
        calibration.half_layers(calibration.read(tmp_path)[0])


def test_a_grammar_that_lacks_a_network_has_no_mark_and_is_counted(tmp_path):
    for grammar in (0, 1):
        study(tmp_path, 1, grammar, breaks_at=4)
    path = tmp_path / "shared1-grammar1" / "results.csv"
    table = pd.read_csv(path)
    one = table.index[(table.treatment == "AnB") & (table.target == "A") & (table.n == 6)]
    table.loc[one, ["top1", "state"]] = [float("nan"), "missing"]
    table.to_csv(path, index=False)
    networks, levels = calibration.read(tmp_path)
    assert calibration.half_layers(networks).grammar.tolist() == [0]
    caption = calibration.drawing(networks, levels).caption
    assert (
        "59 networks (1 are missing): 2 grammars" in caption
        and "1 lack a network and have no mark" in caption
    )
    assert "nan" not in caption and "One more shared level" not in caption


def test_a_task_without_a_loss_has_no_layer_of_half_loss(tmp_path):
    study(tmp_path, 1, 0, breaks_at=3)
    study(tmp_path, 3, 0, breaks_at=8)
    table = calibration.summary(calibration.half_layers(calibration.read(tmp_path)[0])).set_index(
        "shared levels"
    )
    assert table["without loss"].to_dict() == {1: 0, 3: 1}
    assert table["half-loss layer"].isna().to_dict() == {1: False, 3: True}
    assert "1 lost less than 5%" in calibration.drawing(*calibration.read(tmp_path)).caption


def test_more_shared_levels_than_the_figure_can_tell_apart_is_one_clear_line(tmp_path):
    for shared in range(1, 6):
        study(tmp_path, shared, 0, breaks_at=3, levels=6)
    with pytest.raises(UserError, match="5 shared levels: the figure has room for 4"):
        calibration.drawing(*calibration.read(tmp_path))


def test_what_is_no_calibration_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="has no folders"):
        calibration.read(tmp_path)
    study(tmp_path, 1, 0, breaks_at=3)
    study(tmp_path, 2, 0, breaks_at=3, levels=5)
    with pytest.raises(UserError, match="mixes grammars of 4 and 5 levels"):
        calibration.read(tmp_path)
    about = tmp_path / "shared1-grammar0" / "about.json"
    values = json.loads(about.read_text())
    del values["dataset"]["grammar"]
    about.write_text(json.dumps(values))
    with pytest.raises(UserError, match="shared1-grammar0 is not a study of synthetic images"):
        calibration.read(tmp_path)
