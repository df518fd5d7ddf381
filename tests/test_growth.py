"""The cost model runs and prints its tables; what it predicts is counted by hand."""

import re

from experiments import growth
from tests.conftest import shrunk


def test_the_tables_come_out(tmp_path, capsys):
    config = shrunk(tmp_path)
    growth.growth(config, rounds=1, steps=1, patches=(4, 8), outputs=(10, 1000), images=(2, 4))
    out = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^(\d)\. ", out, re.M)] == [1, 2, 3, 4, 5]
    predicted = {what.strip(): float(x) for what, x in re.findall(r"^   (.*?)  +([\d.]+)  +\S+ \(", out, re.M)}
    assert predicted["none"] == predicted["16 pixels"] == predicted["10 classes"] == 1
    shares = [predicted[f"{n} layer{'s'}"] for n in range(1, 8)]
    assert shares == sorted(shares, reverse=True) and shares[-1] >= 0.33  # frozen layers keep their forward pass
    # Four times the pixels: the convolutions' share grows by four, and the first fully connected layer's too.
    assert 3.5 < predicted["32 pixels"] < 4.5
    assert [line.split()[0] for line in out.partition("4. Images")[2].splitlines() if " ms" not in line][3:5] == []
    assert "paper, 1 seed" in out and re.search(r"paper-complete, 3 seeds +930 ", out)
