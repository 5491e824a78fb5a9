"""Pictures as other readers show them: depth, orientation, channels."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from engine.errors import InputError
from engine.sources.decode import decode, shape_of
from engine.sources.open import open_source
from engine.sources.reading import Reading
from engine.sources.scenes import open_scenes
from tests.helpers.range_server import serving

rasterio = pytest.importorskip("rasterio", reason="pictures that Pillow cuts to 8 bits need the extra geo")

SIZE = (6, 9)
AS_STORED = Reading(exif="ignore")


def noise(*shape: int, kind: type = np.uint16, top: int = 65536) -> np.ndarray:
    return np.random.default_rng(5).integers(0, top, shape or SIZE).astype(kind)


def save_cv(path: Path, pixels: np.ndarray) -> None:
    """Write with OpenCV, whose colours lie the other way round."""
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.ndim == 3 else None
    assert cv2.imwrite(str(path), pixels if order is None else np.ascontiguousarray(pixels[..., order]))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_colour_of_16_bits_keeps_them(name: str, tmp_path: Path) -> None:
    pixels = noise(*SIZE, 3)
    save_cv(tmp_path / name, pixels)
    theirs = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)[..., ::-1]
    for encoded in (None, (tmp_path / name).read_bytes()):
        ours = decode(tmp_path / name, "images", encoded)
        assert ours.dtype == np.uint16
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours, pixels)
    assert shape_of(tmp_path / name, "images") == (*SIZE, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_of_16_bits_keeps_them(name: str, tmp_path: Path) -> None:
    save_cv(tmp_path / name, noise())
    ours = decode(tmp_path / name, "images")
    assert ours.dtype == np.uint16
    np.testing.assert_array_equal(ours[..., 0], cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_of_any_number_of_bands(kind: type, bands: int, planar: str, tmp_path: Path) -> None:
    pixels = noise(*SIZE, bands, kind=kind)
    stored = pixels if planar == "contig" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar)
    ours = decode(tmp_path / "a.tif", "images")
    assert ours.dtype == np.dtype(kind)
    np.testing.assert_array_equal(ours, pixels)
    assert shape_of(tmp_path / "a.tif", "images") == ours.shape


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_a_grey_tiff_of_any_kind(kind: type, tmp_path: Path) -> None:
    pixels = noise(top=2**32).astype(np.int64).astype(kind) if kind is not np.float64 else noise() / 7
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", "images")[..., 0], tifffile.imread(tmp_path / "a.tif"))


@pytest.mark.parametrize("bands", [1, 3])
def test_12_bits_are_read_as_they_are(bands: int, tmp_path: Path) -> None:
    pixels = noise(bands, *SIZE, top=4096)
    shape = {"height": SIZE[0], "width": SIZE[1], "count": bands, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", nbits=12, **shape) as file:
        file.write(pixels)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", "images"), pixels.transpose(1, 2, 0))
    # A Netpbm file of 12 bits, which Pillow spreads over 16.
    (tmp_path / "a.pgm").write_bytes(b"P5\n9 6\n4095\n" + pixels[0].astype(">u2").tobytes())
    np.testing.assert_array_equal(decode(tmp_path / "a.pgm", "images")[..., 0], pixels[0])


def test_a_netpbm_label_map_keeps_its_ids(tmp_path: Path) -> None:
    labels = noise(top=5, kind=np.uint8)
    (tmp_path / "a.pgm").write_bytes(b"P5\n9 6\n4\n" + labels.tobytes())
    np.testing.assert_array_equal(decode(tmp_path / "a.pgm", "labels")[..., 0], labels)


def test_without_the_extra_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cv(tmp_path / "a.png", noise(*SIZE, 3))
    save_cv(tmp_path / "b.png", noise())
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"a\.png at its full depth needs rasterio: pip install 'maskfuse\[geo\]'"):
        decode(tmp_path / "a.png", "images")
    assert decode(tmp_path / "b.png", "images").dtype == np.uint16


def shown(pixels: np.ndarray, turn: int) -> np.ndarray:
    """What a viewer shows, by where EXIF says that row 0 and column 0 of the stored pixels go."""
    turned: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda x: x,
        2: np.fliplr,  # row 0 at the top, column 0 at the right
        3: lambda x: np.rot90(x, 2),  # bottom, right
        4: np.flipud,  # bottom, left
        5: lambda x: x.T,  # left, top
        6: lambda x: np.rot90(x, -1),  # right, top
        7: lambda x: np.rot90(x, 2).T,  # right, bottom
        8: lambda x: np.rot90(x, 1),  # left, bottom
    }
    return turned[turn](pixels)


def exif(turn: int) -> Image.Exif:
    held = Image.Exif()
    held[0x0112] = turn
    return held


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_turns_images_and_labels(name: str, turn: int, tmp_path: Path) -> None:
    pixels = np.kron(noise(2, 3, kind=np.uint8, top=256), np.ones((16, 16), np.uint8))
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100}}.get(name, {})
    path = tmp_path / name
    Image.fromarray(pixels).save(path, exif=exif(turn), **options)
    stored = decode(path, "images", None, AS_STORED)[..., 0]
    ours = decode(path, "images")[..., 0]
    np.testing.assert_allclose(stored, pixels, atol=2)
    np.testing.assert_array_equal(ours, shown(stored, turn))
    assert shape_of(path, "images")[:2] == ours.shape
    assert shape_of(path, "images", AS_STORED)[:2] == stored.shape
    if name not in ("a.webp", "a.jpg"):  # no grey, and refused as label maps
        np.testing.assert_array_equal(decode(path, "labels")[..., 0], ours)
    if name == "a.jpg":
        np.testing.assert_allclose(ours, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), atol=1)


@pytest.mark.parametrize("turn", [2, 6, 7])
def test_exif_turns_deep_pictures(turn: int, tmp_path: Path) -> None:
    pixels = noise(*SIZE, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(0x0112, 3, 1, turn, True)])
    save_cv(tmp_path / "a.png", pixels)
    # The chunk may stand in front of the pixels or behind them.
    raw, chunk = (tmp_path / "a.png").read_bytes(), exif(turn).tobytes()[6:]
    whole = len(chunk).to_bytes(4, "big") + b"eXIf" + chunk + zlib.crc32(b"eXIf" + chunk).to_bytes(4, "big")
    for name, place in (("front.png", raw.index(b"IDAT") - 4), ("behind.png", raw.index(b"IEND") - 4)):
        (tmp_path / name).write_bytes(raw[:place] + whole + raw[place:])
    expected = np.stack([shown(pixels[..., channel], turn) for channel in range(3)], axis=-1)
    for name in ("a.tif", "front.png", "behind.png"):
        np.testing.assert_array_equal(decode(tmp_path / name, "images"), expected)
        np.testing.assert_array_equal(decode(tmp_path / name, "images", None, AS_STORED), pixels)
        assert shape_of(tmp_path / name, "images") == expected.shape


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_alpha_is_left_out_and_said(kind: type, tmp_path: Path) -> None:
    pixels = noise(*SIZE, 4, kind=kind)
    save_cv(tmp_path / "a.png", pixels)
    said: list[str] = []
    np.testing.assert_array_equal(decode(tmp_path / "a.png", "images", note=said.append), pixels[..., :3])
    assert len(said) == 1
    assert "a.png has an alpha channel" in said[0]


def test_the_fourth_band_of_a_tiff_is_a_band(tmp_path: Path) -> None:
    """GDAL tags the fourth of four 8-bit bands as alpha by itself, which near infrared is not."""
    for kind in (np.uint8, np.uint16):
        pixels = noise(*SIZE, 4, kind=kind)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
        np.testing.assert_array_equal(decode(tmp_path / "a.tif", "images"), pixels)
        assert shape_of(tmp_path / "a.tif", "images") == (*SIZE, 4)


def test_a_palette_gives_colours_or_ids(tmp_path: Path) -> None:
    labels = noise(top=5, kind=np.uint8)
    image = Image.fromarray(labels)
    colours = [(9, 8, 7), (1, 2, 3), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
    image.putpalette([value for colour in colours for value in colour])
    image.save(tmp_path / "a.png")
    theirs = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode(tmp_path / "a.png", "images"), theirs)
    with rasterio.open(tmp_path / "a.png") as file:
        np.testing.assert_array_equal(decode(tmp_path / "a.png", "labels")[..., 0], file.read(1))


def test_damage_is_one_line(tmp_path: Path) -> None:
    save_cv(tmp_path / "a.png", noise(*SIZE, 3))
    tifffile.imwrite(tmp_path / "b.tif", noise(*SIZE, 5), photometric="minisblack", planarconfig="contig")
    for name in ("a.png", "b.tif"):
        raw = (tmp_path / name).read_bytes()
        for length in (20, len(raw) // 2, len(raw) - 30):
            (tmp_path / name).write_bytes(raw[:length])
            with pytest.raises(InputError, match="cannot read the image") as refused:
                decode(tmp_path / name, "images")
            assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="cannot read the image"):
        decode("plain numbers", "images", b"P2\n2 1\n9\n1 2\n")


def test_a_picture_in_memory_is_read_alike() -> None:
    pixels, stream = noise(*SIZE, 3, kind=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    np.testing.assert_array_equal(decode("row 3", "images", stream.getvalue()), pixels)


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_pictures_at_a_url_are_shown_the_right_way_round(turn: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(turn).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    (tmp_path / "web").mkdir()
    for name in ("a.png", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / "web" / name, exif=exif(turn))
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/turned/a.png", (tmp_path / "web" / "a.png").read_bytes())
    try:
        (found,) = open_source("memory://turned").batches(1)
    finally:
        memory.rm("/turned", recursive=True)
    with Image.open(tmp_path / "web" / "a.png") as picture:
        np.testing.assert_array_equal(found.pixels[0], np.asarray(ImageOps.exif_transpose(picture)))
    pytest.importorskip("rasterio")
    with serving(tmp_path / "web") as (address, _):
        spec = f"{address}/a.tif?key=secret"
        if turn == 1:
            assert open_scenes(spec).size == (6, 9)
        else:
            with pytest.raises(InputError, match=r"a TIFF with an EXIF orientation.*save it upright") as refused:
                open_scenes(spec)
            assert "secret" not in str(refused.value)
        assert open_scenes(spec, reading=AS_STORED).size == (6, 9)
