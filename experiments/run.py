"""Train the networks of a study. Finished networks are skipped, interrupted ones resume.

python -m experiments.run                              the whole study on the synthetic images
python -m experiments.run mode=plan                    what would be trained, and how long it takes
python -m experiments.run experiment=tiny_imagenet     a preset of all settings
python -m experiments.run split=random-0 cell=A3B+     one network, and the base it starts from

Settings used most:
experiment=NAME      a preset of all settings (conf/experiment/), with its cost and accuracy
study=NAME           which networks: figures, paper, or a small study (conf/study/)
split= target= seed= cell=    a part of the study, such as split=random-0 target=B
recipe.steps=N       training steps; recipe.lr=RATE, recipe.batch_size=N
weights=FILE         pretrained base A (with split=pretrained)
store=FOLDER         where networks are kept (runs/)
device=cuda:1        where networks train; threads=N on a CPU
tracker=NAME         where curves go during training: csv, tensorboard, mlflow, wandb
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import logging
from pathlib import Path
from typing import Any

from experiments.cli import JOB
from experiments.plan import UnpackedImagenet, print_plan, print_tasks
from transferability.data.mirrors import warn_of_mirrored
from transferability.data.packed import PackedDataset, dataset_of
from transferability.runs.store import Store
from transferability.study.config import Config
from transferability.study.expand import study_specs
from transferability.study.jobs import check_volumes, job_specs
from transferability.study.spec import RunSpec, pretrained_base_of

log = logging.getLogger(__name__)
SHOWN = 8  # results named at the end


def main(config: Config) -> None:
    if config.job is not None:
        log.info("%s %d", JOB, config.job)
    planned = (
        config.mode == "plan"
        and config.dataset.kind == "imagenet"
        and not Path(config.dataset.folder).exists()
    )
    dataset: Any = (  # as much of one as a plan needs
        UnpackedImagenet(config.dataset.name, config.dataset.image_size)
        if planned
        else dataset_of(config.dataset)
    )
    study = study_specs(config, dataset)
    specs = job_specs(study, config.job)
    store = Store(config.store)
    if others := store.runs_of_other_packs(specs[0].dataset):
        log.warning(
            "%s holds %d runs of %s packed from other images: "
            "they stay as they are, and are not part of this study",
            store.root,
            others,
            dataset.name,
        )
    if config.all_images:
        log.warning(
            "all_images=true: the networks see validation and test images in training, so their "
            "accuracy on them says nothing about new images"
        )
    if any(spec.recipe.mirror for spec in specs):
        how = ", and training images are mirrored: set recipe.mirror=false"
        warn_of_mirrored([c.name for c in dataset.classes], how)
    if pretrained := pretrained_base_of(study):
        for line in pretrained.lines():
            log.info("%s", line)
    if config.mode == "plan":
        plan(config, specs, study, store, dataset)
    else:
        train(config, specs, store, dataset)


def plan(
    config: Config,
    specs: list[RunSpec],
    study: list[RunSpec],
    store: Store,
    dataset: PackedDataset | UnpackedImagenet,
) -> None:
    """Print what is left to train; torch is imported only if anything is."""
    if isinstance(dataset, PackedDataset):
        check_volumes(specs, dataset)
    left = print_plan(specs, study, store)
    print_tasks(specs, dataset)
    if not left:
        return
    from experiments.cost import Cost, print_cost
    from transferability.training.execution import execution_of

    print_cost(left, Cost(store, dataset, execution_of(config)))


def train(config: Config, specs: list[RunSpec], store: Store, dataset: PackedDataset) -> None:
    """Train ``specs``, and print the accuracies of the first SHOWN."""
    from transferability.runs.runner import train_missing
    from transferability.runs.trackers import Trackers
    from transferability.training.execution import execution_of

    execution, trackers = execution_of(config), Trackers(config.tracker)
    train_missing(specs, store, dataset, execution, config.sources, trackers)
    for spec in specs[:SHOWN]:
        print(
            f"{spec.split} {spec.cell}: top-1 {store.metrics(spec)[-1]['val_top1']:.4f}  "
            f"{store.folder(spec)}"
        )
    if len(specs) > SHOWN:
        print(
            f"... {len(specs)} networks in all; `python -m analysis.collect` with these settings "
            "makes a table of them"
        )
