"""Masks -> submission, arrays, pictures: chooses the writer and checks its output before anything runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import OutputError, PlanError
from engine.outputs.arrays import NpyWriter, NpzWriter
from engine.outputs.base import FolderMixin, MaskWriter
from engine.outputs.geotiffs import GeoTiffWriter
from engine.outputs.path import FolderOutput
from engine.outputs.png import PngWriter, check_files, longest_name
from engine.outputs.rle import CocoWriter, KaggleWriter
from engine.outputs.sidecar import check_sidecar
from engine.outputs.submission import RLE_SUFFIX, CsvWriter, RleWriter
from engine.outputs.zarr_store import ZarrWriter
from engine.sources.georeference import Georeference
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.spec import is_url, split_key
from engine.sources.zarr_store import is_store
from engine.utils.files import temporary_name
from engine.utils.optional import require

FOLDER = ""
# What the names of files beside an output have more than its own, at most: .incomplete-NAME.skipped.txt.partial-TOKEN.
MOST_ADDED = 70
# A new form is one file and one line here.
WRITERS: dict[str, type[MaskWriter]] = {
    ".csv": CsvWriter,
    RLE_SUFFIX: RleWriter,
    ".json": CocoWriter,
    ".npy": NpyWriter,
    ".npz": NpzWriter,
    ".zarr": ZarrWriter,
    FOLDER: PngWriter,
}
# What --rle names: the writer, and the suffix of its files.
RLE_WRITERS: dict[str, tuple[type[MaskWriter], str]] = {
    "rows": (RleWriter, RLE_SUFFIX),
    "kaggle": (KaggleWriter, RLE_SUFFIX),
    "coco": (CocoWriter, ".json"),
}
# Forms whose result is a folder on the disk.
FOLDERS = tuple(form for form, writer in WRITERS.items() if issubclass(writer, FolderMixin))
FORMATS = (
    ", ".join(f"{form} ({writer.holds})" for form, writer in WRITERS.items() if form)
    + f", or a folder ({PngWriter.holds}; end its name in / if it has a dot); .png and .tif with --tile, for one scene"
)


def form_of(output: Path) -> str:
    """Return the suffix that decides how an output is written; that of a folder is empty."""
    if isinstance(output, FolderOutput):
        return FOLDER
    return RLE_SUFFIX if output.name.lower().endswith(RLE_SUFFIX) else output.suffix.lower()


def open_writer(
    output: Path,
    ids: Sequence[str],
    size: tuple[int, int],
    classes: int,
    overwrite: bool = False,
    record: Mapping[str, Any] | None = None,
    rle: str = "",
    places: Mapping[str, Georeference] | None = None,
) -> MaskWriter:
    """Choose the writer by the suffix of the output.

    Args:
        output: file or folder to make.
        ids: names of all images, in order.
        size: (height, width) of a mask.
        classes: number of classes.
        overwrite: replace what is there.
        record: what goes with the masks, see :func:`engine.runs.provenance.run_record`: into an .npz as ``metadata``,
            beside anything else as ``OUTPUT.json``; None for none.
        rle: the form of run lengths, a name out of :data:`RLE_WRITERS`; empty for what the suffix says.
        places: where images lie, by id: in a folder their masks become GeoTIFFs.

    Raises:
        PlanError: ``rle`` does not go with the suffix.
        OutputError: unknown suffix, no such folder, or something is there and ``overwrite`` is not set.
    """
    check_output(output, overwrite)
    if record is not None:
        check_sidecar(output, overwrite)
    check_rle(output, rle)
    if places and form_of(output) == FOLDER:
        placed = GeoTiffWriter(output, ids, size, classes, record)
        placed.places = places
        return placed
    writer = RLE_WRITERS[rle][0] if rle else WRITERS[form_of(output)]
    return writer(output, ids, size, classes, record)


def check_rle(output: Path, rle: str) -> None:
    """Refuse a form of run lengths that there is not, or that the output's name contradicts.

    Raises:
        PlanError: saying which.
    """
    if not rle:
        return
    if rle not in RLE_WRITERS:
        raise PlanError(f"--rle {rle[:40]}; allowed are {', '.join(RLE_WRITERS)}")
    suffix = RLE_WRITERS[rle][1]
    if form_of(output) != suffix:
        raise PlanError(f"--rle {rle} does not go with {output}: name it with {suffix}, as in --output masks{suffix}")


def open_class_masks(
    output: Path,
    ids: Sequence[str],
    size: tuple[int, int],
    classes: Sequence[str],
    overwrite: bool = False,
    record: Mapping[str, Any] | None = None,
) -> tuple[MaskWriter, Sequence[str]]:
    """Choose the writer of binary masks, one per image and class; arguments and errors as :func:`open_writer`.

    Arrays (.npy, .npz) are (images, classes, height, width). Every other format holds one mask per image and class,
    named ``ID_CLASS``.

    Returns:
        The writer, and the names of all masks it expects.
    """
    check_output(output, overwrite)
    if record is not None:
        check_sidecar(output, overwrite)
    form = form_of(output)
    if form in (".npy", ".npz"):
        return WRITERS[form](output, ids, (len(classes), *size), 2, record), ids
    named = class_mask_names(ids, classes)
    return WRITERS[form](output, named, size, 2, record), named


def class_mask_names(ids: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the names of binary masks, image by image.

    Raises:
        OutputError: two masks would have one name, as those of the class c of a_b and of the class b_c of a.
    """
    plain = [label.replace("/", "-") for label in classes]  # a class must not become a folder
    named = [f"{name}_{label}" for name in ids for label in plain]
    if len(set(named)) < len(named):
        twin = Counter(named).most_common(1)[0][0]
        raise OutputError(f"two masks would be named {twin}: write .npy or .npz, or name the classes otherwise")
    return named


