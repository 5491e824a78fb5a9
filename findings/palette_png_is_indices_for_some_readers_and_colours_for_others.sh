#!/usr/bin/env bash
# One would guess: a label map saved as a palette PNG (as those of Pascal VOC, ADE20K and DAVIS) is read as the class
# numbers that were saved, or as colours, by all readers alike.
#
# What happens: Pillow and rasterio give the numbers; OpenCV (with IMREAD_UNCHANGED too), imageio, scikit-image and
# SimpleITK give the colours of the palette. With a grey palette, or read as grey, the colours look like numbers:
# OpenCV's IMREAD_GRAYSCALE makes 38 of class 1 (128, 0, 0), without a warning.
#
# Versions: Python 3.11, pillow 13.0.0, rasterio 1.4.4, opencv-python-headless 5.0.0.93, imageio 2.38.1,
# scikit-image 0.26.0, simpleitk 2.5.7, numpy 2.4.6. Seen on 2026-11-28
# (the mask holds 0 1 2, its palette black, (128, 0, 0), (0, 128, 0)):
#   Pillow: numbers [0, 1, 2]
#   rasterio: numbers [0, 1, 2]
#   OpenCV: colours
#   imageio: colours
#   scikit-image: colours
#   SimpleITK: colours
#   OpenCV as grey: [0, 38, 75]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pillow==13.0.0 rasterio==1.4.4 opencv-python-headless==5.0.0.93 imageio==2.38.1 \
    scikit-image==0.26.0 simpleitk==2.5.7 numpy==2.4.6
cd "$work"
venv/bin/python -W ignore - <<'PY'
import sys

import cv2
import imageio.v3
import numpy as np
import rasterio
import SimpleITK
import skimage.io
from PIL import Image

labels = np.array([[0, 1, 2]], np.uint8)
picture = Image.fromarray(labels)
picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
picture.save("mask.png")
with rasterio.open("mask.png") as mask:
    found = {"Pillow": np.asarray(Image.open("mask.png")), "rasterio": mask.read()[0]}
found |= {
    "OpenCV": cv2.imread("mask.png", cv2.IMREAD_UNCHANGED),
    "imageio": imageio.v3.imread("mask.png"),
    "scikit-image": skimage.io.imread("mask.png"),
    "SimpleITK": SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("mask.png")),
}
numbers = [name for name, pixels in found.items() if np.array_equal(pixels, labels)]
for name in found:
    print(f"{name}:", f"numbers {found[name][0].tolist()}" if name in numbers else "colours")
grey = cv2.imread("mask.png", cv2.IMREAD_GRAYSCALE)[0].tolist()
print("OpenCV as grey:", grey)
sys.exit(numbers != ["Pillow", "rasterio"] or found["OpenCV"].shape != (1, 3, 3) or grey == [0, 1, 2])
PY
