"""Advice within a time: from a folder to the page, stopped, gone on with, and small."""

import html
import itertools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from analysis import advised as advised_answer
from analysis import advised_strategies
from analysis.advised_page import write_page
from experiments import advise, export, first_stage, run
from experiments.cli import command, run_module
from experiments.clock import CAUTION, Clock, Speed, said
from experiments.cost import Cost
from experiments.overrides import as_typed, of_advice
from experiments.race import EPOCHS, SCRATCH, STEPS, TIMES, Arm, candidates, fitting, survivors
from tests.helpers import composed, lines, network_of, write
from tests.miniature import CPU, captured
from transferability import Study, load_run
from transferability.errors import UserError
from transferability.networks.modules import extra_tokens, pooled
from transferability.runs.probes import FEATURES
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.signals import stop_requests
from transferability.study.jobs import with_bases
from transferability.training.features import images_read


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """20 images in each of two classes that differ in brightness, and weights of a network of eight
    layers.
    """
    folder, draw = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        for i in range(20):
            image = draw.integers(90 * label, 90 * label + 150, (40, 36, 3))
            write(folder / "photos" / name / f"{i}.png", image.astype(np.uint8))
    torch.manual_seed(0)
    weights = network_of("timm test_resnet", input_size=32).build().state_dict()
    safetensors.torch.save_file(weights, folder / "test_resnet.safetensors")
    return folder


def words(given, folder, *more):
    where = {
        "source": given / "photos",
        "weights": given / "test_resnet.safetensors",
        "data_dir": folder / "data",
        "store": folder / "runs",
        "out": folder / "page",
    }
    small = ["dataset.image_size=36", "network.input_size=32", "recipe.batch_size=8"]
    own = [*small, "device=cpu", "threads=1", *more]
    return of_advice([f"{key}={path}" for key, path in where.items()] + own)


def advised(*given):
    return captured(command(advise.main), *given)


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, *advised(*words(given, folder, "minutes=60"))


@pytest.mark.slow
def test_two_classes_of_twenty_images_end_well(finished):
    folder, status, out, err = finished
    assert status == 0, err
    assert re.search(
        r"Its test accuracy is [01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\] \(95% interval", out
    )
    assert "So few images cannot answer" in out
    assert out.count("More time changes nothing: the race is over") == 1
    page = (folder / "page" / "report.html").read_text()
    assert page.count('class="bar"') >= 2 and "The rule" in page and "Every network" in page
    assert 'id="race"' in page and 'id="curve"' in page
    specs = Store(folder / "runs").specs()
    cells = {str(spec.cell) for spec in specs}
    assert {f"A{n}.B" for n in range(1, 8)} <= cells and "baseB" in cells
    assert any(s.cell.again and s.recipe.keep_statistics for s in specs)
    networks = [s for s in specs if s.recipe.optimizer != "lbfgs"]
    raced = [s.recipe.steps for s in networks]
    seeds = Counter((s.cell, s.recipe) for s in networks if s.recipe.steps == TIMES * STEPS)
    assert sorted(seeds.values()) == [1, 3, 3], "two finalists with three seeds"
    assert f"no network is trained for more than {max(raced)} steps." in out
    assert min(raced) >= STEPS // 2 and max(raced) <= EPOCHS * 40 / 8, "no image is seen more often"


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_more_time_nothing_more(finished, given):
    folder, _, out, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("DONE")}
    status, again, _ = advised(*words(given, folder, "minutes=60"))
    assert status == 0 and again == out
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("DONE")}


@pytest.mark.slow
def test_the_command_on_the_page_is_whole(finished):
    folder, *_ = finished
    page = html.unescape((folder / "page" / "report.html").read_text())
    pasted = shlex.split(re.search(r"python -m experiments\.run (.*?)</code>", page)[1])
    status, _, err = captured(command(run.main), *pasted)
    assert status == 0, err
    store = Store(folder / "runs")
    (spec,) = [s for s in store.specs() if s.all_images]
    best = re.search(r'load_run\("(.+?)"\)', page)[1]
    best = store.spec_in(Path(best) / "spec.json")
    assert replace(spec, all_images=False).id == best.id, "it is the best, but for its images"


