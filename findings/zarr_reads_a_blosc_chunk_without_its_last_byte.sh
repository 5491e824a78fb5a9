#!/usr/bin/env bash
# One would guess: a chunk file that was cut short, as by an interrupted copy, is an error when the array is read. The
# header of a Blosc frame states its length in bytes (bytes 12 to 15), so the decoder can tell; every other codec does.
#
# What happens: numcodecs hands the bytes to Blosc without their number, and Blosc reads on behind their end. Of a chunk
# without its last bytes it returns the whole array, with other values in places, and without an error.
#
# Versions: Python 3.11, zarr 3.1.6, numcodecs 0.16.6, numpy 2.4.6. Seen on 2026-11-28:
#   blosc  other values
#   zstd   an error
#   zlib   an error
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import numcodecs
import numpy as np
import zarr

values = (np.random.default_rng(0).integers(0, 4, (8, 64, 64)) * 50).astype("u1")
seen = {}
for name, codec in {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), "zlib": numcodecs.Zlib()}.items():
    array = zarr.create_array(name, shape=(8, 64, 64), chunks=(8, 64, 64), dtype="u1", zarr_format=2, compressors=codec)
    array[:] = values
    with open(f"{name}/0.0.0", "rb+") as chunk:
        chunk.truncate(chunk.seek(0, 2) - 1)
    try:
        read = zarr.open(name, mode="r")[:]
        seen[name] = "the same values" if np.array_equal(read, values) else "other values"
    except Exception as error:
        seen[name] = "an error"
    print(f"{name:6} {seen[name]}")
sys.exit(seen != {"blosc": "other values", "zstd": "an error", "zlib": "an error"})
PY
