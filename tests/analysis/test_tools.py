"""Tools are compared on the same images and seeds, and the figure has a mark for each."""

import numpy as np
import pandas as pd
import pytest

from analysis import tools
from analysis.page import Page
from analysis.plotting.layout import compose
from analysis.statistics.over_images import accuracy_interval, difference_interval
from transferability.errors import UserError

ROW = {"name": "mine", "images": "0" * 12, "weights": "1" * 12, "pixels": 96, "minutes": 1.0}
ROW |= {"seed": 0, "tool": tools.OWN, "seconds": 99.04, "did": "A3.B", "validation": 0.9}
ROW |= {"right": "0111"}
ROWS = [
    ROW,
    ROW | {"seed": 1, "right": "1111"},
    ROW | {"tool": "fastai", "right": "0110", "seconds": 50.0},
    ROW | {"tool": "fastai", "seed": 2, "right": "1111", "seconds": 60.0},
    ROW | {"minutes": 3.0, "right": "1111"},
    ROW | {"tool": "fastai", "images": "2" * 12, "right": "01", "seconds": 40.0},
]


@pytest.fixture
def table():
    return tools.summary(pd.DataFrame(ROWS))


def test_tools_are_compared_on_the_same_images_and_seeds(table):
    own, rival, later, other = table.to_dict("records")
    expected = accuracy_interval(np.array([[0, 1, 1, 1], [1, 1, 1, 1]]))
    assert (own["accuracy"], own["low"], own["high"]) == expected and own["accuracy"] == 0.875
    assert (own["seeds"], own["seconds"], own["test images"]) == (2, 99.04, 4)
    # of the seed that both have: 0110 against 0111
    names = ["behind", "behind low", "behind high"]
    expected = difference_interval(pd.DataFrame([[0.0, 0.0, 0.0, 1.0]]).to_numpy())
    assert [rival[name] for name in names] == pytest.approx(expected) and expected[0] == 0.25
    assert (rival["tool"], rival["accuracy"], rival["seconds"]) == ("fastai", 0.75, 55.0)
    assert (later["minutes"], later["accuracy"]) == (3.0, 1.0)
    assert (other["images"], other["test images"]) == ("2" * 12, 2), "other images are not pooled"
    assert pd.isna([own["behind"], later["behind"], other["behind"]]).all()


def test_the_tables_say_what_was_measured(table, capsys):
    tools.print_tables(table)
    first, second, third = capsys.readouterr().out.split("\nmine: ")[1:]
    assert first.startswith("1 minutes, 4 test images\n") and third.startswith("1 minutes, 2 test")
    (line,) = [line for line in first.splitlines() if "fastai" in line]
    assert "0.750 [" in line and "+0.250 [-0.362, +0.699]" in line and line.endswith("2 55")
    assert second.startswith("3 minutes") and "fastai" not in second


def test_every_result_has_a_mark(table):
    """Filled ones of several seeds."""
    first, second = compose(tools.drawing(table)).subfigs[0].axes
    marks = [one for one in first.collections if hasattr(one, "tips")]
    tips = [tip.partition(" [")[0] for one in marks for tip in one.tips]
    assert sorted(tips) == [
        "experiments.advise, 1 minutes: 0.875",
        "experiments.advise, 3 minutes: 1.000",
        "fastai, 1 minutes: 0.750",
    ]
    open_marks = [one for one in marks if (one.get_facecolors()[0][:3] == 1).all()]
    assert [len(one.tips) for one in open_marks] == [1]
    assert open_marks[0].tips[0].startswith("experiments.advise, 3")
    assert first.get_xlim() == second.get_xlim(), "one scale of time"


def test_it_is_written_beside_its_table(tmp_path, capsys):
    pd.DataFrame(ROWS).to_csv(tmp_path / "tools.csv", index=False)
    tools.main(tmp_path, Page(("png",)))
    assert (tmp_path / "tools.png").stat().st_size and "tools.png" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"has no tools\.csv"):
        tools.main(tmp_path / "empty", Page(("png",)))
