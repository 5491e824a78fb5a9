"""Pictures and arrays as people have them, through the command line, against labels that NumPy works out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from engine.runs.plan import read_plan
from tests.conftest import Result
from tests.helpers.nets import save_graph

Engine = Callable[..., Result]
CENTRES = np.array([0.1, 0.5, 0.9], np.float32)
BYTES, DEEP = 1 / 255, 1 / 65535
SIZE = (24, 32)


def nearest(path: Path, channels: int = 1, channel: int = 0) -> Path:
    """Write a net whose class is the centre that a channel of the pixel is nearest to."""
    kernel = np.zeros((3, channels, 1, 1), np.float32)
    kernel[:, channel, 0, 0] = 20 * CENTRES
    weights = {"kernel": kernel, "bias": -10 * CENTRES**2}
    return save_graph(
        path,
        [helper.make_node("Conv", ["image", "kernel", "bias"], ["out"])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        weights,
    )


def truth(pixels: np.ndarray, scale: float = BYTES) -> np.ndarray:
    return np.abs(pixels[..., None] * scale - CENTRES).argmin(-1).astype(np.uint8)


def noise(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): np.asarray(Image.open(path))
        for path in sorted(folder.rglob("*.png"))
    }


@pytest.fixture
def predict(engine: Engine, tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Run ``engine ensemble`` into a folder and return its masks by id."""

    def run(*arguments: object, scale: float = BYTES) -> dict[str, np.ndarray]:
        goal = tmp_path / "masks"
        done = engine("ensemble", "-o", goal, "--overwrite", "--scale", scale, "--classes", 3, *arguments)
        assert done.code == 0, done.err
        return masks(goal)

    return run


def test_a_tree_of_pictures_becomes_the_same_tree(predict: Callable[..., dict], engine: Engine, tmp_path: Path) -> None:
    net, tiles = nearest(tmp_path / "net.onnx"), noise(4, *SIZE)
    names = ("a", "city/img_9", "city/img_10", "city/old/b")
    for name, tile in zip(names, tiles, strict=True):
        path = tmp_path / "tiles" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile).save(path)
    expected = dict(zip(names, truth(tiles), strict=True))
    np.save(tmp_path / "truth.npy", truth(tiles))
    for more in ((), ("--tile", "16x16")):
        found = predict("-m", net, "-i", tmp_path / "tiles", *more)
        assert set(found) == set(expected)
        assert all((found[name] == expected[name]).all() for name in names)
        scored = engine("evaluate", tmp_path / "masks", "--labels", tmp_path / "truth.npy", "--json")
        assert json.loads(scored.out)["miou"]["all"] == 1, scored.err
    picked = predict("-m", net, "-i", f"{tmp_path}/tiles/*/img_*.png")
    assert set(picked) == {"city/img_9", "city/img_10"}