def test_what_a_page_gives_to_paste_works_in_folders_of_any_name(given, tmp_path):
    """A run's folder begins with the name of the images."""
    photos = shutil.copytree(given / "photos", tmp_path / 'my "photos", it\'s $HOME=`a` [é]')
    store = f'store={tmp_path}/it\'s my "runs" $x\\\\y'
    made = as_typed(words(given, tmp_path, f"source={photos}", store))
    config = composed(*made)
    config.words = tuple(made)
    advice = advise.Advising(config, Clock(60, time.monotonic()))
    advice.train(advice.task.probes()[:1])
    advice.page()
    page = html.unescape(advice.path.read_text())
    (code,) = re.findall(r"<code>(from transferability.*?)run.classes", page, re.S)
    scope = {}
    exec(code, scope)
    best = scope["run"].spec
    assert best == advice.task.probes()[0]
    (pasted,) = re.findall(r"python -m experiments.export (.*)", page)
    pasted = shlex.split(pasted.replace("mine.pt2", f"{tmp_path}/mine.pt2"))
    status, _, err = captured(command(export.main), *pasted)
    assert status == 0 and (tmp_path / "mine.pt2").exists(), err
    (pasted,) = re.findall(r"python -m experiments.run (.*)</code>", page)
    (spec,) = Study(*shlex.split(pasted)).specs
    assert spec.all_images and replace(spec, all_images=False).id == best.id


@pytest.mark.slow
def test_ctrl_c_ends_with_the_best_answer_so_far(given, tmp_path, monkeypatch):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(advise.Advising, "race", stopped)
    status, out, err = advised(*words(given, tmp_path, "minutes=5"))
    assert status == 130 and "Its test accuracy is" in out, err


def test_the_end_of_the_time_is_told_from_a_ctrl_c():
    clock = Clock(0.2, time.monotonic())
    with pytest.raises(KeyboardInterrupt), clock.limit():
        time.sleep(600)
    assert clock.over and -300 < clock.left < 0, "a wait is ended, too"
    early = Clock(60, 0.0, lambda: 0.5)
    with pytest.raises(KeyboardInterrupt), early.limit():
        raise KeyboardInterrupt
    assert not early.over and early.left == 59.5
    early.page = 4.0
    assert early.left == 53.5, "the page is written after training"


def test_the_end_of_the_time_never_interrupts_what_follows_the_block(interruptible):
    """The page is written there: the interrupt came when the block had ended."""
    looked, within, looks = threading.Event(), True, itertools.count()

    def now():  # the look that says that the time is up takes longer than the block
        if next(looks) == 1:
            looked.set()
            time.sleep(0.3)
        return 2.0

    clock = Clock(1.0, 0.0, now)
    try:
        with clock.limit():
            looked.wait()
        within = False
        time.sleep(1)
    except KeyboardInterrupt:
        pass
    assert clock.over and within


def test_the_time_begins_with_the_command(given, tmp_path, monkeypatch):
    """What is imported and downloaded before anything is known takes of it, also where it waits."""
    (tmp_path / "slow_command.py").write_text(
        "import time\n"
        "from transferability.errors import UserError\n"
        "time.sleep(0.3)\n"
        "def main(config):\n"
        "    raise UserError(f'{time.monotonic() - config.began:.3f} seconds')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(time, "process_time", lambda: 2.0)  # of the tests before this one
    status, _, err = captured(lambda: run_module("slow_command"), *words(given, tmp_path))
    # by a clock that begins elsewhere it would be hours
    assert status == 2 and 2.3 < float(re.search(r"error: (\S+) seconds", err)[1]) < 600
    left = []

    def stopped(self):
        left.append(self.clock.left)
        raise KeyboardInterrupt

    monkeypatch.setattr(advise.Advising, "run", stopped)
    config = composed(*words(given, tmp_path, "minutes=1"))
    config.began = time.monotonic() - 20
    with pytest.raises(SystemExit):
        advise.main(config)
    assert -600 < left[0] < 40


def test_the_time_of_a_job_begins_with_the_job(given, tmp_path, monkeypatch):
    """Jobs of a multirun wait for others, and under Slurm run where clocks show other times."""
    (tmp_path / "one_of_several.py").write_text("def main(config):\n    print(config.began)\n")
    monkeypatch.syspath_prepend(tmp_path)
    jobs = ["-m", *words(given, tmp_path), "seed=0,1"]
    status, out, err = captured(lambda: run_module("one_of_several"), *jobs)
    assert (status, out.split()) == (0, ["None"] * 2), err


def test_the_time_ends_also_in_the_background(interruptible):
    """As in a script that starts the command with &."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), Clock(0.1, time.monotonic()).limit():
        time.sleep(2)


def test_the_time_ends_also_where_sigterm_has_another_use(interruptible):
    """Under Slurm, where submitit ignores it."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    clock = Clock(0.1, time.monotonic())
    try:
        with pytest.raises(KeyboardInterrupt), clock.limit():
            time.sleep(2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert clock.over


def test_a_ctrl_c_beside_the_end_of_the_time_is_no_second_one(interruptible):
    """Which would kill, without an answer."""
    clock = Clock(0.1, time.monotonic())
    with pytest.raises(KeyboardInterrupt), clock.limit(), stop_requests() as stop:
        while not stop.requested:
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGINT) != signal.SIG_DFL
        signal.raise_signal(signal.SIGINT)
    clock = Clock(0.1, time.monotonic())
    with pytest.raises(KeyboardInterrupt), clock.limit(), stop_requests():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.5)


