"""Export a finished torchvision or timm network as a weights file with the library's parameter
names, or any network as a torch.export program.

python -m experiments.export run=runs/FOLDER out=flowers.safetensors
python -m experiments.export run=runs/FOLDER out=flowers.pt2

A weights file can be used as weights=flowers.safetensors: layers copied from it are bit-identical
to layers copied from the run. A program needs only torch, and can hold a truncated network, too:

torch.export.load("flowers.pt2").module()(images)   # (B, 3, side, side) from 0 to 1 -> logits

Settings used most:
run=FOLDER               the folder of a finished run
out=FILE.safetensors     what to write; or FILE.pt2
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

from pathlib import Path

from transferability.errors import UserError
from transferability.runs.export import PROGRAM, export, export_program
from transferability.runs.load import load_run
from transferability.study.config import Config


def main(config: Config) -> None:
    out = Path(config.out or "")
    if not config.run or out.suffix not in (".safetensors", PROGRAM):
        raise UserError(
            "set run=FOLDER to the folder of a finished run, and out=FILE.safetensors or "
            "out=FILE.pt2"
        )
    run = load_run(config.run)
    (export_program if out.suffix == PROGRAM else export)(run, out)
    print(f"{out}: {run.spec.network.name}, {len(run.classes)} classes, {run.spec.run_id}")
