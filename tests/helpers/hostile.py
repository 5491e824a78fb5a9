"""Files made to do harm: what is in them, and what the refusal must say."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HUGE = 10**12
Write = Callable[[Path], object]


def npy(shape: str, data: bytes = b"", descr: str = "'|u1'", order: str = "False", version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def npz(content: bytes, declared: int = 0, name: str = "images.npy", method: int = zipfile.ZIP_DEFLATED) -> Write:
    """An archive of one member that declares another size than it has."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(zipfile.ZipInfo(name), content, method)
            if declared:
                archive.filelist[0].file_size = declared

    return write


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def header_bomb(path: Path) -> None:
    """A header of 4 GB of spaces, which deflates to next to nothing."""
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 10**7
    npz(content)(path)


def overlong_central(path: Path) -> None:
    npz(npy("(7, 8, 16)", bytes(896)), method=zipfile.ZIP_STORED)(path)
    held = bytearray(path.read_bytes())
    at = held.index(b"PK\1\2")
    held[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(held)


ARRAYS: dict[str, tuple[str, Write, str]] = {
    "npy of 10^12 bytes": ("x.npy", raw(npy(f"({HUGE}, 1, 1)", b"abc")), f"declares {HUGE} bytes"),
    "npy of negative sides": ("x.npy", raw(npy("(-7, -8, 16)", bytes(896))), "declares the shape"),
    "npy of truths as sides": ("x.npy", raw(npy("(True, 8, 16)", bytes(128))), "declares the shape"),
    "npy of 10^40 rows": ("x.npy", raw(npy(f"({10**40}, 0, 1)")), "declares the shape"),
    "npy whose shape is no tuple": ("x.npy", raw(npy("7")), "x.npy"),
    "npy whose header is code": ("x.npy", raw(npy("__import__('os').getcwd()")), "x.npy"),
    "npy of deep brackets": ("x.npy", raw(npy("(" * 4000 + ")" * 4000)), "x.npy"),
    "npy of an unknown type": ("x.npy", raw(npy("(1, 1, 1)", b"a", "'|Q9'")), "x.npy"),
    "npy of records": ("x.npy", raw(npy("(1, 1, 1)", b"a", "[('a', '|u1')]")), "bool, whole numbers or floats"),
    "npy of pickles": ("x.npy", raw(npy("(1, 1, 1)", b"cos\nsystem\n.", "'|O'")), "pickled Python objects"),
    "npy of format 9": ("x.npy", raw(npy("(1, 1, 1)", b"a", version=1).replace(b"\1\0", b"\x09\0", 1)), "version"),
    "npz that claims 10^12 bytes": ("x.npz", npz(npy(f"({HUGE}, 1, 1)"), HUGE + 128), "more than a file of"),
    "npz in lzma that claims 10^12": (
        "x.npz",
        npz(npy(f"({HUGE}, 1, 1)"), HUGE + 128, method=zipfile.ZIP_LZMA),
        "more than a file of",
    ),
    "npz whose directory claims 2 GB": ("x.npz", overlong_central, "more than a file of"),
    "npz whose header is a bomb": ("x.npz", header_bomb, "declares a header of 4294967295 bytes"),
    "npz with a way up": ("x.npz", npz(npy("(1, 1, 1)", b"a"), name="../../images.npy"), "no array's name"),
    "npz with a way from the root": ("x.npz", npz(npy("(1, 1, 1)", b"a"), name="/etc/images.npy"), "no array's name"),
    "npz with an escape sequence": ("x.npz", npz(npy("(1, 1, 1)", b"a"), name="a\x1b[31m.npy"), "no array's name"),
    "npz column by column": (
        "x.npz",
        npz(npy("(2, 8, 16)", bytes(256), order="True").replace(b"(2, 8, 16)", b"(3, 8, 16)")),
        "declares 384 bytes and holds 256",
    ),
}


def png_bomb(path: Path) -> None:
    """30,000 x 30,000 grey pixels in the header, and next to nothing behind it."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"0"), b"IEND")
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def eps(path: Path) -> None:
    """PostScript that Pillow would hand to a program of the system."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 8\n%%EndComments\n(x) run\n%%EOF\n")


def text_bomb(path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(stream, "PNG")
    held = stream.getvalue()
    chunk = b"zTXtComment\0\0" + zlib.compress(bytes(10**8), 9)
    bomb = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(held[:33] + bomb + held[33:])


PICTURES: dict[str, tuple[Write, str]] = {
    "picture of 30,000 x 30,000 pixels in 60 bytes": (png_bomb, "too large to decode"),
    "PostScript named .png": (eps, "cannot read the image"),
    "picture with 100 MB of text, deflated": (text_bomb, "cannot read"),
}

# A submission or run lengths, and what the refusal says.
SUBMISSIONS = [
    ("id_class,rle\n0_1,1 99999999999999\n", "more than 268435456 pixels"),
    ("id_class,rle\n" + "".join(f"0_{c},{'1 999999999999999 ' * 50}\n" for c in range(9)), "more than 268435456"),
    ("id_class,rle\n" + "".join(f"{i},1 1\n" for i in range(3)), "the image's id, _ and a class"),
    ("id_class,rle\n0_1,1 -5\n", "pairs of start and length"),
    ("id_class,rle\n0_1,1 1e9\n", "pairs of start and length"),
    ("id_class,rle\n0_256,1 5\n", "class from 0 to 255"),
    ("id,0,1\n0,1,9999999999999999999999\n", "whole numbers from 0 to 255"),
    ("id,0,1\n0,=cmd(),1\n", "whole numbers from 0 to 255"),
    ("id,0,1\n0,\u0661,1\n", "whole numbers from 0 to 255"),
    ("id,1,0\n", "is no submission"),
    ("\0" * 100, "is no submission"),
]

# What stands behind [[members]] in a plan.
PLANS = [
    'model = "\\u0000"',
    'model = "/dev/zero"',
    'model = "/dev/stdin"',
    'model = "../../../../etc/passwd"',
    'model = "/**/*.onnx"',
    'model = "a.onnx"\nweight = 1' + "0" * 400,
    'model = "a.onnx"\nweight = -1',
    'model = "a.onnx"\nweight = nan',
    'model = "a.onnx"\nweight = inf',
    'model = "a.onnx"\nweight = true',
    'model = "a.onnx"\nweight = [[1]]',
    'model = "a.onnx"\nsha256 = "zz"',
    'model = "a.onnx"\npath = "b.onnx"',
    'model = "bare.onnx"\n[members.contract]\nclasses = ["a\\u001b", "b", "c", "d", "e"]',
    'model = "bare.onnx"\n[members.contract]\nscale = 1e999',
    'model = "bare.onnx"\n[members.contract]\nnotes = 1979-05-27',
    "model = 1979-05-27",
    "a = " + "[" * 5000,
    "a" * 1_000_001,
]