def test_in_a_thread_the_end_of_the_time_stops_nobody_else(interruptible):
    def wait():
        with Clock(0.05, time.monotonic()).limit():
            time.sleep(0.3)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()


def test_sigterm_where_nothing_trains_is_a_ctrl_c(given, tmp_path, monkeypatch):
    def stopped(self):
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL, "which would kill"
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(advise.Advising, "run", stopped)
    status, _, err = advised(*words(given, tmp_path))
    assert status == 130 and "stopped before there is an answer" in err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_ctrl_c_while_the_page_is_written_prints_the_answer(
    given, tmp_path, monkeypatch, interruptible
):
    def write_and_stop(*told):
        write_page(*told)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(advise, "write_page", write_and_stop)
    status, out, err = advised(*words(given, tmp_path, "minutes=5"))
    assert status == 130 and "Its test accuracy is" in out, err
    assert f"page: {tmp_path / 'page' / 'report.html'}" in out


@pytest.mark.slow
def test_a_network_that_explodes_leaves_the_race(given, tmp_path, monkeypatch):
    arms = [Arm("A3.B++", 1e9), Arm("A3.B++", 0.003, "adamw")]
    monkeypatch.setattr(advise, "candidates", lambda best, top: arms)
    monkeypatch.setattr("experiments.race.EPOCHS", 10)
    status, out, err = advised(*words(given, tmp_path, "minutes=5"))
    assert status == 0 and "Its test accuracy is" in out, err
    assert "became infinite" in err
    done = [s for s in Store(tmp_path / "runs").specs() if Store(tmp_path / "runs").is_done(s)]
    assert {s.recipe.lr for s in done if s.cell.again} == {0.003}


def test_every_half_minute_a_line(monkeypatch, caplog):
    monkeypatch.setattr("experiments.clock.LINE", 0.05)
    clock = Clock(600, time.monotonic())
    with caplog.at_level("INFO"), clock.lines(lambda: said("race", clock, "A3B, 0.9")):
        time.sleep(0.3)
    told = lines(caplog)
    assert 2 <= len(told) <= 6 and set(told) == {"race: 10 min left; leader A3B, 0.9"}


def test_what_networks_take_is_learned_from_those_before_them(spec_of, dataset, tmp_path):
    cost = Cost(Store(tmp_path), dataset, CPU)
    cost.measured = lambda spec: (1e6, 0.0)
    speed, specs = Speed(cost), [spec_of("A3B"), spec_of("A3B+")]
    guessed = speed.seconds(specs)
    assert guessed > speed.seconds(specs[:1]) > 0, "the base that they start from is in it"
    with speed.measured(with_bases(specs)):
        time.sleep(0.2)
    assert speed.seconds(specs) == pytest.approx(CAUTION * 0.2, rel=0.2)
    longer = [spec_of("A3B", recipe={"steps": 16})]
    longer[0] = replace(longer[0], source=specs[0].source)
    assert speed.seconds(longer) > speed.seconds(specs[:1])


