"""A study: the runs that together make the figures."""

from transferability import cells
from transferability.config import Config
from transferability.datasets import PackedDataset
from transferability.errors import UserError
from transferability.spec import RunSpec, make_spec
from transferability.splits import split_kind, tasks_of


def study_specs(config: Config, dataset: PackedDataset) -> list[RunSpec]:
    """Every run of the study, or of the part that ``split``, ``target``, ``seed`` and ``cell`` choose.

    Sources that are no part of the study themselves are not listed; the runner finds them.
    """
    if config.network.input_size > dataset.image_size:
        raise UserError(
            f"network.input_size={config.network.input_size} is not possible: the packed images of {dataset.name} are "
            f"{dataset.image_size} pixels a side (dataset.image_size)"
        )
    study = config.study
    splits = [config.split] if config.split else study.splits
    targets = [config.target] if config.target else study.targets
    seeds = [config.seed] if config.seed is not None else study.seeds
    n_layers = config.network.n_layers
    specs = []
    for seed in seeds:
        for split in splits:
            tasks_of(split, dataset)  # an impossible split is named before anything that follows from it
            if config.cell:
                chosen = [cells.parse(config.cell, n_layers)]
            else:
                chosen = _cells(study.treatments, split, targets, study.layers, n_layers)
            specs += [
                make_spec(cell, split, dataset, config.network, config.recipe, seed, config.images_per_class)
                for cell in chosen
            ]
    return list({s.run_id: s for s in specs}.values())


def _cells(
    treatments: dict[str, list[str]], split: str, targets: list[str], layers: list[int], n_layers: int
) -> list[cells.Cell]:
    kind = split_kind(split)
    if kind not in treatments:
        raise UserError(
            f"split={split}: the study names no treatments for splits of the kind {kind!r}; set study.treatments.{kind}"
        )
    if kind == "all":
        targets = ["all"]
    elif bad := [t for t in targets if t not in ("A", "B")]:
        raise UserError(f"target={bad[0]} is not a task of split={split}: A or B")
    return [cell for target in targets for t in treatments[kind] for cell in cells.expand(t, target, layers, n_layers)]
