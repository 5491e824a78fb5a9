"""Reads what other tools wrote without trusting it: bounded texts, strict JSON, numbers and names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ContractError
from engine.utils.console import one_line

MOST_BYTES = 1_000_000
MOST_CHARACTERS = 100_000
MOST_NAME = 200
MOST_STRIDE = 256
# The names a tool makes up where nobody gave any, as `class 3`, `class_3`, `class3` and `LABEL_3`.
MADE_UP = re.compile(r"(?:class|label)[ _-]?([0-9]{1,3})", re.IGNORECASE)


def refuse(where: str, complaint: str) -> ContractError:
    """Return the error of one place, as one line."""
    return ContractError(one_line(f"{where}: {complaint}"))


def shown(value: object) -> str:
    """Return a foreign value for a message: one short line."""
    if isinstance(value, int) and abs(value) >= 1e30:  # Python refuses to print an integer of thousands of digits
        return "a number of more than 30 digits"
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def metadata_text(metadata: Mapping[str, str], key: str, origin: str) -> str | None:
    """Return one metadata value, or None where it is not there.

    Raises:
        ContractError: it is longer than any tool writes.
    """
    text = metadata.get(key)
    if text is not None and len(text) > MOST_CHARACTERS:
        raise refuse(origin, f"{key} has {len(text)} characters; at most {MOST_CHARACTERS} are read")
    return text


def file_text(path: Path, must_hold: tuple[str, ...] = ()) -> str | None:
    """Return the text of a small file, or None where there is no such file.

    Args:
        path: the file.
        must_hold: where given, a file that holds none of these texts belongs to somebody else: None.

    Raises:
        ContractError: it cannot be read, is too large or not UTF-8.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise refuse(path.name, f"cannot be read ({error.strerror}): make it readable or move it away") from None
    if must_hold and not any(text.encode() in content for text in must_hold):
        return None
    if len(content) > MOST_BYTES:
        raise refuse(path.name, f"is larger than {MOST_BYTES} bytes: that describes no net, move it away")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise refuse(path.name, "is not UTF-8: write it again as UTF-8") from None


def from_json(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ContractError: not JSON, NaN or infinity in it, a key twice, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise refuse(where, f"is not JSON ({error}): correct it or take it out") from None


def table(value: object, where: str) -> dict[str, Any]:
    """Return a JSON object, or an empty one for null.

    Raises:
        ContractError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refuse(where, f"is {shown(value)}; an object is needed")
    return value


def is_number(value: object) -> bool:
    """Return whether a value is a finite number of a usable size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def number(value: object, where: str, above: float = -1e30, below: float = 1e30) -> float:
    """Return a finite number within bounds that are themselves excluded.

    Raises:
        ContractError: not a number, or outside.
    """
    if not isinstance(value, int | float) or not is_number(value):
        raise refuse(where, f"is {shown(value)}; a finite number is needed")
    if not above < value < below:
        raise refuse(where, f"is {shown(value)}; it must lie between {above:g} and {below:g}")
    return float(value)


def whole(value: object, where: str, least: int, most: int) -> int:
    """Return a whole number within bounds that are themselves included.

    Raises:
        ContractError: not a whole number, or outside.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise refuse(where, f"is {shown(value)}; a whole number from {least} to {most} is needed")
    return value


def numbers(value: object, where: str) -> tuple[float, ...]:
    """Return a list of 1 to 64 finite numbers; a single number is a list of one.

    Raises:
        ContractError: something else.
    """
    items = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(items) <= 64:
        raise refuse(where, f"has {len(items)} values; 1 to 64 are allowed")
    return tuple(number(item, where) for item in items)


def name(value: object, where: str) -> str:
    """Return a text that can stand in a table.

    Raises:
        ContractError: not a text, too long, or with characters that do not print.
    """
    if not isinstance(value, str):
        raise refuse(where, f"is {shown(value)}; a text is needed")
    if len(value) > MOST_NAME or not value.isprintable():
        raise refuse(where, f"is {shown(value)}; at most {MOST_NAME} printable characters are allowed")
    return value


def class_names(value: object, where: str) -> tuple[str, ...]:
    """Return class names in label order.

    Args:
        value: a list of names, or an object of names by class id; the ids are whole numbers or texts of them. One name
            alone is that of a binary net's foreground.
        where: for messages.

    Raises:
        ContractError: ids that are not 0 to n - 1, a name twice, none at all, or no names.
    """
    if isinstance(value, dict):
        ids = {_class_id(key, where): item for key, item in value.items()}
        if len(ids) != len(value):
            raise refuse(where, "names one class id twice: every id needs one name")
        if sorted(ids) != list(range(len(ids))):
            listed = ", ".join(map(str, sorted(ids)[:8]))
            raise refuse(where, f"has the class ids {listed}{', ...' if len(ids) > 8 else ''}; 0 to n - 1 are needed")
        value = [ids[index] for index in range(len(ids))]
    if not isinstance(value, list):
        raise refuse(where, f"is {shown(value)}; names by class id are needed")
    if not value:
        raise refuse(where, "names no class: name at least one")
    names = tuple(name(item, where) for item in value)
    made_up = [MADE_UP.fullmatch(item) for item in names]
    if all(match is not None and int(match[1]) == index for index, match in enumerate(made_up)):
        return tuple(f"class {index}" for index in range(max(len(names), 2)))
    return ("background", *names) if len(names) == 1 else names


def _class_id(key: object, where: str) -> int:
    if isinstance(key, str) and re.fullmatch(r"[0-9]{1,6}", key):
        return int(key)
    return whole(key, f"{where}, a class id", 0, 999_999)


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise ValueError(f"the key {shown(twice)} stands there twice")
    return found
