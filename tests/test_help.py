"""``--help`` of every command: what it does, examples that compose, the settings used most."""

import subprocess
import sys
from importlib import import_module

import pytest
from hydra import compose, initialize_config_dir

from experiments.cli import CONF, MORE, help_of
from experiments.overrides import as_typed
from tests.conftest import ROOT
from tests.helpers import overrides
from transferability.config import load

OURS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("experiments", "experiments/benchmarks", "analysis")
    for path in (ROOT / folder).glob("*.py")
    if "from experiments.cli import" in (text := path.read_text()) and "__main__" in text
)


def test_the_commands_are_found():
    assert len(OURS) == 15


@pytest.mark.parametrize("name", OURS)
def test_a_person_can_read_it(name):
    lines = help_of(import_module(name)).splitlines()
    assert lines[0] == f"usage: python -m {name} [SETTING=VALUE ...]"
    assert len(lines) <= 36 and max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "Settings used most" in text and text.endswith(MORE)
    settings = text.partition("Settings used most")[2].partition("\n\n")[0].splitlines()[1:]
    assert 2 <= len(settings) <= 8
    examples = text.replace(" \\\n", "").splitlines()
    commands = [line for line in examples if line.startswith(("python -m", "make"))]
    assert commands
    for command in commands:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            load(compose("config", as_typed(overrides(command.partition("  ")[0]))))


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_it_is_printed_and_nothing_is_done(flag, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "recipe.steps=1", flag, f"store={tmp_path}/runs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("usage: python -m experiments.run") and not done.stderr
    assert not (tmp_path / "runs").exists()
