"""docs/serve.md: every wrong request of its table is refused as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server needs maskfuse[serve]")
pytest.importorskip("uvicorn", reason="the server needs maskfuse[serve]")
pytest.importorskip("prometheus_client", reason="the server needs maskfuse[serve]")

from engine.serve.plan import ServedPlan
from tests.conftest import ROOT
from tests.helpers.world import World
from tests.helpers.wrong_requests import BEGIN, END, refusals, table

PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")

RAY = """
import io, socket, urllib.request, numpy, ray
from ray import serve
from example import app
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ray.init(num_cpus=2, include_dashboard=False)
serve.start(http_options={"port": port})
serve.run(app)
body = open("images.npy", "rb").read()
request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", data=body, method="POST")
numpy.save("masks.npy", numpy.load(io.BytesIO(urllib.request.urlopen(request).read())))
serve.shutdown()
"""


def test_every_wrong_request_is_refused_as_the_page_says(world: World, tmp_path: Path) -> None:
    rows = refusals(world, tmp_path)
    assert len(rows) > 50
    assert {status for _, status, _ in rows} == {400, 404, 405, 406, 413, 415}
    shown = PAGE.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    assert shown == table(rows).strip().splitlines(), "python -m benchmarks.reliability.wrong_requests writes it"


def test_the_example_for_ray_serve_answers_with_the_same_labels(world: World, tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="the example needs pip install 'ray[serve]'")
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "ray" in block]
    source = source.replace("/shared/ensemble.toml", str(world.models)).replace('"num_cpus": 2', '"num_cpus": 1')
    (tmp_path / "example.py").write_text(source)
    np.save(tmp_path / "images.npy", world.images)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", RAY], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = ServedPlan.open(world.models).ensemble.predict(world.images)
    assert (np.load(tmp_path / "masks.npy") == expected).all()
