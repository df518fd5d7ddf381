"""Expand a study to the specifications of its runs."""

from dataclasses import fields, replace

from transferability.data.packed import PackedDataset
from transferability.errors import UserError
from transferability.fingerprint import cosmetic_fields, differences
from transferability.networks import NetworkConfig
from transferability.networks.zoo.pretrained_info import PretrainedBase
from transferability.study import cells
from transferability.study.config import Config, StudyConfig, StudyPart, changed, current_name
from transferability.study.recipe import RecipeConfig
from transferability.study.spec import RunSpec, make_spec
from transferability.tasks.splits import split_kind, tasks_of


def study_specs(config: Config, dataset: PackedDataset) -> list[RunSpec]:
    """List every run of the study, or those that ``split``, ``target``, ``seed``, ``cell`` and
    ``images_per_class`` select.

    In a study with parts, these settings select among its networks. A study without parts accepts
    any split, seed or cell. Sources outside the study are not listed; the runner finds them.

    Raises:
        UserError: a split, task or cell is impossible, two splits have the same name, tables cannot
            distinguish two networks, the selection is empty, or ``all_images`` is set with
            ``images_per_class``.
    """
    specs = [spec for part in _parts(config.study) for spec in _part_specs(config, part, dataset)]
    if not specs:
        keys = ("split", "target", "seed", "cell", "images_per_class")
        chosen = " ".join(
            f"{key}={value}" for key in keys if (value := getattr(config, key)) is not None
        )
        raise UserError(
            f"study={config.study.name} has no networks{f' with {chosen}' if chosen else ''}"
        )
    _check_names(specs)
    specs = _each_once(specs)
    _check_apart(specs)
    if not config.all_images:
        return specs
    if any(spec.images_per_class for spec in specs):
        raise UserError(
            "all_images=true is not possible with images_per_class: set "
            "'study.images_per_class=[null]'"
        )
    return [replace(spec, all_images=True) for spec in specs]


def _check_names(specs: list[RunSpec]) -> None:
    """Raise :class:`UserError` if splits with one name have different classes: runs, tables and
    figures identify a split by its name.
    """
    classes: dict[tuple[str, str], tuple[int, ...]] = {}
    for spec in specs + [spec.base for spec in specs if spec.base]:
        if classes.setdefault((spec.split, spec.cell.target), spec.classes) != spec.classes:
            raise UserError(
                f"the study has two splits named {spec.split}, with different classes in task "
                f"{spec.cell.target}: rename one of the files"
            )


def _each_once(specs: list[RunSpec]) -> list[RunSpec]:
    """Remove duplicates: splits can share a task, whose networks differ only in the split's name.

    The networks of the first split are kept.
    """
    first: dict[str, RunSpec] = {}
    for spec in specs:
        first.setdefault(spec.id, spec)
    return [
        replace(s, source=first.get(s.base.id, s.base)) if s.base else s for s in first.values()
    ]


def _check_apart(specs: list[RunSpec]) -> None:
    """Raise :class:`UserError` if tables cannot distinguish two networks.

    Tables have only the names of networks and recipes. Two networks with equal keys would count as
    repetitions, and figures would show their mean.
    """
    known: dict[tuple, RunSpec] = {}
    for s in specs:
        key = (s.split, str(s.cell), s.seed, s.images_per_class, s.network.name, s.recipe.name)
        if (other := known.setdefault(key, s)) is not s:
            found = differences(s.to_dict(), other.to_dict(), cosmetic_fields(s))
            settings = [current_name(one.partition(" ")[0]) for one in found]
            raise UserError(
                f"the study has two networks {s.split} {s.cell} seed {s.seed} that tables "
                f"cannot tell apart: they differ in {', '.join(settings[:4])}, and the names of "
                f"network and recipe are {s.network.name} and {s.recipe.name} for both; give one "
                "another name, such as study.parts.PART.recipe.name=NAME"
            )


def _parts(study: StudyConfig) -> list[StudyPart]:
    """The parts, with null settings filled in from the study."""
    names = [f.name for f in fields(StudyPart)]
    own = {name: getattr(study, name, None) for name in names}
    given = [
        {n: getattr(part, n) for n in names if getattr(part, n) is not None}
        for part in study.parts.values()
    ]
    return [StudyPart(**(own | values)) for values in given or [{}]]


def _part_specs(config: Config, part: StudyPart, dataset: PackedDataset) -> list[RunSpec]:
    """The chosen runs of one part."""

    def choose(wanted: object, listed: list | None) -> list:
        listed = listed or []
        if wanted is None:
            return listed
        return [wanted] if wanted in listed or not config.study.parts else []

    network, recipe = changed(config.network, part.network), changed(config.recipe, part.recipe)
    source_recipe = (
        None if part.source_recipe is None else changed(config.recipe, part.source_recipe)
    )
    specs = []
    for seed in choose(config.seed, part.seeds):
        for split in choose(config.split, part.splits):
            # report an impossible split before its consequences
            tasks = list(tasks_of(split, dataset))
            pretrained = _pretrained(config.weights, network, split, tasks)
            targets = choose(config.target, tasks if len(tasks) == 1 else part.targets)
            if config.cell and not config.study.parts:
                chosen = [cells.parse(config.cell, network.n_layers)]
                if config.target not in (None, chosen[0].target):
                    raise UserError(
                        f"cell={config.cell} is not of target={config.target}: leave one of them "
                        "out"
                    )
            else:
                chosen = _cells(part, split, targets, network.n_layers)
                chosen = [c for c in chosen if config.cell in (None, str(c))]
            specs += [
                make_spec(
                    cell, split, dataset, network, own, seed, images, source_recipe, pretrained
                )
                for images in choose(config.images_per_class, part.images_per_class)
                for own in _at_rates(recipe, part.rates)
                for cell in chosen
            ]
    return specs


RATE = ", rate "  # between a recipe's name and its learning rate


def _at_rates(recipe: RecipeConfig, rates: list[float] | None) -> list[RecipeConfig]:
    """The recipe at each learning rate, with the rate in its name."""
    if rates is None:
        return [recipe]
    return [replace(recipe, lr=rate, name=f"{recipe.name}{RATE}{rate:g}") for rate in rates]


def _pretrained(
    weights: str | None, network: NetworkConfig, split: str, tasks: list[str]
) -> PretrainedBase | None:
    """The pretrained base, if ``weights`` is set and the split has only task B."""
    if weights and "A" in tasks:
        raise UserError(
            f"weights= defines A, but split={split} has its own task A: use split=pretrained, or "
            "a file of classes with only B"
        )
    if not weights or tasks != ["B"]:
        return None
    from transferability.networks.pretrained import (
        load_pretrained,  # needs torch
    )

    return load_pretrained(weights, network)


def _cells(part: StudyPart, split: str, targets: list[str], n_layers: int) -> list[cells.Cell]:
    kind = split_kind(split)
    treatments = (part.treatments or {}).get(kind)
    if treatments is None:
        raise UserError(
            f"split={split}: the study names no treatments for splits of the kind {kind!r}; set "
            f"study.treatments.{kind}"
        )
    if bad := [t for t in targets if (t == "all") != (kind == "all") or t not in cells.TASKS]:
        raise UserError(
            f"target={bad[0]} is not a task of split={split}: "
            f"{'all' if kind == 'all' else 'A or B'}"
        )
    return [
        cell
        for target in targets
        for t in treatments
        for cell in cells.expand(t, target, part.layers, n_layers)
    ]
