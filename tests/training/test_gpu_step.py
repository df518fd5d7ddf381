"""How a step runs on a GPU, as far as it runs without one: the same numbers as one network
after another.
"""

import gc
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.miniature import CPU, shrunk
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.training.devices import cuda_stream
from transferability.training.execution import execution_of
from transferability.training.gpu_step import GpuStep, StackedNetworks, _CapturedStep
from transferability.training.loop import SAVING, train
from transferability.training.state import PrefixCache

CELLS = ["B2B", "A2B", "R2B", "B3B+", "A3B+", "A5B+", "B7B", "A7B", "A6B~1"]
KINDS = {
    "plain": {},
    "lrn, dropout, image": {
        "normalization": "lrn",
        "dropout": 0.5,
        "mean": "image",
        "groups": [1, 2, 1, 2, 2],
    },
    "batch norm": {"normalization": "batch", "dropout": 0.3},
}


FAST = [pytest.param(kind, marks=pytest.mark.slow) if kind == "plain" else kind for kind in KINDS]


@pytest.fixture(scope="module", params=FAST, ids=str)
def bases(request, spec_of, trained):
    """A store with the bases of a kind of network, and the specs of the cells above them."""
    specs = [spec_of(cell, network=KINDS[request.param]) for cell in CELLS]
    return trained([s.source for s in specs if s.source]), specs


def cohort_of(bases, dataset, change=lambda spec: spec):
    store, specs = bases
    (cohort,) = make_cohorts([change(s) for s in specs], store, dataset, CPU)
    return cohort


