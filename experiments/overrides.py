"""Overrides on the command line: text settings keep what was typed, even if Hydra would parse a
number or a list; errors of Hydra are explained.
"""

import logging
import os
import re
import shlex
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Sweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from transferability.errors import UserError, did_you_mean
from transferability.networks import KINDS, NetworkConfig
from transferability.networks.zoo.pretrained_info import FILES
from transferability.study.config import Config, current_name
from transferability.study.trackers import TrackersConfig

log = logging.getLogger(__name__)

_SETTING = re.compile(r"(\+{0,2}([A-Za-z_][\w.]*)=)(.*)", re.DOTALL)
_GROUPS = ("dataset", "network", "recipe", "study", "experiment", "tracker", "hydra/launcher")
# a,b: one value, or a sweep over several
_PLAIN_LIST = re.compile(r"[^\[\]{}()'\"\\]+(,[^\[\]{}()'\"\\]+)+")

# types in OmegaConf's errors on invalid values
_TYPES = {"Integer": "a whole number", "Float": "a number", "valid bool": "true or false"}
_OF_ANOTHER_TYPE = re.compile(
    r"Value '(.*)' (?:of type '.*' could not be converted to|is not a) "
    rf"({'|'.join(_TYPES)})",
    re.DOTALL,
)


def as_typed(words: list[str]) -> list[str]:
    """Quote the values of text settings that Hydra would not parse as text.

    In a multirun (-m), commas separate the values of a sweep, as in Hydra.
    """
    multirun = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(words)
    return [_as_typed(word, multirun) for word in words]


def of_advice(words: list[str]) -> list[str]:
    """The settings of ``experiments.advise``: the names of the dataset and of the network are
    derived from ``source=`` and ``weights=`` unless they are set.

    Raises:
        UserError: the images, the weights or a name is missing, or misspelled.
    """
    values = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    known = {"source", *_GROUPS, *_settings(Config)}
    for key in values:  # else a misspelled source or weights would count as missing
        if key.isidentifier() and key not in known:
            raise UserError(_no_setting(key, "source"))
    images = values.keys() & {"source", "dataset.source", "dataset.name"}
    if "experiment" not in values and not (images and "weights" in values):
        raise UserError(
            "say which images and which pretrained network: source=PATH weights=FILE minutes=10"
        )
    made = [re.sub(r"^source=", "dataset.source=", word) for word in words]
    if "experiment" not in values:
        made = ["experiment=advice", *made, *_model_of(values)]
    if "source" in values and "dataset.name" not in values:
        if not (name := _name(values["source"])):
            raise UserError(
                f"source={values['source']} has no name for the images: say dataset.name=NAME"
            )
        made.append(f"dataset.name={name}")
    return made


def _model_of(values: dict[str, str]) -> list[str]:
    """The setting of the network's name, from the name of the weights; none if it is set."""
    weights, kind = values.get("weights", ""), values.get("network")
    if not weights or "network.model" in values or kind not in (None, "torchvision"):
        return []
    there = Path(weights).expanduser().is_file()
    if kind and not there:
        raise UserError(f"say which network weights={weights} are of: network.model=NAME")
    # opening a missing file raises an error that names it
    if weights.endswith(FILES) and not there:
        return []
    # names of the libraries' files end with a part of their digest
    return [f"network.model={re.sub('-[0-9a-f]{8}$', '', _name(weights))}"]


def _name(path: str) -> str:
    """The name of a file or folder without leading dots, up to the next dot."""
    return Path(os.path.abspath(os.path.expanduser(path))).name.lstrip(".").partition(".")[0]


def how_to_quote(error: OverrideParseException) -> str:
    """The message on how to quote an override that Hydra cannot parse."""
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override!r} is an unknown setting: write KEY=VALUE"
    if value.startswith("["):
        return (
            f"{error.override} cannot be read: write elements with special characters in quotes, "
            f"{key}=['...','...']"
        )
    return (
        f"{error.override} cannot be read: a value with special characters needs quotes, "
        f"{quoted(f'{key}=', value)}"
    )


