"""A plan behind HTTP: the labels of the command, every form of question and answer, what is refused, many at once."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server needs maskfuse[serve]")
pytest.importorskip("uvicorn", reason="the server needs maskfuse[serve]")
pytest.importorskip("prometheus_client", reason="the server needs maskfuse[serve]")

from PIL import Image

from engine.fusion.evidence import Evidence
from engine.serve import bodies
from engine.serve.openapi import document
from engine.serve.plan import ServedPlan
from engine.utils.memory import memory_limit
from tests.conftest import Result
from tests.helpers.load import load, post
from tests.helpers.nets import save_member
from tests.helpers.serving import Running, encoded, npy, running, write_plan
from tests.helpers.world import World

Engine = Callable[..., Result]
COUNT = 96


@pytest.fixture(scope="module")
def plan(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan"), world.models, 'strategy = "mean-prob"', "min_region = 2")


@pytest.fixture(scope="module")
def opened(plan: Path) -> ServedPlan:
    return ServedPlan.open(plan, workers=2)


@pytest.fixture(scope="module")
def server(opened: ServedPlan) -> Iterator[Running]:
    with running(opened) as found:
        yield found


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(8).integers(0, 240, (COUNT, 12, 20)).astype(np.uint8)


def test_many_clients_get_the_labels_of_the_command(
    server: Running, plan: Path, tiles: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    """Images of two sizes from 16 clients at once, in both protocols; each answer is compared byte by byte."""
    other = tiles[:, :8, :10].copy()
    wanted, requests = [], []
    for images in (tiles, other):
        np.save(tmp_path / "images.npy", images)
        done = engine(
            "ensemble", "--plan", plan, "-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy", "--overwrite"
        )
        assert done.code == 0, done.err
        for image, mask in zip(images, np.load(tmp_path / "m.npy"), strict=True):
            requests.append(post("/predict", npy(image)))
            wanted.append(npy(mask))
            body, length = infer_body(image[None, ..., None], outputs=[{"name": "masks"}], binary=True)
            requests.append(post("/v2/models/ensemble/infer", body, f"Inference-Header-Content-Length: {length}"))
            head = server.post("/v2/models/ensemble/infer", body, Inference_Header_Content_Length=str(length))
            at = int(head.headers["inference-header-content-length"])
            assert head.body[at:] == mask.tobytes()
            wanted.append(head.body)
    mixed = np.random.default_rng(0).permutation(len(requests))
    found = load(
        ("127.0.0.1", server.port), [requests[i] for i in mixed], [wanted[i] for i in mixed], 16, 60, 2 * len(mixed)
    )
    assert found.statuses == {200: 2 * len(mixed)}
    assert (found.wrong, found.lost) == (0, 0)
    text = server.ask("GET", "/metrics").body.decode()
    value = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("maskfuse_batch")}
    batches, images = value["maskfuse_batch_images_count"], value["maskfuse_batch_images_sum"]
    assert images >= 2 * len(mixed)
    # Batches were formed across requests: each of these held one image.
    assert batches < 0.8 * images


def infer_body(images: np.ndarray, outputs: list | None = None, binary: bool = False) -> tuple[bytes, int]:
    data = images.tobytes()
    head = {
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": list(images.shape),
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "parameters": {"binary_data_output": binary},
    }
    if outputs is not None:
        head["outputs"] = outputs
    text = json.dumps(head).encode()
    return text + data, len(text)


def test_a_picture_comes_back_as_the_file_that_the_command_writes(
    server: Running, plan: Path, tmp_path: Path, engine: Engine
) -> None:
    draw = np.random.default_rng(4)
    grey, deep = draw.integers(0, 240, (10, 14)).astype(np.uint8), draw.integers(0, 240, (10, 14)).astype(np.uint16)
    pictures = {
        "a.png": encoded(grey),
        "b.jpg": encoded(grey, "JPEG", quality=90),
        "c.tif": encoded(grey, "TIFF", compression="tiff_lzw"),
        "d.bmp": encoded(grey, "BMP"),
    }
    (tmp_path / "in").mkdir()
    for name, data in pictures.items():
        (tmp_path / "in" / name).write_bytes(data)
    assert engine("ensemble", "--plan", plan, "-i", tmp_path / "in", "-o", tmp_path / "out").code == 0
    for name, data in pictures.items():
        found = server.post("/predict", data)
        assert (found.status, found.headers["content-type"]) == (200, "image/png")
        assert found.body == (tmp_path / "out" / name).with_suffix(".png").read_bytes()
    # 16 bits are read at full depth, as the command reads them.
    np.save(tmp_path / "deep.npy", deep[None])
    engine("ensemble", "--plan", plan, "-i", tmp_path / "deep.npy", "-o", tmp_path / "deep_mask.npy")
    found = server.post("/predict", encoded(deep), Accept="application/x-npy")
    assert (found.array == np.load(tmp_path / "deep_mask.npy")[0]).all()


def test_every_result_is_that_of_python(server: Running, opened: ServedPlan, tiles: np.ndarray) -> None:
    few = tiles[:5]
    told = opened.ensemble.predict(few, scores="float32", doubt="margin", doubt_type="float32")
    scores = server.post("/predict?result=scores&scores_type=float32", npy(few))
    assert (scores.array == told.scores).all()
    assert scores.array.dtype == np.float32
    doubt = server.post("/predict?result=doubt&doubt_map=margin&doubt_type=float32", npy(few[0]))
    assert (doubt.array == told.doubt[0]).all()
    grey = server.post("/predict?result=doubt&format=png", npy(few[0]))
    entropy = opened.ensemble.predict(few[:1], doubt="entropy").doubt[0]
    assert (np.asarray(Image.open(io.BytesIO(grey.body))) == entropy).all()
    areas = server.post("/predict?result=areas", npy(few)).told
    assert [[one["pixels"] for one in told["areas"]] for told in areas] == [
        np.bincount(mask.ravel(), minlength=5).tolist() for mask in told.masks
    ]
    everything = server.post("/predict?result=all", encoded(few[0])).told
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(everything["mask"]))))
    assert (mask == told.masks[0]).all()
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(everything["doubt"])))) == entropy).all()
    assert (everything["width"], everything["height"]) == (20, 12)
    assert everything["mean_doubt"] == pytest.approx(entropy.mean() / 254)


@pytest.mark.parametrize(
    ("query", "accept", "media"),
    [
        ("", "*/*", "image/png"),
        ("", "text/html, image/*;q=0.5", "image/png"),
        ("", "image/png;q=0.2, application/x-npy", "application/x-npy"),
        ("", "application/octet-stream", "application/x-npy"),
        ("?format=npy", "image/png", "application/x-npy"),
        ("?result=areas", "", "application/json"),
    ],
)
def test_accept_and_query_choose_the_form(
    query: str, accept: str, media: str, server: Running, tiles: np.ndarray
) -> None:
    found = server.post("/predict" + query, encoded(tiles[0]), **({"Accept": accept} if accept else {}))
    assert (found.status, found.headers["content-type"]) == (200, media)


def test_the_protocol_against_the_client_of_triton(server: Running, opened: ServedPlan, tiles: np.ndarray) -> None:
    http = pytest.importorskip("tritonclient.http", reason="an independent client: pip install 'tritonclient[http]'")
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ensemble")
    assert client.is_model_ready("ensemble", "1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    held = client.get_model_metadata("ensemble")
    assert held["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 1]}]
    few = tiles[:3]
    told = opened.ensemble.predict(few, scores="float32", doubt="entropy", doubt_type="float32")
    for kind, name in (("u1", "UINT8"), ("f4", "FP32"), ("f8", "FP64"), ("i4", "INT32"), ("u2", "UINT16")):
        for binary in (True, False):
            images = http.InferInput("images", [3, 12, 20, 1], name)
            images.set_data_from_numpy(few[..., None].astype(kind), binary_data=binary)
            asked = [http.InferRequestedOutput("masks", binary), http.InferRequestedOutput("scores", not binary)]
            found = client.infer("ensemble", [images], outputs=asked, request_id="7")
            assert found.get_response()["id"] == "7"
            assert (found.as_numpy("masks") == told.masks).all()
            assert found.as_numpy("scores") == pytest.approx(told.scores, rel=1e-6)
    images = http.InferInput("images", [3, 12, 20, 1], "UINT8")
    images.set_data_from_numpy(few[..., None])
    found = client.infer("ensemble", [images])  # no outputs named: all of them, as bytes
    assert [one["name"] for one in found.get_response()["outputs"]] == ["masks", "scores", "doubt"]
    assert (found.as_numpy("doubt") == told.doubt).all()
    assert (found.as_numpy("scores") == told.scores).all()
    client.close()


def test_binary_output_is_stated_for_the_request_and_per_output(server: Running, tiles: np.ndarray) -> None:
    for whole, own, expected in ((True, None, True), (True, False, False), (False, True, True), (False, None, False)):
        one = {"name": "masks", **({} if own is None else {"parameters": {"binary_data": own}})}
        body, length = infer_body(tiles[:1, ..., None], [one, {"name": "doubt", "parameters": {"binary_data": False}}])
        text = json.loads(body[:length])
        text["parameters"]["binary_data_output"] = whole
        head = json.dumps(text).encode()
        found = server.post(
            "/v2/models/ensemble/infer", head + body[length:], Inference_Header_Content_Length=str(len(head))
        )
        at = found.headers.get("inference-header-content-length")
        assert (at is not None) == expected
        mask, doubt = json.loads(found.body[: int(at)] if at else found.body)["outputs"]
        assert ("data" in mask) != expected
        assert len(doubt["data"]) == 12 * 20
        if at:
            assert mask["parameters"]["binary_data_size"] == len(found.body) - int(at) == 12 * 20


def test_an_image_that_cannot_be_predicted_fails_alone(tmp_path: Path, tiles: np.ndarray) -> None:
    """Requests that share a batch with it get their masks."""
    save_member(tmp_path / "a.onnx", 0, poisoned=True)
    plan = ServedPlan.open(tmp_path / "a.onnx", workers=1)
    whole = plan.ensemble.predict(tiles[:16])
    bad = tiles[0].copy()
    bad[3, 3] = 255
    with running(plan) as server, ThreadPoolExecutor(17) as pool:
        images = [*tiles[:8], bad, *tiles[8:16]]
        found = list(pool.map(lambda image: server.post("/predict", npy(image)), images))
        both = server.post("/predict", npy(np.stack([tiles[0], bad])))
    assert [one.status for one in found] == [200] * 8 + [400] + [200] * 8
    assert found[8].told == {"error": "member a computes NaN or infinity for this image: repair it"}
    assert both.told == {"error": "image 1: member a computes NaN or infinity for this image: repair it"}
    good = [one.array for one in found if one.status == 200]
    assert (np.stack(good) == whole).all()


@pytest.fixture
def slow(opened: ServedPlan, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Batches wait for this event."""
    go, predict = threading.Event(), ServedPlan.predict

    def later(plan: ServedPlan, images: np.ndarray, evidence: Evidence | None = None) -> list:
        assert go.wait(60)
        return predict(plan, images, evidence)

    monkeypatch.setattr(ServedPlan, "predict", later)
    return go


