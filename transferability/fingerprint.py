"""What a run is: which settings are in its identity, declared with each setting.

A plain field of a dataclass counts. A :data:`COSMETIC` one names and does not count. A field that
was added later, :func:`omit_at`, is left out at the value that means "as before": runs made before
it keep their ids, and their folders are read as ever. A field that is :func:`stored_as` another
name keeps that name there.
"""

from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

_KEY, _STORED = "identity", "stored as"
# the metadata of a field that names: written down, and in no identity; and of one that is written
# as its text. Their fields stay field(...), so that a type checker knows which have no default.
COSMETIC, AS_STR = {_KEY: "label"}, {_KEY: "text"}


def omit_at(as_before: Any, *others: Any, stored: str | None = None) -> Any:
    """A field that was added when there were runs already: at this value, its default,
    it is left out.

    So it is at ``others``, where they change nothing either. ``stored``: see :func:`stored_as`.
    """
    metadata = {_KEY: "later", "as before": (as_before, *others)}
    return field(default=as_before, metadata=metadata | ({_STORED: stored} if stored else {}))


def stored_as(name: str, default: Any = MISSING) -> Any:
    """A field that was renamed when there were runs: stores and identities keep ``name``."""
    return field(default=default, metadata={_STORED: name})


def to_dict(settings: Any, labels: bool = True) -> dict[str, Any]:
    """A dataclass as JSON's values, those in it as well;
    without ``labels`` what its identity is made of.
    """
    out = {}
    for f in fields(settings):
        value, role = getattr(settings, f.name), f.metadata.get(_KEY)
        if role == "label" and not labels:
            continue
        if role == "later" and value in f.metadata["as before"]:
            continue
        if role == "text":
            value = str(value)
        elif is_dataclass(value):
            value = to_dict(value, labels)
        name = f.metadata.get(_STORED, f.name)
        out[name] = list(value) if isinstance(value, tuple) else value
    return out


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """The inverse of :func:`to_dict` for a dataclass without others in it."""
    now = renamed(kind)
    return kind(**{now.get(name, name): value for name, value in values.items()})


def lists_to_tuples(settings: Any) -> None:
    """Turn the lists of a frozen dataclass, as YAML and JSON have them, into tuples."""
    for name, value in vars(settings).items():
        if isinstance(value, list):
            object.__setattr__(settings, name, tuple(value))


def renamed(kind: type) -> dict[str, str]:
    """The fields that have another name in stores: from that name to the field's."""
    return {f.metadata[_STORED]: f.name for f in fields(kind) if _STORED in f.metadata}


def cosmetic_fields(settings: Any, above: str = "") -> set[str]:
    """The names of all labels of a dataclass and of those in it: ``split``, ``network.name`` ..."""
    found = {above + f.name for f in fields(settings) if f.metadata.get(_KEY) == "label"}
    for f in fields(settings):
        if is_dataclass(value := getattr(settings, f.name)):
            found |= cosmetic_fields(value, f"{above}{f.name}.")
    return found


def differences(wanted: Any, found: Any, labels: set[str], where: str = "") -> list[str]:
    """Paths of the fields in which two specifications differ, ``labels`` left out."""
    if where in labels:
        return []
    if isinstance(wanted, dict) and isinstance(found, dict):
        out = []
        for key in sorted(wanted.keys() | found.keys()):
            path = f"{where}.{key}" if where else key
            out += differences(
                wanted.get(key, "(absent)"), found.get(key, "(absent)"), labels, path
            )
        return out
    return [] if wanted == found else [f"{where} (wanted {wanted}, found {found})"]
