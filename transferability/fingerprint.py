"""What a run is: which settings are in its identity, declared with each setting.

A plain field of a dataclass counts. A :func:`label` names and does not count. A field that is added
:func:`later` is left out at the value that means "as before": runs made before it keep their ids,
and their folders are read as ever.
"""

from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

_KEY = "identity"


def cosmetic(default: Any = MISSING) -> Any:
    """A field that names: written down, and in no identity."""
    return field(default=default, metadata={_KEY: "label"})


def omit_at(as_before: Any, *others: Any) -> Any:
    """A field that was added when there were runs already: at this value, its default,
    it is left out.

    So it is at ``others``, where they change nothing either.
    """
    return field(default=as_before, metadata={_KEY: "later", "as before": (as_before, *others)})


def as_str() -> Any:
    """A field that is written as its text."""
    return field(metadata={_KEY: "text"})


def to_dict(settings: Any, labels: bool = True) -> dict[str, Any]:
    """A dataclass as JSON's values, those in it as well;
    without ``labels`` what its identity is made of.
    """
    out = {}
    for f in fields(settings):
        value, role = getattr(settings, f.name), f.metadata.get(_KEY)
        if (role == "label" and not labels) or (
            role == "later" and value in f.metadata["as before"]
        ):
            continue
        if role == "text":
            value = str(value)
        elif is_dataclass(value):
            value = to_dict(value, labels)
        out[f.name] = list(value) if isinstance(value, tuple) else value
    return out


def cosmetic_fields(settings: Any, above: str = "") -> set[str]:
    """The names of all labels of a dataclass and of those in it: ``split``, ``network.name`` ..."""
    found = {above + f.name for f in fields(settings) if f.metadata.get(_KEY) == "label"}
    for f in fields(settings):
        if is_dataclass(value := getattr(settings, f.name)):
            found |= cosmetic_fields(value, f"{above}{f.name}.")
    return found
