"""Every wrong or hostile input as a command line: what the page benchmarks/results/bad_inputs.md lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.bad_inputs import CASES, ENSEMBLE, INPUT, LABELS, PLAN, Arrange
from tests.helpers.hostile import ARRAYS, PICTURES, PLANS, SUBMISSIONS, Write
from tests.helpers.nets import save_member, save_net
from tests.helpers.world import World


def wrong_commands() -> dict[str, tuple[Arrange, str]]:
    """Return what is arranged and which command is run, by name."""
    found: dict[str, tuple[Arrange, str]] = {name: (arrange, line) for name, (arrange, line, _) in CASES.items()}
    for name, (file, write, _) in ARRAYS.items():
        found[name] = (_written(Path(file), write), INPUT + file)
    for name, (write, _) in PICTURES.items():
        found[name] = (_written(Path("tiles/a.png"), write), INPUT + "tiles")
    for lines, _ in SUBMISSIONS:
        name = f"labels {shown(lines)}"
        found[name] = (_written(Path("y.csv"), _text(lines)), LABELS + "y.csv")
    for text in PLANS:
        found[f"plan {shown(text)}"] = (_plan(text), PLAN)
    found["tiles of 10^12 pixels"] = (lambda world: None, ENSEMBLE + "--tile 999999x999999")
    found["picture with an escape sequence in its name"] = (_escape, INPUT + "tiles")
    return found


def _written(path: Path, write: Write) -> Arrange:
    def arrange(world: World) -> None:
        path.parent.mkdir(exist_ok=True)
        write(path)

    return arrange


def _text(content: str) -> Write:
    return lambda path: path.write_text(content)


def _plan(text: str) -> Arrange:
    def arrange(world: World) -> None:
        save_member(Path("a.onnx"))
        save_net(Path("bare.onnx"))
        Path("plan.toml").write_text("[[members]]\n" + text)

    return arrange


def _escape(world: World) -> None:
    Path("tiles").mkdir()
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(Path("tiles") / "a\x1b[2Jb.png")


def shown(text: str, most: int = 60) -> str:
    """Return a text in one line, shortened, with its control characters escaped."""
    line = text.encode("unicode_escape").decode()
    return line if len(line) <= most else f"{line[:most]}... ({len(text):,} characters)"
