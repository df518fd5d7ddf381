"""The rules that hold everywhere: what is copied, frozen, shared, resumed,
and that lockstep changes nothing.
"""

import json
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import equal
from tests.miniature import CPU
from transferability import load_run
from transferability.data.pack import pack
from transferability.networks.sequential import SequentialNetwork
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.study.cells import parse
from transferability.study.jobs import group_into_jobs
from transferability.study.spec import make_spec
from transferability.training.loader import TaskLoader
from transferability.training.loop import Cohort, train
from transferability.training.state import PrefixCache, build_state, one_thread

FROZEN = [f"{s}{n}B" for s in "ABR" for n in range(1, 8)]
TUNED = [f"{s}{n}B+" for s in "AB" for n in range(1, 8)]
KEPT = ["A3B~1", "A1B~3", "B2B~5"]
SHORT = ["A3.B", "A3.B+", "B5.B", "R4.B", "A7.B"]
HARDEST = {
    "normalization": "batch",
    "dropout": 0.3,
    "mean": "image",
}  # everything a frozen layer could let slip


def layer_state(state: dict, number: int) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if k.startswith(f"layers.{number - 1}.")}


@pytest.fixture(scope="module")
def hardest_store(spec_of, trained):
    """Every treatment for every n, trained, with BatchNorm, dropout and a mean image."""
    cells = ["baseB", *FROZEN, *TUNED, *KEPT, *SHORT]
    specs = [spec_of(cell, network=HARDEST) for cell in cells]
    return trained(specs)


def started(spec, store, dataset):
    """The network of ``spec`` at step 0."""
    stream = TaskLoader(
        dataset,
        list(spec.classes),
        None,
        spec.seed,
        spec.recipe,
        spec.network.input_size,
        CPU.device,
    )
    source = store.weights(spec.source) if spec.source else None
    return build_state(spec, stream, source, None).network.state_dict()


@pytest.mark.parametrize("cell", [*FROZEN, *TUNED, *KEPT, *SHORT])
def test_rules_1_and_2_copied_fresh_frozen_and_trained_layers(
    cell, spec_of, hardest_store, dataset
):
    spec = spec_of(cell, network=HARDEST)
    start, end = started(spec, hardest_store, dataset), hardest_store.weights(spec)
    source = hardest_store.weights(spec.source or spec_of("baseB", network=HARDEST))
    last = spec.cell.n + 1 if spec.cell.short else 8
    assert not layer_state(end, last + 1)
    for number in range(1, last + 1):
        at_start, at_end, of_source = (layer_state(s, number) for s in (start, end, source))
        if (
            spec.cell.short and number == last
        ):  # the head of a network cut short is no layer of its source
            assert not any(torch.equal(at_start[k], at_end[k]) for k in at_start)
            continue
        weight = next(k for k in at_start if k.endswith(("conv.weight", "fc.weight")))
        if number <= spec.cell.copied:
            assert equal(at_start, of_source), f"layer {number} is copied"
        else:
            assert (
                not torch.equal(at_start[weight], of_source[weight])
                or at_start[weight].shape != of_source[weight].shape
            )
        if number <= spec.cell.frozen:
            assert equal(at_start, at_end), f"layer {number} is frozen: weights, biases, buffers"
        else:
            changed = [k for k in at_start if not torch.equal(at_start[k], at_end[k])]
            assert set(changed) == set(at_start), f"layer {number} is trained"
    mean_of = source if spec.cell.copied else start
    assert torch.equal(end["input.mean"], mean_of["input.mean"]), (
        "the mean travels with layer 1 and is never trained"
    )


def test_random_filters_normalise_with_the_statistics_of_the_images(
    spec_of, hardest_store, dataset
):
    """BatchNorm of untrained layers does what it does in a trained network: every channel has mean
    0 and variance 1.
    """
    spec = spec_of("R5B", network=HARDEST)
    stream = TaskLoader(
        dataset,
        list(spec.classes),
        None,
        spec.seed,
        spec.recipe,
        spec.network.input_size,
        CPU.device,
    )
    network = build_state(spec, stream, None, None).network.eval()
    network.load_state_dict(hardest_store.weights(spec))
    x = torch.cat([network.input(stream.batch(step)) for step in range(20)])
    with torch.no_grad():
        for number, layer in enumerate(network.layers[:5], 1):
            normalized = layer.norm(layer.conv(x)).transpose(0, 1).flatten(1)
            near = 1e-4 if number == 1 else 0.2  # above, the batches were normalized one by one
            assert (
                normalized.mean(1).abs().max() < near and (normalized.var(1) - 1).abs().max() < 0.2
            )
            x = layer(x)
    states = [hardest_store.weights(spec_of(f"R{n}B", network=HARDEST)) for n in (5, 7)]
    assert all(
        equal(*(layer_state(state, number) for state in states)) for number in range(1, 6)
    ), "chops of one network"


