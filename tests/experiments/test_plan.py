"""What a plan promises: bytes of memory, and hours on several devices."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from experiments import plan
from experiments.cost import Cost, print_cost, schedule
from experiments.plan import UnpackedImagenet
from tests.miniature import CPU
from transferability.networks.sequential import profile_layers
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts


def test_hours_on_several_devices():
    def job(stage):
        return [SimpleNamespace(stage=stage)]

    works, seconds = [job(0), job(0), job(0), job(1), job(1)], [4.0, 1.0, 2.0, 5.0, 1.0]
    assert schedule(works, seconds, 1) == 13
    assert schedule(works, seconds, 2) == 4 + 5  # 4 beside 1 + 2; then 5 beside 1
    assert schedule(works, seconds, 64) == 4 + 5


def test_memory_is_that_of_the_tensors(spec_of, dataset, tmp_path):
    specs, store = [spec_of("baseB"), spec_of("R3B")], Store(tmp_path)
    cost = Cost(store, dataset, replace(CPU, threads=1))
    (cohort,) = make_cohorts(specs, store, dataset, CPU)
    base, random_filters = (list(m.network.parameters()) for m in cohort.states)
    trained = sum(p.nbytes for p in random_filters if p.requires_grad)
    added = sum(p.nbytes for p in random_filters) + 2 * trained  # weights; momentum and gradients
    assert cost.memory(specs) - cost.memory(specs[:1]) == added
    # 6 images of float32: at least the outputs of the five convolutions,
    # at most a few times the whole network's
    outputs = sum(
        c * side**2 for c, side in zip(specs[0].network.channels, (14, 7, 3, 3, 3), strict=True)
    )
    activations = cost.memory(specs[:1]) - 3 * sum(p.nbytes for p in base)
    assert 4 * 6 * outputs <= activations <= 5 * 4 * 6 * outputs


def test_arithmetic_counts_shared_layers_once(spec_of, dataset, tmp_path):
    cost = Cost(Store(tmp_path), dataset, CPU)
    layers = [c.macs for c in profile_layers(spec_of("baseB").network)]
    images, validated = 8 * 6, 2 * len(dataset.val_rows(list(spec_of("baseB").classes)))
    assert cost.macs([spec_of("baseB")]) == sum(layers) * (3 * images + validated)
    three = [spec_of(cell) for cell in ("A2B", "A5B", "B2B")]
    tops = 2 * sum(layers[2:]) + sum(layers[5:])
    prefixes = sum(layers[:5]) + sum(layers[:2])  # A to layer 5, for both; B to layer 2
    assert cost.macs(three) == tops * (3 * images + validated) + prefixes * (images + validated)


def test_a_job_of_several_recipes_says_so(spec_of, capsys):
    specs = [spec_of("A3B"), spec_of("A4B"), spec_of("A3B+", recipe={"name": "low", "lr": 0.001})]
    plan.print_states(specs, {s.run_id: "missing" for s in specs})
    said = capsys.readouterr().out.splitlines()
    kinds = {(s.network.name, s.recipe.name) for s in specs}
    assert len(kinds) == 2 and len(said) == 3
    assert f"{specs[0].recipe.name} (8 x 6) and 1 more" in said[1]


def test_the_classes_of_each_task_are_listed_with_the_rule(spec_of, dataset, capsys):
    spec = spec_of("A3B")
    plan.print_tasks([spec], dataset)
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("random-0: A is numpy.random.RandomState([0]).choice(numpy.arange(8)")
    drawn = np.random.RandomState([0]).choice(np.arange(8), 4, replace=False)
    names = {
        task: [c.name for i, c in enumerate(dataset.classes) if (i in drawn) == (task == "A")]
        for task in "AB"
    }
    assert said[2:] == [f"  {task}, 4 classes: {', '.join(names[task])}" for task in "AB"]


def test_the_name_of_a_class_stays_on_its_line(spec_of, dataset, capsys):
    classes = [replace(c, name=f"{c.name}\nbreed") for c in dataset.classes]
    plan.print_tasks([spec_of("baseA")], SimpleNamespace(classes=classes))
    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line.count(r"\nbreed") == 4


def test_a_job_keeps_its_number_and_its_base_is_listed(spec_of, dataset, tmp_path, capsys):
    study = [spec_of(cell) for cell in ("baseA", "baseB", "A3A", "A3B")]
    assert plan.print_plan(study[-1:], study, Store(tmp_path)) == [study[0], study[-1]]
    header, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert header.split()[0] == "job"
    assert [(line.split()[0], line.split()[4].rstrip(",")) for line in lines[:2]] == [
        ("0", "A"),
        ("3", "B"),
    ]


def test_runs_that_lack_nothing_but_their_end_can_be_planned(spec_of, dataset, tmp_path, capsys):
    """Killed after the last step's checkpoint: no image is to be read."""
    store, spec = Store(tmp_path), spec_of("baseB")
    (cohort,) = make_cohorts([spec], store, dataset, CPU)
    cohort.states[0].step = spec.recipe.steps
    store.lock(spec).release()
    store.save_checkpoint(spec, cohort.states[0].checkpoint())
    print_cost(plan.print_plan([spec], [spec], store), Cost(store, dataset, CPU))
    out = capsys.readouterr().out
    assert "To train: 1 network, 0 network-images" in out and "To read" not in out


def test_imagenet_can_be_planned_before_it_is_packed():
    imagenet = UnpackedImagenet("imagenet", 256)
    assert len(imagenet.classes) == 1000 and imagenet.classes[0].wnid == "n01440764"
    assert len(imagenet.val_rows(list(range(500)))) == 25_000
