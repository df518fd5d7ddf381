"""The identity of a run: which settings are part of it, declared at each setting.

Plain fields of a dataclass are part of the identity. :data:`COSMETIC` fields are labels, which are
not. A field that was added later with :func:`omit_at` is left out at the value that means "as
before", so that older runs keep their ids and can be read. A field with :func:`stored_as` has
another name in stores and identities.
"""

from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

_KEY, _STORED = "identity", "stored as"
# the metadata of labels, which are stored but not part of the identity, and of fields stored as
# text. Such fields are declared by field(...), so that type checkers detect a missing default.
COSMETIC, AS_STR = {_KEY: "label"}, {_KEY: "text"}


def omit_at(as_before: Any, *others: Any, stored: str | None = None) -> Any:
    """A field that was added when runs existed: left out at ``as_before``, its default.

    The field is also left out at ``others``, values that do not change results either. ``stored``:
    see :func:`stored_as`.
    """
    metadata = {_KEY: "later", "as before": (as_before, *others)}
    return field(default=as_before, metadata=metadata | ({_STORED: stored} if stored else {}))


def stored_as(name: str, default: Any = MISSING) -> Any:
    """A field that was renamed when runs existed: stores and identities keep ``name``."""
    return field(default=default, metadata={_STORED: name})


def to_dict(settings: Any, labels: bool = True) -> dict[str, Any]:
    """Convert a dataclass and nested ones to JSON values; without ``labels``, to its identity."""
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
    """The inverse of :func:`to_dict` for a dataclass without nested ones."""
    now = renamed(kind)
    return kind(**{now.get(name, name): value for name, value in values.items()})


def lists_to_tuples(settings: Any) -> None:
    """Convert the lists of a frozen dataclass, as read from YAML or JSON, to tuples in place."""
    for name, value in vars(settings).items():
        if isinstance(value, list):
            object.__setattr__(settings, name, tuple(value))


def renamed(kind: type) -> dict[str, str]:
    """The fields that have another name in stores: stored name -> field name."""
    return {f.metadata[_STORED]: f.name for f in fields(kind) if _STORED in f.metadata}


def cosmetic_fields(settings: Any, above: str = "") -> set[str]:
    """The paths of all labels of a dataclass and nested ones: ``split``, ``network.name`` ..."""
    found = {above + f.name for f in fields(settings) if f.metadata.get(_KEY) == "label"}
    for f in fields(settings):
        if is_dataclass(value := getattr(settings, f.name)):
            found |= cosmetic_fields(value, f"{above}{f.name}.")
    return found


def differences(wanted: Any, found: Any, labels: set[str], where: str = "") -> list[str]:
    """The paths and values of fields in which two specifications differ, except ``labels``."""
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