def test_the_mean_of_a_transferred_network_is_its_sources(spec_of, hardest_store):
    a, b = (
        hardest_store.weights(spec_of(c, network=HARDEST))["input.mean"] for c in ("A1B", "B1B")
    )
    assert not torch.equal(a, b)
    assert torch.equal(b, hardest_store.weights(spec_of("R1B", network=HARDEST))["input.mean"])


def test_random_filters_of_one_seed_are_chops_of_one_untrained_network(spec_of, hardest_store):
    r2, r7 = (hardest_store.weights(spec_of(c, network=HARDEST)) for c in ("R2B", "R7B"))
    assert all(equal(layer_state(r2, n), layer_state(r7, n)) for n in (1, 2))
    assert not equal(layer_state(r2, 3), layer_state(r7, 3))


@pytest.mark.parametrize("cell", ["baseB", "A3B", "A3B+", "B6B", "R7B", "A3B~1", "B7B+", *SHORT])
def test_rule_3_alone_equals_in_cohort(cell, spec_of, trained, hardest_store):
    """The cohort ran on two threads, 43 networks; alone, one network on one thread."""
    spec = spec_of(cell, network=HARDEST)
    alone = trained([spec], replace(CPU, threads=1), hardest_store)
    assert equal(alone.weights(spec), hardest_store.weights(spec))
    assert alone.metrics(spec) == hardest_store.metrics(spec)


def test_rule_3_holding_fewer_networks_changes_nothing(spec_of, trained, hardest_store):
    specs = [spec_of(c, network=HARDEST) for c in ("A2B", "A5B+", "B4B", "R3B", "B7B")]
    few = trained(specs, replace(CPU, max_networks=2), hardest_store)
    for spec in specs:
        assert equal(few.weights(spec), hardest_store.weights(spec))


def test_rule_3_recipes_of_one_pace_train_in_one_cohort(spec_of, trained):
    """Networks whose recipes differ in nothing that the batches depend on share them, and end as
    they do by themselves.
    """
    recipes = [{}, {"lr": 0.1}, {"momentum": 0.5}, {"weight_decay": 0.1, "schedule": "cosine"}]
    specs = [spec_of("A3.B", recipe=recipe) for recipe in recipes]
    specs = [replace(spec, source=specs[0].source) for spec in specs]
    assert len(group_into_jobs(specs)) == 1 and len({s.id for s in specs}) == 4
    assert len(group_into_jobs([*specs, spec_of("A3.B", recipe={"batch_size": 5})])) == 2
    together = trained(specs)
    ends = [together.weights(spec) for spec in specs]
    assert not any(equal(ends[0], end) for end in ends[1:])
    for spec in specs:
        assert together.provenance(spec)["cohort_networks"] == 4
        alone = trained([spec], bases=together)
        assert equal(alone.weights(spec), together.weights(spec))


ADAMW = {"optimizer": "adamw", "lr": 0.003}


@pytest.mark.slow
def test_the_rules_hold_with_adamw(spec_of, trained, dataset, tmp_path):
    """Frozen is frozen, alone equals in a cohort, stopped equals not stopped; and networks of the
    other optimizer are another cohort.
    """
    cells = ("baseB", "A3B", "A3B+", "A2B~2")
    specs = [spec_of(cell, network=HARDEST, recipe=ADAMW) for cell in cells]
    assert len(group_into_jobs(specs)) == 2 and len(group_into_jobs([*specs, spec_of("A3B")])) == 3
    store = trained(specs)
    base, frozen, tuned, _ = (store.weights(spec) for spec in specs)
    source = store.weights(specs[1].source)
    for number in (1, 2, 3):
        assert equal(layer_state(frozen, number), layer_state(source, number))
        assert not equal(layer_state(tuned, number), layer_state(source, number))
    for spec in specs[:3]:
        assert equal(trained([spec], bases=store).weights(spec), store.weights(spec))
    usual = spec_of("baseB", network=HARDEST)
    assert not equal(base, trained([usual]).weights(usual))
    stopped, spec = Store(tmp_path), specs[2]
    stopped.folder(spec).mkdir()
    for step in range(spec.recipe.steps):
        size = spec.network.input_size
        stream = TaskLoader(dataset, list(spec.classes), None, 0, spec.recipe, size, CPU.device)
        member = build_state(spec, stream, source, stopped.load_checkpoint(spec))
        assert member.step == step
        batch = stream.batch(step)
        with one_thread():
            member.network.train()
            member.train_step(batch, PrefixCache(batch))
        stopped.save_checkpoint(spec, member.checkpoint())
    assert equal(dict(member.network.state_dict()), tuned)