def test_a_network_that_mostly_waits_does_not_slow_the_predictions(spec_of, dataset, tmp_path):
    """After one that was small, training from scratch was left out though there was time."""
    now = [0.0]
    speed = Speed(Cost(Store(tmp_path), dataset, CPU, lambda: now[0]))
    large, small = [spec_of("baseB")], [spec_of("baseB", recipe={"steps": 1})]
    share = speed._work(small) / speed._work(large)
    assert share < 0.3
    for specs, seconds in ((large, 10.0), (small, 10.0)):
        with speed.measured(specs):
            now[0] += seconds
    assert speed.seconds(large) == pytest.approx(CAUTION * 20 / (1 + share))
    exploded, work = spec_of("baseA"), speed._done
    with speed.measured([exploded]):
        Store(tmp_path).lock(exploded).release()
        Store(tmp_path).fail(exploded, {"step": 1})
        now[0] += 1
    assert speed._done == work, "one that ended early says nothing about speed"


@pytest.mark.slow
def test_a_minute_that_is_too_short_has_an_answer_of_stage_1(given, tmp_path):
    """Of the highest layer and few images, also beyond the time."""
    status, out, err = advised(*words(given, tmp_path, "minutes=0.000001"))
    assert status == 0 and "Its test accuracy is" in out, err
    assert "trained on the first 5 training images of each class, which is what the time" in out
    assert "With more time, fine-tuned networks are trained" in out
    specs = Store(tmp_path / "runs").specs()
    assert all(spec.recipe.optimizer == "lbfgs" for spec in specs)
    assert "A7.B" in {str(spec.cell) for spec in specs if Store(tmp_path / "runs").is_done(spec)}


def test_images_that_changed_since_they_were_packed_are_named(given, tmp_path):
    """Or the answer would be of others; without the originals it is of those that were packed."""
    photos = shutil.copytree(given / "photos", tmp_path / "photos")
    config = composed(*words(given, tmp_path, f"source={photos}"))
    checksum = advise.packed(config.dataset).checksum
    assert advise.packed(config.dataset).checksum == checksum
    shutil.copy(photos / "dark" / "0.png", photos / "dark" / "new.png")
    with pytest.raises(UserError, match=r"40 images .* then, 41 images .* now"):
        advise.packed(config.dataset)
    shutil.rmtree(photos)
    assert advise.packed(config.dataset).checksum == checksum


