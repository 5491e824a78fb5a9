"""One opened ONNX file: raw images in, planar logits out, whatever form its own input and output have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, ModelError, option
from engine.models.adapt.binary import LEAST_PROBABILITY, above, log_odds, two_classes
from engine.models.adapt.class_map import ClassMap, onto, votes_onto
from engine.models.adapt.labels import NOT_FINITE, votes
from engine.models.adapt.size import Size, joined, nearest_into, reduction, resize_into, windows
from engine.models.contract import ModelContract
from engine.models.foreign import GREY_ADVICE, as_planes
from engine.models.prepare import input_size, prepare
from engine.models.runtimes.base import Session

# Labels are below it, by far.
MOST_LABEL = 1 << 24


@dataclass(frozen=True)
class Net:
    """One opened ONNX file that keeps a contract.

    Attributes:
        name: file name without suffix, or what the plan calls it.
        path: the file.
        contract: what it promises, completed by what the user stated.
        session: the file, opened in a runtime.
        output_name: the output that is read.
        checksum: SHA-256, hexadecimal, of the file, and of the weights it keeps beside it.
        kind: element type of the input, as NumPy names it.
        adapted: what is done to its input and output without changing a result, a few words each.
        warnings: what may be wrong with the file itself.
        stated: contract fields that neither the file nor a file beside it says: what a plan must remember.
        onto: brings its classes to those of the ensemble; None where they are the same.
    """

    name: str
    path: Path
    contract: ModelContract
    session: Session
    output_name: str
    checksum: str
    kind: str = "float32"
    adapted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)
    onto: ClassMap | None = None

    @property
    def maps(self) -> int:
        """Return how many maps :meth:`run` writes: one per class of the ensemble, of a specialist one."""
        if self.onto is not None:
            return len(self.onto.classes)
        several = self.contract.kind in ("packed", "labels", "binary")
        return len(self.contract.classes) if several else self.contract.outputs

    @property
    def input_key(self) -> tuple[object, ...]:
        """Return what decides the network's input: members with an equal key share one prepared batch."""
        held = self.contract
        form = (held.size, held.fit) if held.size else (held.stride,)
        order = (held.bands, held.channel_order, held.grey_as_rgb)
        return (held.input_layout, held.channels, held.scale, held.mean, held.std, self.kind, order, *form)

    def prepare(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the network's input for raw images (batch, height, width, channels), see :mod:`engine.models.prepare`.

        Raises:
            InputError: images of a size or type that the net does not take.
        """
        try:
            return prepare(self.contract, self.kind, pixels)
        except InputError as error:
            raise InputError(f"{self.path.name}: {error}") from None

    def windows(self, prepared: NDArray[Any]) -> NDArray[Any]:
        """Return what the graph takes at once of a prepared batch: of images larger than its one size, windows."""
        fixed = self.contract.size
        if fixed is None or self._sides(prepared) == fixed:
            return prepared
        planar = self.contract.input_layout == "NCHW"
        cut = windows(prepared if planar else prepared.transpose(0, 3, 1, 2), fixed)
        return np.ascontiguousarray(cut if planar else cut.transpose(0, 2, 3, 1))

    def run(self, prepared: NDArray[Any], out: NDArray[np.float32], size: Size) -> None:
        """Run a prepared batch.

        Args:
            prepared: what :meth:`prepare` returned.
            out: float32 (batch, maps, pixels), the result: logits, or log-odds of specialists, calibrated; of nets that
                put out labels, 1 for the class of each label, 0 for all others. A binary net has two maps.
            size: (height, width) of the raw images.

        Raises:
            ModelError: the runtime fails, or the output has another shape than promised.
        """
        if self.onto is not None:
            own = np.empty((len(out), len(self.onto.targets), out.shape[2]), np.float32)
            self._run(prepared, own, size)
            bring = votes_onto if self.contract.kind == "labels" else onto
            bring(out, own, self.onto.targets)
        else:
            self._run(prepared, out, size)

    def _run(self, prepared: NDArray[Any], out: NDArray[np.float32], size: Size) -> None:
        held = self.contract
        if held.kind in ("packed", "labels"):
            self._run_labels(prepared, out, size)
            return
        if held.kind == "binary":
            odds = np.empty((len(out), 1, out.shape[2]), np.float32)
            self._run_maps(prepared, odds, size)
            if held.activation == "probabilities":
                odds = log_odds(odds)
            two_classes(out, odds[:, 0], held.foreground_threshold)
            return
        self._run_maps(prepared, out, size)
        if held.kind == "multilabel":
            if held.activation == "probabilities":
                out[:] = log_odds(out)
            above(out, held.thresholds or (0.5,))
            return
        if held.activation == "probabilities":
            _to_logits(out, specialist=held.kind in ("specialist", "specialists"))
        if held.calibration is not None:
            biases, temperatures = (np.asarray(values, np.float32)[:, None] for values in held.calibration)
            out += biases
            out /= temperatures

    def _run_maps(self, prepared: NDArray[Any], out: NDArray[np.float32], size: Size) -> None:
        """Write the maps of a batch, brought to the images' size."""
        held = self.contract
        sides = self._sides(prepared)
        planar = held.input_layout == held.output_layout == "NCHW" and sides == size and held.size in (None, size)
        planes = out.reshape(*out.shape[:2], *size)
        maps = self.infer(prepared, planes if planar else None)
        if maps is planes:
            return
        maps = self._planes(maps, out.shape[1], "f")
        self._check_maps(maps, sides)
        whole = size if held.fit == "resize" else sides
        if (maps.shape[2], maps.shape[3]) == whole:
            np.copyto(planes, maps[:, :, : size[0], : size[1]])
        elif held.maps_resize == "nearest":
            nearest_into(planes, maps, whole)
        else:
            resize_into(planes, np.ascontiguousarray(maps, np.float32), whole)

    def _run_labels(self, prepared: NDArray[Any], out: NDArray[np.float32], size: Size) -> None:
        found = self._whole(self._planes(self.infer(prepared), 1, "fiu"))
        self._check_maps(found, self._sides(prepared))
        whole = size if self.contract.fit == "resize" else self._sides(prepared)
        labels = np.empty((len(out), *size), found.dtype)
        nearest_into(labels, found[:, 0], whole)
        unknown = NOT_FINITE if self.contract.kind == "packed" else None
        votes(out, labels.reshape(len(out), -1), str(self.path), unknown)

    def _check_maps(self, maps: NDArray[Any], sides: Size) -> None:
        """Refuse maps of a size that an input of ``sides`` does not explain: resized, they would lie beside it."""
        if not reduction(sides, (maps.shape[2], maps.shape[3])):
            raise ModelError(
                f"{self.path} outputs maps of {maps.shape[2]}x{maps.shape[3]} for an input of {sides[0]}x{sides[1]}; "
                "they must have its sides or a whole fraction of them: use images whose sides its stride divides"
            )

    def _sides(self, prepared: NDArray[Any]) -> Size:
        shape = prepared.shape
        return (shape[2], shape[3]) if self.contract.input_layout == "NCHW" else (shape[1], shape[2])

    def infer(self, prepared: NDArray[Any], out: NDArray[np.float32] | None = None) -> NDArray[Any]:
        """Return a prepared batch's output as the graph puts it out.

        Images that are larger than a net of a fixed size are run window by window.

        Args:
            prepared: what :meth:`prepare` returned.
            out: where the result should go; the session writes there when it can, and ``out`` itself is returned then.

        Raises:
            ModelError: the runtime fails.
        """
        fixed, sides = self.contract.size, self._sides(prepared)
        if fixed is None or sides == fixed:
            return self.session.run(self.output_name, prepared, out)
        found = as_planes(self.session.run(self.output_name, self.windows(prepared)), self.contract.output_layout)
        whole = joined(found, sides[0] // fixed[0], sides[1] // fixed[1])
        return whole if self.contract.output_layout == "NCHW" else whole.transpose(0, 2, 3, 1)

    def _whole(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return labels as whole numbers; some nets cast them to floats at their end."""
        if labels.dtype.kind != "f":
            return labels
        if not (np.abs(labels.astype(np.float64)) < MOST_LABEL).all() or (labels != np.rint(labels)).any():
            raise ModelError(f"{self.path} outputs {labels.dtype} that are not whole numbers; stated are labels")
        return labels.astype(np.int32)

    def _planes(self, maps: NDArray[Any], count: int, kinds: str) -> NDArray[Any]:
        """Return what a runtime put out as (batch, maps, height, width), once it has the promised shape and type."""
        if maps.ndim not in (3, 4) or maps.dtype.kind not in kinds:
            needed = "float maps of rank 4" if kinds == "f" else "labels of rank 3 or 4"
            raise ModelError(f"{self.path} outputs {maps.dtype} of shape {maps.shape}; {needed} are needed")
        planes = as_planes(maps, self.contract.output_layout)
        if planes.shape[1] != count:
            raise ModelError(
                f"{self.path} outputs {maps.shape}, {planes.shape[1]} maps under {self.contract.output_layout}; its "
                f"contract promises {count}: check {option('output_layout')} or export it again"
            )
        return planes


def check_sample(net: Net, shape: tuple[int, ...]) -> None:
    """Refuse images the net cannot take.

    Args:
        net: the opened file.
        shape: (height, width, channels) of the images.

    Raises:
        InputError: wrong size or number of channels.
    """
    height, width, channels = shape
    held = net.contract
    try:
        input_size(held, (height, width))
    except InputError as error:
        raise InputError(f"{net.path.name}: {error}") from None
    if held.bands:
        if max(held.bands) > channels:
            raise InputError(f"images have {channels} channels; {net.path.name} takes bands {_listed(held.bands)}")
        return
    grey = channels == 1 and held.channels == 3
    if held.channels != channels and not (grey and held.grey_as_rgb):
        advice = f"add {option('grey_as_rgb')} to repeat the grey channel" if grey else "convert the images"
        if channels > held.channels:
            advice = f"pick channels with {option('bands', _listed(range(1, held.channels + 1)))}"
            if (channels, held.channels) == (3, 1):
                advice += f", or {GREY_ADVICE}"
        raise InputError(
            f"images have {channels} channel{'s' if channels > 1 else ''}; {net.path.name} takes "
            f"{held.channels}: {advice}"
        )


def check_range(pixels: NDArray[Any], nets: Iterable[Net]) -> None:
    """Refuse images that were scaled already where the nets scale raw values themselves.

    Args:
        pixels: the first raw images.
        nets: who would scale them.

    Raises:
        InputError: naming the net whose scale does not fit.
    """
    if pixels.dtype.kind != "f" or not pixels.size:
        return
    low, top = float(pixels.min()), float(pixels.max())  # NaN passes here: it is refused where it shows, by name
    for net in nets:
        held = net.contract
        if low < 0 and any(held.mean):
            raise InputError(
                f"the images hold floats down to {low:.3g}, so they are normalised already; {net.path.name} subtracts "
                f"a mean itself: give raw images, or {option('normalize', 'none')}"
            )
        if 0 < top <= 1 and held.scale <= 1 / 128:
            raise InputError(
                f"the images hold floats up to {top:.3g}; {net.path.name} expects raw values "
                "0..255 and scales them itself: store the images unscaled"
            )


def _to_logits(out: NDArray[np.float32], specialist: bool) -> None:
    """Turn probabilities into logits in place: softmax (or the sigmoid of a specialist) gives them back."""
    if specialist:
        out[:] = log_odds(out)
    else:
        np.log(np.maximum(out, LEAST_PROBABILITY), out=out)


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))