def run(cohort, execution):
    failed = []
    train([cohort], execution, lambda m: None, lambda m, why: failed.append(m))
    assert not failed
    return cohort.states


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The distance relative to ``b``; a bias below batch normalization has no
    gradient but rounding.
    """
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=0.01)).item()


def test_stacked_gradients_are_those_of_each_network(bases, dataset):
    one, many = cohort_of(bases, dataset), cohort_of(bases, dataset)
    batch = one.stream.batch(0)
    step = _CapturedStep([(batch, many.states)], stacked=True, graphs=False)
    sizes = sorted(len(s.states) for s in step.stacks[0] if isinstance(s, StackedNetworks))
    # three with two frozen layers, two with seven, two fine-tuned of A; B3B+ and A6B~1 alone
    assert sizes == [2, 2, 3]
    for m in [*one.states, *many.states]:
        m.network.train().reseed_dropout(0)
    step.gradients([batch])
    alone = _CapturedStep([(batch, one.states)], stacked=False, graphs=False)
    alone.gradients([batch])
    for a, b in zip(many.states, one.states, strict=True):
        assert relative(a.loss, b.loss) < 1e-5
        compared = [
            (p.grad, q.grad)
            for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True)
        ]
        assert all((g is None) == (h is None) for g, h in compared)
        assert max(relative(g, h) for g, h in compared if g is not None) < 1e-4, a.spec.cell
        for (name, x), y in zip(a.network.named_buffers(), b.network.buffers(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", FAST)
def test_stacked_networks_compute_in_the_precision_of_the_recipe(kind, spec_of, dataset, tmp_path):
    gradients = {}
    for precision, stacked in (("bf16", True), ("bf16", False), ("float32", False)):
        base = spec_of("baseB", network=KINDS[kind], recipe={"precision": precision})
        specs = [base, base]  # two of one shape, which share their input
        (cohort,) = make_cohorts(specs, Store(tmp_path), dataset, CPU)
        step = _CapturedStep(
            [(cohort.stream.batch(0), cohort.states)], stacked=stacked, graphs=False
        )
        for m in cohort.states:
            m.network.train().reseed_dropout(0)
        step.gradients([cohort.stream.batch(0)])
        gradients[precision, stacked] = torch.cat(
            [p.grad.flatten() for p in cohort.states[0].network.parameters()]
        )
    rounding = relative(gradients["bf16", False], gradients["float32", False])
    assert 1e-3 < rounding < 0.2
    assert relative(gradients["bf16", True], gradients["bf16", False]) < rounding


def test_a_stacked_training_ends_where_one_by_one_ends(bases, dataset):
    alone = run(cohort_of(bases, dataset), CPU)
    stacked = run(cohort_of(bases, dataset), replace(CPU, stacked=True))
    apart = {}
    for a, b in zip(stacked, alone, strict=True):
        assert a.step == b.step == b.spec.recipe.steps
        state, other = a.network.state_dict(), b.network.state_dict()
        apart[str(a.spec.cell)] = max(relative(state[k], other[k]) for k in state)
        losses = [[m["train_loss"] for m in x.metrics] for x in (a, b)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    # Sums in another order can grow apart where a max-pool or ReLU decides: seen with torch 2.11,
    # 0.006 in one of nine.
    assert max(apart.values()) < 0.02 and sum(v > 1e-3 for v in apart.values()) <= 1, apart


def test_one_update_of_all_networks_is_the_update_of_each(bases, dataset):
    one, many = cohort_of(bases, dataset), cohort_of(bases, dataset)
    together = GpuStep(stacked=False, graphs=False)
    for m in [*one.states, *many.states]:
        m.network.train()
    for step in range(5):
        batch = one.stream.batch(step)
        for m in one.states:
            m.train_step(batch, PrefixCache(batch))
        # four of them pause for a step
        together([(batch, many.states[: 5 if step == 2 else None])])
        if step == 2:
            together([(batch, many.states[5:])])
    for a, b in zip(many.states, one.states, strict=True):
        mine, other = a.checkpoint(), b.checkpoint()
        assert mine.step == other.step == 5 and mine.tensors.keys() == other.tensors.keys()
        assert [k for k in mine.tensors if not torch.equal(mine.tensors[k], other.tensors[k])] == []


def test_a_step_without_networks_does_nothing(bases, dataset):
    cohort = cohort_of(bases, dataset)
    GpuStep(stacked=True, graphs=False)([(cohort.stream.batch(0), [])])
    assert {m.step for m in cohort.states} == {0}


def test_what_is_captured_reads_its_own_copy_of_the_batch(bases, dataset):
    cohort = cohort_of(bases, dataset)
    step = _CapturedStep([(cohort.stream.batch(0), cohort.states)], stacked=False, graphs=True)
    first, second = (cohort.stream.batch(i) for i in (0, 1))
    losses = []
    for batch in (first, second, first):
        for m in cohort.states:
            m.network.train().reseed_dropout(0)
        step.read([batch])
        step.captured()
        losses.append([m.loss.item() for m in cohort.states])
    assert losses[0] != losses[1] and losses[0] == losses[2]
    step.gradients([first])
    assert losses[0] == [m.loss.item() for m in cohort.states]


def test_a_stacked_network_is_saved_and_resumed_like_any(bases, dataset, tmp_path):
    whole = run(cohort_of(bases, dataset), replace(CPU, stacked=True))
    store, saved = Store(tmp_path), {}

    class Stop(Exception):
        pass

    def stop(step, active):
        if step == 4:
            saved.update({m.spec.run_id: m.checkpoint() for m in active})
            for m in active:
                store.lock(m.spec).release()
                store.save_checkpoint(m.spec, m.checkpoint())
            raise Stop

    cohort = cohort_of(bases, dataset)
    with pytest.raises(Stop):
        train([cohort], replace(CPU, stacked=True), lambda m: None, lambda m, why: None, stop)
    again = cohort_of(bases, dataset)
    for m in again.states:
        m.restore(store.load_checkpoint(m.spec))
        assert m.step == 5
    for a, b in zip(run(again, replace(CPU, stacked=True)), whole, strict=True):
        state, other = a.network.state_dict(), b.network.state_dict()
        assert all(torch.equal(state[k], other[k]) for k in state)


def test_a_stacked_network_that_explodes_leaves_and_the_others_do_not_notice(bases, dataset):
    calm = {m.spec.run_id: m for m in run(cohort_of(bases, dataset), replace(CPU, stacked=True))}
    cohort, left = cohort_of(bases, dataset), []
    victim = next(m for m in cohort.states if str(m.spec.cell) == "A5B+")
    with torch.no_grad():
        victim.network.layers[7].fc.weight.mul_(1e30)
    train(
        [cohort], replace(CPU, stacked=True), lambda m: None, lambda m, why: left.append((m, why))
    )
    assert [(m, why["step"]) for m, why in left] == [(victim, 0)] and len(cohort.states) == len(
        CELLS
    ) - 1
    for m in cohort.states:
        state, other = m.network.state_dict(), calm[m.spec.run_id].network.state_dict()
        assert max(relative(state[k], other[k]) for k in state) < 1e-3


class Cuda:
    """torch.cuda of a machine with two GPUs, as far as a capture uses it;
    notes (current GPU, GPU of the capture).
    """

    def __init__(self, monkeypatch):
        self.current, self.captures, self.default = 0, [], None
        cuda = self

        class FakeStream:
            def __init__(self, device=None):
                self.device = torch.device("cuda", cuda.current) if device is None else device

            def wait_stream(self, other):
                pass

        class CUDAGraph:
            def replay(self):
                pass

        @contextmanager
        def graph(graph, stream=None, capture_error_mode="global"):
            cuda.default = cuda.default or FakeStream()  # as torch's own: made once in a process
            cuda.captures.append((cuda.current, (stream or cuda.default).device.index))
            yield

        for name, value in {
            **{
                "Stream": FakeStream,
                "CUDAGraph": CUDAGraph,
                "graph": graph,
                "current_stream": lambda *a: FakeStream(),
            },
            **{"stream": lambda stream: nullcontext(), "device": lambda device: nullcontext()},
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        cuda_stream.cache_clear()


def test_a_process_that_goes_to_another_gpu_captures_there(bases, dataset, monkeypatch):
    cuda = Cuda(monkeypatch)
    for cuda.current in (1, 0):
        cohort = cohort_of(bases, dataset)
        step = _CapturedStep([(cohort.stream.batch(0), cohort.states)], stacked=False, graphs=True)
        step._capture(torch.device("cuda", cuda.current))
    assert cuda.captures == [(1, 1), (0, 0)]
    here = cuda_stream(torch.device("cuda", 0), "capture")
    assert (
        here
        is cuda_stream(torch.device("cuda", 0), "capture")
        is not cuda_stream(torch.device("cuda", 0), "copies")
    )
    cuda_stream.cache_clear()


def test_a_network_that_cannot_be_captured_goes_on_step_by_step(
    bases, dataset, monkeypatch, caplog
):
    """As one that asks the host in the middle of a step; memory that runs out is another matter."""
    cuda = Cuda(monkeypatch)
    alone, captured = cohort_of(bases, dataset), cohort_of(bases, dataset)

    @contextmanager
    def refuses(*args, **kwargs):
        raise RuntimeError(cuda.why)  # at once: what is captured is not computed
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    for m in [*alone.states, *captured.states]:
        m.network.train()
    cuda.why = "operation not permitted when stream is capturing"
    steps = GpuStep(False, False), GpuStep(False, True)
    for i in range(2):
        for advance, cohort in zip(steps, (alone, captured), strict=True):
            advance([(cohort.stream.batch(i), cohort.states)])
    assert [r.message for r in caplog.records] == [
        f"steps are not captured as a CUDA graph: {cuda.why}"
    ]
    for a, b in zip(captured.states, alone.states, strict=True):
        assert a.step == 2
        state, other = a.network.state_dict(), b.network.state_dict()
        assert all(torch.equal(state[k], other[k]) for k in state), a.spec.cell
    cuda.why = "CUDA out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        GpuStep(False, True)([(captured.stream.batch(2), captured.states)])
    cuda_stream.cache_clear()


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [({"momentum": 0.0}, set()), ({"optimizer": "adamw"}, {"exp_avg", "exp_avg_sq", "steps_of"})],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_networks_of_every_optimizer_are_saved_and_go_on(
    spec_of, dataset, tmp_path, stacked, recipe, kept
):
    spec = spec_of("baseB", recipe=recipe)
    one, other = (make_cohorts([spec, spec], Store(tmp_path), dataset, CPU)[0] for _ in range(2))
    for cohort in (one, other):
        for m in cohort.states:
            m.network.train()
    steps = [GpuStep(stacked, False) for _ in range(3)]
    for step in range(2):
        steps[0]([(one.stream.batch(step), one.states)])
    steps[1]([(other.stream.batch(0), other.states)])
    saved = [m.checkpoint() for m in other.states]
    state = ("momentum", "exp_avg", "exp_avg_sq", "steps_of")
    assert {n.partition(".")[0] for n in saved[0].tensors} & {*state} == kept
    for m, checkpoint in zip(other.states, saved, strict=True):
        m.restore(checkpoint)
    steps[2]([(other.stream.batch(1), other.states)])
    for a, b in zip(one.states, other.states, strict=True):
        assert all(
            map(torch.equal, a.network.state_dict().values(), b.network.state_dict().values())
        )


class OneAfterAnother(TorchDispatchMode):
    """Fails at an operation that waits for a GPU,
    or whose result has no fixed size: none can be captured.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = (
            "_local_scalar_dense",
            "item",
            "nonzero",
            "masked_select",
            "unique",
            "lift_fresh",
            "is_nonzero",
        )
        assert not any(name in str(func) for name in waits), func
        # What torch's documentation of use_deterministic_algorithms lists and a CNN could meet.
        # Stacked pools add with scatter_add, which torch makes the same every time where it is
        # asked to.
        varies = (
            "scatter_reduce",
            "index_add",
            "put_",
            "bincount",
            "cumsum",
            "adaptive_",
            "upsample",
        )
        assert not any(name in str(func) for name in varies), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("stacked", [False, True])
