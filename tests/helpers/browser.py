"""Chromium without a window, a web server for one folder, and a proxy that sees every request that would leave."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NO_BROWSER = "no Chromium with its driver: apt-get install chromium chromium-driver"
DESKTOP, PHONE = (1280, 900), (390, 844)
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
)


class _Logged(ThreadingHTTPServer):
    """A server that keeps what it was asked for."""

    daemon_threads = True

    def __init__(self, handler: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Files(SimpleHTTPRequestHandler):
    headers_too: dict[str, str] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()

    def end_headers(self) -> None:
        for name, value in self.headers_too.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class _Refusing(BaseHTTPRequestHandler):
    """Stands for the rest of the network: notes what is asked for, and gives nothing."""

    def handle_one_request(self) -> None:
        line = self.rfile.readline(65537).decode("latin-1").strip()
        if line:
            self.server.asked.append(line)  # type: ignore[attr-defined]
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.close_connection = True


@contextlib.contextmanager
def _running(server: _Logged) -> Iterator[_Logged]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def serving(folder: Path, headers: dict[str, str] | None = None) -> Iterator[_Logged]:
    """Offer a folder at ``server.address``; ``server.asked`` holds the paths that were asked for."""
    handler = type("Files", (_Files,), {"headers_too": headers or {}})
    with _running(_Logged(partial(handler, directory=str(folder)))) as server:
        yield server


@contextlib.contextmanager
def outside() -> Iterator[_Logged]:
    """Stand for the rest of the network, as a proxy."""
    with _running(_Logged(_Refusing)) as server:
        yield server


@contextlib.contextmanager
def chromium(proxy: str = "", downloads: Path | None = None, more: tuple[str, ...] = ()) -> Iterator[Any]:
    """Run a browser.

    Args:
        proxy: address that every request goes to but those of this machine's servers; empty for none.
        downloads: where saved files go.
        more: further switches of Chromium.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # By name: the address of this machine alone goes past the proxy.
    through = (f"--proxy-server={proxy}", "--proxy-bypass-list=127.0.0.1") if proxy else ()
    for argument in (*FLAGS, *through, *more):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        if downloads is not None:
            where = {"behavior": "allow", "downloadPath": str(downloads)}
            driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
        yield driver
    finally:
        driver.quit()


def look(driver: Any, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    """Give the window a size and a colour scheme; a narrow one is a phone."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def skip_or_fail(reason: str) -> None:
    """Skip a test that lacks something; in CI it must not be lacked unnoticed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def runtime_tarball(shared: Path) -> Path:
    """Return onnxruntime-web's tarball, fetched once for all processes of a test session.

    Args:
        shared: a folder that these processes share.
    """
    from filelock import FileLock

    from engine.errors import EngineError
    from exporters.page.runtime import fetch

    folder = shared / "onnxruntime-web"
    with FileLock(f"{folder}.lock"):
        refused = folder / "refused.txt"
        if refused.is_file():
            skip_or_fail(refused.read_text("utf-8"))
        held = list(folder.glob("*.tgz"))
        if held:
            return held[0]
        folder.mkdir()
        try:
            return fetch(folder)
        except EngineError as error:
            refused.write_text(str(error), "utf-8")
            skip_or_fail(str(error))
            raise


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder of the whole test session, also where several processes share the tests."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


class Site:
    """A page of `exporters page` in a browser.

    Attributes:
        driver: selenium's.
        server: what offers the folder, see :func:`serving`.
        downloads: where saved files go.
    """

    def __init__(self, driver: Any, server: _Logged, downloads: Path) -> None:
        self.driver, self.server, self.downloads = driver, server, downloads

    def open(self, query: str = "?device=wasm") -> str:
        """Load the page and return what it says it runs on, once it is ready."""
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(f"http://{self.server.address}/{query}")
        self.wait(lambda: self.state == "Ready." or "cannot" in self.state)
        return str(self.element("device").text)

    @property
    def state(self) -> str:
        return str(self.element("state").text)

    def element(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def wait(self, until: Any, seconds: float = 90) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.05).until(lambda _: until())

    def drop(self, *files: Path) -> str:
        """Give it pictures and return what it says once all are done."""
        # What it said of earlier ones is no answer.
        self.driver.execute_script("arguments[0].textContent = ''", self.element("state"))
        self.element("files").send_keys("\n".join(map(str, files)))
        self.wait(lambda: "predicted" in self.state)
        return self.state

    def saved(self, button: str, name: str) -> Path:
        """Press a button and return the file that it saves."""
        path = self.downloads / name
        path.unlink(missing_ok=True)
        self.driver.execute_script("arguments[0].click()", self.element(button))
        self.wait(path.is_file)
        return path

    def masks(self) -> dict[str, Any]:
        """Return the masks of all pictures by their names, as saved: uint8 (height, width) of class ids."""
        import io
        import zipfile

        import numpy as np
        from PIL import Image

        with zipfile.ZipFile(self.saved("save-all", "masks.zip")) as archive:
            assert archive.testzip() is None
            held = {name.removesuffix(".png"): archive.read(name) for name in archive.namelist()}
        return {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in held.items()}

    def complaints(self) -> list[dict[str, Any]]:
        """Return what the console says, but what is no concern: that a machine has no GPU."""
        entries = self.driver.get_log("browser")
        return [
            entry for entry in entries if entry["level"] != "DEBUG" and "No available adapters" not in entry["message"]
        ]


@contextlib.contextmanager
def opened_site(
    folder: Path, downloads: Path, headers: dict[str, str] | None = None, more: tuple[str, ...] = ()
) -> Iterator[tuple[Site, _Logged]]:
    """Open a browser for the page in a folder; yield the page, and what would have left this machine."""
    with serving(folder, headers) as server, outside() as rest, chromium(rest.address, downloads, more) as driver:
        yield Site(driver, server, downloads), rest


def left(rest: _Logged) -> list[str]:
    """Return the requests to other machines, but those of Chromium itself: it asks its maker for time and settings."""
    own = (".google.com", ".googleapis.com", ".gvt1.com")
    found = []
    for line in rest.asked:
        host = line.split()[1].removeprefix("http://").split("/")[0].split(":")[0]
        if not host.endswith(own):
            found.append(line)
    return found