def test_rule_3_neither_order_nor_threads_change_a_number(spec_of, trained, hardest_store):
    specs = [spec_of(c, network=HARDEST) for c in ("B7B", "R3B", "B4B", "A5B+", "A2B")]
    other = trained(specs[::-1], replace(CPU, threads=5), hardest_store)
    for spec in specs:
        assert equal(other.weights(spec), hardest_store.weights(spec))
        assert other.metrics(spec) == hardest_store.metrics(spec)


def test_rule_3_torchs_own_threads_do_not_change_the_statistics_of_untrained_layers(
    spec_of, dataset, tmp_path
):
    """BatchNorm sums over a batch in as many parts as there are threads;
    four cores or one make the same network.
    """
    spec, states = spec_of("R5B", network={"normalization": "batch"}, recipe={"batch_size": 64}), []
    before = torch.get_num_threads()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        (cohort,) = make_cohorts([spec], Store(tmp_path), dataset, CPU)
        assert torch.get_num_threads() == threads
        states.append(cohort.states[0].network.state_dict())
    torch.set_num_threads(before)
    assert equal(states[0], states[1]) and equal(states[0], states[2])


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
def test_rule_4_stopped_and_resumed_equals_never_stopped(
    stop_after, spec_of, tmp_path, dataset, hardest_store
):
    """All networks stop after a step, some with an older checkpoint than others,
    and go on in a new process' state.
    """
    specs = [spec_of(c, network=HARDEST) for c in ("A3B", "A3B+", "B2B~5", "R1B")]
    store = Store(tmp_path)
    sources = {s.source.run_id: hardest_store.weights(s.source) for s in specs if s.source}

    def states(stream):
        for s in specs:
            source = sources[s.source.run_id] if s.source else None
            yield build_state(s, stream, source, store.load_checkpoint(s))

    def stream():
        s = specs[0]
        return TaskLoader(
            dataset, list(s.classes), None, 0, s.recipe, s.network.input_size, CPU.device
        )

    def stop(step, active):
        if step == 0:
            for member in active[:2]:
                store.folder(member.spec).mkdir()
                store.save_checkpoint(member.spec, member.checkpoint())
        if step + 1 == stop_after:
            for member in active[2:]:
                store.folder(member.spec).mkdir(exist_ok=True)
                store.save_checkpoint(member.spec, member.checkpoint())
            raise Stop

    first = stream()
    with pytest.raises(Stop):
        train([Cohort(first, list(states(first)))], CPU, lambda m: None, lambda m, why: None, stop)
    again = stream()
    cohort = Cohort(again, list(states(again)))
    assert sorted({m.step for m in cohort.states}) == sorted({1, stop_after})
    train([cohort], CPU, lambda m: None, lambda m, why: None)
    for member in cohort.states:
        assert equal(dict(member.network.state_dict()), hardest_store.weights(member.spec))
        assert member.metrics == hardest_store.metrics(member.spec)


def test_frozen_prefixes_are_computed_once_and_nothing_is_computed_below_them(
    spec_of, trained, dataset
):
    """Counts the layer evaluations of one step: A1B..A7B need layers 1-7 of baseA once,
    not 1+2+...+7 times.
    """
    specs = [spec_of(f"A{n}B") for n in range(1, 8)] + [
        spec_of("B3B"),
        spec_of("B5B"),
        spec_of("B3B+"),
        spec_of("A4.B"),  # adds its own head, and nothing else
    ]
    store = trained([s.source for s in specs])
    (cohort,) = make_cohorts(specs, store, dataset, CPU)
    counts = dict.fromkeys(range(8), 0)
    for member in cohort.states:
        member.network.train()
        for i, layer in enumerate(member.network.layers[: member.spec.network.depth]):
            layer.register_forward_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
    batch = cohort.stream.batch(0)
    shared = PrefixCache(batch)
    for member in cohort.states:
        member.train_step(batch, shared)
    # Layer l of AnB runs once for all frozen n >= l, and once in each of the l-1 networks that
    # train it (n < l);
    # B3B and B5B share layers 1-3; B3B trains 4-8, B5B freezes 4-5 and trains 6-8;
    # B3B+ trains everything.
    wanted = {}
    for layer in range(1, 9):
        from_a = (layer <= 7) + (layer - 1 if layer <= 7 else 7)
        from_b = {1: 1, 2: 1, 3: 1}.get(layer, 2)
        wanted[layer - 1] = from_a + from_b + 1
    assert counts == wanted
    for member in cohort.states:
        for i, layer in enumerate(member.network.layers):
            assert all((p.grad is None) == (i < member.network.frozen) for p in layer.parameters())


