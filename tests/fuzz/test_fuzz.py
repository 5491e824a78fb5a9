"""Whatever comes: a result that holds what it promises, or one of our errors in one line."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="the models that are spoilt are built with the onnx package")

from engine.cli import app
from engine.errors import ContractError, InputError, ModelError, PlanError
from engine.models.contract import ModelContract
from engine.models.external_data import external_files
from engine.models.graph_facts import frozen_pools
from engine.runs.durable.journal import decode, encode, read_journal
from engine.runs.plan import read_plan
from engine.sources.base import Source
from engine.sources.labels import open_labels
from engine.sources.numpy_files import array_files
from engine.sources.open import open_source
from engine.utils import console
from tests.fuzz.inputs import PLACE, VALUES, made, ours, put
from tests.fuzz.target import spoilt, target
from tests.helpers.nets import FIVE, save_member

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
NPY = (made(np.save, IMAGES), made(np.save, IMAGES.astype(">f8")), made(np.save, np.asfortranarray(IMAGES)))
NPZ = (made(np.savez, images=IMAGES), made(np.savez_compressed, images=IMAGES, labels=IMAGES % 5))
CSV = (b"id,0,1,2\n0,1,2,3\n1,0,0,0\n", b'id,0,1\n"a,""b",1,12\n')
RLE = (b"id_class,rle\n0_0,1 2 5 1\n0_1,3 2\n1_0,1 5\n1_1,\n",)
PLAN = (
    b'strategy = "vote"\nsuppress = [0]\nbias = [0, 0.5]\nthreshold = 0.9\n[[members]]\nmodel = "a.onnx"\nweight = 2\n',
    b'[[members]]\nmodel = "b.onnx"\nsha256 = "'
    + b"a" * 64
    + b'"\n[members.contract]\nclasses = ["a", "b"]\nscale=1\n',
)
CONTRACT = ModelContract(FIVE, size=(64, 128), ignored_class=0).to_json().encode()
NET = save_member(PLACE / "net.onnx").read_bytes()
JOURNAL = encode({"images": 9, "size": [8, 16]}) + encode({"shard": "ab", "outcome": {"images": 4, "skipped": []}})


@target(content=spoilt(*NPY))
def test_npy(content: bytes) -> None:
    with ours(InputError):
        source = open_source(put("x.npy", content))
        assert sum(len(batch.ids) for batch in source.batches(2)) == len(source)


@target(content=spoilt(*NPZ))
def test_npz(content: bytes) -> None:
    with ours(InputError):
        source = open_source(put("x.npz", content))
        assert sum(len(batch.ids) for batch in source.batches(2)) == len(source)


HEADERS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["|u1", "<f8", "|O", "<U9", ">c16", "V0"]),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)


@target(descr=HEADERS, order=HEADERS, shape=HEADERS | st.lists(st.integers(-2, 2**40), max_size=5).map(tuple),
        data=st.binary(max_size=40))  # fmt: skip
def test_npy_headers(descr: object, order: object, shape: object, data: bytes) -> None:
    """Headers that are sound Python and no sound header; inside an archive too."""
    text = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text[:65_000] + data
    with ours(InputError):
        array_files(put("x.npy", content))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("images.npy", content)
    with ours(InputError):
        array_files(put("x.npz", stream.getvalue()))


@target(content=spoilt(*CSV, *RLE))
def test_submissions(content: bytes) -> None:
    with ours(InputError):
        source = open_labels(put("y.csv", content))
        maps = np.concatenate([batch.pixels for batch in source.batches(2)])
        assert maps.shape == (len(source), *source.size, 1)
        assert maps.dtype == np.uint8


KAGGLE = [
    b"ImageId_ClassId,EncodedPixels\na_1,1 2 5 1\nb_2,\nb_1,3 1\n",
    b"ImageId,EncodedPixels\na.png,2 3\nb.png,\n",
    b"ImageId,ClassId,EncodedPixels\nb,3,1 6\n",
]
COCO = [
    b'[{"image_id":"a","category_id":1,"segmentation":{"size":[2,3],"counts":"01O1"}}]',
    b'{"images":[{"id":7,"file_name":"b.jpg"}],"annotations":[{"image_id":7,"category_id":2,'
    b'"segmentation":{"size":[2,3],"counts":[1,2,3]}}]}',
]


@target(csv=spoilt(*KAGGLE), coco=spoilt(*COCO))
def test_run_lengths_of_competitions(csv: bytes, coco: bytes) -> None:
    images = Source("images", ["a", "b"], (2, 3), 1, lambda count: iter(()), named=True)
    for name, content in (("y.csv", csv), ("y.json", coco)):
        with ours(InputError):
            source = open_labels(put(name, content), like=images)
            maps = np.concatenate([batch.pixels for batch in source.batches(2)])
            assert maps.shape == (len(source), *source.size, 1)
            assert maps.dtype == np.uint8


@target(content=spoilt(*PLAN))
def test_plans(content: bytes) -> None:
    with ours(PlanError):
        assert read_plan(put("plan.toml", content)).members


FIELDS = st.sampled_from([*json.loads(CONTRACT), "more"])


@target(content=spoilt(CONTRACT), fields=st.dictionaries(FIELDS, VALUES, max_size=3), mixed=st.booleans())
def test_contracts(content: bytes, fields: dict[str, object], mixed: bool) -> None:
    """What is read can be written and read again."""
    text = json.dumps({**json.loads(CONTRACT), **fields}) if mixed else content.decode("utf-8", "replace")
    with ours(ContractError):
        contract = ModelContract.from_json(text)
        assert ModelContract.from_json(contract.to_json()) == contract


@target(content=spoilt(NET))
def test_models_wire_format(content: bytes) -> None:
    with ours(ModelError):
        for path in external_files(PLACE / "net.onnx", content):
            assert path.parent == PLACE.resolve() or PLACE.resolve() in path.parents
        assert isinstance(frozen_pools(put("net.onnx", content)), list)


@target(content=spoilt(JOURNAL))
def test_journals(content: bytes) -> None:
    """What is read is what stands there, from the beginning on."""
    entries, ends = read_journal(put("journal", content))
    lines = content.splitlines(keepends=True)
    assert len(entries) == len(ends)
    assert content[: ends[-1] if ends else 0].count(b"\n") == len(entries)
    assert not lines or not ends or decode(content[: ends[0]]) == entries[0]


OPTIONS = ("--strategy", "--weights", "--suppress", "--bias", "--prior", "--threshold", "--min-region", "--views",
           "--batch-size", "--workers", "--limit", "--labels", "--preview", "--on", "--ray-address", "--on-bad-image",
           "--gpus-per-worker", "--tile", "--overlap", "--classes", "--scale", "--mean", "--resume", "--overwrite",
           "--plan", "-m", "-i", "-o", "--no-such", "--json")  # fmt: skip
# No system passes a NUL in an argument.
WORDS = st.sampled_from(
    ["", "0", "-1", "nan", "inf", "1e999", "1,2,,", "0,1,2,3,4", "vote", "../..", "/", "/dev/null", "a\x1b[2Jb"]
) | st.text(max_size=6).filter(lambda text: "\0" not in text)


@target(arguments=st.lists(st.tuples(st.sampled_from(OPTIONS), WORDS), max_size=4))
def test_arguments(arguments: list[tuple[str, str]]) -> None:
    """No traceback and nothing written: the model that all of them name first is not there."""
    line = ["ensemble", "-m", str(PLACE / "no.onnx"), "-i", str(PLACE / "no.npz"), "-o", str(PLACE / "out.csv")]
    errors = io.StringIO()
    quiet = contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO())
    with quiet[0], quiet[1], pytest.raises(SystemExit) as left:
        console.exit_code(lambda: app([*line, *(word for pair in arguments for word in pair)]))
    assert left.value.code == 2
    assert "Traceback" not in errors.getvalue()
    assert "\x1b[2J" not in errors.getvalue()
    assert not list(PLACE.glob("*out*"))
