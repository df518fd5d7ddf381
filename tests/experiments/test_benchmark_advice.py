"""Results of the benchmark of advice are kept, compared on the same images, and measured once."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch

from analysis.tools import OWN, print_answers, read
from experiments.benchmarks import advice
from experiments.benchmarks.advice import Result
from experiments.overrides import of_advice
from tests.helpers import composed, network_of, write
from transferability.data.packed import open_dataset

ROW = Result("mine", "0" * 12, "1" * 12, 96, 1.0, 0, OWN, 99.04, "A3.B", 0.9, "0111")


def test_a_result_is_kept_and_known_again(tmp_path, capsys):
    path, key = tmp_path / "tools.csv", {"tool": OWN, "seed": 0, "minutes": 1.0}
    assert not advice._known(path, key)
    advice._keep(path, ROW)
    advice._keep(path, replace(ROW, seed=1, right="0011"))
    assert advice._known(path, key) and advice._known(path, key | {"seed": 1})
    assert not advice._known(path, key | {"minutes": 3.0})
    assert not advice._known(path, key | {"images": "2" * 12})
    table = read(path)
    assert table.right.tolist() == ["0111", "0011"] and table.images[0] == "0" * 12
    assert table.validation[0] == 0.9 and table.seconds[0] == 99.04
    print_answers(table[::-1])
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["mine", "1.0", "0", "99.04", "A3.B", "0.9", "0.75"]
    assert second.split() == ["mine", "1.0", "1", "99.04", "A3.B", "0.9", "0.50"]
    print_answers(table[:0])
    assert not capsys.readouterr().out


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        for i in range(20):
            image = draw.integers(90 * label, 90 * label + 150, (40, 36, 3))
            write(folder / "photos" / name / f"{i}.png", image.astype(np.uint8))
    weights = network_of("timm test_resnet", input_size=32).build().state_dict()
    safetensors.torch.save_file(weights, folder / "test_resnet.safetensors")
    where = [f"source={folder / 'photos'}", f"weights={folder / 'test_resnet.safetensors'}"]
    small = ["dataset.image_size=36", "network.input_size=32", f"data_dir={folder / 'data'}"]
    return of_advice([*where, *small, "recipe.batch_size=8", f"out={folder / 'out'}"])


@pytest.mark.slow
def test_every_tool_has_one_line_and_none_is_measured_again(words, capsys, monkeypatch, caplog):
    """In a time that is too short for any step each predicts all the same."""
    monkeypatch.setenv("FASTAI_PYTHON", "")
    config = composed(*words, "minutes=0.01", "seed=3")
    advice.main(config)
    path = Path(config.out) / "tools.csv"
    table = read(path)
    assert table.tool.tolist() == [OWN, "tutorial, head then all", "tutorial, head"]
    assert (table.seed == 3).all() and (table.right.str.len() == table.right.str.len()[0]).all()
    assert set("".join(table.right)) <= {"0", "1"} and (table.seconds > 0).all()
    assert re.fullmatch(r"A\d\.B", table.did[0]) and table.did[1] == "0 steps"
    assert "fastai is left out: pip install" in caplog.text
    before = path.read_bytes()
    advice.main(config)
    assert path.read_bytes() == before and OWN in capsys.readouterr().out


def test_files_of_the_other_tools_are_the_packed_images(words, tmp_path):
    config = composed(*words)
    dataset = advice.packed(config.dataset)
    folder = advice._export(dataset, tmp_path / "images")
    rows = advice.rows_of(dataset)
    for part, name in advice.FOLDERS.items():
        files = {int(p.stem): p for p in (folder / name).glob("*/*.png")}
        assert sorted(files) == sorted(rows[part])
        for row, path in files.items():
            assert np.array_equal(cv2.imread(str(path))[..., ::-1], dataset.images[row])
            assert path.parent.name == f"{dataset.labels[row]:04d}"
    assert open_dataset(config.dataset.folder).checksum == dataset.checksum
