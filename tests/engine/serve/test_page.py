"""The page in a real browser: a picture is dropped and shown with its mask; it loads nothing from other hosts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server needs maskfuse[serve]")
pytest.importorskip("uvicorn", reason="the server needs maskfuse[serve]")
pytest.importorskip("selenium", reason="the browser is driven by selenium: pip install 'maskfuse[dev]'")

from engine.samples.scenes import generate
from engine.serve.plan import ServedPlan
from tests.helpers.browser import BROWSER, DRIVER, NO_BROWSER, chromium, look
from tests.helpers.serving import Running, encoded, npy, running
from tests.helpers.world import World

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason=NO_BROWSER)


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Running]:
    with running(ServedPlan.open(world.models)) as found:
        yield found


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def visit(driver: Any, server: Running, size: tuple[int, int], scheme: str) -> None:
    look(driver, size, scheme)
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(f"http://127.0.0.1:{server.port}/")


def shown(driver: Any, name: str, script: str) -> Any:
    """Return what a script finds once it finds something."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = driver.execute_script(script)
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{name} does not appear")


@pytest.mark.parametrize(("size", "scheme"), [((1280, 900), "light"), ((390, 844), "dark")])
def test_a_picture_is_shown_with_its_mask_doubt_and_areas(
    size: tuple[int, int], scheme: str, driver: Any, server: Running, tmp_path: Path
) -> None:
    scene = generate(1).images[0]
    (tmp_path / "tile.png").write_bytes(encoded(scene))
    (tmp_path / "tile.npy").write_bytes(npy(scene))
    (tmp_path / "text.png").write_text("no picture")
    visit(driver, server, size, scheme)
    chosen = driver.find_element("id", "file")
    chosen.send_keys(str(tmp_path / "tile.png"))
    rows = shown(
        driver,
        "the table",
        "return [...document.querySelectorAll('#areas tr')].map(row => row.innerText.split('\\t'))",
    )
    doubt = server.server.plan.ensemble.predict(scene[None], doubt="entropy").doubt[0]
    counts = np.bincount(server.server.plan.ensemble.predict(scene[None]).ravel(), minlength=5)
    assert [row[0].strip() for row in rows] == list(server.server.plan.classes)
    assert [int(row[1].replace(",", "")) for row in rows] == counts.tolist()
    for view, is_grey in (("doubt", True), ("picture", True), ("mask", False)):
        driver.execute_script("document.querySelector(`[data-view=${arguments[0]}]`).click()", view)
        pixels = driver.execute_script(
            "const c = document.getElementById('canvas');"
            "return [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        assert pixels[:2] == [128, 64]
        drawn = np.array(pixels[2:]).reshape(64, 128, 4)[..., :3]
        assert (drawn == drawn[..., :1]).all() == is_grey
        if view != "mask":
            assert (drawn[..., 0] == (scene if view == "picture" else doubt)).all()
    overflow = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not driver.execute_script(overflow)
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    saved = driver.find_element("id", "save").get_attribute("download")
    assert saved == "tile.mask.png"
    # An array is no picture to a browser: its mask stands alone.
    chosen.send_keys(str(tmp_path / "tile.npy"))
    shown(driver, "the mask alone", "return document.querySelector('[data-view=picture]').disabled")
    chosen.send_keys(str(tmp_path / "text.png"))
    told = shown(driver, "the error", "return !document.getElementById('error').hidden && error.textContent")
    assert told.startswith("cannot read the image upload")
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert len(urls) >= 7
    assert {url for url in urls if not url.startswith((f"http://127.0.0.1:{server.port}/", "data:"))} == set()
    # This test's own reading of the canvas, and the refused text.
    known = ("400 (Bad Request)", "willReadFrequently")
    messages = [entry["message"] for entry in driver.get_log("browser")]
    complaints = [text for text in messages if not any(part in text for part in known)]
    assert complaints == []


def test_nothing_but_the_page_is_sent_from_its_folder(server: Running) -> None:
    for path in ("/page.py", "/app.py", "/../plan.py", "/page.html", "/..%2fplan.py"):
        assert server.ask("GET", path).status == 404
    page = server.ask("GET", "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"http" not in page.body.replace(b"http-equiv", b"")