def test_numbers_in_names_meet_an_array_in_their_order(engine: Engine, tmp_path: Path) -> None:
    """https://github.com/wkentaro/labelme/issues/990"""
    net, tiles = nearest(tmp_path / "net.onnx"), noise(12, *SIZE)
    (tmp_path / "tiles").mkdir()
    for number, tile in enumerate(tiles):
        Image.fromarray(tile).save(tmp_path / "tiles" / f"img_{number}.png")
    np.save(tmp_path / "truth.npy", truth(tiles))
    done = engine("ensemble", "-m", net, "--scale", BYTES, "-i", tmp_path / "tiles", "-o", tmp_path / "x.npy")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), truth(tiles))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colour_of_16_bits(suffix: str, predict: Callable[..., dict], tmp_path: Path) -> None:
    """https://github.com/python-pillow/Pillow/issues/1888: the values near a border change when they are cut."""
    deep = noise(*SIZE, 3, kind=np.uint16)
    (tmp_path / "tiles").mkdir()
    cv2.imwrite(str(tmp_path / "tiles" / f"a{suffix}"), deep[..., ::-1])
    theirs = cv2.imread(str(tmp_path / "tiles" / f"a{suffix}"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    net = nearest(tmp_path / "net.onnx", 3, 1)
    found = predict("-m", net, "-i", tmp_path / "tiles", scale=DEEP)
    np.testing.assert_array_equal(found["a"], truth(theirs[..., 1], DEEP))


def test_masks_lie_the_way_the_picture_is_seen(predict: Callable[..., dict], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "tiles").mkdir()
    pixels = np.kron(noise(3, 4), np.ones((8, 8), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "tiles" / "a.png", exif=exif)
    net = nearest(tmp_path / "net.onnx")
    for more in ((), ("--tile", "16x16")):
        found = predict("-m", net, "-i", tmp_path / "tiles", *more)
        np.testing.assert_array_equal(found["a"], np.rot90(truth(pixels), -1))
    plan = tmp_path / "plan.toml"
    plan.write_text('[input]\nexif = "ignore"\n[[members]]\nmodel = "net.onnx"\n')
    np.testing.assert_array_equal(predict("--plan", plan, "-i", tmp_path / "tiles")["a"], truth(pixels))
    record = json.loads((tmp_path / "masks.json").read_text())
    assert record["plan"]["input"] == {"exif": "ignore"}


def test_rgb_for_a_net_of_one_channel(predict: Callable[..., dict], engine: Engine, tmp_path: Path) -> None:
    pixels = noise(2, *SIZE, 3)
    np.save(tmp_path / "rgb.npy", pixels)
    net = nearest(tmp_path / "net.onnx")
    refused = engine("ensemble", "-m", net, "--scale", BYTES, "-i", tmp_path / "rgb.npy", "-o", tmp_path / "x.npy")
    assert refused.code == 2
    assert "rgb_as_grey = true" in refused.err
    plan = tmp_path / "plan.toml"
    plan.write_text('[input]\nrgb_as_grey = true\n[[members]]\nmodel = "net.onnx"\n')
    luma = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    found = predict("--plan", plan, "-i", tmp_path / "rgb.npy")
    np.testing.assert_array_equal([found["0"], found["1"]], truth(luma))


@pytest.mark.parametrize("stored", ["HWC", "CHW"])
def test_an_rgb_array_with_tiles_is_one_scene(stored: str, engine: Engine, tmp_path: Path) -> None:
    """https://github.com/MouseLand/cellpose/issues/1348"""
    pixels = noise(40, 56, 3)
    np.save(tmp_path / "scene.npy", pixels if stored == "HWC" else np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    net = nearest(tmp_path / "net.onnx", 3, 2)
    command = ("ensemble", "-m", net, "--scale", BYTES, "-i", tmp_path / "scene.npy", "-o", tmp_path / "x.npy")
    done = engine(*command, "--tile", "32x32", "--overwrite")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), truth(pixels[..., 2]))
    wrong = engine(*command, "--tile", "32x32", "--overwrite", "--image-layout", "NHW")
    assert wrong.code == 2
    assert "1 channel" in wrong.err


@pytest.mark.parametrize("form", ["x.npy", "x.npz", "x.zarr"])
@pytest.mark.parametrize("last", [True, False])
def test_four_bands_for_four_and_for_picked_ones(
    last: bool, form: str, predict: Callable[..., dict], tmp_path: Path
) -> None:
    pixels = noise(2, *SIZE, 4)
    array = np.ascontiguousarray(pixels if last else pixels.transpose(0, 3, 1, 2))
    if form == "x.npy":
        np.save(tmp_path / form, array)
    elif form == "x.npz":
        np.savez(tmp_path / form, images=array)
    else:
        zarr = pytest.importorskip("zarr", reason="Zarr stores need the extra zarr")
        zarr.create_array(store=tmp_path / form, shape=array.shape, dtype=array.dtype)[:] = array
    four, one = nearest(tmp_path / "four.onnx", 4, 3), nearest(tmp_path / "one.onnx")
    layout = "NHWC" if last else "NCHW"
    for more, band in ((("-m", four), 3), (("-m", one, "--bands", 2), 1), (("-m", four, "--image-layout", layout), 3)):
        found = predict("-i", tmp_path / form, *more)
        np.testing.assert_array_equal([found["0"], found["1"]], truth(pixels[..., band]))


def test_a_selection_remembers_the_layout(engine: Engine, tmp_path: Path) -> None:
    pixels = noise(6, *SIZE, 4)
    np.savez(tmp_path / "x.npz", images=pixels, labels=truth(pixels[..., 3]))
    models = [nearest(tmp_path / f"{name}.onnx", 4, band) for name, band in (("good", 3), ("bad", 0))]
    done = engine(
        *("select", "-m", models[0], "-m", models[1], "-i", tmp_path / "x.npz", "--labels", tmp_path / "x.npz"),
        *("--scale", BYTES, "--image-layout", "NHWC", "-o", tmp_path / "plan.toml", "--folds", 2, "--pixels", 1000),
    )
    assert done.code == 0, done.err
    assert read_plan(tmp_path / "plan.toml").input.layout == "NHWC"
    again = engine("ensemble", "--plan", tmp_path / "plan.toml", "-i", tmp_path / "x.npz", "-o", tmp_path / "y.npy")
    assert again.code == 0, again.err
    record = json.loads((tmp_path / "y.npy.json").read_text())
    assert f"SHA-256 of the plan: {record['plan_sha256']}" in (tmp_path / "plan.toml").read_text()
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), truth(pixels[..., 3]))


def test_a_name_that_no_file_can_have_is_refused_before_the_run(engine: Engine, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    tensors = arrow.FixedShapeTensorArray.from_numpy_ndarray(noise(2, *SIZE))
    net = nearest(tmp_path / "net.onnx")
    for names, told in (
        (["a", "../b"], "'../b' cannot become a file"),
        (["a", "x" * 256], "cannot become a file"),
        (["a", "a.png/b"], "a.png would be a file and a folder"),
    ):
        parquet.write_table(arrow.table({"id": names, "image": tensors}), tmp_path / "x.parquet")
        done = engine("ensemble", "-m", net, "--scale", BYTES, "-i", tmp_path / "x.parquet", "-o", tmp_path / "masks")
        assert (done.code, told in done.err) == (2, True), done.err
        assert not (tmp_path / "masks").exists()


def test_masks_are_never_written_among_the_images(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    Image.fromarray(noise(*SIZE)).save(tmp_path / "tiles" / "a.png")
    net = nearest(tmp_path / "net.onnx")
    done = engine("ensemble", "-m", net, "--scale", BYTES, "-i", tmp_path / "tiles", "-o", tmp_path / "tiles" / "masks")
    assert done.code == 2
    assert "which --input reads whole" in done.err
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == ["a.png"]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_tree_is_resumed_to_the_same_bytes(batch: int, engine: Engine, tmp_path: Path) -> None:
    for number in range(9):
        path = tmp_path / "tiles" / f"folder_{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(9, *SIZE)[number]).save(path)
    command = ("ensemble", "-m", nearest(tmp_path / "net.onnx"), "--scale", BYTES, "-i", tmp_path / "tiles")
    found = []
    for goal, more in (("x", ("--resume",)), ("y", ())):
        done = engine(*command, "-o", tmp_path / goal, "--batch-size", batch, *more)
        assert done.code == 0, done.err
        files = {path.relative_to(tmp_path / goal): path.read_bytes() for path in (tmp_path / goal).rglob("*.png")}
        found.append(files)
    assert len(found[0]) == 9
    assert found[0] == found[1]
