#!/usr/bin/env bash
# One would guess: a shard of no bytes at all, which a copy leaves that was cut off or ran out of space, is an error when
# the array is read, as an empty chunk file is and as a shard cut off anywhere else is.
#
# What happens: the reader asks for the index at the end of the shard, gets nothing, and takes the shard for one that is
# not there: its part of the array comes back as the fill value, without an error.
#
# Versions: Python 3.11, zarr 3.1.6, numcodecs 0.16.6, numpy 2.4.6. Seen on 2026-11-28:
#   chunks, 5 bytes left: an error
#   chunks, 0 bytes left: an error
#   shards, 5 bytes left: an error
#   shards, 0 bytes left: [7, 7, 7, 7, 0, 0, 0, 0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import numpy as np
import zarr

seen = {}
for name, how in {"chunks": {"chunks": (4,)}, "shards": {"chunks": (2,), "shards": (4,)}}.items():
    array = zarr.create_array(name, shape=(8,), dtype="u1", **how)
    array[:] = 7
    for left in (5, 0):
        with open(f"{name}/c/1", "rb+") as file:
            file.truncate(left)
        try:
            seen[name, left] = zarr.open(name, mode="r")[:].tolist()
        except Exception as error:
            seen[name, left] = "an error"
        print(f"{name}, {left} bytes left: {seen[name, left]}")
want = {key: "an error" for key in seen} | {("shards", 0): [7, 7, 7, 7, 0, 0, 0, 0]}
sys.exit(seen != want)
PY
