"""Masks of scenes: one file, a folder with one a scene, or any form of masks of one size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.base import FolderMixin, MaskWriter, Writer, cannot_write
from engine.outputs.png import file_name
from engine.outputs.row_files import ROW_FILES, PngRows, RowFile, TiffRows
from engine.sources.scene import Scene, void_label


class Sink(Protocol):
    """Takes the masks of scenes, one after the other, each some rows at a time."""

    def begin(self, scene: Scene) -> None:
        """Say which scene's rows come next."""

    def write_rows(self, labels: NDArray[np.uint8]) -> None:
        """Append uint8 (rows, width) labels."""

    def end(self) -> None:
        """Say that the scene is complete."""


class SceneWriter(Writer):
    """Writes scenes' masks row by row; use it as a context manager, see :class:`engine.outputs.base.Writer`."""

    def __init__(self, output: Path, count: int, classes: int, record: Mapping[str, Any] | None = None) -> None:
        """Remember what is to be written; nothing is opened yet.

        Args:
            output: file or folder to make.
            count: number of scenes.
            classes: number of classes.
            record: plain JSON values about the run that go with the masks; None for none.
        """
        super().__init__(output, record)
        self.count, self.classes = count, classes
        self._current: RowFile | None = None
        self._ended = 0

    def begin(self, scene: Scene) -> None:
        """Open the mask of a scene.

        Raises:
            OutputError: it cannot be written there.
        """
        try:
            self._current = self._row_file(scene)
        except OSError as error:
            raise cannot_write(self.output, error) from None

    def write_rows(self, labels: NDArray[np.uint8]) -> None:
        """Append uint8 (rows, width) labels.

        Raises:
            OutputError: the disk refuses.
        """
        assert self._current is not None
        try:
            self._current.write(labels)
        except OSError as error:
            raise cannot_write(self.output, error) from None

    def end(self) -> None:
        """Finish the mask of the scene.

        Raises:
            OutputError: the disk refuses.
        """
        assert self._current is not None
        try:
            self._current.close()
        except OSError as error:
            raise cannot_write(self.output, error) from None
        self._current = None
        self._ended += 1

    def _open(self) -> None: ...

    def _close(self) -> None: ...

    def _abandon(self) -> None:
        if self._current is not None:
            self._current.abandon()

    def _check_complete(self) -> None:
        if self._ended != self.count:
            raise OutputError(f"{self._ended} of {self.count} masks came: {self.output} was not written")

    def _row_file(self, scene: Scene) -> RowFile:
        raise NotImplementedError


class OneFile(SceneWriter):
    """The mask of one scene in one file: .png, .tif or .npy."""

    def _row_file(self, scene: Scene) -> RowFile:
        kind = ROW_FILES[self.output.suffix.lower()]
        return kind(self.partial, scene.size, self.classes, scene.georeference, void_label(scene, self.classes))


class OneStore(FolderMixin, OneFile):
    """The mask of one scene as a .zarr folder."""


class SceneFolder(FolderMixin, SceneWriter):
    """A folder with a mask a scene, named as the input: a GeoTIFF where the scene says where it lies, else a PNG."""

    def _open(self) -> None:
        self.partial.mkdir()

    def _row_file(self, scene: Scene) -> RowFile:
        kind, suffix = (TiffRows, ".tif") if scene.georeference is not None else (PngRows, ".png")
        path, void = self.partial / file_name(scene.id, suffix), void_label(scene, self.classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        return kind(path, scene.size, self.classes, scene.georeference, void)


class WholeMasks:
    """Gathers the rows of each scene for a writer of whole masks of one size."""

    def __init__(self, writer: MaskWriter) -> None:
        """Take the writer; it is opened and closed elsewhere."""
        self._writer = writer
        self._parts: list[NDArray[np.uint8]] = []
        self._id = ""

    def begin(self, scene: Scene) -> None:
        """Begin a mask."""
        self._id = scene.id

    def write_rows(self, labels: NDArray[np.uint8]) -> None:
        """Append uint8 (rows, width) labels."""
        self._parts.append(labels)

    def end(self) -> None:
        """Hand the mask to the writer."""
        self._writer.write([self._id], np.concatenate(self._parts).reshape(1, -1))
        self._parts = []
