"""The cost model runs and prints its tables; what it predicts is counted by hand."""

import re

import pytest

from experiments.benchmarks import growth
from experiments.cli import command
from tests.conftest import SHRUNK

FOUR_LAYERS = [
    "channels=[4,6]",
    "kernels=[5,3]",
    "strides=[1,1]",
    "paddings=[2,1]",
    "groups=[1,1]",
    "pools=[1,2]",
]
FOUR_LAYERS = [f"network.{setting}" for setting in (*FOUR_LAYERS, "hidden=[10]")]


@pytest.mark.parametrize(
    ("layers", "network"),
    [
        pytest.param(8, [], marks=pytest.mark.slow),
        (4, [*FOUR_LAYERS, "study.layers=[1,2,3]"]),
    ],
)
def test_the_tables_come_out(monkeypatch, tmp_path, capsys, layers, network):
    def small(config):
        growth.main(config, rounds=1, steps=1, patches=(4, 8), outputs=(4, 1000), images=(2, 4))

    where = [f"data_dir={tmp_path}/data", f"store={tmp_path}/runs"]
    monkeypatch.setattr("sys.argv", ["growth", *SHRUNK, *network, *where])
    command(small)()
    out = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^(\d)\. ", out, re.M)] == [1, 2, 3, 4, 5]
    predicted = {
        what.strip(): float(x)
        for what, x in re.findall(r"^   (.*?)  +([\d.]+)  +\S+ \(", out, re.M)
    }
    assert predicted["none"] == predicted["32 pixels"] == predicted["4 classes"] == 1
    shares = [x for what, x in predicted.items() if what.endswith(" layers")]
    assert len(shares) == layers - 1
    # frozen layers keep their forward pass
    assert shares == sorted(shares, reverse=True) and shares[-1] >= 0.33
    assert predicted["64 pixels"] == pytest.approx(4, abs=0.1)  # four times the pixels
    # fc8 alone grows: from 10 x 4 to 10 x 1000 multiply-adds.
    assert 1.01 < predicted["1,000 classes"] < 1.2
    assert re.search(r"paper, 1 seed +170 +33 ", out) and re.search(
        r"paper-complete, 3 seeds +930 +99 ", out
    )
    assert not list((tmp_path).glob("data/*")) and not (tmp_path / "runs").exists()
