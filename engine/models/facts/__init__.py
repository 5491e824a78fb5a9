"""What a net says of itself in other tools' words: one small reader per origin, read, checked and shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.models.facts.base import Facts, merged
from engine.models.facts.deepness import read_deepness
from engine.models.facts.stac_mlm import read_stac_file, read_stac_metadata
from engine.models.facts.toml_file import normalization, parse_scale, read_toml, stated_facts
from engine.models.facts.transformers import read_transformers
from engine.models.facts.ultralytics import read_ultralytics

__all__ = ["Facts", "merged", "normalization", "parse_scale", "read_facts", "stated_facts"]


def read_facts(path: Path, metadata: Mapping[str, str]) -> list[Facts]:
    """Return what is said of a model file, the most exact origin first: its metadata, then files beside it.

    The project's own contract is not read here.

    Args:
        path: the model file.
        metadata: its custom metadata, texts by key.

    Raises:
        ContractError: one of the origins is not what its tool writes, or says that the net is none for semantic
            segmentation.
    """
    inside = (read_deepness(metadata), read_ultralytics(metadata), read_stac_metadata(metadata))
    beside = (read_toml(path), read_stac_file(path))
    return [*(fact for fact in (*inside, *beside) if fact is not None), *read_transformers(path)]