def test_shared_prefixes_keep_apart_what_differs(spec_of, trained, dataset):
    """Own dropout masks below the chop, other weights and other means are never shared."""
    cells = ("A7B", "A6B", "B7B", "R7B")
    specs = [spec_of(c, network={"dropout": 0.5}) for c in cells]
    store = trained([s.source for s in specs if s.source])
    (cohort,) = make_cohorts(specs, store, dataset, CPU)
    a7, a6, b7, r7 = cohort.states
    for member in cohort.states:
        member.network.train()
    assert a7.prefix_key(6) == a6.prefix_key(6), "the output of layer 6 comes before its dropout"
    assert a7.prefix_key(7) != (a7.prefix_key(7)[0], None), (
        "layer 7 begins with this network's own mask"
    )
    assert b7.prefix_key(0) == r7.prefix_key(0) != a7.prefix_key(0), (
        "the mean belongs to the source"
    )
    a7.network.eval()
    assert a7.prefix_key(7)[1] is None, "in validation nothing is dropped, all is shared"


def test_the_layers_cover_every_parameter_exactly_once(spec_of):
    spec = spec_of("A3B", network=HARDEST)
    network = SequentialNetwork(spec.network, torch.zeros(3).numpy())
    of_layers = [p for layer in network.layers for p in layer.parameters()]
    assert len(of_layers) == len(set(of_layers)) == len(list(network.parameters()))
    assert set(of_layers) == set(network.parameters())


def test_metrics_of_a_run_say_how_it_was_trained(spec_of, hardest_store):
    spec = spec_of("A3B+", network=HARDEST)
    metrics = hardest_store.metrics(spec)
    assert [m["step"] for m in metrics] == [4, 8]
    assert all(set(m) == {"step", "lr", "train_loss", "val_loss", "val_top1"} for m in metrics)
    assert all(0 <= m["val_top1"] <= 1 and m["train_loss"] > 0 for m in metrics)
    made = hardest_store.provenance(spec)
    assert made["images"] == 8 * 6
    assert made["device"].startswith(f"cpu, {platform.machine()}, ")
    assert made["device"].endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    assert json.loads((hardest_store.folder(spec) / "spec.json").read_text()) == spec.to_dict()


def test_a_finished_run_keeps_what_it_takes_each_image_for(hardest_store, spec_of, dataset):
    for cell in ("baseB", "A3B", "R7B", "A3.B"):
        spec = spec_of(cell, network=HARDEST)
        predicted = hardest_store.predictions(spec)
        assert predicted.keys() == {"validation"}, "the images have no test part"
        rows = dataset.val_rows(list(spec.classes))
        right = predicted["validation"].numpy() == np.searchsorted(
            spec.classes, dataset.labels[rows]
        )
        assert len(right) == len(rows) and right.mean() == pytest.approx(
            hardest_store.metrics(spec)[-1]["val_top1"], abs=1e-12
        )


def test_test_images_are_looked_at_once_by_the_finished_network(config, tmp_path):
    settings = replace(config.dataset, test_fraction=0.25, folder=str(tmp_path / "packed"))
    packed = pack(settings)
    spec = make_spec(parse("baseB"), "random-0", packed, config.network, config.recipe, 0)
    store = Store(tmp_path / "runs")
    train_missing([spec], store, packed, CPU)
    predicted, rows = store.predictions(spec), packed.test_rows(list(spec.classes))
    assert len(rows) == 12 == len(predicted["test"])
    run = load_run(store.folder(spec))
    with torch.no_grad(), one_thread():
        found = run(torch.from_numpy(packed.read_rows(rows))).argmax(1)
    assert torch.equal(found.to(torch.int16), predicted["test"])


def test_a_run_of_before_predictions_were_kept_stays_valid(spec_of, trained):
    spec = spec_of("baseB")
    store = trained([spec])
    folder = store.folder(spec)
    record = json.loads((folder / "DONE").read_text())
    del record["predictions.safetensors"]
    (folder / "DONE").write_text(json.dumps(record))
    (folder / "predictions.safetensors").unlink()
    assert store.is_done(spec) and store.predictions(spec) is None
    assert store.verify() == (1, []) and store.state(spec) == "done"