def plainly(error: Exception) -> str:
    """The message of an error of Hydra or OmegaConf; for an unknown setting or choice, with the
    most similar known one.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        # Hydra does not list the choices of a group of which several can be chosen, as trackers
        there = error.options or [f.name for f in fields(TrackersConfig) if group == "tracker"]
        if there:
            near = did_you_mean(name, there)
            return f"{group}={name} is unknown{near or '.'} Available: {', '.join(there)}"
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
        return _no_setting(cause.full_key)
    if (found := _OF_ANOTHER_TYPE.match(str(cause))) and isinstance(cause, ValidationError):
        value, kind = found.groups()
        return f"{cause.full_key}={value} must be {_TYPES[kind]}"
    return f"{error}" if cause is error else f"{error} {cause}"


def _no_setting(key: str, *more: str) -> str:
    known = {*_GROUPS, *_settings(Config), *more}
    group = key.partition(".")[0]
    if key in known:
        return f"{key} is not a setting of this {group}: conf/{group}/ has those of each choice"
    above, dot, last = key.rpartition(".")
    siblings = [
        name.removeprefix(above + dot) for name in known if name.rpartition(".")[0] == above
    ]
    # compared without the common prefix, which would make all keys similar
    near = did_you_mean(last, siblings, above + dot) if siblings else did_you_mean(key, known)
    return f"{key} is an unknown setting{near or '; conf/ documents every one'}"


def quoted(key: str, value: str) -> str:
    """The setting quoted for a shell, with the value in quotes for Hydra."""
    return shlex.quote(key + _in_quotes(value))


def _as_typed(word: str, multirun: bool) -> str:
    if word == "tracker=null":
        return "tracker=[]"  # a list, as there may be several trackers
    match = _SETTING.fullmatch(word)
    if match and (name := current_name(match[2])) != match[2]:
        log.warning("%s is now called %s", match[2], name)
        return _as_typed(word.replace(match[2], name, 1), multirun)
    if not match or match[2] not in _texts(Config):
        return word
    key, _, value = match.groups()
    values = value.split(",") if multirun and _PLAIN_LIST.fullmatch(value) else [value]
    return key + ",".join(one if _is_text(one, multirun) else _in_quotes(one) for one in values)


def _is_text(value: str, multirun: bool) -> bool:
    """Whether Hydra parses ``value`` as text (possibly quoted), as null or, in a multirun, as a
    sweep.
    """
    if "\\\\" in value and value[0] not in "'\"":  # Hydra would read a single backslash
        return False
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return False
    return isinstance(read, (str, QuotedString, type(None))) or (
        multirun and isinstance(read, Sweep)
    )


def _in_quotes(value: str) -> str:
    return QuotedString(value, Quote.single if '"' in value else Quote.double).with_quotes()


@lru_cache
def _settings(schema: type, above: str = "") -> frozenset[str]:
    """The keys of all settings, including those of every kind of network."""
    found: set[str] = set()
    types = get_type_hints(schema)
    for key in (f.name for f in fields(schema)):
        found.add(above + key)
        kinds = (k for k in _alternatives(types[key]) if isinstance(k, type) and is_dataclass(k))
        for kind in (
            k for one in kinds for k in (KINDS.values() if one is NetworkConfig else [one])
        ):
            found |= _settings(kind, f"{above}{key}.")
    return frozenset(found)


@lru_cache
def _texts(schema: type, above: str = "") -> frozenset[str]:
    """The keys of all settings that are text, or text or null."""
    found: set[str] = set()
    types = get_type_hints(schema)
    for key in (f.name for f in fields(schema)):
        kinds = _alternatives(types[key])
        if str in kinds:
            found.add(above + key)
        for kind in (k for k in kinds if isinstance(k, type) and is_dataclass(k)):
            found |= _texts(kind, f"{above}{key}.")
    return frozenset(found)


def _alternatives(kind: Any) -> tuple:
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)
