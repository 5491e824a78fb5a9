"""Which column of a Parquet file holds images, and how one of its values becomes pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.decode import Note, decode, is_encoded
from engine.sources.layout import Role, layout_of
from engine.sources.numpy_files import MOST_ROW_BYTES
from engine.sources.reading import PLAIN, Reading
from engine.utils.optional import require

# Columns that are looked for, in this order.
NAMES: dict[Role, tuple[str, ...]] = {
    "images": ("image", "images", "img", "pixels", "test_set"),
    "labels": ("labels", "label", "masks", "mask", "label_map", "annotation", "segmentation"),
}
SIDES = ("height", "width", "channels")
# Columns of ids, the first that is there.
ID_NAMES = ("id", "ids", "image_id", "file_name", "filename")
# How pictures begin that Pillow is asked to decode: PNG, JPEG, TIFF, BMP, PGM and PPM, WebP.
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"P5", b"P6", b"RIFF")
EXTENSION, PARAMETERS = b"ARROW:extension:name", b"ARROW:extension:metadata"
# Arrow's own tensors, and those that Ray Data writes, which tell their shape in the same way.
TENSORS = ("arrow.fixed_shape_tensor", "ray.data.arrow_tensor", "ray.data.arrow_tensor_v2")


@dataclass(frozen=True)
class Column:
    """A column that can hold images.

    Attributes:
        name: of the column.
        leaf: what is read of it; of pictures as Hugging Face stores them the bytes alone.
        shape: of an image, as far as the file's header tells; empty otherwise.
        order: of a tensor's axes; empty for the usual one.
        sides: columns that tell each image's height, width and channels, as far as there are.
        is_bytes: whether a value is bytes: an encoded picture, or its pixels as uint8.
        is_even: whether the type itself says how many numbers a value has.
    """

    name: str
    leaf: str
    shape: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    sides: tuple[str, ...] = ()
    is_bytes: bool = False
    is_even: bool = False

    @property
    def has_one_size(self) -> bool:
        """Return whether the type or the header says that all images have one size."""
        return not self.is_bytes and not self.sides and (self.is_even or bool(self.shape))

    def values(self, batch: Any) -> Iterator[tuple[Any, tuple[int, ...]]]:
        """Yield each value of a record batch (an Arrow scalar) with the shape that its row states, if any."""
        values = batch.column(self.name)
        values = getattr(values, "storage", values)
        if self.leaf != self.name:
            values = values.field("bytes")
        sides = [batch.column(name).to_pylist() for name in self.sides]
        for index, value in enumerate(values):
            value = getattr(value, "value", value)  # of a dictionary: the value that its index stands for
            stated = tuple(column[index] for column in sides)
            if None in stated or any(type(side) is not int or not 0 < side < 2**31 for side in stated):
                raise InputError(f"column {', '.join(self.sides)}: {stated} is no size of an image")
            yield value, stated

    def pixels(
        self,
        value: Any,
        stated: tuple[int, ...],
        role: Role,
        label: str,
        reading: Reading = PLAIN,
        note: Note | None = None,
    ) -> NDArray[Any]:
        """Return one value as (height, width, channels).

        Args:
            value: the Arrow scalar.
            stated: shape that its row tells; empty for none.
            role: whether it is an image or a label map.
            label: what messages call it.
            reading: what is stated about images; the layout is that of one image.
            note: see :func:`engine.sources.decode.decode`.

        Raises:
            InputError: no value, a damaged picture, or one that has not the pixels its shape asks for.
        """
        if not value.is_valid:
            raise InputError(f"{label} holds no value: take the row out, or fill it")
        if self.is_bytes:
            held = value.as_buffer()
            shape = _filled(stated or self.shape, held.size)
            if bytes(held[:4]).startswith(MAGIC) and (math.prod(shape) != held.size or is_encoded(bytes(held))):
                return decode(label, role, bytes(held), reading, note)
            flat = np.frombuffer(held, np.uint8)
            own: tuple[int, ...] = ()
        else:
            flat, own = _unnested(value.values, label)
            shape = _filled(stated or self.shape, len(flat)) or (own if len(own) > 1 else ())
        if not shape:
            raise InputError(
                f"{label} holds {len(flat)} numbers and no shape: add columns height and width, or save it as a tensor"
            )
        if math.prod(shape) != len(flat):
            raise InputError(f"{label} holds {len(flat)} numbers, its shape {shape} asks for {math.prod(shape)}")
        image = flat.reshape(shape)
        layout = layout_of((1, *image.shape), role, label, reading=_of_set(reading))
        return layout.arrange(image[None])[0]


def _of_set(reading: Reading) -> Reading:
    """Return what is stated about one image as what is stated about a set of one."""
    stated = reading.layout
    return replace(reading, layout=f"N{stated}") if stated and not stated.startswith("N") else reading


def pick_column(schema: Any, key: str, role: Role, label: str) -> Column:
    """Find the column of an Arrow schema that holds images or label maps.

    Args:
        schema: of the file.
        key: the column's name; empty to look for it.
        role: whether images or label maps are wanted.
        label: what messages call the file.

    Raises:
        InputError: no such column, several to choose from, or images of more bytes than are read.
    """
    twins = {name for name in schema.names if schema.names.count(name) > 1}
    twin = next((name for name in (*([key] if key else NAMES[role]), *SIDES, *ID_NAMES) if name in twins), None)
    if twin is not None:
        raise InputError(f"{label} holds two columns named {twin}: rename one of them")
    fields = [field for field in schema if field.name not in twins]
    usable = {field.name: column for field in fields if (column := _column(field, schema)) is not None}
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)[:400]
    named = key or next((name for name in NAMES[role] if name in usable), None)
    if named is None and len(usable) == 1:
        named = next(iter(usable))
    if named is None:
        raise InputError(f"{label}: which column holds the {role}? Say {label}:COLUMN; there are: {listed}")
    if named not in usable:
        raise InputError(
            f"{label} has no column {named!r} of bytes, lists of numbers or tensors that {role} can be; "
            f"there are: {listed}"
        )
    if math.prod(usable[named].shape) > MOST_ROW_BYTES:
        raise InputError(f"{label}:{named} declares images of shape {usable[named].shape}, which no memory holds")
    if usable[named].order not in ((), tuple(range(len(usable[named].shape)))):
        # What wrote such tensors and what defines them disagree on which way round the order is meant.
        raise InputError(
            f"{label}:{named} holds tensors with permuted axes: save them as they lie (numpy.ascontiguousarray)"
        )
    return usable[named]


def _column(field: Any, schema: Any) -> Column | None:
    """Return how a field can hold images; None when it cannot."""
    types = require("pyarrow", "parquet", "reading Parquet needs pyarrow", InputError).types
    kind, name = field.type, field.name
    shape, order = _tensor_shape(field)
    kind = getattr(kind, "storage_type", kind)
    if types.is_struct(kind):
        inside = {kind.field(index).name: kind.field(index).type for index in range(kind.num_fields)}
        if "bytes" in inside and _is_bytes(types, inside["bytes"]):
            return Column(name, f"{name}.bytes", is_bytes=True)
        return None
    sides = tuple(side for side in SIDES if side in schema.names and types.is_integer(schema.field(side).type))
    sides = sides if len(sides) > 1 and sides[:2] == SIDES[:2] and not shape else ()
    shape = shape or _stated_shape(field.metadata) or _stated_shape(schema.metadata)
    if _is_bytes(types, kind):
        return Column(name, name, shape, (), sides, is_bytes=True)
    depth, is_even = 0, True
    while any(is_list(kind) for is_list in _list_tests(types)):
        is_even = is_even and types.is_fixed_size_list(kind)
        kind, depth = kind.value_type, depth + 1
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return Column(name, name, shape, order, sides, is_even=is_even) if depth and numbers else None


def _list_tests(types: Any) -> tuple[Callable[[Any], bool], ...]:
    views = (types.is_list_view, types.is_large_list_view)
    return (types.is_list, types.is_large_list, types.is_fixed_size_list, *views)


def _is_bytes(types: Any, kind: Any) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _tensor_shape(field: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return shape and order of the axes of a tensor, known to this process or not; nothing is ever unpickled."""
    known = getattr(field.type, "extension_name", "")
    if known in TENSORS:
        return tuple(field.type.shape), tuple(getattr(field.type, "permutation", None) or ())
    metadata = field.metadata or {}
    if metadata.get(EXTENSION, b"").decode("utf-8", "replace") not in TENSORS:
        return (), ()
    told = _json(metadata.get(PARAMETERS, b""))
    if isinstance(told, dict):
        return _sides(told.get("shape")), _sides(told.get("permutation"), least=0)
    return _sides(told), ()


