"""The bench of GPU training runs in every part, at toy size; its counts are right and a failed check is an error."""

import re
from types import SimpleNamespace

import pytest
import torch

from experiments import bench_gpu
from experiments.cli import command


def rehearse(monkeypatch) -> None:
    arguments = ["bench_gpu", "network=caffenet", "recipe=paper", "recipe.precision=bf16", "device=cpu"]
    monkeypatch.setattr("sys.argv", arguments)
    command(bench_gpu.main)()


@pytest.mark.slow
def test_every_part_runs_at_toy_size(monkeypatch, capsys):
    rehearse(monkeypatch)
    out = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^(\d)\. ", out, re.M)] == [1, 2, 3, 4, 5, 6, 7]
    assert len(re.findall(r" ok$", out, re.M)) == 6 and "FAILED" not in out
    # The original's jobs: 22 bases, random filters, two of 28, two of 14 and 14, four of 7.
    jobs = dict(re.findall(r"^   ([A-Za-z+ ]+?)  +(\d+  +\d+)  ", out.partition("7. study=paper")[2], re.M))
    assert {kind: tuple(map(int, counts.split())) for kind, counts in jobs.items()} == {
        "base": (22, 1),
        "RnB base": (1, 8),
        "AnB AnB+ BnB BnB+": (2, 28),
        "AnB AnB+": (2, 14),
        "AnB BnB": (2, 14),
        "AnB": (4, 7),
        "all": (33, 170),
    }


def test_a_failed_check_is_an_error_and_no_number_passes(monkeypatch):
    bench = SimpleNamespace(failed=[])
    for error in (0.5, float("nan")):
        assert bench_gpu.Bench.check(bench, "x", error, 0.1)[-1] == "FAILED"
    assert bench_gpu.Bench.check(bench, "y", 0.1, 0.1)[-1] == "ok" and bench.failed == ["x", "x"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench_gpu"])
    command(bench_gpu.main)()
    assert capsys.readouterr().out.startswith("No GPU here: nothing was measured.")
