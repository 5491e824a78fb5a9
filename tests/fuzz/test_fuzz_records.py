"""What people and programs write down: plans, TOML, contracts, runs of compare, runs and files of trainers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="the models are built with the onnx package")
pytest.importorskip("tomli_w", reason="plans are written with tomli_w")

import tomli_w

from engine.compare.command import compare
from engine.compare.options import CompareOptions
from engine.compare.result import Comparison
from engine.compare.runfile import ARRAYS, KIND, SCHEMA, plain, read_run, write_run
from engine.errors import EngineError, InputError, OutputError, PlanError
from engine.inference.ensemble import Ensemble
from engine.models.contract import ModelContract
from engine.runs.options import Options
from engine.runs.plan import read_plan, write_plan
from engine.sources.numpy_files import array_files
from engine.sources.palettes import read_palette
from engine.sources.record import NPZ_KEY
from tests.fuzz.inputs import NUMBERS, PLACE, VALUES, changed, made, ours, put
from tests.fuzz.target import spoilt, target
from tests.helpers.nets import FIVE, save_net
from tests.helpers.world import make_world
from trainers.config import FitConfig
from trainers.data import load

# Terms of the field that some key of a plan or a contract takes.
TERMS = """vote mean-prob staple members fused horizontal both logits probabilities NCHW NHWC HW NHW resize pad bilinear
    nearest rgb bgr multiclass binary specialist specialists packed labels multilabel imagenet 0..1 none 1/255 soil
    a.onnx *.onnx ../.. out ignore"""
PLAUSIBLE = (
    st.sampled_from(TERMS.split())
    | NUMBERS
    | st.booleans()
    | st.lists(NUMBERS, max_size=6)
    | st.lists(st.sampled_from(["a", "b", "", "background", "\n"]), max_size=6)
)
ANYTHING = PLAUSIBLE | VALUES


def toml(value: Any) -> bytes:
    """Return JSON as TOML, which has no null and knows 64 bits."""
    return tomli_w.dumps(_with_values(value)).encode("utf-8", "surrogatepass")


def _with_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_values(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_with_values(item) for item in value if item is not None]
    return value


PLAN: dict[str, Any] = {
    "strategy": "vote",
    "classes": list(FIVE),
    "suppress": [0],
    "threshold": 0.9,
    "bias": [0, 0.5, 0, 0, 0],
    "prior": [1, 1, 2, 1, 1],
    "vote_stage": "members",
    "min_region": 4,
    "views": ["both", "scale:1.5"],
    "view_mean": "logits",
    "cleanup": {"soil": {"threshold": 0.5, "min_region": 4, "largest": True, "fill_holes": True}},
    "input": {"layout": "NHW", "exif": "ignore", "rgb_as_grey": True},
    "output": {"min_area": 25},
    "labels": {"ids": [0, 7, 11, 12, 13], "void": 254, "output_ids": True},
    "members": [
        {"model": "a.onnx", "weight": 2, "sha256": "a" * 64, "map": {"soil": "soil", "sky": ""}},
        {"model": "b.onnx", "weight": [1, 1, 1, 1, 1], "contract": {"classes": list(FIVE), "scale": 1 / 255}},
    ],
}


@target(tables=changed(PLAN, ANYTHING))
def test_plan_tables(tables: Any) -> None:
    """A plan that is read can be written and read again."""
    try:
        content = toml(tables if isinstance(tables, dict) else {"plan": tables})
    except (ValueError, TypeError, OverflowError):
        return  # what TOML cannot hold
    with ours(PlanError, OutputError):
        plan = read_plan(put("tables.toml", content))
        write_plan(PLACE / "again.toml", plan)
        assert read_plan(PLACE / "again.toml") == plan


FIELDS: dict[str, Any] = json.loads(ModelContract(FIVE, size=(8, 16), ignored_class=0, scale=1 / 255).to_json())
STATED: dict[str, Any] = {
    "classes": list(FIVE),
    "input_layout": "NCHW",
    "output_layout": "NCHW",
    "activation": "logits",
    "normalize": "0..1",
    "ignored_class": 0,
    "fit": "pad",
    "stride": 1,
    "channels": 1,
}
PIXELS = np.random.default_rng(0).integers(0, 240, (2, 8, 16)).astype(np.uint8)


def predicted(name: str) -> None:
    """Open a model of the folder and predict with it: label maps of its classes, or one of our errors."""
    with ours(EngineError):
        ensemble = Ensemble.open(PLACE / name, sample=PIXELS[0][..., None])
        masks = ensemble.predict(PIXELS)
        assert masks.shape == PIXELS.shape
        assert masks.dtype == np.uint8
        assert ((masks < len(ensemble.classes)) | (masks == 255)).all()


@cache
def compiled() -> None:
    """Compile what a prediction needs, with a class that is never predicted and without one."""
    for ignored in (0, None):
        save_net(PLACE / "first.onnx", metadata=json.dumps({**FIELDS, "ignored_class": ignored}))
        predicted("first.onnx")


@target(few=60, before=compiled, fields=changed(STATED, ANYTHING))
def test_toml_of_models(fields: Any) -> None:
    """NAME.toml beside a net without a contract."""
    try:
        content = toml(fields if isinstance(fields, dict) else {"classes": fields})
    except (ValueError, TypeError, OverflowError):
        return
    if not (PLACE / "foreign.onnx").exists():
        save_net(PLACE / "foreign.onnx")
    put("foreign.toml", content)
    predicted("foreign.onnx")


@target(few=60, before=compiled, fields=changed(FIELDS, ANYTHING))
def test_contracts_in_models(fields: Any) -> None:
    """Any JSON where a model's contract stands."""
    save_net(PLACE / "carrying.onnx", metadata=json.dumps(fields))
    predicted("carrying.onnx")


