"""Scenes in tiles: the same labels as in one piece, in little memory, from and to every form."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from engine.errors import PlanError
from engine.fusion.doubt import UNKNOWN
from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.inference.tiles.blend import TiledRun
from engine.inference.tiles.grid import Tiling
from engine.inference.tiles.stride import with_stride
from engine.models.contract import ModelContract
from engine.outputs.scenes import OneFile
from engine.sources.labels import as_labels, open_labels
from engine.sources.scene import Scene
from engine.sources.scenes import open_scenes
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_graph, save_member, save_specialists
from tests.helpers.world import World

Engine = Callable[..., Result]
SIZE = (70, 150)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Smooth patches with noise, so that labels change where the image does."""
    draw = np.random.default_rng(8)
    patches = np.kron(draw.integers(0, 200, (10, 19)), np.ones((8, 8), int))[: SIZE[0], : SIZE[1]]
    return (patches + draw.integers(0, 40, SIZE)).astype(np.uint8)


def tiled_labels(ensemble: Ensemble, image: np.ndarray, tiling: Tiling, workers: int = 2) -> np.ndarray:
    scene = Scene("s", image.shape[:2], 1, lambda start, stop: image[start:stop, :, None])
    skip = ensemble.variant.decoding.suppress
    with TiledRun(ensemble, tiling, skip, 3, workers) as run:
        parts = [
            ensemble.decode(part.logits, ensemble.variant, part.size)[0].reshape(part.size)
            for part in run.blended(scene)
        ]
    return np.concatenate(parts)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("tile", [(16, 32), (32, 32), (70, 150), (128, 256)])
def test_labels_equal_those_of_the_whole_scene(
    tile: tuple[int, int], overlap: float, world: World, scene: np.ndarray
) -> None:
    """The nets see one pixel around; of the border alone, where a mirrored image differs from none, labels may vary."""
    ensemble = Ensemble.open(world.models)
    tiled = tiled_labels(ensemble, scene, Tiling(tile, overlap))
    whole = ensemble.predict(scene[None])[0]
    assert tiled.shape == whole.shape
    # A pixel or two may be a tie to the last digit, which another size of convolution rounds the other way.
    assert (tiled != whole)[:-1, :-1].sum() <= 2
    assert len(np.unique(whole)) > 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_with_flips_bias_and_a_set(
    strategy: str, world: World, scene: np.ndarray, tmp_path: Path
) -> None:
    models = [world.models / "a.onnx", world.models / "b.onnx", save_specialists(tmp_path / "set")]
    ensemble = Ensemble.open(models, strategy=strategy, suppress=[0, 2], flips="both", bias=(0, 0.1, 0, 0.2, 0))
    tiled = tiled_labels(ensemble, scene, Tiling((16, 32)))
    whole = ensemble.predict(scene[None])[0]
    assert not np.isin(tiled, [0, 2]).any()
    # STAPLE learns from all pixels it is given, so parts of a scene are not the scene.
    least = 0.9 if strategy == "staple" else 0.999
    assert (tiled == whole)[:-1, :-1].mean() >= least


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_views_of_tiles_that_are_not_square(mean: str, world: World, scene: np.ndarray) -> None:
    ensemble = Ensemble.open(world.models, views=["d4"], view_mean=mean)
    tiled = tiled_labels(ensemble, scene, Tiling((16, 32)))
    whole = ensemble.predict(scene[None])[0]
    assert (tiled == whole)[:-1, :-1].mean() >= 0.999


