"""A GPU has one training process.

The claims are those of real processes; the keys stand for GPUs.
"""

import multiprocessing
import os
import signal
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import joblib
import pytest
import torch

from tests import crash
from tests.miniature import CPU, shrunk
from transferability.errors import UserError
from transferability.networks import TorchvisionConfig
from transferability.training.devices import claim, training_device, visible_gpus
from transferability.training.execution import ways_of

KEYS = ["GPU-a", "GPU-b", "GPU-c"]


def own(folder: Path, keys: list[str], pipe) -> None:
    """A process that claims a device, says which, and holds it until it is told to stop."""
    try:
        with claim(keys, folder) as place:
            pipe.send(place)
            pipe.recv()
    except UserError as error:
        pipe.send(str(error))


def work(folder: Path, pipe) -> None:
    """A process of three jobs, each on a device that nobody else uses meanwhile."""
    try:
        for _ in range(3):
            with claim(KEYS[:2], folder) as place:
                marker = folder / f"in-use-{place}"
                marker.touch(exist_ok=False)
                joblib.hash(bytes(3_000_000))
                marker.unlink()
        pipe.send("done")
    except (UserError, OSError) as error:
        pipe.send(str(error))


@pytest.fixture
def owner(tmp_path):
    """owner(keys): a process that wants one of them,
    and the end of the pipe on which it says which it got.
    """
    started = []

    def start(keys=KEYS):
        here, there = multiprocessing.Pipe()
        process = crash.forked(own, tmp_path, keys, there)
        started.append((process, here))
        return process, here

    yield start
    for process, _ in started:
        process.kill()
        process.join()


def claimed(keys, folder) -> int:
    with claim(keys, folder) as place:
        return place


@pytest.mark.slow
def test_processes_share_no_device_and_one_too_many_is_told_so(owner):
    processes = [owner() for _ in KEYS]
    assert sorted(pipe.recv() for _, pipe in processes) == [0, 1, 2]
    _, pipe = owner()
    said = pipe.recv()
    assert (
        said.startswith("each GPU here (3) already has a training process of yours")
        and "device=cuda:0" in said
    )
    processes[1][1].send("stop")
    processes[1][0].join()
    assert owner()[1].recv() in (0, 1, 2)


@pytest.mark.slow
def test_processes_that_start_at_once_share_no_device(owner):
    """More of them than devices: each device has one owner, and the rest are refused."""
    said = [pipe.recv() for _, pipe in [owner() for _ in range(7)]]
    assert sorted(place for place in said if isinstance(place, int)) == [0, 1, 2]
    assert sum("has a training process" in str(line) for line in said) == 4


def test_a_device_is_free_when_its_owner_is_killed(owner, tmp_path):
    processes = {pipe.recv(): process for process, pipe in [owner() for _ in KEYS]}
    os.kill(processes[1].pid, signal.SIGKILL)
    processes[1].join()
    assert claimed(KEYS, tmp_path) == 1


def test_the_same_device_under_another_number_is_recognised(owner, tmp_path):
    """Slurm shows a job its own GPUs only, numbered from 0."""
    assert owner(["GPU-b"])[1].recv() == 0
    assert claimed(["GPU-b", "GPU-a"], tmp_path) == 1
    with pytest.raises(UserError, match=r"each GPU here \(1\)"):
        claimed(["GPU-b"], tmp_path)


def test_a_claim_ends_with_its_block_also_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(BlockingIOError), claim(KEYS, tmp_path) as place:
            assert place == 0 and claimed(KEYS, tmp_path) == 1
            raise BlockingIOError("an error of the training, that of a lock or any other")
    assert claimed(KEYS, tmp_path) == 0


def test_a_worker_that_runs_many_jobs_claims_for_each(tmp_path):
    """Two processes, three jobs each, two devices: never refused: no two at once on one."""
    pipes = [multiprocessing.Pipe() for _ in range(2)]
    workers = [crash.forked(work, tmp_path, there) for _, there in pipes]
    assert [here.recv() for here, _ in pipes] == ["done", "done"]
    for worker in workers:
        worker.join()


def test_lock_files_are_the_owners_only_and_no_way_to_other_files(tmp_path):
    claimed(KEYS, tmp_path)
    path = tmp_path / f"transferability-{os.getuid()}-GPU-a.lock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(UserError, match="cannot be opened to claim a GPU"):
        claimed(KEYS, tmp_path)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["cpu", "cuda:1"])
def test_a_device_that_was_named_is_not_claimed(name):
    """``torch`` without CUDA could not even list GPUs; naming one is how to share it."""
    with (
        training_device(torch.device(name)) as first,
        training_device(torch.device(name)) as second,
    ):
        assert first == second == torch.device(name)


def test_slices_of_a_gpu_are_devices_of_their_own(monkeypatch):
    """Also where the driver gives both the UUID of the whole."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid="GPU-a")
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["GPU-a"]
    slices = []
    for told in ("MIG-GPU-a/1/0", "MIG-GPU-a/2/0", "MIG-5f1c,MIG-77aa"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        slices += visible_gpus()
    assert slices == ["MIG-GPU-a-1-0", "MIG-GPU-a-2-0", "MIG-5f1c"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_any_gpu_becomes_one_with_a_number():
    with training_device(torch.device("cuda")) as device:
        assert device.type == "cuda" and device.index is not None
        assert torch.ones(2, device=device).sum().item() == 2


def test_training_on_the_cpu_leaves_no_claims(spec_of, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trained([spec_of("baseB")], CPU)
    assert not list(tmp_path.glob("transferability-*"))


def test_networks_of_a_library_are_captured_but_not_stacked(tmp_path):
    """Stacking is for networks whose every operation vmap knows; neither is for a CPU."""
    ours = shrunk(tmp_path)
    alexnet = TorchvisionConfig(name="alexnet", kind="torchvision", model="alexnet", input_size=63)
    theirs = replace(ours, network=alexnet)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert ways_of(ours, cuda) == (True, True) and ways_of(theirs, cuda) == (False, True)
    assert ways_of(ours, cpu) == ways_of(theirs, cpu) == (False, False)
    assert ways_of(replace(theirs, graphs=False), cuda) == (False, False)
    with pytest.raises(
        UserError, match="stacked=true is not possible with networks of the kind torchvision"
    ):
        ways_of(replace(theirs, stacked=True), cuda)
