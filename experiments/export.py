"""Write a finished network of torchvision or timm as a file of weights, under its library's names.

python -m experiments.export run=runs/FOLDER out=flowers.safetensors

The file can be given to others as weights=flowers.safetensors: layers that are copied from it are,
bit for bit, those that were copied from the run.

Settings used most:
run=FOLDER               the folder of a finished run
out=FILE.safetensors     what to write
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does without
    raise SystemExit(run_module(__spec__.name))

from pathlib import Path

from transferability.errors import UserError
from transferability.runs.export import export
from transferability.runs.load import load_run
from transferability.study.config import Config


def main(config: Config) -> None:
    if not config.run or not config.out or not config.out.endswith(".safetensors"):
        raise UserError("say run=FOLDER, of a finished run, and out=FILE.safetensors")
    run = load_run(config.run)
    export(run, Path(config.out))
    model = run.spec.network.model  # type: ignore[attr-defined]  # export() takes only those
    print(f"{config.out}: {model}, {len(run.classes)} classes, {run.spec.run_id}")
