#!/usr/bin/env bash
# One would guess: a reader applies the orientation that a picture states, or leaves it to the caller and says what it
# is, for all formats alike.
#
# What happens: Pillow turns TIFFs while it decodes them and leaves PNG and JPEG as stored. GDAL (rasterio) turns none,
# and among a TIFF's tags the orientation is missing, though those of a JPEG have it: label map and picture of one scene
# come out turned against each other, depending on their formats.
#
# Versions: Python 3.11, pillow 13.0.0, rasterio 1.4.4 (its GDAL is 3.10.3), numpy 2.4.6. Seen on 2026-11-28
# (stored 20x40 with orientation 6: a viewer shows 40x20):
#   tif Pillow (40, 20) rasterio (20, 40) orientation: not there
#   png Pillow (20, 40) rasterio (20, 40) orientation: not there
#   jpg Pillow (20, 40) rasterio (20, 40) orientation: 6
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pillow==13.0.0 rasterio==1.4.4 numpy==2.4.6
cd "$work"
venv/bin/python -W ignore - <<'PY'
import sys

import numpy as np
import rasterio
from PIL import Image

exif = Image.Exif()
exif[274] = 6
seen = []
for form in ("tif", "png", "jpg"):
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(f"a.{form}", exif=exif, compression="tiff_lzw")
    with Image.open(f"a.{form}") as picture:
        turned = np.asarray(picture).shape
    with rasterio.open(f"a.{form}") as picture:
        spaces = [picture.tags(ns=space) for space in (None, *picture.tag_namespaces())]
        tags = {key: value for tags in spaces for key, value in tags.items()}
        found = next((value for key, value in tags.items() if "orientation" in key.lower()), "not there")
        print(form, "Pillow", turned, "rasterio", picture.shape, "orientation:", found)
        seen.append((turned, picture.shape, found != "not there"))
stored, shown = (20, 40), (40, 20)
sys.exit(seen != [(shown, stored, False), (stored, stored, False), (stored, stored, True)])
PY
