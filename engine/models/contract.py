"""What a model file promises: classes, layouts, scaling, kind, ignored class.

The promise travels as one JSON object under the key ``maskfuse.contract`` in the ONNX metadata (and, on the way there,
as the member ``maskfuse.json`` of a ``.keras`` archive). Reading it never trusts it: every field is checked.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, cast

from engine.errors import ContractError
from engine.utils.sides import told_size

METADATA_KEY = "maskfuse.contract"
KERAS_MEMBER = "maskfuse.json"
SCHEMA = 1
MAX_CLASSES = 256
MAX_STRIDE = 256
# The output of a packed file that holds its label maps.
LABELS = "labels"

Layout = Literal["NCHW", "NHWC"]
Kind = Literal["multiclass", "specialist", "specialists", "packed"]
Activation = Literal["logits", "probabilities"]
Note = str | float | int | bool

LAYOUTS = ("NCHW", "NHWC")
KINDS = ("multiclass", "specialist", "specialists", "packed")
ACTIVATIONS = ("logits", "probabilities")


@dataclass(frozen=True)
class ModelContract:
    """The promise of one model file.

    Attributes:
        classes: names of the classes, in label order; 2 to 256 of them.
        kind: ``multiclass`` (one map a class), ``specialist`` (one map: the log-odds of one class against the rest),
            ``specialists`` (the log-odds of every class, as a whole set of specialists gives them) or ``packed`` (a
            whole ensemble: raw pixels in, label maps uint8 (batch, height, width) out).
        class_id: the class a specialist knows; None for every other kind.
        group: the name that ties the specialists of one set together; empty for a multi-class net.
        input_layout: order of the input's axes.
        output_layout: order of the output's axes.
        activation: what the output holds: ``logits`` (log-odds for specialists) or ``probabilities``.
        size: (height, width) in pixels the net takes, or None when it takes any.
        stride: pixels that must divide both sides of the input; 1 where nothing is said.
        channels: channels of an input image.
        scale: factor on the raw pixel values, applied first.
        mean: subtracted after scaling, one value a channel or a single one for all.
        std: divided by after subtracting, one value a channel or a single one for all.
        ignored_class: class left out of the score and suppressed by default; None when there is none.
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
    stride: int = 1
    channels: int = 1
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    ignored_class: int | None = None
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
        _require(2 <= count <= MAX_CLASSES, f"classes: {count} of them; allowed are 2 to {MAX_CLASSES}")
        twin = next((name for index, name in enumerate(self.classes) if name in self.classes[:index]), None)
        _require(twin is None, f"classes: {twin!r} stands there twice; every class needs a name of its own")
        for name in (*self.classes, self.architecture, self.version, self.group):
            _require_text(name)
        _require(self.kind in KINDS, f"kind: {self.kind!r}; allowed are {_listed(KINDS)}")
        _require(self.input_layout in LAYOUTS, f"input_layout: {self.input_layout!r}; allowed are {_listed(LAYOUTS)}")
        _require(self.output_layout in LAYOUTS, f"output_layout: {self.output_layout!r}; allowed: {_listed(LAYOUTS)}")
        _require(self.activation in ACTIVATIONS, f"activation: {self.activation!r}; allowed: {_listed(ACTIVATIONS)}")
        specialist = self.kind == "specialist"
        _require(specialist == (self.class_id is not None), "class_id: given for a specialist and for nothing else")
        for label, value in (("class_id", self.class_id), ("ignored_class", self.ignored_class)):
            _require(value is None or 0 <= value < count, f"{label}: {value}; allowed are 0 to {count - 1}")
        _require(self.size is None or min(self.size) > 0, f"size: {self.size}; both sides must be above 0")
        _require(1 <= self.stride <= MAX_STRIDE, f"stride: {self.stride}; allowed are 1 to {MAX_STRIDE}")
        divided = self.size is None or not any(side % self.stride for side in self.size)
        _require(divided, f"stride: {self.stride}; it must divide both sides of the size {self.size}")
        _require(1 <= self.channels <= 64, f"channels: {self.channels}; allowed are 1 to 64")
        _require(_fits(self.scale), f"scale: {self.scale}; its size must lie within 1e-30 and 1e30")
        self._check_calibration()
        for label, values in (("mean", self.mean), ("std", self.std)):
            _require(len(values) in (1, self.channels), f"{label}: {len(values)} values for {self.channels} channels")
            _require(all(map(math.isfinite, values)), f"{label}: {values}; all must be finite")
        _require(all(map(_fits, self.std)), f"std: {self.std}; their sizes must lie within 1e-30 and 1e30")

    def _check_calibration(self) -> None:
        for label, given in (("bias", self.bias), ("temperature", self.temperature)):
            several = isinstance(given, tuple)
            _require(not several or self.kind == "specialists", f"{label}: a list; the kind {self.kind} takes a number")
            values = given if isinstance(given, tuple) else (given,)
            fits = not several or len(values) == len(self.classes)
            _require(fits, f"{label}: {len(values)} values for {len(self.classes)} classes")
            _require(all(map(math.isfinite, values)), f"{label}: {given}; it must be finite")
            fits = label == "bias" or all(_fits(value) and value > 0 for value in values)
            _require(fits, f"temperature: {given}; it must lie within 1e-30 and 1e30")

    @property
    def outputs(self) -> int:
        """Number of maps the file puts out: one a class, or one alone for a specialist and for a packed file."""
        return 1 if self.kind in ("specialist", "packed") else len(self.classes)

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
        raw = {"schema": SCHEMA, **asdict(self)}
        if self.stride == 1:  # as files were written before there was a stride: hashes of plans stay the same
            del raw["stride"]
        return json.dumps(raw, sort_keys=True, allow_nan=False)

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
        _require("classes" in raw, "classes is missing; it is the one field every contract needs")
        return cls(**checked_fields(raw))


