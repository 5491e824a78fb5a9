#!/usr/bin/env bash
# One would guess: overviews of a mask of whole numbers show values of the mask. For GTiff the default resampling of
# overviews is the nearest pixel.
#
# What happens: the COG driver chooses by the band: nearest with a colour table, cubic without. A mask of the classes 0
# and 4 without a colour table shows classes between them as soon as a viewer zooms out, without a warning.
# OVERVIEW_RESAMPLING=MODE (or NEAREST) has to be stated.
#
# Versions: Python 3.11, rasterio 1.4.4 (its GDAL is 3.10.3), numpy 2.4.6. Seen on 2026-11-28
# (classes in the overviews):
#   no colour table: 2: [0, 3], 4: [2]
#   colour table: 2: [0, 4], 4: [0, 4]
#   no colour table, mode: 2: [0, 4], 4: [0, 4]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q rasterio==1.4.4 numpy==2.4.6
cd "$work"
venv/bin/python -W ignore - <<'PY'
import sys

import numpy as np
import rasterio
from rasterio.shutil import copy

SIDE = 1024
labels = np.where(np.indices((SIDE, SIDE)).sum(0) // 3 % 2, 4, 0).astype("u1")
seen = {}
mode = {"overview_resampling": "mode"}
for name, how in (("no colour table", {}), ("colour table", {}), ("no colour table, mode", mode)):
    with rasterio.open("mask.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint8") as mask:
        mask.write(labels, 1)
        if name == "colour table":
            mask.write_colormap(1, {0: (0, 0, 0), 4: (255, 0, 0)})
    copy("mask.tif", "cog.tif", driver="COG", blocksize=256, **how)
    with rasterio.open("cog.tif") as cog:
        parts = {by: cog.read(1, out_shape=(SIDE // by, SIDE // by)) for by in cog.overviews(1)}
    seen[name] = {by: np.unique(part).tolist() for by, part in parts.items()}
    print(f"{name}:", ", ".join(f"{by}: {values}" for by, values in seen[name].items()))
print("GDAL", rasterio.__gdal_version__)
new = {name: set().union(*found.values()) - {0, 4} for name, found in seen.items()}
sys.exit(not new["no colour table"] or new["colour table"] != set() or new["no colour table, mode"] != set())
PY
