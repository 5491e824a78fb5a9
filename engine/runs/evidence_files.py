"""What ``--scores``, ``--doubt`` and ``--per-image`` ask for: checked before a run, opened beside its masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import OutputError, PlanError
from engine.fusion.evidence import Evidence
from engine.outputs.maps import MAP_FORMATS, MAP_FORMS, Maps
from engine.outputs.open import FOLDER, check_not_read, check_output, check_replaceable, form_of
from engine.outputs.sidecar import check_sidecar
from engine.utils.files import clear_left_over, sync_output
from engine.utils.optional import require

if TYPE_CHECKING:
    from engine.runs.options import Options

SCENE_FORMS = (".npy", ".npz", ".zarr", ".tif", ".tiff")
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class EvidenceFiles:
    """The files, and what they hold; None or empty: not given.

    Attributes:
        scores: probabilities per class.
        scores_type: their dtype; float16 by default.
        doubt: a map of doubt.
        doubt_map: which one; entropy by default.
        doubt_type: its dtype; uint8 by default.
        per_image: a table with one row per image or scene.
    """

    scores: Path | None = None
    scores_type: str = ""
    doubt: Path | None = None
    doubt_map: str = ""
    doubt_type: str = ""
    per_image: Path | None = None

    @property
    def evidence(self) -> Evidence:
        """Return what is asked of the ensemble.

        Raises:
            PlanError: an unknown dtype or map.
        """
        scores = (self.scores_type or "float16") if self.scores else ""
        return Evidence(scores, (self.doubt_map or "entropy") if self.doubt else "", self.doubt_type or "uint8")

    @property
    def files(self) -> dict[str, Path]:
        """Return the requested files by their option."""
        named = {"--scores": self.scores, "--doubt": self.doubt, "--per-image": self.per_image}
        return {option: path for option, path in named.items() if path is not None}

    def maps(self, classes: Sequence[str]) -> dict[Path, Maps]:
        """Return what each file of maps holds."""
        evidence, found = self.evidence, {}
        if self.scores is not None:
            found[self.scores] = Maps("scores", evidence.scores, tuple(classes), True)
        if self.doubt is not None:
            found[self.doubt] = Maps("doubt", evidence.doubt_type, (evidence.doubt,), False)
        return found

    def moved(self, name: Callable[[Path], Path]) -> EvidenceFiles:
        """Return the same under other paths."""
        own = (self.scores, self.doubt, self.per_image)
        scores, doubt, table = (None if path is None else name(path) for path in own)
        return replace(self, scores=scores, doubt=doubt, per_image=table)

    def check(self, output: Path, options: Options, replaced: bool, alone: bool | None = None) -> None:
        """Refuse files that cannot be written, and options that go with none.

        Args:
            output: the masks.
            options: the command line's, for what the run reads and writes.
            replaced: whether existing outputs may be replaced.
            alone: whether the maps are those of one scene; None for a set of images.

        Raises:
            PlanError: a dtype or map without a file, or an unknown one.
            OutputError: saying which file and why.
        """
        dependent = {"scores-type": self.scores_type, "doubt-type": self.doubt_type, "doubt-map": self.doubt_map}
        for name, value in dependent.items():
            file = name.partition("-")[0]
            if name == "doubt-map" and options.unknown is not None:
                continue  # it names what decides too
            if value and f"--{file}" not in self.files:
                raise PlanError(f"--{name} without --{file}: name the file, as in --{file} {file}.npy")
        self.maps(())  # refuses types and maps that there are not
        read = {"--input": options.input, "--labels": options.labels}
        taken = {output.resolve(): "--output"} | (
            {options.preview.resolve(): "--preview"} if options.preview is not None else {}
        )
        for option, path in self.files.items():
            if path.resolve() in taken:
                raise OutputError(f"{option} {path} is what {taken[path.resolve()]} writes: choose another name")
            taken[path.resolve()] = option
            check_not_read(path, "maps", read)
            if option == "--per-image":
                _check_table(path, replaced)
            else:
                _check_maps(option, path, replaced, alone)

    def check_present(self) -> None:
        """Refuse a complete run that lacks one of the files.

        Raises:
            OutputError: naming the first.
        """
        for option, path in self.files.items():
            if not path.exists():
                raise OutputError(f"the masks are complete, but {option} {path} is missing: run with --overwrite")

    def clear(self) -> None:
        """Remove what killed runs left of these files; call it while no other run writes the masks."""
        for path in self.files.values():
            clear_left_over(path, "partial")

    def sync(self) -> None:
        """Flush the finished files to disk.

        Raises:
            OSError: the disk refuses.
        """
        for path in self.files.values():
            sync_output(path)
            clear_left_over(path, "replaced")


def _check_table(path: Path, replaced: bool) -> None:
    if path.suffix.lower() not in TABLES:
        raise OutputError(f"--per-image {path}: the table is a {' or '.join(TABLES)}")
    if path.is_dir():
        raise OutputError(f"--per-image {path} is a folder: choose another name")
    check_replaceable(path, replaced)
    if path.suffix.lower() == ".parquet":
        require("pyarrow", "parquet", f"writing {path} needs pyarrow", OutputError)


def _check_maps(option: str, path: Path, replaced: bool, alone: bool | None) -> None:
    if alone is None:
        check_output(path, replaced, MAP_FORMS, MAP_FORMATS)
    elif alone:
        check_output(path, replaced, SCENE_FORMS, f"{', '.join(SCENE_FORMS)} for {option} of one scene")
    else:
        check_output(path, replaced, (FOLDER,), f"a folder for {option} of several scenes (a GeoTIFF each)")
    if form_of(path) in (FOLDER, ".tif", ".tiff"):
        require("rasterio", "geo", f"writing {path} needs rasterio", OutputError)
    check_sidecar(path, replaced)
