"""Files of figures hang on the tables alone: not on the user's settings of matplotlib."""

import os
import subprocess
import sys

import matplotlib
import pytest

from analysis.html import figure
from analysis.page import Page
from analysis.plotting.layout import write
from analysis.plotting.style import DARK, FigureSpec, Panel, Style

# each changes what is drawn, or ends in a traceback where there is no LaTeX
HOSTILE = {
    "usetex": {"text.usetex": True},
    "axes": {"axes.facecolor": "0.9", "axes.linewidth": 3.0, "xtick.major.size": 9.0},
    "files": {"savefig.bbox": "tight", "savefig.transparent": True, "path.simplify": False},
    "lines": {"lines.linewidth": 4.0, "lines.markersize": 12.0, "lines.markeredgewidth": 3.0},
    "text": {"font.weight": "bold", "axes.formatter.use_locale": True, "mathtext.default": "bf"},
    "figure": {"figure.dpi": 30.0, "figure.facecolor": "0.5", "figure.constrained_layout.h_pad": 1},
}


def drawing():
    def draw(axes):
        axes.plot([1, 2], [0.25, 1.5], marker="o", label="a")
        axes.fill_between([1, 2], [0, 1], [1, 2], alpha=0.3)
        axes.set_xlabel("n")
        axes.legend()

    return FigureSpec(
        "d", "A title", "A caption.", [Panel("one", draw)], [Style("a", "#222222", "o")]
    )


def drawn(folder):
    """Every file, on a page of its own and for a paper, and the SVG of a report."""
    files = [
        path.read_bytes()
        for page in (Page(), Page(width=3))
        for path in write(drawing(), folder, page)
    ]
    return files, figure(drawing(), DARK)["panels"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize(
    "which",
    [k if k in ("usetex", "text") else pytest.param(k, marks=pytest.mark.slow) for k in HOSTILE],
)
def test_settings_of_matplotlib_change_no_byte(usual, tmp_path, which):
    with matplotlib.rc_context(HOSTILE[which]):
        assert drawn(tmp_path) == usual
        own = {key: matplotlib.rcParams[key] for key in HOSTILE[which]}
        assert own == HOSTILE[which], "they stay in force for what else is drawn"


def test_no_backend_of_the_environment_is_asked_for():
    """In a process of its own: matplotlib reads the variable at its import."""
    run = subprocess.run(
        [sys.executable, "-c", "import analysis, matplotlib; print(matplotlib.get_backend())"],
        env=os.environ | {"MPLBACKEND": "no_such"},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "agg", run.stderr
