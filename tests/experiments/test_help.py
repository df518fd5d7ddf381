"""``--help`` of every command: what it does, examples that compose, the settings used most."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments import scripts
from experiments.cli import CONF, MORE, help_of
from experiments.overrides import as_typed
from tests.helpers import overrides
from tests.miniature import ROOT, SHRUNK
from transferability.study.config import load

COMMANDS = {  # each with its text
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"): text
    for folder in ("experiments", "analysis")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if 'if __name__ == "__main__":' in (text := path.read_text())
}
OURS = [name for name, text in COMMANDS.items() if "run_module(__spec__.name" in text]
# modules that take long to import, which no answer about the words of a command waits for
HEAVY = {
    *("torch", "torchvision", "timm", "numpy", "pandas", "scipy", "matplotlib", "cv2", "PIL"),
    *("jinja2", "safetensors", "joblib"),
}
# runs commands, one after the other, and says which of these modules each imports
WATCH = """
import contextlib, io, json, runpy, sys
found = {}
for name, *words in json.loads(sys.argv[1]):
    before, sys.argv = set(sys.modules), [name, *words]
    said = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code
    text = said.buffer.getvalue().decode()
    found[name] = [status, text, sorted(set(sys.modules) - before)]
print(json.dumps(found))
"""


def heavy(*commands: list[str]) -> dict[str, tuple[int, str, set[str]]]:
    """By command the exit status, what it wrote, and the heavy modules that it imported before any
    other had.
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(commands)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        name: (status, text, HEAVY.intersection(modules))
        for name, (status, text, modules) in json.loads(done.stdout).items()
    }


def test_the_commands_are_found():
    assert len(OURS) == 16 and len(COMMANDS) == 23


def test_help_waits_for_no_heavy_import():
    found = heavy(*([name, "--help"] for name in COMMANDS))
    assert found.keys() == COMMANDS.keys()
    for name, (status, text, modules) in found.items():
        assert not status and text.startswith(f"usage: python -m {name} ") and not modules, name


def test_nor_does_a_misspelt_word():
    # of Hydra's commands two, which compose as all others
    names = ["experiments.run", "analysis.collect", *(n for n in COMMANDS if n not in OURS)]
    found = heavy(*([n, "recipe.stepz=3" if n in OURS else "--fodler"] for n in names))
    for name, (status, text, modules) in found.items():
        ours = "recipe.stepz is an unknown setting"
        wrong = ours if name in OURS else "the following arguments are"
        assert status == 2 and wrong in text and not modules, (name, modules)


def test_status_and_a_plan_of_what_is_finished_import_what_they_use(trained, spec_of, config):
    store = trained([spec_of("baseB")])
    words = [*SHRUNK, f"store={store.root}", f"data_dir={Path(config.dataset.folder).parent}"]
    plan = ["experiments.run", *words, "mode=plan", "split=random-0", "cell=baseB"]
    (status, said, modules), (planned, plan_said, more) = heavy(
        ["experiments.status", *words], plan
    ).values()
    assert not status and not planned and "1     1         -" in said, said
    assert "every network is finished" in plan_said
    assert modules | more == {"numpy", "safetensors", "joblib"}


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


def test_every_console_script_is_a_command(monkeypatch, capsys):
    """Those of pyproject.toml, under the names that an installation gives them."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        named = tomllib.load(file)["project"]["scripts"]
    assert named == {f"transferability-{n}": f"experiments.scripts:{n}" for n in scripts.MODULES}
    monkeypatch.setattr(sys, "argv", ["transferability-run", "--help"])
    with pytest.raises(SystemExit) as ended:
        scripts.run()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("usage: python -m experiments.run ")