def test_what_is_captured_waits_for_nothing_and_is_the_same_every_time(
    bases, dataset, stacked, precision
):
    def of(spec):
        return replace(spec, recipe=replace(spec.recipe, precision=precision))

    cohort = cohort_of(bases, dataset)
    for m in cohort.states:
        m.spec = of(m.spec)
        m.network.train().reseed_dropout(0)
    step = _CapturedStep([(cohort.stream.batch(0), cohort.states)], stacked=stacked, graphs=True)
    with OneAfterAnother():
        step.captured()
    step.update()

    def layout(t):  # torch's fused SGD on a GPU refuses what differs, but for sizes of 1
        return [(n, s) for n, s in zip(t.shape, t.stride(), strict=True) if n != 1]

    for m in cohort.states:
        trained = [p for p in m.network.parameters() if p.requires_grad]
        assert len(trained) > 1
        for p in trained:
            assert layout(p) == layout(p.grad) == layout(m.optimizer.state[p]["momentum_buffer"])


@pytest.mark.parametrize(("asked", "expected"), [(5.0, [6, 67]), (0.0, list(range(1, 101)))])
def test_checkpoints_take_a_few_percent_of_the_time(
    spec_of, dataset, tmp_path, monkeypatch, asked, expected
):
    """A step takes a second of this clock, a checkpoint two;
    but 0 is after every step, whatever it costs.
    """
    now, saved = [0.0], []

    def later(seconds=1e-3):
        now[0] += seconds
        return now[0]

    monkeypatch.setattr("transferability.training.loop.time.monotonic", later)

    (cohort,) = make_cohorts(
        [spec_of("baseB", recipe={"steps": 100, "eval_every": 100})], Store(tmp_path), dataset, CPU
    )

    def save(member):
        saved.append(member.step)
        later(2.0)

    execution = replace(CPU, checkpoint_seconds=asked)
    train([cohort], execution, save, lambda m, why: None, lambda step, active: later(1.0))
    assert SAVING == 30 and saved == expected


def test_images_stay_on_a_device_as_long_as_somebody_holds_them(dataset):
    """A process that trains on another GPU next must leave no memory behind."""
    held = dataset.images_on(CPU.device)
    assert dataset.images_on(CPU.device) is held and np.array_equal(held.numpy(), dataset.images)
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None and len(dataset._images_on) == 0


def test_the_tests_train_on_the_cpu_whatever_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert execution_of(shrunk(tmp_path)).device == torch.device("cpu")


def test_every_time_the_same_is_for_the_whole_process_and_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    try:
        assert execution_of(shrunk(tmp_path, "device=cuda", "deterministic=true")).deterministic
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        assert not execution_of(shrunk(tmp_path)).deterministic
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
