"""How much memory what an input declares may take: what the user states, else half of what is free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from engine.errors import PlanError

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)")
# Less than this no run of nets fits into.
LEAST = 1 << 26
# Where the system does not say how much is free.
UNKNOWN = 1 << 33
_CGROUPS = Path("/sys/fs/cgroup")

_stated: int | None = None


def byte_count(text: str, option: str) -> int:
    """Return the bytes of ``4GB``, ``512 MiB`` or ``2000000000``.

    Raises:
        PlanError: another form, naming the option.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not 1 <= float(found[1]) * unit < 2**62:
        raise PlanError(f"{option} {text[:40]}: give a size, as in 4GB or 512MiB")
    return int(float(found[1]) * unit)


def parse_bytes(text: str) -> int:
    """Return the bytes that ``--memory`` states.

    Raises:
        PlanError: no size, or less than 64 MiB.
    """
    size = byte_count(text, "--memory")
    if size < LEAST:
        raise PlanError(f"--memory {text[:40]}: give {LEAST >> 20}MiB or more")
    return size


def state_memory(size: int | None) -> None:
    """Set the bound for this process; None for half of what is free."""
    global _stated
    _stated = size


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Set the bound inside."""
    before = _stated
    state_memory(size)
    try:
        yield
    finally:
        state_memory(before)


def memory_bound() -> int:
    """Return how many bytes one input may take at a time: what is stated, else half of what was free at first."""
    return _half_of_free() if _stated is None else _stated


@cache
def _half_of_free() -> int:
    return max(LEAST, free_memory() // 2)


def free_memory() -> int:
    """Return how many bytes this process can take without swapping: of the machine, or of its container if less."""
    free = [found for found in (_of_machine(), *_of_containers()) if found is not None]
    return min(free, default=UNKNOWN)


def _of_machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return None
    found = re.search(r"MemAvailable: *([0-9]+) kB", text)
    return int(found[1]) * 1024 if found else None


def _of_containers() -> Iterator[int]:
    """Yield what is left below the limit of each control group around this process; pages of files can be dropped."""
    places = [_CGROUPS / "memory"]
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, name = line.split(":", 2)
            if number == "0" or "memory" in controllers:
                root = _CGROUPS if number == "0" else _CGROUPS / "memory"
                inside = root / name.lstrip("/")
                places += [path for path in (inside, *inside.parents) if path == root or root in path.parents]
    except (OSError, ValueError):
        places.append(_CGROUPS)
    for place in dict.fromkeys(places):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, taken = _number(place / limit), _number(place / used)
            if most is not None and taken is not None:
                yield max(0, most - taken + _droppable(place))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _droppable(place: Path) -> int:
    try:
        found = re.search(r"^(?:total_)?inactive_file ([0-9]+)$", (place / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def in_words(size: float) -> str:
    """Return a number of bytes as ``1.7 GB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"


def refusal(label: str, needs: str, size: float) -> str:
    """Return the end of a message that refuses what would take too much: how much, the bound and what to do."""
    return (
        f"{label} {needs} {in_words(size)} of memory at once; {in_words(memory_bound())} are allowed: "
        "raise --memory, or store it in smaller parts"
    )
