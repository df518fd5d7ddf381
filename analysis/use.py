"""What trains the best network of a study once more, on all images: a command to paste."""

from dataclasses import fields
from typing import Any

from analysis.advice import Advice
from transferability.study.config import Config
from transferability.study.recipe import RecipeConfig
from transferability.study.spec import RunSpec

# Settings that choose what of a study is trained, and how it is shown: not what a network is.
CHOOSES = (
    *("study", "split", "target", "seed", "cell", "images_per_class", "all_images", "job"),
    *("mode", "minutes", "sources", "run", "out", "tracker", "hydra"),
)


def use_of(config: Config, specs: list[RunSpec]) -> dict[str, Any]:
    """What tables keep of the command that collected them.

    Returns:
        ``settings``: as they were given, without those that choose of a study; ``recipes``: the
        name of each recipe of the study -> the settings that it has beside; ``store``.
    """
    given = _given(config)
    splits = [config.split] if config.split else config.study.splits
    if len(splits) == 1 and splits != ["pretrained"]:
        given += [f"split={split}" for split in splits]
    own = {spec.recipe.name: spec.recipe for spec in specs if not spec.images_per_class}
    recipes = {name: _differing(recipe, config.recipe) for name, recipe in own.items()}
    return {"settings": given, "recipes": recipes, "store": config.store}


def pasted(config: Config, spec: RunSpec) -> list[str]:
    """All settings of ``experiments.run`` that train the network ``spec`` on all images."""
    recipe = _differing(spec.recipe, config.recipe)
    keys = [word.split("=")[0] for word in recipe]
    given = [word for word in _given(config) if not _of(word, keys)]
    choice = ["study=pretrained", "all_images=true", f"cell={spec.cell}", f"seed={spec.seed}"]
    return [*given, *recipe, *choice]


def _given(config: Config) -> list[str]:
    """The settings as they were given, without those that choose, or have been packed."""
    return [word for word in config.words if not _of(word, (*CHOOSES, "dataset.source"))]


def _differing(recipe: RecipeConfig, configured: RecipeConfig) -> list[str]:
    """The settings that a recipe has beside the configured one."""
    return [
        f"recipe.{f.name}={_text(value)}"
        for f in fields(recipe)
        if f.name != "name" and (value := getattr(recipe, f.name)) != getattr(configured, f.name)
    ]


def settings_of(about: dict[str, Any], advice: Advice) -> list[str]:
    """All settings that train the best network of an advice on all images; of tables that do not
    say how they were made those of the advice alone.
    """
    use = about.get("use")
    if use is None or advice.best.recipe not in use["recipes"]:
        return advice.settings
    recipe = use["recipes"][advice.best.recipe]
    given = [word for word in use["settings"] if not _of(word, [w.split("=")[0] for w in recipe])]
    choice = ["study=pretrained", "all_images=true", f"cell={advice.best.cell}", "seed=0"]
    return [*given, *recipe, *choice]


def _of(word: str, keys: list[str] | tuple[str, ...]) -> bool:
    """Whether a setting is one of ``keys``, or below one of them."""
    key = word.partition("=")[0].lstrip("+~")
    return any(key == one or key.startswith((f"{one}.", f"{one}/")) for one in keys)


def _text(value: Any) -> str:
    """As Hydra reads it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
