"""What the documents say can be followed: every link has a target,
every command's settings are ones that exist.
"""

import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pytest
from hydra import compose, initialize_config_dir

from experiments.cli import CONF
from experiments.overrides import as_typed
from tests.helpers import overrides
from transferability.study.config import load

ROOT = CONF.parent
TOUR = ROOT / "docs/tour.ipynb"
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md"), TOUR]
)


def text_of(document: Path) -> str:
    """A page, or what is written between the cells of a notebook."""
    if document.suffix != ".ipynb":
        return document.read_text()
    cells = nbformat.read(document, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    links = [
        link
        for link in re.findall(r"\]\(([^)]+)\)", text_of(document))
        if not link.startswith("http")
    ]
    found = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def commands(document: Path) -> list[str]:
    """Each ``python -m experiments.X`` or ``make`` command of a page,
    with its shell variables replaced.
    """
    text = text_of(document)
    variables = dict(re.findall(r'^(\w+)="(.*)"', text, re.MULTILINE))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    # may wrap over lines
    inline = [" ".join(command.split()) for command in re.findall(r"`([^`]+)`", prose)]
    found = [
        line
        for line in [*text.splitlines(), *inline]
        if re.match(r"python -m experiments\.|make ", line)
    ]
    return [re.sub(r"\$(\w+)", lambda use: variables[use[1]], command) for command in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_have_targets(document):
    assert broken(document) == []


def test_a_link_to_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, so: `x`\n[a](#a-heading-so-x) [b](#b) [c](gone.png) "
        "[d](https://example.org) [e](page.md#gone)"
    )
    assert broken(page) == ["#b", "gone.png", "page.md#gone"]


def test_the_notebook_is_stored_as_written_not_as_run():
    """Its changes can be read. ``jupyter nbconvert --clear-output --inplace`` clears it."""
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"


def test_pages_of_results_show_every_committed_figure_and_no_other_is_committed():
    """The others, and the reports, are rebuilt: ``make results``."""
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    shown = []
    for page in ROOT.glob("results/**/README.md"):
        figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
        assert figures, f"{page} shows none"
        if page.parent.name != "results":  # whose figure is that of a study
            shown += [str((page.parent / figure).resolve().relative_to(ROOT)) for figure in figures]
    made = {".png", ".svg", ".pdf", ".html"}
    committed = {path for path in listed.stdout.splitlines() if Path(path).suffix in made}
    assert sorted(shown) == sorted(committed)


@pytest.mark.parametrize(
    "page", [*ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/README.md")], ids=str
)
def test_the_head_of_each_page_links_the_glossary(page):
    head = page.read_text().splitlines()[:4]
    assert page.name == "glossary.md" or any("glossary.md)" in line for line in head)


SNIPPETS = [
    pytest.param(code, id=f"{page.parent.relative_to(ROOT)} {i}")
    for page in sorted(ROOT.glob("results/**/README.md"))
    for i, code in enumerate(
        re.findall(r"^python - <<'?END'?\n(.*?)^END$", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_the_programs_on_pages_of_results_run(code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "page", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_a_command_that_wraps_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '```\nT="seed=1"\nmake demo OVERRIDES="$T"\n```\nThen `make '
        'figures\nOVERRIDES="seed=2"` draws.'
    )
    assert [overrides(command) for command in commands(page)] == [["seed=1"], ["seed=2"]]


COMMANDS = {command for document in DOCUMENTS for command in commands(document)}
# what the commands give, each with one that gives it
SETTINGS = {
    tuple(as_typed(given)): command for command in sorted(COMMANDS) if (given := overrides(command))
}
CHOICES = ("experiment", "dataset", "network", "recipe", "study")


def by_need(settings: Iterable[tuple[str, ...]]) -> list:
    """The longest first; slow are those with no setting, nor choice of a file, that is new."""
    seen, made = set(), []
    for given in sorted(settings, key=len, reverse=True):
        keys = {word.partition("=")[0]: word for word in given}
        new = {word if key in CHOICES else key for key, word in keys.items()} - seen
        seen |= new
        made.append(pytest.param(given, id=SETTINGS[given], marks=[] if new else pytest.mark.slow))
    return made


def test_commands_are_found():
    assert len(SETTINGS) > 30


@pytest.mark.parametrize("given", by_need(SETTINGS))
def test_commands_settings_exist(given):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = load(compose("config", [*given]))
    assert not (config.cell and config.study.parts), "of these only cells that it lists are trained"


@pytest.mark.parametrize("target", ["report", "figures", "question", "watch"])
def test_a_folder_with_a_space_is_one_folder_to_make(target):
    ask = ["make", "--dry-run", "--no-print-directory", target, "OUT=my figures (1)"]
    lines = subprocess.run(
        ask, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    words = [
        word for line in lines if " analysis." in line for word in shlex.split(line) if "my" in word
    ]
    assert words[0] == "out='my figures (1)'"
    assert words[1:] == ["my figures (1)"] * (target != "watch")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert load(compose("config", words[:1])).out == "my figures (1)"
