"""The bench of GPU training runs in every part, at toy size;
its counts are right and a failed check is an error.
"""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from experiments.benchmarks import gpu, gpu_checks
from experiments.cli import command
from tests.miniature import CPU
from transferability.networks import kernels
from transferability.networks.compiled import fused
from transferability.runs.wave import make_cohorts
from transferability.study import cells
from transferability.training.state import build_state


def rehearse(monkeypatch) -> None:
    arguments = ["gpu", "network=caffenet", "recipe=paper", "recipe.precision=bf16", "device=cpu"]
    monkeypatch.setattr("sys.argv", arguments)
    command(gpu.main)()


@pytest.mark.slow
def test_every_part_runs_at_toy_size(monkeypatch, capsys):
    with torch.compiler.set_stance("force_eager"), fused(True):  # the kernels, too
        rehearse(monkeypatch)
    out = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^(\d)\. ", out, re.M)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert len(re.findall(r"^   ok ", out, re.M)) == 4 and "FAILED" not in out
    assert "Correct: every check holds" in out.partition("2. What this device")[0]
    assert len(re.findall(r"^   layer \d +[\d.]+ ", out, re.M)) == 5
    assert re.search(
        r"Its checkpoint: [\d.]+ GB in [\d.]+ s, every \d+ s: [0-3]\.\d% of the time", out
    )
    # The original's jobs: 22 bases, random filters, two of 28, two of 14 and 14, four of 7.
    jobs = dict(
        re.findall(r"^   ([A-Za-z+ ]+?)  +(\d+  +\d+)  ", out.partition("8. study=paper")[2], re.M)
    )
    assert {kind: tuple(map(int, counts.split())) for kind, counts in jobs.items()} == {
        "base": (22, 1),
        "RnB base": (1, 8),
        "AnB AnB+ BnB BnB+": (2, 28),
        "AnB AnB+": (2, 14),
        "AnB BnB": (2, 14),
        "AnB": (4, 7),
        "all": (33, 170),
    }


@pytest.fixture(scope="module")
def make(spec_of, trained, dataset):
    """make(precision): four networks with dropout, image mean and response normalization,
    at the paper's rate.
    """
    network = {"normalization": "lrn", "dropout": 0.5, "mean": "image", "groups": [1, 2, 1, 2, 2]}
    network |= {"strides": [2, 1, 1, 1, 1], "pools": [1, 2]}

    def specs(precision):
        recipe = {"precision": precision, "lr": 0.01}
        return [spec_of(name, network=network, recipe=recipe) for name in gpu_checks.networks(8)]

    stores = {p: trained([s.source for s in specs(p)]) for p in ("float32", "bf16")}

    def cohort(precision):
        (made,) = make_cohorts(specs(precision), stores[precision], dataset, CPU)
        # both precisions start from the same
        for m, source in zip(made.states, specs("float32"), strict=True):
            m.network.load_state_dict(initial(source, stores["float32"], made.stream))
        return made

    return cohort


def initial(spec, store, stream):
    return build_state(spec, stream, store.weights(spec.source), None).network.state_dict()


FAST = replace(CPU, stacked=False)


def checks(make, execution):
    with torch.compiler.set_stance("force_eager"), fused(True):
        return gpu_checks.check_way("kernels", make, execution)


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_right_computations_pass(make, stacked):
    exact, rounded = checks(make, replace(CPU, stacked=stacked))
    assert exact.passed and 0 < exact.found < 0.1 and exact.limit == 2, exact
    assert rounded.passed and 0.5 < rounded.found < 2.0, rounded
    assert str(exact).startswith("ok ") and " of layer " in exact.where


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("bias_gradient", lambda right: lambda g: 1.02 * right(g)),
        pytest.param(
            "response_norm_gradient",
            lambda right: lambda g, y: right(g, y) + 0.01 * g,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pool_relu_fused",
            lambda right: lambda x, bias: right(x, bias + 0.01),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "unshuffled",
            lambda right: lambda x, *a: right(x, *a).roll(1, 0),
            marks=pytest.mark.slow,
        ),
        ("dropout_reference", lambda right: lambda x, seed, p, dims: right(x, seed + 1, p, dims)),
        pytest.param("relu_gradient", lambda right: lambda g, y: g, marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_fails(make, monkeypatch, what, wrong):
    right = getattr(kernels, what)
    broken = wrong(right)
    with fused(True):
        monkeypatch.setattr(
            kernels, what, lambda *a: broken(*a) if kernels.fuses(a[0]) else right(*a)
        )
        exact, _ = checks(make, FAST)
    assert not exact.passed and str(exact).startswith("FAILED"), exact


def test_a_shallow_network_has_cells_to_compare():
    assert gpu_checks.networks(8) == ["B2B+", "A3B+", "A3B", "B3B"]
    for n_layers in (2, 3):
        found = [str(cells.parse(name, n_layers)) for name in gpu_checks.networks(n_layers)]
        assert len(set(found)) == 4


def test_a_failed_check_is_an_error_and_no_number_passes(capsys):
    bench = SimpleNamespace(failed=[])
    for found, passes in ((0.5, False), (float("nan"), False), (0.05, True)):
        check = gpu_checks.Check("x", found, "layer 1", 0.1)
        assert check.passed == passes
        gpu.Bench.note(bench, check)
    assert bench.failed == ["x", "x"] and len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu", "network=caffenet", "recipe=paper"])
    command(gpu.main)()
    said = capsys.readouterr().out
    assert said.startswith("No GPU here: nothing was measured.")
    # 724,406,816 multiply-adds and 60,965,224 parameters;
    # layer 1 has 105,415,200 of the former and no gradient below.
    operations = 2 * 256 * (3 * 724_406_816 - 105_415_200) / 1e12
    assert f"needs {operations:.2f} TFLOP and moves at least 4.71 GB" in said
