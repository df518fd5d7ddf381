"""What comes from a store, a dataset or a configuration is data: it is never executed."""

import csv
import pickle
import re

import pandas as pd
import pytest
import torch

import experiments.run
from analysis.csv_files import read_csv, write_csv
from tests.miniature import CPU, ROOT, SHRUNK
from transferability.errors import UserError
from transferability.runs.runner import train_missing
from transferability.runs.store import Store


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_the_program_can_load_a_pickle_or_run_a_text():
    forbidden = re.compile(
        # what weights.py does: torch.load of tensors alone
        r'torch\.load\b(?!\(path, map_location="cpu", weights_only=True\))'
        r"|\bpickle\b(?! import UnpicklingError)|allow_pickle=True|\beval\(|\bexec\("
        r"|yaml\.(?:load|unsafe_load|full_load)\("
        r"|instantiate\(|shell=True|os\.system"
        # a module of ours by a name of a list of ours, never one that a file or a setting says
        r"|import_module\((?!name\)\.main|f\"(?:transferability\.data\.readers\.\{READERS\["
        r"|analysis\.(?:figures|questions)\.\{name\}))"
    )
    paths = [
        p
        for folder in ("transferability", "experiments", "analysis")
        for p in (ROOT / folder).rglob("*.py")
    ]
    assert len(paths) > 25
    hits = [
        (p.name, m[0])
        for p in paths
        for m in forbidden.finditer(p.read_text())
        if not _is_method(p, m)
    ]
    assert not hits


def _is_method(path, match) -> bool:
    """``network.eval()`` is torch's switch to evaluation, not Python's eval."""
    return match[0] == "eval(" and path.read_text()[match.start() - 1] == "."


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.safetensors"])
def test_a_pickle_in_the_store_is_refused(tmp_path, spec_of, dataset, name, caplog):
    store, base, transfer = Store(tmp_path / "runs"), spec_of("baseA"), spec_of("A2B")
    train_missing([base], store, dataset, CPU)
    trap = tmp_path / "sprung"
    folder = store.folder(base)
    if name.startswith("checkpoint"):
        (folder / "DONE").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(trap)))
    if name.startswith("weights"):
        with pytest.raises(
            UserError, match=r"weights\.safetensors has \d+ of \d+ bytes: delete .*DONE"
        ):
            train_missing([transfer], store, dataset, CPU)
    else:
        train_missing([transfer], store, dataset, CPU)
        assert "checkpoint.safetensors is damaged" in caplog.text
    assert not trap.exists()
    torch.save(Trap(trap), folder / name)  # torch's own format is a pickle in a zip file
    assert store.verify()[1]
    assert not trap.exists()


@pytest.mark.parametrize(
    "key", ["+_target_=os.system", "+dataset._target_=os.system", "+network._target_=os.abort"]
)
def test_a_configuration_cannot_name_code(tmp_path, cli, key):
    where = [f"data_dir={tmp_path}/data", f"store={tmp_path}/runs"]
    status, _, errors = cli(experiments.run.main, *SHRUNK, *where, key)
    assert status == 2 and "_target_" in errors and len(errors.strip().splitlines()) == 1


def test_names_cannot_become_formulas_of_a_spreadsheet(tmp_path):
    names = ["=HYPERLINK(1)", "+1", "-1+2", "@SUM(A1)", "\tx", "plain", "NA", "it's", "'quoted"]
    path = tmp_path / "names.csv"
    write_csv(path, pd.DataFrame({"split": names, "top1": [-0.5] * len(names)}))
    with open(path, newline="") as file:
        written = [row["split"] for row in csv.DictReader(file)]
    assert not [text for text in written if text[0] in "=+-@\t\r"]
    assert read_csv(path).split.tolist() == names and (read_csv(path).top1 == -0.5).all(), (
        "numbers stay numbers"
    )