def test_what_is_too_much_is_told_to_come_back(opened: ServedPlan, slow: threading.Event, tiles: np.ndarray) -> None:
    body = npy(tiles[0])
    with running(opened, requests=3) as server, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(server.post, "/predict", body) for _ in range(3)]
        while server.server.bounds.open_requests < 3:
            pass
        full = server.post("/predict", body)
        assert full.status == 503
        assert full.told == {"error": "3 requests are open, as many as are taken: try again later"}
        assert 1 <= int(full.headers["retry-after"]) <= 60
        assert server.ask("GET", "/v2/health/ready").status == 200
        slow.set()
        assert [one.result().status for one in held] == [200] * 3
        assert server.post("/predict", body).status == 200


def test_a_stop_answers_what_is_open(opened: ServedPlan, slow: threading.Event, tiles: np.ndarray) -> None:
    with ThreadPoolExecutor(6) as pool:
        with running(opened) as server:
            held = [pool.submit(server.post, "/predict", npy(tile)) for tile in tiles[:5]]
            while server.server.bounds.open_requests < 5:
                pass
            server.server.draining = True
            assert server.ask("GET", "/v2/health/ready").status == 503
            threading.Timer(0.2, slow.set).start()
        found = [one.result() for one in held]
    assert [one.status for one in found] == [200] * 5
    assert {one.headers["connection"] for one in found} == {"close"}
    assert (np.stack([one.array for one in found]) == opened.ensemble.predict(tiles[:5])).all()


