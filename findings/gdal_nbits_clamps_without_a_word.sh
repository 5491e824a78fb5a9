#!/usr/bin/env bash
# One would guess: a value that does not fit into a GeoTIFF's NBITS is an error, at least a warning as for other clamped
# values.
#
# What happens: it becomes the largest value that fits. rasterio passes no warning on: with NBITS=2, chosen for
# classes 0 to 3, the nodata value 255 and class 7 both come back as class 3.
#
# Versions: Python 3.11, rasterio 1.4.4 (its GDAL is 3.10.3), numpy 2.4.6. Seen on 2026-11-28:
#   written [0, 1, 2, 3, 7, 255], read [0, 1, 2, 3, 3, 3]; warnings: none
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q rasterio==1.4.4 numpy==2.4.6
cd "$work"
venv/bin/python - 2>stderr <<'PY'
import sys
import warnings

import numpy as np
import rasterio
from rasterio.transform import from_origin

values = np.array([[0, 1, 2, 3, 7, 255]], "u1")
how = {"driver": "GTiff", "height": 1, "width": 6, "count": 1, "dtype": "uint8", "transform": from_origin(10, 50, 1, 1)}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with rasterio.open("mask.tif", "w", nbits=2, **how) as mask:
        mask.write(values, 1)
    with rasterio.open("mask.tif") as mask:
        read = mask.read(1)
warned = [str(item.message) for item in said]
print(f"written {values[0].tolist()}, read {read[0].tolist()}; warnings:", *(warned or ["none"]))
sys.exit(read[0].tolist() != [0, 1, 2, 3, 3, 3] or bool(warned))
PY
test ! -s stderr
