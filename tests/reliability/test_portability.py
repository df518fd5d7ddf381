"""What macOS and Windows lack: modules, functions and signals are taken away, and the rest works.

Neither system is at hand: that is all that is known of them.
"""

import ast
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import plain_png
from tests.miniature import ROOT, SHRUNK
from transferability.data.readers.file_tree import FileTree
from transferability.errors import UserError
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.training.execution import execution_of, ways_of
from transferability.training.loop import Execution, evaluate
from transferability.training.state import PrefixCache

PACKAGES = ("transferability", "experiments", "analysis")
SOURCES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
# Of the modules that Windows lacks, and macOS in part. One process trains, with the locks of
# files that Windows has, too; the other imports all modules, without.
WITHOUT = """
import os, select, signal, sys, warnings
from importlib import import_module
import runpy
for name in ("resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import torch, torchvision, timm, cv2, matplotlib.pyplot, scipy.stats, pandas, hydra, joblib
trains = os.fork()
failed = trains and os.waitpid(trains, 0)[1]
for name in ("posix_fadvise", "pread", "getuid", "fork", "killpg", "O_DIRECTORY"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGSTOP", "pthread_sigmask"):
    delattr(signal, name)
del select.poll
if not trains:
    del sys.argv[sys.argv.index("modules"):]
    runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
    sys.exit()
assert not failed, "training"
sys.modules["fcntl"] = None
warnings.simplefilter("ignore")  # filelock says that it has no locks
for name in sys.argv[sys.argv.index("modules") + 1:]:
    import_module(name)
assert not {"tensorboard", "mlflow", "datasets"} & set(sys.modules)
"""


@pytest.mark.slow
def test_every_module_is_imported_and_a_network_trained_without_what_windows_lacks(tmp_path):
    """And every text says how it is written: a file without an encoding would be in another one
    there.
    """
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.name != "__main__.py"
    ]
    assert len(names) > 150
    words = [*SHRUNK, "split=random-0", "cell=B3B"]
    words += [f"data_dir={tmp_path}/data", f"store={tmp_path}/runs", "modules"]
    python = [sys.executable, "-X", "warn_default_encoding", "-c", WITHOUT]
    done = subprocess.run([*python, *words, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/DONE"))) == 2
    said = [line for line in done.stderr.splitlines() if "Encoding" in line]
    ours = [line for line in said if f"{ROOT}/" in line and "site-packages" not in line]
    assert not ours


def test_nothing_of_unix_alone_is_imported_at_the_top_of_a_module():
    """And no process sends itself a signal by ``os.kill``, which on Windows ends it."""
    unix = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in tree.body:
            names = {alias.name for alias in getattr(node, "names", [])}
            assert not unix & (names | {getattr(node, "module", None)}), path
        assert "os.kill(os.getpid()" not in path.read_text(), path


def test_texts_are_written_and_read_in_utf_8():
    """``Path.read_text``, ``write_text`` and ``open`` have the system's encoding otherwise."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("read_text", "write_text"):
                own = {k.arg for k in node.keywords}
                assert "encoding" in own, f"{path}:{node.lineno}"


def test_a_tar_is_read_without_pread(tmp_path, monkeypatch):
    expected = {f"ant/{i}.png": plain_png(i) for i in range(5)}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in expected.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    monkeypatch.delattr(os, "pread")
    tree = FileTree(str(tmp_path / "a.tar"))
    assert {name: tree.read(name) for name in tree.names} == expected


def test_names_in_a_folder_are_those_in_an_archive(tmp_path, monkeypatch):
    """Where folders are separated by a backslash: here it is a character of a name."""
    (tmp_path / r"ant\0.png").write_bytes(plain_png())
    assert FileTree(str(tmp_path)).names == [r"ant\0.png"]
    monkeypatch.delattr(os, "O_NONBLOCK")
    assert FileTree(str(tmp_path)).read(r"ant\0.png") == plain_png()
    monkeypatch.setattr(os, "sep", "\\")
    assert FileTree(str(tmp_path)).names == ["ant/0.png"]


class NoFloat64(TorchDispatchMode):
    """As on MPS."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, (list, tuple)) else [out]:
            assert getattr(value, "dtype", None) != torch.float64, function
        return out


def test_training_needs_no_float64_where_sums_have_none(spec_of, dataset, tmp_path):
    cpu = Execution(torch.device("cpu"))
    (cohort,) = make_cohorts([spec_of("baseB")], Store(tmp_path), dataset, cpu)
    (state,) = cohort.states
    state.loss_sum = state.loss_sum.float()  # as it is on MPS
    batches = [cohort.stream.batch(step) for step in range(4)]

    def in_turn(function, calls):
        for call in calls:
            function(*call)

    with NoFloat64():
        for batch in batches:
            state.train_step(batch, PrefixCache(batch))
        evaluate([state], cohort.stream, in_turn)
    assert state.metrics[0]["step"] == 4 and 0 < state.metrics[0]["val_loss"] < 10


def test_mps_has_plain_operations(config):
    mps = torch.device("mps")
    assert ways_of(config, mps) == (False, False)
    for key in ("graphs", "stacked"):
        with pytest.raises(UserError, match=f"{key}=true is not possible on device=mps"):
            ways_of(replace(config, **{key: True}), mps)
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match="device=mps is not available") as error:
            execution_of(replace(config, device="mps"))
        assert "\n" not in str(error.value)