def test_the_description_is_openapi_and_names_every_route(server: Running, opened: ServedPlan) -> None:
    told = server.ask("GET", "/openapi.json").told
    assert told == document(opened)
    routes = {
        (route.path, method.lower())
        for route in server.server.app.routes
        for method in route.methods - {"HEAD"}
        if not route.path.startswith("/page.")
    }
    known = {(path, method) for path, item in told["paths"].items() for method in item if method != "parameters"}
    assert known == routes
    validator = pytest.importorskip("openapi_spec_validator", reason="checks the document: pip install 'maskfuse[dev]'")
    validator.validate(told)


def test_ids_of_classes_and_colours_are_those_that_masks_hold(world: World, tmp_path: Path, tiles: np.ndarray) -> None:
    lines = ("[labels]", "ids = [10, 20, 30, 40, 50]", "output_ids = true")
    path = tmp_path / "ids.toml"
    path.write_text("\n".join(("[[members]]", f'model = "{world.models}/a.onnx"', *lines)))
    plan = ServedPlan.open(path)
    with running(plan) as server:
        mask = server.post("/predict", npy(tiles[0])).array
        areas = server.post("/predict?result=areas", npy(tiles[0])).told["areas"]
    assert [area["id"] for area in areas] == [10, 20, 30, 40, 50]
    assert [area["pixels"] for area in areas] == [int((mask == area["id"]).sum()) for area in areas]
    assert (mask // 10 - 1 == plan.ensemble.predict(tiles[:1])[0]).all()


def test_multi_label_plans_answer_with_a_mask_per_class(tmp_path: Path, tiles: np.ndarray) -> None:
    save_member(tmp_path / "m.onnx", 3, promised={"kind": "multilabel", "ignored_class": None})
    plan = ServedPlan.open(tmp_path / "m.onnx")
    with running(plan) as server:
        found = server.post("/predict", npy(tiles[0]))
        assert (found.array == plan.ensemble.predict(tiles[:1])[0]).all()
        assert found.array.shape == (5, 12, 20)
        assert server.post("/predict", encoded(tiles[0])).status == 406
        assert server.ask("GET", "/v2/models/m").told["outputs"][0]["shape"] == [-1, 5, -1, -1]
        areas = server.post("/predict?result=all", npy(tiles[0])).told["areas"]
    assert [area["pixels"] for area in areas] == found.array.sum(axis=(1, 2)).tolist()


def talk(server: Running, *parts: bytes, wait: float = 0.0) -> bytes:
    """Send parts over a raw connection; return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        for part in parts:
            sock.sendall(part)
            time.sleep(wait)
        found = b""
        while not found.endswith(b"}") and (data := sock.recv(65536)):
            found += data
        return found


def test_bodies_that_stop_have_no_end_or_are_left_are_refused(
    opened: ServedPlan, tiles: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.3)
    whole = post("/predict", npy(tiles[0]))
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    with running(opened, upload=100_000) as server:
        stopped = talk(server, whole[:-10])
        assert b" 408 " in stopped
        assert b"stopped after 358 bytes: send it again" in stopped
        endless = talk(server, chunked, *[chunk] * 7, b"0\r\n\r\n")
        assert b" 413 " in endless
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(whole[:-10])
        while server.server.bounds.open_requests:
            time.sleep(0.01)
        # Nothing is kept of them.
        assert server.server.bounds._bytes == 0
        assert server.post("/predict", npy(tiles[0])).status == 200


def test_requests_that_hold_too_much_memory_together_wait_outside(opened: ServedPlan, slow: threading.Event) -> None:
    images = npy(np.zeros((180, 128, 128)))
    with memory_limit(64 << 20), running(opened) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, "/predict?result=areas", images)
        while server.server.bounds._bytes < len(images):
            time.sleep(0.01)
        second = server.post("/predict", npy(np.zeros((120, 128, 128))))
        slow.set()
        assert second.status == 503
        assert second.told["error"].startswith("open requests hold ")
        assert int(second.headers["retry-after"]) >= 1
        assert first.result().status == 200
        alone = server.post("/predict", npy(np.zeros((300, 128, 128))))
        assert alone.status == 413
        assert re.search("upload takes .* of memory; 33.6 MB are allowed: send fewer images", alone.told["error"])
