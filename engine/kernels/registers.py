"""All classes of a pixel in registers: one loop over pixels, no memory access between logits and scores.

A tuple of that length (``slots``) gives the compiler the number of classes, so loops over ``range(len(slots))`` are
unrolled and values in :func:`registers` need no memory. Rows are accessed through :func:`rows_of`: LLVM assumes that a
store to one row of an array may change the next load from another, unless their addresses are numbers; it then checks
once, before the loop, that they do not overlap, and vectorises the loop.

With the JIT off, plain Python versions replace these functions.
"""

from __future__ import annotations

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

# With more classes than this there are not enough registers: rows are then processed one after the other.
MOST_SLOTS = 8


def slots_of(count: int) -> tuple[int, ...]:
    """Return the tuple whose length tells the compiler how many slots there are."""
    return (0,) * count


if numba.config.DISABLE_JIT:

    def registers(slots, zero):  # type: ignore[no-untyped-def]
        """Return space for one value per slot, of the type of ``zero``."""
        return [zero] * len(slots)

    def get(held, slot):  # type: ignore[no-untyped-def]
        """Return the value of a slot."""
        return held[slot]

    def put(held, slot, value):  # type: ignore[no-untyped-def]
        """Set the value of a slot."""
        held[slot] = value

    def rows_of(array, ids, start, slots):  # type: ignore[no-untyped-def]
        """Return the rows ``array[ids[slot], start:]`` of a two-dimensional array, whose last axis is contiguous."""
        return [array[ids[slot], start:] for slot in range(len(slots))]

    def load(rows, slot, i):  # type: ignore[no-untyped-def]
        """Return element ``i`` of a slot's row."""
        return rows[slot][i]

    def store(rows, slot, i, value):  # type: ignore[no-untyped-def]
        """Set element ``i`` of a slot's row."""
        rows[slot][i] = value

else:  # pragma: no cover: makes machine code; the versions above run with the JIT off

    @intrinsic
    def registers(typing, slots, zero):  # type: ignore[no-untyped-def]
        """Return space for one value per slot, of the type of ``zero``."""
        count = len(slots)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _room(builder, arguments[1].type, count)

        return types.CPointer(zero)(slots, zero), generate

    @intrinsic
    def get(typing, held, slot):  # type: ignore[no-untyped-def]
        """Return the value of a slot."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))

        return held.dtype(held, types.intp), generate

    @intrinsic
    def put(typing, held, slot, value):  # type: ignore[no-untyped-def]
        """Set the value of a slot."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]], inbounds=True))
            return context.get_dummy_value()

        return types.none(held, types.intp, held.dtype), generate

    @intrinsic
    def rows_of(typing, array, ids, start, slots):  # type: ignore[no-untyped-def]
        """Return the rows ``array[ids[slot], start:]`` of a two-dimensional array, whose last axis is contiguous."""
        count = len(slots)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            source = make_array(array)(context, builder, arguments[0])
            chosen = make_array(ids)(context, builder, arguments[1])
            stride = cgutils.unpack_tuple(builder, source.strides, 2)[0]
            word = stride.type
            size = word(context.get_abi_sizeof(context.get_value_type(array.dtype)))
            base = builder.add(builder.ptrtoint(source.data, word), builder.mul(arguments[2], size))
            rows = _room(builder, word, count)
            for slot in range(count):
                row = builder.load(builder.gep(chosen.data, [word(slot)], inbounds=True))
                address = builder.add(base, builder.mul(row, stride))
                builder.store(address, builder.gep(rows, [word(slot)], inbounds=True))
            return builder.bitcast(rows, context.get_value_type(held))

        held = types.CPointer(types.CPointer(array.dtype))
        return held(array, ids, types.intp, slots), generate

    @intrinsic
    def load(typing, rows, slot, i):  # type: ignore[no-untyped-def]
        """Return element ``i`` of a slot's row."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.load(_element(context, builder, rows, arguments))

        return rows.dtype.dtype(rows, types.intp, types.intp), generate

    @intrinsic
    def store(typing, rows, slot, i, value):  # type: ignore[no-untyped-def]
        """Set element ``i`` of a slot's row."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            builder.store(arguments[3], _element(context, builder, rows, arguments))
            return context.get_dummy_value()

        return types.none(rows, types.intp, types.intp, rows.dtype.dtype), generate


def _room(builder, kind, count):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return a pointer to ``count`` uninitialised values on the stack."""
    stack = cgutils.alloca_once(builder, ir.ArrayType(kind, count))
    return builder.gep(stack, [ir.IntType(32)(0), ir.IntType(32)(0)], inbounds=True)


def _element(context, builder, rows, arguments):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the address of an element of a slot's row."""
    word = arguments[1].type
    held = builder.gep(arguments[0], [arguments[1]], inbounds=True)
    pointer = builder.inttoptr(
        builder.load(builder.bitcast(held, word.as_pointer())), context.get_value_type(rows.dtype)
    )
    return builder.gep(pointer, [arguments[2]], inbounds=True)
