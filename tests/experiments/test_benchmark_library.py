"""The bench of libraries' networks runs and prints its tables; both ways train the same
networks.
"""

import re

import cv2
import pytest
import torch

from experiments.benchmarks import library
from tests.helpers import composed, own_folder

TINY = (("timm", "test_resnet", 32),)


@pytest.mark.slow
def test_a_table_a_network(capsys, monkeypatch):
    for name, value in {"BATCH": 4, "PER_CLASS": 8, "DEPTHS": 3}.items():
        monkeypatch.setattr(library, name, value)
    library.main(composed(), TINY, rounds=1)
    out = capsys.readouterr().out
    assert "test_resnet at 32 pixels: 9 networks" in out and "blurred noise, 500x375" in out
    assert 1 < float(re.search(r"(\d\.\d\d) times the multiply-adds", out)[1]) < 2
    rows = re.findall(r"^ +(lockstep|the script).* (\d+\.\d\d) \([\d. to]+\) +[\d,]+$", out, re.M)
    assert [name for name, _ in rows] == ["lockstep", "the script", "the script"]
    assert rows[0][1] == "1.00"


def test_photographs_of_ones_own_are_used(tmp_path):
    source = own_folder(tmp_path / "mine", count=50, classes=("ant", "bee"))
    config = composed("dataset=folder", "dataset.name=mine", f"dataset.source={source}")
    assert library.write_photographs(config, tmp_path / "train") == "photographs of mine"
    files = sorted((tmp_path / "train").glob("*/*.jpg"))
    assert len(files) == 2 * library.PER_CLASS and cv2.imread(str(files[0])).shape == (6, 6, 3)


@pytest.mark.parametrize("frozen", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 9))])
def test_the_script_fixes_the_layers_that_a_cell_freezes(frozen, monkeypatch):
    network = library.KINDS["torchvision"](
        name="x", kind="torchvision", model="resnet18", input_size=32
    ).resolved(4)
    seen = []
    usual = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda p, **k: seen.append(list(p)) or usual(p, **k))
    batches = iter([(torch.randn(4, 3, 32, 32), torch.arange(4))] * 2)
    assert library.plain_seconds(batches, network, frozen, 1) > 0
    names = [name for line in network.plan[frozen:] for name in line.split()]
    wanted = {n: p.shape for n, p in network.build().named_parameters() if n in names}
    assert [p.shape for p in seen[0]] == list(wanted.values())