def test_regions_that_cross_tiles_are_cleaned_whole(world: World, tmp_path: Path, engine: Engine) -> None:
    """Each class by itself, with thresholds before: as of one image, and pixels without data stay."""
    pytest.importorskip("cc3d")
    image = np.random.default_rng(4).integers(0, 240, (40, 72)).astype(np.uint8)
    np.save(tmp_path / "scene.npy", image)
    tables = "".join(f'[[members]]\nmodel = "{path}"\n' for path in sorted(world.models.glob("*.onnx")))
    head = "[cleanup.soil]\nthreshold = 0.5\nlargest = true\n[cleanup.3]\nmin_region = 6\nfill_holes = true\n"
    (tmp_path / "e.toml").write_text(f'strategy = "mean-prob"\n{head}{tables}')
    call = ("ensemble", "--plan", tmp_path / "e.toml", "-i", tmp_path / "scene.npy", "--tile", "16x32")
    assert engine(*call, "-o", tmp_path / "mask.npy").code == 0
    cleanup = {"soil": {"threshold": 0.5, "largest": True}, 3: {"min_region": 6, "fill_holes": True}}
    given = {"strategy": "mean-prob"}
    want = Ensemble.open(world.models, cleanup=cleanup, **given).predict(image[None])[0]
    got = np.load(tmp_path / "mask.npy").reshape(want.shape)
    assert (got == want).mean() > 0.995
    plain = Ensemble.open(world.models, **given).predict(image[None])[0]
    assert (want != plain).mean() > 0.01
    # What is withheld is decided before the clean-up, and stays withheld after it.
    assert engine(*call, "--unknown", 0.8, "-o", tmp_path / "withheld.npy").code == 0
    held = np.load(tmp_path / "withheld.npy").reshape(want.shape)
    unknown = Ensemble.open(world.models, unknown=0.8, **given).predict(image[None])[0] == UNKNOWN
    np.testing.assert_array_equal(
        Ensemble.open(world.models, unknown=0.8, cleanup=cleanup, **given).predict(image[None])[0],
        np.where(unknown, UNKNOWN, want),
    )
    np.testing.assert_array_equal(held[held != UNKNOWN], got[held != UNKNOWN])
    assert 0.01 < unknown.mean() < 0.99
    assert ((held == UNKNOWN) == unknown).mean() > 0.995
    (tmp_path / "e.toml").write_text(f'[cleanup."big rocks"]\nlargest = true\n{tables}')
    refused = engine(*call, "-o", tmp_path / "other.npy")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "no class 'big rocks'; there are background, soil" in refused.err
    assert not (tmp_path / "other.npy").exists()


def test_the_number_of_workers_never_shows(world: World, scene: np.ndarray) -> None:
    ensemble = Ensemble.open(world.models, strategy="vote")
    first, second = (tiled_labels(ensemble, scene, Tiling((16, 32), 0.7), workers) for workers in (1, 3))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (17, 33)])
def test_scenes_smaller_than_a_tile(size: tuple[int, int], world: World) -> None:
    image = np.random.default_rng(2).integers(0, 240, size).astype(np.uint8)
    ensemble = Ensemble.open(world.models)
    down, across = (np.pad(np.arange(n), (0, 80), mode="reflect" if n > 1 else "edge")[:t] for n, t in
                    zip(size, (32, 64), strict=True))  # fmt: skip
    padded = image[down][:, across]
    np.testing.assert_array_equal(
        tiled_labels(ensemble, image, Tiling((32, 64), 0)), ensemble.predict(padded[None])[0][: size[0], : size[1]]
    )


def test_memory_does_not_grow_with_the_height_of_a_scene(world: World) -> None:
    ensemble = Ensemble.open(world.models)
    row = np.random.default_rng(0).integers(0, 240, (1, 200, 1)).astype(np.uint8)

    def peak(height: int) -> int:
        scene = Scene("s", (height, 200), 1, lambda start, stop: np.repeat(row, stop - start, axis=0))
        tracemalloc.start()
        with TiledRun(ensemble, Tiling((16, 32)), (), 4, 2) as run:
            assert sum(part.size[0] for part in run.blended(scene)) == height
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(64)
    assert peak(1600) < 1.25 * peak(200)


