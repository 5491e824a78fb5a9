"""What a model file promises: classes, layouts, scaling, kind, ignored class.

The promise travels as one JSON object under the key ``maskfuse.contract`` in the ONNX metadata (and, on the way there,
as the member ``maskfuse.json`` of a ``.keras`` archive). Reading it never trusts it: every field is checked.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Literal

from engine.errors import ContractError
from engine.models.fields import checked_fields, is_tile_key, listed, require, require_text
from engine.utils.sides import told_size

METADATA_KEY = "maskfuse.contract"
KERAS_MEMBER = "maskfuse.json"
SCHEMA = 1
MAX_CLASSES = 256
# The output of a packed file that holds its label maps.
LABELS = "labels"

Layout = Literal["NCHW", "NHWC"]
Kind = Literal["multiclass", "specialist", "specialists", "packed", "binary", "labels", "multilabel"]
Activation = Literal["logits", "probabilities"]
Note = str | float | int | bool

LAYOUTS = ("NCHW", "NHWC")
KINDS = ("multiclass", "specialist", "specialists", "packed", "binary", "labels", "multilabel")
ACTIVATIONS = ("logits", "probabilities")
FITS = ("", "resize", "pad")
MAPS_RESIZES = ("bilinear", "nearest")
CHANNEL_ORDERS = ("rgb", "bgr")
MAX_STRIDE = 256


@dataclass(frozen=True)
class ModelContract:
    """The promise of one model file.

    Attributes:
        classes: names of the classes, in label order; 2 to 256 of them.
        kind: ``multiclass`` (one map a class), ``specialist`` (one map: the log-odds of one class against the rest),
            ``specialists`` (the log-odds of every class, as a whole set of specialists gives them), ``packed`` (a
            whole ensemble: raw pixels in, label maps uint8 (batch, height, width) out), ``binary`` (one map: the second
            class against the first), ``labels`` (whole numbers: the net has its own argmax) or ``multilabel`` (one map
            per class, each decided by itself: a pixel may have several classes or none).
        class_id: the class a specialist knows; None for every other kind.
        group: the name that ties the specialists of one set together; empty for a multi-class net.
        input_layout: order of the input's axes.
        output_layout: order of the output's axes.
        activation: what the output holds: ``logits`` (log-odds for specialists) or ``probabilities``.
        size: (height, width) in pixels the net takes, or None when it takes any.
        channels: channels of an input image.
        scale: factor on the raw pixel values, applied first.
        mean: subtracted after scaling, one value a channel or a single one for all.
        std: divided by after subtracting, one value a channel or a single one for all.
        ignored_class: class left out of the score and suppressed by default; None when there is none.
        stride: what the sides of the input must divide by; images of other sizes are mirrored up to it and cut back.
        fit: how images of another size than ``size`` are brought to it: ``resize``, ``pad`` or not at all (empty).
        maps_resize: how maps of another size than the input are brought to it: ``bilinear`` or ``nearest``.
        foreground_threshold: the probability from which on a pixel is the second class of a ``binary`` net.
        thresholds: of a ``multilabel`` net the probability from which on a pixel has a class, one per class or one for
            all; empty for 0.5.
        bands: 1-based numbers of the image's channels that the net takes, in its order; empty for all of them.
        channel_order: ``bgr`` turns the channels of RGB images around.
        grey_as_rgb: whether a grey image is repeated over the three channels that the net takes.
        constants: values of further inputs by name: a number or a flat list.
        resolution: ground resolution in metres per pixel that maps are read at; None for that of the map.
        held_out: of a net of a cross-validation the tiles of its data that it was not trained on, as
            :func:`engine.models.folds.tile_keys` names them; empty where that is not known.
        bias: calibration of specialists: added to the log-odds; the kind ``specialists`` may have one value a class.
        temperature: calibration of specialists: divides the biased log-odds; as many values as for ``bias``.
        architecture: name of the architecture, for people to read.
        version: version of the project that wrote the file.
        notes: further scalars for people to read (validation score, parity, hash of the training run).
    """

    classes: tuple[str, ...]
    kind: Kind = "multiclass"
    class_id: int | None = None
    group: str = ""
    input_layout: Layout = "NHWC"
    output_layout: Layout = "NCHW"
    activation: Activation = "logits"
    size: tuple[int, int] | None = None
    channels: int = 1
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    ignored_class: int | None = None
    stride: int = 1
    fit: Literal["", "resize", "pad"] = ""
    maps_resize: Literal["bilinear", "nearest"] = "bilinear"
    foreground_threshold: float = 0.5
    thresholds: tuple[float, ...] = ()
    bands: tuple[int, ...] = ()
    channel_order: Literal["rgb", "bgr"] = "rgb"
    grey_as_rgb: bool = False
    constants: dict[str, float | list[float]] = field(default_factory=dict)
    resolution: float | None = None
    held_out: tuple[str, ...] = ()
    bias: float | tuple[float, ...] = 0.0
    temperature: float | tuple[float, ...] = 1.0
    architecture: str = ""
    version: str = ""
    notes: dict[str, Note] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a promise that contradicts itself.

        Raises:
            ContractError: naming the field, what it holds and what is allowed.
        """
        count = len(self.classes)
        require(2 <= count <= MAX_CLASSES, f"classes: {count} of them; allowed are 2 to {MAX_CLASSES}")
        twin = next((name for index, name in enumerate(self.classes) if name in self.classes[:index]), None)
        require(twin is None, f"classes: {twin!r} stands there twice; every class needs a name of its own")
        for name in (*self.classes, self.architecture, self.version, self.group):
            require_text(name)
        require(self.kind in KINDS, f"kind: {self.kind!r}; allowed are {listed(KINDS)}")
        require(self.input_layout in LAYOUTS, f"input_layout: {self.input_layout!r}; allowed are {listed(LAYOUTS)}")
        require(self.output_layout in LAYOUTS, f"output_layout: {self.output_layout!r}; allowed: {listed(LAYOUTS)}")
        require(self.activation in ACTIVATIONS, f"activation: {self.activation!r}; allowed: {listed(ACTIVATIONS)}")
        specialist = self.kind == "specialist"
        require(specialist == (self.class_id is not None), "class_id: given for a specialist and for nothing else")
        for label, value in (("class_id", self.class_id), ("ignored_class", self.ignored_class)):
            require(value is None or 0 <= value < count, f"{label}: {value}; allowed are 0 to {count - 1}")
        require(self.size is None or min(self.size) > 0, f"size: {self.size}; both sides must be above 0")
        require(1 <= self.channels <= 64, f"channels: {self.channels}; allowed are 1 to 64")
        require(_fits(self.scale), f"scale: {self.scale}; its size must lie within 1e-30 and 1e30")
        self._check_calibration()
        self._check_adaptation()
        for label, values in (("mean", self.mean), ("std", self.std)):
            require(len(values) in (1, self.channels), f"{label}: {len(values)} values for {self.channels} channels")
            require(all(map(math.isfinite, values)), f"{label}: {values}; all must be finite")
        require(all(map(_fits, self.std)), f"std: {self.std}; their sizes must lie within 1e-30 and 1e30")

    def _check_adaptation(self) -> None:
        for label, value, allowed in (
            ("fit", self.fit, FITS),
            ("maps_resize", self.maps_resize, MAPS_RESIZES),
            ("channel_order", self.channel_order, CHANNEL_ORDERS),
        ):
            require(value in allowed, f"{label}: {value!r}; allowed are {listed(tuple(filter(None, allowed)))}")
        require(1 <= self.stride <= MAX_STRIDE, f"stride: {self.stride}; allowed are 1 to {MAX_STRIDE}")
        divided = self.size is None or not any(side % self.stride for side in self.size)
        require(divided, f"stride: {self.stride}; it must divide both sides of the size {self.size}")
        threshold = self.foreground_threshold
        require(1e-6 <= threshold <= 1 - 1e-6, f"foreground_threshold: {threshold}; a number inside 0..1 is needed")
        require(
            self.kind == "binary" or threshold == 0.5,
            f"foreground_threshold: {threshold}; the kind {self.kind} has no foreground",
        )
        several = self.thresholds
        require(not several or self.kind == "multilabel", f"thresholds: {several}; the kind {self.kind} has none")
        require(len(several) in (0, 1, len(self.classes)), f"thresholds: {len(several)}; one, or one per class")
        require(all(1e-6 <= value <= 1 - 1e-6 for value in several), f"thresholds: {several}; numbers inside 0..1")
        require(self.kind != "binary" or len(self.classes) == 2, f"classes: {len(self.classes)}; a binary net has 2")
        twice = len(set(self.bands)) < len(self.bands)
        require(
            all(1 <= band <= 1024 for band in self.bands) and not twice, f"bands: {self.bands}; 1 or more, each once"
        )
        require(
            not self.bands or len(self.bands) == self.channels,
            f"bands: {len(self.bands)} of them; the net takes {self.channels} channels",
        )
        metres = self.resolution
        require(
            metres is None or 1e-6 <= metres <= 1e6,
            f"resolution: {metres}; metres per pixel from 1e-6 to 1e6 are needed",
        )
        strange = next((key for key in self.held_out if not is_tile_key(key)), None)
        require(strange is None, f"held_out: {str(strange)[:40]!r}; keys of 8 letters, digits, - or _ are needed")
        require(
            self.channel_order == "rgb" or self.channels == 3, f"channel_order: bgr for {self.channels} channels, not 3"
        )

    def _check_calibration(self) -> None:
        for label, given in (("bias", self.bias), ("temperature", self.temperature)):
            several = isinstance(given, tuple)
            require(not several or self.kind == "specialists", f"{label}: a list; the kind {self.kind} takes a number")
            values = given if isinstance(given, tuple) else (given,)
            fits = not several or len(values) == len(self.classes)
            require(fits, f"{label}: {len(values)} values for {len(self.classes)} classes")
            require(all(map(math.isfinite, values)), f"{label}: {given}; it must be finite")
            fits = label == "bias" or all(_fits(value) and value > 0 for value in values)
            require(fits, f"temperature: {given}; it must lie within 1e-30 and 1e30")

    @property
    def outputs(self) -> int:
        """Number of maps the file outputs: one per class; one for a specialist, a binary net, and for labels."""
        return 1 if self.kind in ("specialist", "packed", "binary", "labels") else len(self.classes)

    @property
    def sides(self) -> str:
        """Say which images the net takes: ``64x128``, ``any size`` or ``any size that 8 divides``."""
        if self.size is not None:
            return told_size(self.size)
        return "any size" if self.stride == 1 else f"any size that {self.stride} divides"

    @property
    def calibration(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(biases, temperatures) of specialists, one value a map each, or None where they change nothing."""
        biases, temperatures = (
            given if isinstance(given, tuple) else (given,) * self.outputs for given in (self.bias, self.temperature)
        )
        plain = not any(biases) and all(value == 1 for value in temperatures)
        return None if plain or self.kind not in ("specialist", "specialists") else (biases, temperatures)

    def noted(self, **notes: Note) -> ModelContract:
        """Return a copy with further notes."""
        return replace(self, notes={**self.notes, **notes})

    def to_json(self) -> str:
        """Return the contract as one line of JSON with sorted keys, as it stands in a file's metadata."""
        # What came to the contract later is left out where it says nothing: a file's contract, and so its plan's hash,
        # stay what they were.
        silent = {name for name in _LATER if getattr(self, name) == _DEFAULTS[name]}
        stated = {name: value for name, value in asdict(self).items() if name not in silent}
        return json.dumps({"schema": SCHEMA, **stated}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read a contract that :meth:`to_json` or another program wrote.

        Raises:
            ContractError: the text is not JSON, of a newer schema, or a field is unknown, of a wrong type or range.
        """
        try:
            raw = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ContractError(f"the contract in the metadata is not JSON ({error}); export the model again") from None
        if not isinstance(raw, dict):
            raise ContractError(f"the contract is a JSON {type(raw).__name__}; an object is needed: export it again")
        schema = raw.pop("schema", None)
        if schema != SCHEMA:
            raise ContractError(f"the contract has schema {schema!r}; this version reads {SCHEMA}: upgrade maskfuse")
        require("classes" in raw, "classes is missing; it is the one field every contract needs")
        return cls(**checked_fields(raw))


def _fits(factor: float) -> bool:
    """Return whether a factor is neither 0 nor infinite in float32, with room for what it is multiplied with."""
    return 1e-30 <= abs(factor) <= 1e30


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


# Fields that are younger than the first contracts.
_LATER = (
    *("stride", "fit", "maps_resize", "foreground_threshold", "thresholds", "bands", "channel_order"),
    *("grey_as_rgb", "constants", "resolution", "held_out"),
)
_DEFAULTS = {
    item.name: item.default if item.default is not MISSING else {}
    for item in fields(ModelContract)
    if item.name in _LATER
}
