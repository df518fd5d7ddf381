"""Train the networks of a study: what is finished is skipped, what is half done goes on.

python -m experiments.run                              the whole study on the embedded images
python -m experiments.run mode=plan                    what would be trained, and how long it takes
python -m experiments.run experiment=tiny_imagenet     dataset, network, recipe and study in a word
python -m experiments.run split=random-0 cell=A3B+     one network, and the base it starts from

Settings used most:
experiment=NAME      what belongs together (conf/experiment/), each with its cost and accuracy
study=NAME           which networks: figures, paper, or a small study (conf/study/)
split= target= seed= cell=    a part of the study, such as split=random-0 target=B
recipe.steps=N       training steps; recipe.lr=RATE, recipe.batch_size=N
weights=FILE         base A was trained elsewhere (with split=pretrained)
store=FOLDER         where networks are kept (runs/)
device=cuda:1        where they train; threads=N on a CPU
"""

import logging
from pathlib import Path

from experiments.budget import print_budget
from experiments.cli import command, dataset_of
from experiments.plan import Cost, UnpackedImagenet, print_plan
from transferability.config import Config
from transferability.errors import and_more, shown
from transferability.execution import execution_of
from transferability.jobs import job_specs
from transferability.mirrors import mirrored
from transferability.runner import ensure
from transferability.spec import given_of
from transferability.store import Store
from transferability.study import study_specs

log = logging.getLogger(__name__)
SHOWN = 8  # results named at the end


def main(config: Config) -> None:
    planned = (
        config.mode == "plan"
        and config.dataset.kind == "imagenet"
        and not Path(config.dataset.folder).exists()
    )
    dataset = (
        UnpackedImagenet(config.dataset.name, config.dataset.image_size)
        if planned
        else dataset_of(config)
    )
    study = study_specs(config, dataset)
    specs = job_specs(study, config.job)
    store, execution = Store(config.store), execution_of(config)
    if others := store.packed_otherwise(specs[0].dataset):
        log.warning(
            "%s holds %d runs of %s packed from other images: "
            "they stay as they are, and are no part of this study",
            store.root,
            others,
            dataset.name,
        )
    if config.all_images:
        log.warning(
            "all_images=true: the networks see validation and test images in training, so their "
            "accuracy on them says nothing of new images"
        )
    pairs = mirrored([c.name for c in dataset.classes])
    if pairs and any(spec.recipe.mirror for spec in specs):
        log.warning(
            "the classes %s and %s%s look like mirror images of each other, and training images "
            "are mirrored: set recipe.mirror=false",
            *(shown(name) for name in pairs[0]),
            and_more(pairs),
        )
    if given := given_of(study):
        for line in given.lines():
            log.info("%s", line)
    if config.mode == "plan":
        print_plan(specs, study, store, dataset, execution)
        if config.budget_minutes:
            print_budget(config, Cost(store, dataset, execution))
    else:
        ensure(specs, store, dataset, execution, config.sources)
        for spec in specs[:SHOWN]:
            print(
                f"{spec.split} {spec.cell}: top-1 {store.metrics(spec)[-1]['val_top1']:.4f}  "
                f"{store.folder(spec)}"
            )
        if len(specs) > SHOWN:
            print(
                f"... {len(specs)} networks in all; `python -m analysis.collect` makes "
                "a table of them"
            )


if __name__ == "__main__":
    command(main)()
