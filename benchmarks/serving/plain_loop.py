"""A server as it is written in half an hour: FastAPI around ONNX Runtime sessions, an image a request.

python -m benchmarks.serving.plain_loop PLAN PORT
"""

import io
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

path = Path(sys.argv[1])
plan = tomllib.loads(path.read_text())
sessions = [ort.InferenceSession(str(path.parent / member["model"])) for member in plan["members"]]
flips = (False, True) if plan.get("flips") == "horizontal" else (False,)
app = FastAPI()


def fused(body: bytes) -> bytes:
    image = np.load(io.BytesIO(body)).astype(np.float32)[None, None] / 255
    total = 0
    for session in sessions:
        logits = 0
        for flip in flips:
            found = session.run(None, {session.get_inputs()[0].name: image[..., ::-1] if flip else image})[0]
            logits = logits + (found[..., ::-1] if flip else found) / len(flips)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        total = total + odds / odds.sum(axis=1, keepdims=True)
    for suppressed in plan.get("suppress", ()):
        total[:, suppressed] = -1
    stream = io.BytesIO()
    np.save(stream, total.argmax(axis=1)[0].astype(np.uint8))
    return stream.getvalue()


@app.post("/predict")
async def predict(request: Request) -> Response:
    body = await request.body()
    # Without threads the nets hold up all other requests; both are common, and both are measured.
    return Response(fused(body) if "--no-threads" in sys.argv else await run_in_threadpool(fused, body))


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