def shrinking_net(path: Path, by: int, stride: int = 1) -> Path:
    """A net that halves its image and doubles it again: sizes that are no multiple come out smaller."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[by, by], strides=[by, by]),
        helper.make_node("Conv", ["small", "w"], ["maps"]),
        helper.make_node("Resize", ["maps", "", "scales"], ["out"], mode="nearest"),
    ]
    weights = {"w": np.random.default_rng(1).normal(0, 1, (5, 1, 1, 1)), "scales": np.array([1, 1, by, by])}
    contract = ModelContract(FIVE, input_layout="NCHW", scale=1 / 255, ignored_class=0, stride=stride)
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", count, "H", "W"])
        for name, count in (("image", 1), ("out", 5))
    ]
    held = {name: value.astype(np.float32) for name, value in weights.items()}
    return save_graph(path, nodes, ports[:1], ports[1:], held, contract)


def test_the_stride_of_the_nets_is_found_and_kept(tmp_path: Path, scene: np.ndarray) -> None:
    net = shrinking_net(tmp_path / "by8.onnx", 8)
    ensemble = Ensemble.open(net)
    tiling = with_stride(ensemble, Tiling((24, 40), 0.5), 1)
    assert tiling.stride == 8
    assert {axis.step for axis in tiling.axes(SIZE)} == {8, 16}
    inside = scene[:64, :144]
    np.testing.assert_array_equal(tiled_labels(ensemble, inside, tiling), ensemble.predict(inside[None])[0])
    with pytest.raises(PlanError, match=r"by8\.onnx cannot take it; it takes 24x40 or 32x48"):
        with_stride(ensemble, Tiling((28, 44)), 1)


def test_a_stated_stride_is_taken_without_a_trial(tmp_path: Path) -> None:
    two = [shrinking_net(tmp_path / f"by{by}.onnx", by, stride) for by, stride in ((2, 6), (4, 4))]
    ensemble = Ensemble.open(two)
    assert with_stride(ensemble, Tiling((24, 48), 0.5), 1).stride == 12
    with pytest.raises(PlanError, match=r"--tile 16x48: by2\.onnx cannot take it; it takes 12x48 or 18x48"):
        with_stride(ensemble, Tiling((16, 48)), 1)


def test_nets_of_one_size_name_it(tmp_path: Path) -> None:
    save_member(tmp_path / "fixed.onnx", size=(16, 32), promised={"size": (16, 32)})
    with pytest.raises(PlanError, match=r"--tile 16x16: fixed\.onnx takes 16x32 alone: use --tile 16x32"):
        with_stride(Ensemble.open(tmp_path / "fixed.onnx"), Tiling((16, 16)), 1)


def run(engine: Engine, world: World, source: object, goal: object, *more: object) -> Result:
    return engine("ensemble", "-m", world.models, "-i", source, "-o", goal, "--tile", "16x32", *more)


@pytest.mark.parametrize("goal", ["mask.png", "mask.npy", "mask.zarr", "mask.tif"])
@pytest.mark.parametrize("form", ["png", "npy", "zarr", "tif"])
def test_one_scene_from_and_to_every_form(
    form: str, goal: str, world: World, scene: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    source = save_scene(tmp_path / f"in.{form}", scene)
    done = run(engine, world, source, tmp_path / goal)
    assert done.code == 0, done.err
    assert "wrote" in done.err and "1 mask from 72 tiles" in done.err
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([source.name, goal, f"{goal}.json"])
    whole = Ensemble.open(world.models).predict(scene[None])[0]
    np.testing.assert_array_equal(read_mask(tmp_path / goal)[:-1, :-1], whole[:-1, :-1])
    Image.fromarray(whole).save(tmp_path / "truth.png")
    done = engine("evaluate", tmp_path / goal, "--labels", tmp_path / "truth.png", "--json")
    assert done.code == 0, done.err
    assert '"confusion"' in done.out


def save_scene(path: Path, image: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr")
        zarr.create_array(store=path, shape=image.shape, chunks=(20, 64), dtype="u1")[:] = image
    else:
        if path.suffix == ".tif":
            pytest.importorskip("rasterio")
        Image.fromarray(image).save(path)
    return path


def read_mask(path: Path) -> np.ndarray:
    """Read a mask with the form's own package."""
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".zarr":
        return pytest.importorskip("zarr").open(path, mode="r")[:]
    if path.suffix == ".tif":
        with pytest.importorskip("rasterio").open(path) as dataset:
            return dataset.read(1)
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def test_sets_of_one_size_go_to_any_form(world: World, scene: np.ndarray, tmp_path: Path, engine: Engine) -> None:
    stack = np.stack([scene, scene[::-1]])
    np.savez(tmp_path / "in.npz", images=stack)
    whole = Ensemble.open(world.models).predict(stack)
    np.savez(tmp_path / "truth.npz", labels=whole)
    for goal in ("m.csv", "m.rle.csv", "m.npz", "m.npy", "m.zarr", "m"):
        done = run(engine, world, tmp_path / "in.npz", tmp_path / goal)
        assert done.code == 0, done.err
        got = as_labels(next(open_labels(tmp_path / goal).batches(2)), 5, goal).reshape(whole.shape)
        np.testing.assert_array_equal(got[:, :-1, :-1], whole[:, :-1, :-1])
        assert engine("evaluate", tmp_path / goal, "--labels", tmp_path / "truth.npz").code == 0


def test_a_folder_of_different_sizes_is_scored_and_written(
    world: World, scene: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    for folder in ("in", "truth"):
        (tmp_path / folder).mkdir()
    ensemble = Ensemble.open(world.models)
    for name, cut in (("a", scene[:40, :50]), ("b.2", scene[:17, :33]), ("c", scene)):
        save_scene(tmp_path / "in" / f"{name}.png", cut)
        Image.fromarray(ensemble.predict(cut[None])[0]).save(tmp_path / "truth" / f"{name}.png")
    more = ("--labels", tmp_path / "truth", "--json", "--min-region", 3)
    done = run(engine, world, tmp_path / "in", f"{tmp_path / 'masks.v2'}/", *more)
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "masks.v2").iterdir()) == ["a.png", "b.2.png", "c.png"]
    assert '"images": 3' in done.out
    assert done.out.count('"miou"') == 2 * (3 + len(STRATEGIES)) + 1
    done = run(engine, world, tmp_path / "in", tmp_path / "m.csv")
    assert (done.code, "the scenes are of different sizes" in done.err) == (2, True)