def check_output(output: Path, overwrite: bool, allowed: Sequence[str] = tuple(WRITERS), told: str = FORMATS) -> None:
    """Refuse an output that cannot become a mask file or folder.

    Args:
        output: file or folder to make.
        overwrite: whether what is there may be replaced.
        allowed: the suffixes that can be written.
        told: these, in words.

    Raises:
        OutputError: unknown suffix, no such folder, something is there and ``overwrite`` is not set, or a package that
            the form needs is missing.
    """
    if output.name in ("", ".."):
        raise OutputError(f"cannot write {output}: name a file or a folder of its own")
    form = form_of(output)
    if form not in allowed:
        raise OutputError(f"cannot write {output.suffix or 'a folder'} ({output}); allowed are {told}")
    check_replaceable(output, overwrite)
    if len(os.fsencode(output.name)) + MOST_ADDED > longest_name(output.parent):
        raise OutputError(f"the name {output.name[:40]}... is too long for the files beside it: choose a shorter one")
    if output.exists() and (form in FOLDERS) != output.is_dir():
        raise OutputError(f"{output} is {'a folder' if output.is_dir() else 'a file'}: choose another name")
    if (
        form == FOLDER
        and output.is_dir()
        and any(path.suffix.lower() not in (".png", ".tif") for path in output.rglob("*") if not path.is_dir())
    ):
        raise OutputError(f"{output} holds more than masks (.png, .tif), so it is not replaced: choose another folder")
    needs = WRITERS[form].needs if form in WRITERS else None
    if needs is not None:
        require(*needs, f"writing {output} needs {needs[0]}", OutputError)
    if form == ".zarr" and output.is_dir() and any(output.iterdir()) and not is_store(output):
        raise OutputError(f"{output} is a folder and no Zarr store, so it is not replaced: choose another name")


def check_names(output: Path, ids: Sequence[str], named: bool) -> None:
    """Refuse images whose names cannot become files, where the output is a folder.

    Args:
        output: file or folder to make.
        ids: names of all images.
        named: whether they are names of their own, and not row numbers.

    Raises:
        OutputError: naming the first.
    """
    if named and form_of(output) == FOLDER:
        check_files(ids, ".png", temporary_name(output))


def check_replaceable(output: Path, overwrite: bool) -> None:
    """Refuse a path that exists (unless ``overwrite``) or whose folder cannot be written.

    Raises:
        OutputError: saying which.
    """
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists: add --overwrite to replace it, or choose another name")
    if not output.parent.is_dir():
        raise OutputError(f"no such folder: {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"cannot write into {output.parent}: choose another folder")


def check_not_read(output: Path, noun: str, sources: Mapping[str, str]) -> None:
    """Refuse an output that would replace what the run itself reads, or masks inside a folder of images.

    Args:
        output: file or folder to make.
        noun: what is written, for the message.
        sources: what each option names, with a key where it has one; empty where it was not given.

    Raises:
        OutputError: naming the option.
    """
    for option, source in sources.items():
        if not source or is_url(source):
            continue
        read, place = split_key(source)[0].resolve(), output.resolve()
        if place == read:
            raise OutputError(f"{output} is what {option} reads: choose another name for the {noun}")
        # Folders are read with the folders inside them: the next run would take these masks for images.
        if read in place.parents and (form_of(output) == FOLDER or output.suffix.lower() in PICTURES) and read.is_dir():
            raise OutputError(f"{output} lies in {read}, which {option} reads whole: write the {noun} elsewhere")


__all__ = [
    "FORMATS",
    "WRITERS",
    "MaskWriter",
    "check_names",
    "check_not_read",
    "check_output",
    "check_replaceable",
    "check_rle",
    "class_mask_names",
    "form_of",
    "open_writer",
]
