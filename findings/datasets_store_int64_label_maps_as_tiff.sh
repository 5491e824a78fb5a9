#!/usr/bin/env bash
# One would guess: the Image feature of Hugging Face datasets stores pictures as PNG, whatever the type of their pixels;
# a reader of such Parquet files that looks for PNG and JPEG finds all of them.
#
# What happens: pixels of uint8 become PNG. Label maps of int64, NumPy's default, are cast to int32 and become TIFF of
# Pillow's mode I; the path beside the bytes is empty, so no suffix says it.
#
# Versions: Python 3.11, datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0, numpy 2.4.6. Seen on 2026-11-28:
#   uint8: PNG uint8, path None
#   int64: TIFF int32, path None
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6
cd "$work"
HF_HUB_OFFLINE=1 HF_HOME="$work" venv/bin/python -W ignore - 2>/dev/null <<'PY'
import io
import sys

import datasets
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

datasets.disable_progress_bars()
labels, seen = np.arange(6).reshape(2, 3), []
for kind in ("uint8", "int64"):
    columns = {"mask": [labels.astype(kind)]}
    datasets.Dataset.from_dict(columns, features=datasets.Features({"mask": datasets.Image()})).to_parquet("m.parquet")
    stored = pq.read_table("m.parquet")["mask"][0].as_py()
    with Image.open(io.BytesIO(stored["bytes"])) as picture:
        pixels = np.asarray(picture)
        print(f"{kind}: {picture.format} {pixels.dtype}, path {stored['path']}")
        seen.append((picture.format, str(pixels.dtype), np.array_equal(pixels, labels)))
sys.exit(seen != [("PNG", "uint8", True), ("TIFF", "int32", True)])
PY