def test_an_error_or_ctrl_c_leaves_nothing(
    world: World, scene: np.ndarray, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_scene(tmp_path / "in.png", scene)
    calls: list[int] = []

    def fail(self: OneFile, labels: np.ndarray) -> None:
        calls.append(len(labels))
        if len(calls) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(OneFile, "write_rows", fail)
    for goal in ("m.png", "m.tif", "m.npy", "m.zarr"):
        calls.clear()
        assert run(engine, world, tmp_path / "in.png", tmp_path / goal).code == 130
        assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_scenes_are_read_in_strips_once(scene: np.ndarray) -> None:
    """Of rows that neighbouring tiles share only the new ones are read."""
    from engine.sources.strips import Strips

    asked: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return scene[start:stop, :, None]

    strips = Strips(Scene("s", SIZE, 1, rows, block=10))
    axis = Tiling((16, 16), 0.5).axes(SIZE)[0]
    for index in range(len(axis.starts)):
        pixels = axis.pixels(index)
        np.testing.assert_array_equal(strips.read(pixels)[..., 0], scene[pixels])
    assert [start for start, _ in asked] == [0, *(stop for _, stop in asked[:-1])]
    assert all(stop % 10 == 0 for _, stop in asked)


WRONG = [
    (["--tile", "64"], r"fixed\.onnx: .* takes 16x32 alone: .*--tile 16x32"),
    (["--tile", "x"], "give HEIGHTxWIDTH"),
    (["--tile", "16x32", "--overlap", "1"], "from 0 up to below 1"),
    (["--overlap", "0.5"], "--overlap without --tile"),
    (["--tile", "16x32", "--early-exit"], "leave out --early-exit or --tile"),
    (["--tile", "16x32", "--preview", "p.png"], "leave out --preview or --tile"),
    (["--tile", "16x32", "-o", "m.csv"], r"cannot write \.csv .*allowed are \.png, \.tif"),
    (["--tile", "16x32", "-o", "m"], "cannot write a folder"),
    (["--tile", "16x32", "-i", "none.png"], "no such file or folder"),
    (["--tile", "16x32", "-i", "text.png"], "cannot read the image"),
    (["--tile", "16x32", "-i", "text.tif"], "cannot read the scene"),
    (["--tile", "16x32", "--labels", "small.png"], "the label map of in is 4x4, the scene 70x150"),
    (["--tile", "16x32", "--limit", "-1"], "--limit -1"),
    (["--tile", "16x32", "-o", "in.png", "--overwrite"], "is what --input reads"),
    (["-o", "m.csv"], "is one picture: add --tile"),
    ([], r"\.png and \.tif with --tile"),
]


@pytest.mark.parametrize(("options", "told"), WRONG, ids=[" ".join(options) or "nothing" for options, _ in WRONG])
def test_wrong_options_are_one_line(
    options: list[str], told: str, scene: np.ndarray, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_member(tmp_path / "fixed.onnx", size=(16, 32), promised={"size": (16, 32)})
    Image.fromarray(scene).save("in.png")
    Image.new("L", (4, 4)).save("small.png")
    for name in ("text.png", "text.tif"):
        Path(name).write_text("no picture")
    before = sorted(Path().iterdir())
    given = ["-m", "fixed.onnx", *(() if "-i" in options else ("-i", "in.png")), *options]
    done = engine("ensemble", *given, *(() if "-o" in options else ("-o", "mask.png")))
    assert done.code == 2, done.err
    import re

    assert re.search(told, done.err), done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error")]) == 1
    assert sorted(Path().iterdir()) == before


def test_scenes_of_an_array_are_read_in_parts(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 30)).astype(np.uint8)
    np.save(tmp_path / "x.npy", array)
    scenes = open_scenes(tmp_path / "x.npy")
    assert (scenes.size, scenes.channels, scenes.alone) == ((20, 30), 3, False)
    for index, scene in enumerate(scenes.each()):
        np.testing.assert_array_equal(scene.rows(5, 9), array[index].transpose(1, 2, 0)[5:9])
