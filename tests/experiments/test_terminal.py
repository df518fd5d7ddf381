"""What surrounds every command: readers that go, folders that cannot be made, an installation."""

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import numpy as np
import pytest
from PIL import Image

import experiments.pack
from analysis import paper, report
from analysis.command import command
from analysis.figures import __main__ as figures
from analysis.questions import __main__ as questions
from tests.miniature import ROOT, SHRUNK

# a command, whether nothing it prints is held back, whether nobody reads its errors either,
# and its exit status
GONE = {
    "paper": ("analysis.paper {0}", "", False, 0),
    "status": ("experiments.status data_dir={0} store={0}", "1", False, 0),
    # nothing is packed
    "verify": ("experiments.verify data_dir={0} store={0} dataset=cifar10", "1", True, 1),
    "figures": ("analysis.figures {0}", "1", True, 2),
}


@pytest.mark.parametrize(("command", "unbuffered", "both", "status"), GONE.values(), ids=GONE)
def test_printing_to_a_reader_that_has_gone_is_no_error(
    command, unbuffered, both, status, tmp_path, monkeypatch
):
    """The command in this process, printing to pipes whose other ends are closed."""

    @contextmanager
    def stream(gone: bool) -> Iterator[TextIO]:
        read, write = os.pipe()
        (os.close if gone else ours.append)(read)
        with open(write, "wb", buffering=0 if unbuffered else -1) as raw:
            yield io.TextIOWrapper(raw, write_through=bool(unbuffered))

    ours, ended = [], 0
    module, *words = command.format(tmp_path).split()
    with stream(True) as out, stream(both) as errors, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", errors)
        patch.setattr(sys, "argv", [module, *words])
        for name in (module, f"{module}.__main__"):
            patch.delitem(sys.modules, name, raising=False)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            ended = end.code
    assert (ended or 0) == status
    for read in ours:
        with open(read) as file:
            assert not file.read()
    assert (tmp_path / "about.json").exists() == command.startswith("analysis.paper")


# The end of a process is when what it held back is printed.
@pytest.mark.parametrize(
    ("command", "unbuffered", "both", "status"),
    [
        pytest.param(*GONE[name], marks=[] if name == "status" else pytest.mark.slow)
        for name in GONE
    ],
    ids=GONE,
)
def test_a_reader_that_has_gone_is_no_error(command, unbuffered, both, status, tmp_path):
    """COMMAND | true, and COMMAND 2>&1 | true."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", *command.format(tmp_path).split()],
        cwd=ROOT,
        text=True,
        stdout=write,
        stderr=write if both else subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    assert done.returncode == status and not done.stderr, done.stderr
    assert (tmp_path / "about.json").exists() == command.startswith("analysis.paper")


@pytest.mark.parametrize("module", [figures, paper, questions, report])
def test_a_folder_that_cannot_be_made_is_one_line(module, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        monkeypatch.setattr(sys, "argv", ["command", str(folder)])
        with pytest.raises(SystemExit) as ended:
            command(module.__name__, "", draws=module in (figures, questions))
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and line.startswith("error: ") and str(folder) in line
    assert (tmp_path / "file").read_text() == "" and len(list(tmp_path.iterdir())) == 1


# Over 5 s of CPU: a locale is that of a process, and one that is not UTF-8 starts another.
@pytest.mark.slow
def test_the_locale_changes_nothing(cli, tmp_path):
    """Names of classes, settings and what is printed are UTF-8 under a locale that has
    no such letters.
    """
    draw = np.random.default_rng(0)
    for name in ("café", "猫", "bee"):
        (tmp_path / "naïve" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(
                tmp_path / "naïve" / name / f"{i}.png"
            )
    words = [
        "dataset=folder",
        "dataset.name=größe",
        f"dataset.source={tmp_path}/naïve",
        f"data_dir={tmp_path}/data",
        "dataset.image_size=16",
    ]
    assert sys.getfilesystemencoding() == "utf-8"
    status, here, _ = cli(experiments.pack.main, *words, f"dataset.folder={tmp_path}/one")
    assert status == 0
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ask = [sys.executable, "-m", "experiments.pack", *words, f"dataset.folder={tmp_path}/two"]
    done = subprocess.run(ask, cwd=ROOT, capture_output=True, env={**os.environ, **plain})
    assert done.returncode == 0, done.stderr
    there = done.stdout.decode()
    one, two = (
        json.loads((tmp_path / data / "dataset.json").read_bytes()) for data in ("one", "two")
    )
    assert one == two and [c["name"] for c in one["classes"]] == ["bee", "café", "猫"]
    assert here.replace("one", "") == there.replace("two", "")


@pytest.mark.slow
def test_a_wheel_is_the_whole_of_it(tmp_path):
    """The study is trained and reported in a folder elsewhere, by the console scripts; every file
    of the configuration is there.
    """
    pytest.importorskip("setuptools", minversion="77")
    files = ("pyproject.toml", "README.md", "transferability", "experiments", "analysis", "conf")
    for name in files:
        (tmp_path / "tree").mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(
            ROOT / name, tmp_path / "tree" / name
        )
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, tmp_path],
        cwd=tmp_path / "tree",
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    words = [*SHRUNK, "study.layers=[1,4]", "split=random-0"]

    calls = [
        ["status", "study=paper"],
        ["run", *words],
        ["collect", *words, "out=figures"],
        ["figures", "figures", "--only", "accuracy"],  # the report has all
        ["report", "figures"],
        ["status", *words],
    ]
    run = (  # in one process, which imports torch once
        "import json, sys\nfrom experiments import scripts\n"
        "for name, *sys.argv[1:] in json.loads(sys.stdin.read()):\n"
        "    try:\n        status = getattr(scripts, name)()\n"
        "    except SystemExit as ended:\n        status = ended.code\n"
        "    assert not status, name\n    print('---')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", run],
        cwd=tmp_path,  # no checkout
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        input=json.dumps(calls),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    none, trained, collected, drawn, report, status, _ = done.stdout.split("---\n")
    assert none == "runs holds no runs yet\n"
    assert "procedural-random-0-baseA-s0-" in trained and "0 missing" in collected
    assert drawn.split() == [f"figures/accuracy.{kind}" for kind in ("pdf", "svg", "png")]
    assert report.endswith("figures/report.html\n")
    assert (tmp_path / "figures/report.html").stat().st_size > 100_000
    assert "all" in status
    assert {p.name for p in ROOT.glob("conf/**/*.yaml")} == {
        p.name for p in tmp_path.glob("site/**/*.yaml")
    } - {p.name for p in ROOT.glob("transferability/reference/*.yaml")}
