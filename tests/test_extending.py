"""The examples of docs/extending.md, added to a copy of the project, work."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.miniature import ROOT

EXAMPLES = re.findall(
    r"^```(?:python|yaml)\n# ([^\s,]+)(?:, below \"([^\"\n]+)\"|, (at the end))?\n(.*?)^```$",
    (ROOT / "docs" / "extending.md").read_text(),
    re.M | re.S,
)
# every kind of addition has its example, and the commands that use them
KINDS = [
    "networks",
    "data/readers",
    "study",
    "experiment",
    "figures",
    "questions",
    "claims",
    "optim",
    "tracker",
]
COMMANDS = [
    "experiments.pack experiment=arrays dataset.source=arrays.npz",
    "experiments.run experiment=arrays dataset.source=arrays.npz recipe.nesterov=true "
    "tracker=[terminal,csv]",
    "analysis.collect experiment=arrays dataset.source=arrays.npz recipe.nesterov=true out=tables",
    "analysis.figures --only seconds --format svg tables",  # the report has all
    "analysis.questions --format svg tables",
    "analysis.report tables",
]
DRIVER = """
import runpy, sys
for line in sys.stdin.read().splitlines():
    sys.argv = line.split()
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
"""


def add(tree, file, below, at_the_end, text):
    path = tree / file
    if not below and not at_the_end:
        assert not path.exists(), f"{file} is there already"
        path.write_text(text)
    elif at_the_end:
        path.write_text(f"{path.read_text()}\n\n{text}")
    else:
        lines = path.read_text().splitlines(keepends=True)
        (at,) = [i for i, line in enumerate(lines) if line.strip().startswith(below.strip())]
        lines.insert(at + 1, text)
        path.write_text("".join(lines))


@pytest.mark.slow
def test_every_example_works(tmp_path):
    assert all(any(kind in example[0] for example in EXAMPLES) for kind in KINDS)
    assert max(len(text.splitlines()) for *_, text in EXAMPLES) <= 14
    for folder in ("transferability", "experiments", "analysis", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for example in EXAMPLES:
        add(tmp_path, *example)
    questions = tmp_path / "analysis/questions/__init__.py"
    questions.write_text(questions.read_text().replace("QUESTIONS = (", 'QUESTIONS = ("slowest", '))
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "arrays.npz",
        images=rng.integers(0, 256, (80, 16, 16, 3), np.uint8),
        labels=np.arange(80) % 4,
        names=np.array(list("abcd")),
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRIVER],
        input="\n".join(COMMANDS),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-600:]
    assert done.stdout.count("tracked: A1B~1 ") == 3  # two evaluations, and the end
    results = pd.read_csv(tmp_path / "tables" / "results.csv")
    cells = {"baseA", "baseB", "B1B", "B2B", "A1B", "A2B", "A1B~1", "A2B~1"}
    assert set(results.cell) == cells and set(results.network) == {"perceptron"}
    assert (tmp_path / "tables" / "seconds.svg").exists()
    claims = pd.read_csv(tmp_path / "tables" / "claims.csv")
    assert claims.statement[0].startswith("Fine-tuned transfer is above the base at layer")