def test_a_page_that_cannot_be_written_is_named_before_anything_is_packed(given, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = advised(*words(given, tmp_path, f"out={tmp_path}/file/page"))
    assert status == 2 and f"error: out={tmp_path}/file/page: cannot be created" in err
    assert not (tmp_path / "data").exists()


def test_what_is_missing_is_one_line(given, tmp_path):
    status, _, err = advised(*[w for w in words(given, tmp_path) if not w.startswith("weights")])
    assert status == 2 and "weights=FILE" in err and err.count("\n") == 1


def test_source_and_weights_name_dataset_and_network():
    assert of_advice(["source=a/my.photos.zip", "weights=w/resnet18.a1_in1k"]) == [
        "experiment=advice",
        "dataset.source=a/my.photos.zip",
        "weights=w/resnet18.a1_in1k",
        "network.model=resnet18",
        "dataset.name=my",
    ]
    own = ["experiment=mine", "dataset.name=x", "source=a", "weights=b"]
    assert of_advice(own) == [*own[:2], "dataset.source=a", "weights=b"]


def test_input_and_crop_come_with_the_weights(given, tmp_path, caplog):
    """A plain file has those of its library; a file beside it, or a setting, says others."""

    def found(folder, *more):
        weights = shutil.copy(given / "test_resnet.safetensors", folder)
        words = of_advice([f"source={given / 'photos'}", f"weights={weights}", *more])
        config = composed(*words)
        config.words = tuple(words)
        return advise.as_weights_want(config)

    with caplog.at_level("INFO"):
        config = found(tmp_path)
    assert (config.network.input_size, config.dataset.image_size) == (160, 168)
    assert "assumed, as nothing beside the file says it: timm, test_resnet" in caplog.text
    assert config.words[-3:] == (
        *("network.input_size=160", "dataset.image_size=168", "dataset.resize=bilinear"),
    )
    assert composed(*config.words).network == config.network, "the words say the same"
    own = found(tmp_path, "network.input_size=32", "dataset.image_size=36")
    assert (own.network.input_size, own.dataset.image_size) == (32, 36)
    for side, packed in ((80, 84), (320, 336)):  # 168 of 160 pixels
        own = found(tmp_path, f"network.input_size={side}")
        assert (own.network.input_size, own.dataset.image_size) == (side, packed)
    own = found(tmp_path, "dataset.image_size=108")
    assert (own.network.input_size, own.dataset.image_size) == (96, 108)
    assert own.dataset.resize == "bilinear", "the sizes are given, not how images are resized"
    described = {"architecture": "test_resnet", "mean": [0.5] * 3, "std": [0.5] * 3}
    described |= {"input_size": [3, 64, 64], "crop_pct": 0.8, "interpolation": "bicubic"}
    described |= {"crop_mode": "squash"}
    (tmp_path / "described").mkdir()
    (tmp_path / "described" / "config.json").write_text(json.dumps(described))
    config = found(tmp_path / "described")
    assert (config.network.input_size, config.dataset.image_size) == (64, 80)
    assert (config.dataset.resize, config.dataset.fit) == ("bicubic", "squash")
    assert found(tmp_path / "described", "dataset.fit=crop").dataset.fit == "crop"


@pytest.fixture(scope="module")
def transformer(given):
    torch.manual_seed(0)
    state = network_of("timm test_vit", input_size=64).build().state_dict()
    safetensors.torch.save_file(state, given / "test_vit.safetensors")
    return given / "test_vit.safetensors"


def test_of_a_transformer_linear_classifiers_see_the_class_token_and_the_mean(
    given, transformer, tmp_path
):
    """And a finished one says the same as its network, which is loaded from its folder."""
    made = of_advice(
        [
            *(f"source={given / 'photos'}", f"weights={transformer}", f"data_dir={tmp_path}"),
            *("network.input_size=64", "dataset.image_size=64", "device=cpu", "threads=1"),
        ]
    )
    config = composed(*made, f"store={tmp_path / 'runs'}")
    config.words = tuple(made)
    config = advise.as_weights_want(config)
    assert config.words[-1] == "network.token_pool=class+mean"
    assert composed(*config.words).network == config.network
    advice = advise.Advising(config, Clock(600, time.monotonic()))
    spec = advice.task.probe(3)
    assert spec.pretrained.network.token_pool == "mean", "the base has none"
    assert advice.task.spec(Arm("A3B", 0.03), STEPS).network.token_pool == "mean"
    advice.train([spec])
    run = load_run(advice.store.folder(spec))
    images, labels = run.images_of(advice.dataset, "val")
    with torch.no_grad():
        x = run.features(images, 3)
        assert torch.equal(run(images).argmax(1), advice.store.predictions(spec)["validation"])
    tokens, width = x.shape[1:]
    assert tokens == 1 + (64 // 16) ** 2
    found = pooled(x, 1, "class+mean")
    assert found.shape == (len(labels), 2 * width)
    assert torch.equal(found[:, :width], x[:, 0])
    torch.testing.assert_close(found[:, width:], x[:, 1:].mean(1))


def test_a_network_cut_short_is_exported_as_a_program_of_torch(given, tmp_path):
    """For any number of images, from 0 to 1, it says what the run says; as weights of its library
    it is refused with what can be written.
    """
    config = composed(*words(given, tmp_path))
    advice = advise.Advising(config, Clock(600, time.monotonic()))
    spec = advice.task.probe(3)
    advice.train([spec])
    folder, path = advice.store.folder(spec), tmp_path / "mine.pt2"
    own = load_run(folder)
    status, out, err = captured(command(export.main), f"run={folder}", f"out={path}")
    assert status == 0 and "test_resnet, 2 classes" in out, err
    texts = {"classes.json": ""}
    program = torch.export.load(path, extra_files=texts).module()
    assert json.loads(texts["classes.json"])["classes"] == ["dark", "light"]
    images, _ = own.images_of(advice.dataset, "val")
    inner = images[:, 2:34, 2:34].permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for count in (1, len(images)):
            said, wanted = program(inner[:count]), own(images[:count])
            torch.testing.assert_close(said, wanted, atol=1e-4, rtol=1e-4)
    weights = tmp_path / "a.safetensors"
    status, _, err = captured(command(export.main), f"run={folder}", f"out={weights}")
    assert status == 2 and f"out={tmp_path / 'a.pt2'} writes it" in err


@pytest.mark.parametrize(
    ("shape", "extra"), [((17, 8), 1), ((16, 8), 0), ((261, 8), 5), ((8, 4, 4), 0), ((64,), 0)]
)
def test_tokens_that_are_not_of_the_image(shape, extra):
    assert extra_tokens(shape) == extra


def test_the_first_linear_classifiers_are_spread_over_the_depths(given, tmp_path):
    advice = advise.Advising(composed(*words(given, tmp_path)), Clock(60, time.monotonic()))
    assert [spec.cell.n for spec in advice.task.probes()] == [7, 3, 5, 1, 6, 4, 2]


def test_networks_see_the_images_that_the_time_allows_and_never_fewer_than_before(given, tmp_path):
    advice = advise.Advising(composed(*words(given, tmp_path)), Clock(60, time.monotonic()))
    whole, sizes = advice.task, []

    def size(left):
        return first_stage.sized(
            whole, advice.store, CPU, Clock(left, time.monotonic())
        ).images_per_class

    assert (size(1e9), size(0.0)) == (None, 5)
    seconds = first_stage._seconds(whole, CPU, time.monotonic)
    for k in (5, 10, None):
        task = replace(whole, images_per_class=k)
        specs = task.probes()[:1]
        sizes.append(images_read(specs, advice.dataset))
        assert seconds(task) > 0
    rows = [len(advice.dataset.labels), advice.dataset.n_train]
    held = rows[0] - rows[1]
    assert sizes == [held + 2 * 2 * 5, held + 2 * 2 * 10, held + 2 * rows[1]], "twice: mirrored"
    plain = replace(specs[0], recipe=replace(specs[0].recipe, mirror=False))
    assert images_read([plain, specs[0]], advice.dataset) == sizes[-1], "one asks for mirrored ones"
    few = replace(whole, images_per_class=10)
    advice.train(few.probes()[:1])
    (folder,) = (advice.store.root / FEATURES).iterdir()
    shapes = {len(np.load(path)) for path in folder.glob("layer-007*.npy")}
    assert shapes == {held + 20, 20}, "features of no other image"
    assert size(0.0) == 10 and size(1e9) is None
    first = advice.store.weights(few.probes()[0])
    advice.train(whole.probes()[:1])
    assert size(0.0) is None
    again = Store(tmp_path / "again")
    shutil.copytree(advice.store.root / FEATURES, again.root / FEATURES)
    train_missing(few.probes()[:1], again, advice.dataset, CPU)
    kept = again.weights(few.probes()[0])
    assert all(torch.allclose(kept[k], first[k], atol=1e-3) for k in first), "of all features, too"


def test_the_answer_of_fewer_images_is_there_until_there_is_one_of_more(given, tmp_path):
    """More minutes, and a Ctrl-C while the features of all images are computed."""
    advice = advise.Advising(composed(*words(given, tmp_path)), Clock(60, time.monotonic()))
    assert advice.page() is None
    advice.train(replace(advice.task, images_per_class=5).probes()[:1])
    assert advice.page().spec.images_per_class == 5


def test_a_linear_classifier_costs_as_many_images_as_it_sees(given, tmp_path):
    advice = advise.Advising(composed(*words(given, tmp_path)), Clock(60, time.monotonic()))
    few = replace(advice.task, images_per_class=5)
    whole = advised_strategies._operations(advice.task.probe(3), advice.dataset)
    least = advised_strategies._operations(few.probe(3), advice.dataset)
    assert least / whole == pytest.approx(2 * 5 / advice.dataset.n_train)
    fine_tuned = few.spec(Arm("A3.B++", 0.01), STEPS), advice.task.spec(Arm("A3.B++", 0.01), STEPS)
    costs = [advised_strategies._operations(spec, advice.dataset) for spec in fine_tuned]
    assert costs[1] - costs[0] == pytest.approx(whole - least), "the first phase is in it"


def test_the_rule_of_the_race():
    arms = candidates(14, 19)
    assert len(arms) == len(set(arms)) and Arm("A14B~5", 0.03) in arms
    assert not any("~" in arm.cell for arm in candidates(19, 19))
    values = dict(zip(arms, [0.5, 0.9, 0.7, 0.9, 0.1, 0.2, 0.3, 0.4, 0.0], strict=True))
    assert survivors(arms, values.get) == [arms[1], arms[3], arms[2]]
    assert survivors(arms[:4], values.get) == [arms[1], arms[3]]
    assert survivors(arms[:3], values.get) == [arms[1], arms[2]], "two finalists, no fewer"
    assert survivors(arms[:1], values.get) == arms[:1]
    assert fitting([1, 2, 3], sum, 3.5) == 2 and fitting([1, 2], sum, 0.5) == 0


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("source", ["a b", "it's", 'so "called"', "$HOME $(x) `y` #1", "é\\=,%"])
def test_make_advice_takes_any_name(source, tmp_path):
    (tmp_path / ".ready").touch()  # an environment that is made
    said = "import json, sys; print(json.dumps(sys.argv[1:]))"
    given = [f"VENV={tmp_path}", f"RUN={sys.executable} -c '{said}'", f"SOURCE={source}"]
    done = subprocess.run(
        ["make", "-s", "advice", *given, f"WEIGHTS={source}.pth", "OVERRIDES=seed=1 'x=a b'"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = [f"source={source}", f"weights={source}.pth", "minutes=10", "seed=1", "x=a b"]
    assert json.loads(done.stdout) == ["experiments.advise", *wanted]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (".", "my photos"),
        ("./", "my photos"),
        ("../my photos", "my photos"),
        ("dogs/..", "my photos"),
        (".hidden", "hidden"),
        ("a/.hidden.zip", "hidden"),
        ("v1.2 of=all.tar.gz", "v1"),
    ],
)
def test_images_are_called_as_their_folder_however_it_is_spelt(source, name, tmp_path, monkeypatch):
    (tmp_path / "my photos" / "dogs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my photos")
    made = of_advice([f"source={source}", "weights=w"])
    assert made[-1] == f"dataset.name={name}" and f"dataset.source={source}" in made


@pytest.mark.parametrize(
    ("file", "more", "model"),
    [
        ("resnet18-f37072fd.pth", ["network=torchvision"], "resnet18"),
        ("resnet18-5c106cde.pth", [], "resnet18"),
        ("resnet18.safetensors", ["network=torchvision"], "resnet18"),
        ("vit-base.pth", [], "vit-base"),
        ("my.pth", ["network=timm"], None),
        ("my.pth", ["network=torchvision", "network.model=vgg11"], "vgg11"),
    ],
)
def test_a_file_of_weights_names_its_network(file, more, model, tmp_path):
    """As torchvision and timm call the files that they offer, with a part of the digest."""
    (tmp_path / file).touch()
    made = of_advice(["source=a", f"weights={tmp_path / file}", *more])
    named = [word for word in made if word.startswith("network.model=")]
    assert named == ([f"network.model={model}"] if model else [])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["source=/", "weights=w"], "source=/ has no name .*: say dataset.name=NAME"),
        (["source=a", "network=torchvision", "weights=DEFAULT"], "say which .* network.model=NAME"),
        ([], "say which images and which pretrained network: source=PATH weights=FILE"),
        (["weights=w.pth"], "say which images and which pretrained network"),
        (["source=a.zip"], "say which images and which pretrained network"),
        (["sorce=a.zip", "weights=w"], "sorce is an unknown setting: did you mean source[?]"),
        (["source=a.zip", "wieghts=w"], "wieghts is an unknown setting: did you mean weights[?]"),
    ],
)
def test_what_is_not_said_is_asked_for(words, why):
    with pytest.raises(UserError, match=why):
        of_advice(words)


