"""Every command line that README and docs show is one that the programs take."""

from __future__ import annotations

import re
import shlex
import threading
import urllib.request
import warnings
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from tests.conftest import Result

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PROGRAMS = ("engine", "exporters", "trainers")


def shown() -> list[tuple[str, str]]:
    """Return (page, command) of every line of a shell block that calls one of the programs."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("#")[0].split("&&"):
                    words = part.strip().removeprefix("$ ").split()
                    if words and Path(words[0]).name in PROGRAMS:
                        found.append((page.name, " ".join(words)))
    return found


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_documented_command_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = shlex.split(line)
    program = Path(words[0]).name
    group = typer.main.get_command(import_module(f"{program}.cli").app)
    assert isinstance(group, TyperGroup)
    rest = words[1:]
    if not rest or rest[0].startswith("-"):
        group.make_context(program, rest, resilient_parsing=True)
        return
    context = typer.Context(group, info_name=program)
    command = group.get_command(context, rest[0])
    assert command is not None, f"{page}: {program} has no command {rest[0]}"
    command.make_context(rest[0], rest[1:], parent=context, resilient_parsing="--help" in rest)


def test_the_pages_show_commands_of_each_program() -> None:
    assert {Path(line.split()[0]).name for _, line in shown()} >= set(PROGRAMS)


def test_the_page_on_pytorch_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Result]
) -> None:
    """Its blocks are run as they stand, on nets of three channels and 21 classes, one of which returns a dictionary."""
    torch = pytest.importorskip("torch", reason="the nets are made by PyTorch: pip install 'maskfuse[bench]'")
    pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")
    from engine.cli import app

    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "pytorch.md").read_text("utf-8")
    (export,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)

    class Wrapped(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, inner: object) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, pixels: object) -> dict[str, object]:
            return {"out": self.inner(pixels)}  # type: ignore[operator]

    for seed, name in ((1, "other.onnx"), (0, "net.onnx")):
        torch.manual_seed(seed)
        layers = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 21, 1)
        inner = torch.nn.Sequential(*layers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(export.replace("net.onnx", name), {"net": inner if seed else Wrapped(inner)})
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 16, 24, 3)), rng.integers(0, 21, (10, 16, 24))
    np.savez("val.npz", images=images.astype(np.uint8), labels=labels.astype(np.uint8))
    lines = [line for name, line in shown() if name == "pytorch.md"]
    assert [line.split()[1] for line in lines] == ["ensemble", "compare", "report", "select", "ensemble"]
    for line in lines:
        done = call(app, *shlex.split(line)[1:])
        assert done.code == 0, f"{line}: {done.err}"
    (plan,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    Path("hand.toml").write_text(plan)
    assert call(app, "ensemble", "--plan", "hand.toml", "-i", "val.npz", "-o", "hand.npz").code == 0
    with np.load("masks.npz") as held:
        assert held["masks"].shape == (10, 16, 24)
        assert held["masks"].min() > 0


def test_the_server_that_allows_threads_sends_both_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of the page on pages runs as it stands, on a free port."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>here</p>")
    page = (ROOT / "docs" / "page.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(block.replace("8000", "0").replace("server.serve_forever()", ""), names)
    server = names["server"]
    assert isinstance(server, ThreadingHTTPServer)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/", timeout=10) as answer:
        assert answer.read() == b"<p>here</p>"
        sent = dict(answer.headers)
    server.server_close()
    told = dict(re.findall(r"^(Cross-Origin-\S+): (\S+)$", page, flags=re.MULTILINE))
    assert len(told) == 2
    assert told.items() <= sent.items()