def _fits(factor: float) -> bool:
    """Return whether a factor is neither 0 nor infinite in float32, with room for what it is multiplied with."""
    return 1e-30 <= abs(factor) <= 1e30


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def checked_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """Check names and types of contract fields that came from JSON or TOML and return them as the dataclass wants them.

    Raises:
        ContractError: a field is unknown or of a wrong type.
    """
    known = {item.name for item in fields(ModelContract)}
    unknown = sorted(set(raw) - known)
    _require(not unknown, f"unknown field {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}")
    checked: dict[str, Any] = {}
    for name, value in raw.items():
        check, wanted = _TYPES[name]
        _require(check(value), f"{name}: {value!r} is not {wanted}")
        checked[name] = tuple(value) if isinstance(value, list | tuple) else value
    if "scale" in checked:
        checked["scale"] = float(checked["scale"])
    return checked


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ContractError(f"contract field {complaint}")


def _require_text(value: str) -> None:
    _require(len(value) <= 200 and value.isprintable(), f"text {value[:40]!r}: at most 200 printable characters")


def _listed(names: tuple[str, ...]) -> str:
    return " or ".join(names)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_int(value)


def _is_list(value: object, item: Any, length: int | None = None) -> bool:
    if not isinstance(value, list | tuple):
        return False
    items = cast(list[object], value)
    return (length is None or len(items) == length) and all(map(item, items))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_notes(value: object) -> bool:
    if not isinstance(value, dict) or len(value) > 100:
        return False
    return all(_is_text(key) and key.isprintable() and _is_scalar(item) for key, item in value.items())


def _is_scalar(value: object) -> bool:
    # An infinite number could be read (1e999) and never be written again.
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


_TEXT = (_is_text, "a text")
_NUMBER = (_is_number, "a number")
_NUMBERS = (lambda value: _is_list(value, _is_number), "a list of numbers")
_CALIBRATION = (lambda value: _is_number(value) or _is_list(value, _is_number), "a number or a list of numbers")
_INT = (_is_int, "a whole number")
_MAYBE_INT = (lambda value: value is None or _is_int(value), "a whole number or null")
_TYPES: dict[str, tuple[Any, str]] = {
    "classes": (lambda value: _is_list(value, _is_text), "a list of texts"),
    "kind": _TEXT,
    "class_id": _MAYBE_INT,
    "group": _TEXT,
    "input_layout": _TEXT,
    "output_layout": _TEXT,
    "activation": _TEXT,
    "size": (lambda value: value is None or _is_list(value, _is_int, 2), "[height, width] or null"),
    "stride": _INT,
    "channels": _INT,
    "scale": _NUMBER,
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "ignored_class": _MAYBE_INT,
    "bias": _CALIBRATION,
    "temperature": _CALIBRATION,
    "architecture": _TEXT,
    "version": _TEXT,
    "notes": (_is_notes, "a table of texts and finite numbers"),
}