@pytest.mark.parametrize(
    ("behind", "low", "high", "said"),
    [
        (0.05, 0.01, 0.09, "0.050 [0.010, 0.090] above the best linear probe"),
        (-0.05, -0.09, 0.01, "0.050 [-0.010, 0.090] below the best linear probe"),
    ],
)
def test_what_is_worse_is_called_below(behind, low, high, said):
    row = pd.Series({"behind": behind, "behind_low": low, "behind_high": high})
    assert advised_answer._apart(row, "linear probe") == said


@pytest.mark.parametrize(
    ("rows", "ended", "said"),
    [
        ([], False, "With more time, fine-tuned networks are trained and compared with it."),
        ([("baseB", 0, 120, 0.9)], False, "With more time, fine-tuned networks are trained and"),
        (
            [("A3.B++", 3, 30, 0.9), ("A3B", 3, 30, 0.8)],
            False,
            "With more time, the best after 30 steps are trained for more.",
        ),
        (
            [("A3.B++", 3, 120, 0.95), ("A3.B++", 3, 30, 0.9), ("baseB", 0, 480, 0.5)],
            False,
            "From 30 to 120 steps the validation accuracy of A3.B++ went from 0.900 to 0.950; with "
            "more time it is trained for more steps, which will probably gain less.",
        ),
        (  # the answer has 120 steps, the race is further
            [("A3.B++", 3, 120, 0.95), ("A3.B++", 3, 240, 0.94), ("A3.B++", 3, 30, 0.9)],
            False,
            "From 120 to 240 steps the validation accuracy of A3.B++ went from 0.950 to 0.940; "
            "with more time it is trained for more steps.",
        ),
        (
            [("A3.B++", 3, 120, 0.95)],
            True,
            "More time changes nothing: the race is over, in which no network is trained for more "
            "than 480 steps.",
        ),
        (  # without a second seed, or training from scratch
            [("A3.B++", 3, 480, 0.95), ("A3.B++", 3, 120, 0.9)],
            False,
            "With more time the rest of the race is trained, in which no network has more than 480 "
            "steps.",
        ),
    ],
)
def test_what_more_time_would_change(rows, ended, said):
    assert raced(rows, ended).more_time.startswith(said)