@cache
def comparison() -> Comparison:
    """Return a comparison of three nets on seven images."""
    folder = PLACE / "world"
    folder.mkdir()
    world = make_world(folder)
    job = Options(models=(str(world.models),), input=str(world.images_file), labels=str(world.labels_file))
    return compare(CompareOptions(job, folds=2, gallery=2, pixels=500, ablation=True))


@target(before=comparison, content=st.deferred(lambda: spoilt(run_bytes())))
def test_run_files(content: bytes) -> None:
    with ours(InputError):
        read_run(put("damaged.npz", content))


def run_bytes() -> bytes:
    path = PLACE / "run.npz"
    if not path.exists():
        write_run(path, comparison())
    return path.read_bytes()


FACTS = st.deferred(lambda: changed(plain(asdict(comparison().facts)), ANYTHING, most=2))


@target(few=12, before=comparison, facts=FACTS,
        head=changed({"kind": KIND, "schema": SCHEMA}, VALUES, most=1),
        array=st.sampled_from(["", *ARRAYS]), cut=st.integers(0, 3))  # fmt: skip
def test_forged_run_files(facts: Any, head: Any, array: str, cut: int) -> None:
    """Files of other facts or pictures whose checksum was computed anew: a page is made of them, or none is read."""
    from engine.compare.report.page import render

    arrays = {name: getattr(comparison().pictures, name) for name in ARRAYS}
    if array:
        arrays[array] = np.moveaxis(arrays[array], 0, -1) if cut == 3 else arrays[array][cut:]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in ARRAYS:
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    held = {**(head if isinstance(head, dict) else {}), "content_sha256": digest.hexdigest(), "facts": facts}
    content = made(np.savez, **{NPZ_KEY: np.array(json.dumps(held)), **arrays})
    with ours(InputError):
        assert render(read_run(put("forged.npz", content)))


TRAINING = FitConfig("unet", "data.npz", "unet.keras", class_names=FIVE, options=("squeeze=false",))


@target(content=spoilt(TRAINING.to_toml(result={"raw": 0.5}).encode()), table=changed(asdict(TRAINING), ANYTHING),
        mixed=st.booleans())  # fmt: skip
def test_toml_of_training_runs(content: bytes, table: Any, mixed: bool) -> None:
    """A run that is read can be written and read again."""
    try:
        text = toml({"config": table}).decode() if mixed else content.decode("utf-8", "replace")
    except (ValueError, TypeError, OverflowError):
        return
    with ours(InputError, PlanError):
        config = FitConfig.from_toml(text)
        assert FitConfig.from_toml(config.to_toml()).hash == config.hash


TILES = np.random.default_rng(0).integers(0, 5, (4, 2, 8, 16)).astype(np.uint8)
SETS = (
    made(np.savez, training_set=TILES),
    made(np.savez_compressed, images=TILES[:, 0], labels=TILES[:, 1], groups=np.arange(4)),
)
SHAPES = st.lists(st.integers(0, 4), max_size=4)
KINDS = st.sampled_from(["u1", "<f8", "<i8", "?", "U3", "S2", "c16", "<u8", "f2", "M8[s]"])


@target(content=spoilt(*SETS))
def test_training_files(content: bytes) -> None:
    with ours(InputError):
        tiles = load(put("training.npz", content))
        assert tiles.images.shape[:3] == tiles.labels.shape


@target(arrays=st.dictionaries(st.sampled_from(["training_set", "images", "labels", "groups", "masks"]),
                               st.tuples(SHAPES, KINDS, st.sampled_from([0, 1, 3, 255])), max_size=4))  # fmt: skip
def test_arrays_of_training_files(arrays: dict[str, tuple[list[int], str, int]]) -> None:
    """Sound arrays of other shapes, types and values."""
    held = {name: np.full(shape, value).astype(kind) for name, (shape, kind, value) in arrays.items()}
    with ours(InputError):
        tiles = load(put("arrays.npz", made(np.savez, **held)))
        assert tiles.images.shape[:3] == tiles.labels.shape
        assert array_files(PLACE / "arrays.npz")


PALETTES = (
    b"name,r,g,b\nsoil,0,10,20\nrock,255,0,0\nvoid,1,2,3\n",
    b'{"soil": [0, 10, 20], "rock": [255, 0, 0], "void": [1, 2, 3]}',
)


@target(content=spoilt(*PALETTES), suffix=st.sampled_from(["csv", "json"]))
def test_palettes(content: bytes, suffix: str) -> None:
    with ours(PlanError, InputError):
        palette = read_palette(str(put(f"palette.{suffix}", content)))
        assert len(palette.colours) == len(palette.names)