def _stated_shape(metadata: dict[bytes, bytes] | None) -> tuple[int, ...]:
    """Return the shape that a header's keys tell: ``shape`` as JSON, or height, width and perhaps channels."""
    found = metadata or {}
    if b"shape" in found:
        return _sides(_json(found[b"shape"]))
    told = [_json(found[name.encode()]) for name in SIDES if name.encode() in found]
    return _sides(told) if b"height" in found and b"width" in found else ()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text[:1000])
    except (ValueError, RecursionError):
        return None


def _sides(found: Any, least: int = 1) -> tuple[int, ...]:
    if not isinstance(found, Sequence) or isinstance(found, str) or not 2 <= len(found) <= 4:
        return ()
    return tuple(found) if all(type(side) is int and least <= side < 2**31 for side in found) else ()


def _filled(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return (height, width) with the channels that so many numbers make of it."""
    if len(shape) == 2 and count > math.prod(shape) and count % math.prod(shape) == 0:
        return (*shape, count // math.prod(shape))
    return shape


def _unnested(values: Any, label: str) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return the numbers of nested lists and the lists' lengths.

    Raises:
        InputError: lists of different lengths, or gaps.
    """
    arrow = require("pyarrow", "parquet", "reading Parquet needs pyarrow", InputError)
    compute = require("pyarrow.compute", "parquet", "reading Parquet needs pyarrow", InputError)
    shape = [len(values)]
    while arrow.types.is_nested(values.type):
        lengths = compute.unique(compute.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise InputError(f"{label} holds lists of different lengths: an image has rows of one length")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise InputError(f"{label} holds {values.null_count} gaps: fill them")
    return values.to_numpy(zero_copy_only=False), tuple(shape)
