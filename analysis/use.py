"""Commands and lines to paste: load or export the best network of a study, whatever its folder is
called, and train it again on all images.
"""

import json
import shlex
from dataclasses import fields
from typing import Any

from analysis.advice import Advice
from experiments.overrides import as_typed
from transferability.study.config import Config
from transferability.study.recipe import RecipeConfig
from transferability.study.spec import RunSpec

# Settings that select networks of a study, or concern output, and do not define a network.
CHOOSES = (
    *("study", "split", "target", "seed", "cell", "images_per_class", "all_images", "job"),
    *("mode", "minutes", "sources", "run", "out", "tracker", "hydra"),
)


def in_python(folder: str) -> str:
    """A folder as a Python string literal."""
    return json.dumps(folder, ensure_ascii=False)


def in_shell(words: list[str]) -> str:
    """Settings quoted for the shell, and for Hydra after it."""
    return shlex.join(as_typed(words))


def use_of(config: Config, specs: list[RunSpec]) -> dict[str, Any]:
    """The parts of the collecting command that are kept with the tables.

    Returns:
        ``settings``: the command's settings, without those that select networks; ``recipes``: the
        name of each recipe used on all images -> the settings that set it apart; ``store``.
    """
    given = _given(config)
    splits = [config.split] if config.split else config.study.splits
    if len(splits) == 1 and splits != ["pretrained"]:
        given += [f"split={split}" for split in splits]
    own = {spec.recipe.name: spec.recipe for spec in specs if not spec.images_per_class}
    recipes = {name: _differing(recipe, config.recipe) for name, recipe in own.items()}
    return {"settings": given, "recipes": recipes, "store": config.store}


def pasted(config: Config, spec: RunSpec) -> list[str]:
    """All settings of ``experiments.run`` for training the network ``spec`` on all images."""
    recipe = _differing(spec.recipe, config.recipe)
    keys = [word.split("=")[0] for word in recipe]
    given = [word for word in _given(config) if not _of(word, keys)]
    choice = ["study=pretrained", "all_images=true", f"cell={spec.cell}", f"seed={spec.seed}"]
    return [*given, *recipe, *choice]


def _given(config: Config) -> list[str]:
    """The command's settings, without those that select networks, and without the source of the
    pack.
    """
    return [word for word in config.words if not _of(word, (*CHOOSES, "dataset.source"))]


def _differing(recipe: RecipeConfig, configured: RecipeConfig) -> list[str]:
    """The settings in which a recipe differs from the configured one."""
    return [
        f"recipe.{f.name}={_text(value)}"
        for f in fields(recipe)
        if f.name != "name" and (value := getattr(recipe, f.name)) != getattr(configured, f.name)
    ]


def settings_of(about: dict[str, Any], advice: Advice) -> list[str]:
    """All settings for training the best network of an advice on all images; for tables without
    their command, the settings of the advice alone.
    """
    use = about.get("use")
    if use is None or advice.best.recipe not in use["recipes"]:
        return advice.settings
    recipe = use["recipes"][advice.best.recipe]
    given = [word for word in use["settings"] if not _of(word, [w.split("=")[0] for w in recipe])]
    choice = ["study=pretrained", "all_images=true", f"cell={advice.best.cell}", "seed=0"]
    return [*given, *recipe, *choice]


def _of(word: str, keys: list[str] | tuple[str, ...]) -> bool:
    """Whether a setting is one of ``keys`` or nested below one."""
    key = word.partition("=")[0].lstrip("+~")
    return any(key == one or key.startswith((f"{one}.", f"{one}/")) for one in keys)


def _text(value: Any) -> str:
    """A value in Hydra's syntax."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