def test_more_time_uses_more_images_where_they_were_limited():
    """The race on 20 images per class has no rest, and one on more images has longer networks."""
    found = raced([("A3.B++", 3, 480, 0.95), ("A3.B++", 3, 120, 0.9)], images_per_class=20)
    assert found.more_time.endswith("trained for more steps, which will probably gain less.")


def raced(rows, ended=False, images_per_class=None):
    """The answer of a race of at most 480 steps with these networks."""
    table = pd.DataFrame(rows, columns=["cell", "n", "steps", "validation"])
    table = table.assign(rate=0.01, optimizer="adamw", probe=False)
    found: dict = dict.fromkeys(advised_answer.Answer.__dataclass_fields__)
    found |= {"strategies": table, "ended": ended, "longest": 480}
    return advised_answer.Answer(
        **found | {"spec": SimpleNamespace(images_per_class=images_per_class)}
    )


def test_what_the_time_left_out_is_known(given, tmp_path):
    advice = advise.Advising(composed(*words(given, tmp_path)), Clock(60, time.monotonic()))
    advice.speed.seconds = lambda specs: 25.0 * len(specs)
    advice.train = lambda specs: False
    arms = [Arm("A3.B++", 0.01), Arm("A3B", 0.03)]
    advice.rung(arms, STEPS)
    assert not advice.lacked_time
    advice.rung([*arms, SCRATCH], STEPS)
    assert advice.lacked_time


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ([1.0], "Nothing that was trained is cheaper."),
        ([1.0, 2.0], "Nothing that was trained is cheaper."),
        ([1.0, 0.5], "Nothing cheaper is shown to be as good (less than 1 point behind)."),
    ],
)
def test_that_nothing_is_cheaper_is_not_called_unproven(costs, said):
    nothing: dict = dict.fromkeys(advised_answer.Answer.__dataclass_fields__)
    table = pd.DataFrame({"cost": costs, "bound": 0.05})
    assert advised_answer.Answer(**nothing | {"strategies": table}).cheaper == said


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            [480],
            "It is 0.100 [0.050, 0.150] above the best training from scratch (baseB, SGD, 480 "
            "steps, rate 0.01: 0.800).",
        ),
        (
            [30],
            "Training from scratch had time for only 30 steps, of up to 480: too few to compare "
            "(at its best, baseB, SGD, 30 steps, rate 0.01: 0.800).",
        ),
        (  # the best is not the longest
            [30, 120],
            "Training from scratch had time for only 120 steps, of up to 480: too few to compare "
            "(at its best, baseB, SGD, 30 steps, rate 0.01: 0.800).",
        ),
        (
            [30, 480],
            "It is 0.100 [0.050, 0.150] above the best training from scratch (baseB, SGD, 30 "
            "steps, rate 0.01: 0.800).",
        ),
        ([], "Nothing was trained from scratch."),
    ],
)
def test_training_from_scratch_is_compared_at_equal_steps(steps, said):
    rows = [("A3.B++", 3, 480, False), ("A3.B", 3, 1, True)]
    rows += [("baseB", 0, count, False) for count in steps]
    table = pd.DataFrame(rows, columns=["cell", "n", "steps", "probe"]).assign(
        rate=0.01, optimizer="sgd", test=0.8, behind=0.1, behind_low=0.05, behind_high=0.15
    )
    table["run"] = table.index
    nothing: dict = dict.fromkeys(advised_answer.Answer.__dataclass_fields__)
    found = advised_answer.Answer(**nothing | {"strategies": table})
    probe, scratch = found.beside
    assert probe == "It is 0.100 [0.050, 0.150] above the best linear probe (A3.B: 0.800)."
    assert scratch == said
