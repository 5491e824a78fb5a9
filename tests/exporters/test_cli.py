"""The command line: two real processes, the rest through ``main`` in this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from exporters import cli

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_models_into_a_folder(archive, tmp_path, read_stamp):
    sources = [tmp_path / name for name in ("first.keras", "second.keras")]
    for source in sources:
        shutil.copy(archive[0], source)
    tiles = np.random.default_rng(0).integers(0, 256, (6, 16, 32)).astype(np.uint8)
    np.savez(tmp_path / "tiles.npz", test_set=tiles)
    out = tmp_path / "new" / "folder"
    # The backend of the training run must not matter, and a missing one must not hurt.
    done = run(
        *("-m", "exporters.cli", "onnx", *sources, "--out", out, "--tiles", tmp_path / "tiles.npz"),
        KERAS_BACKEND="torch",
        COLUMNS="40",
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["first.onnx", "second.onnx"]
    assert done.stderr.splitlines() == [
        *(f"wrote {out / name}" for name in ("first.onnx", "second.onnx")),
        f"next: engine ensemble --models {out} --input IMAGES --output masks.csv",
    ]
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["file", "size", "nodes", "transposes", "difference", "agreement", "tiles"]
    assert [row.split()[0] for row in rows] == ["first.onnx", "second.onnx"]
    assert all(row.split()[-1] == "17" for row in rows)
    assert read_stamp(out / "first.onnx").notes["parity_tiles"] == 17


def test_importing_the_package_and_the_command_is_light():
    code = (
        "import exporters, exporters.cli, sys;"
        "heavy = {'tensorflow', 'keras', 'tf2onnx', 'onnx', 'onnxslim', 'trainers'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run("-c", code).stdout.strip() == "[]"


@pytest.fixture
def command(monkeypatch, capfd):
    """Run ``exporters ...`` in this process; return exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["exporters", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def test_one_model_to_a_file_with_options(command, build, save, tmp_path, read_stamp):
    source = save(tmp_path / "foreign.keras", build("transposed"))
    out = tmp_path / "member.onnx"
    code, stdout, stderr = command(
        *("onnx", source, "--out", out, "--class-names", "sky, sand,stone", "--ignored-class", 0, "--opset", 15),
        *("--scale", 0.5, "--mean", "1,", "--std", "2"),
    )
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: --mean '1,'; numbers separated by commas are required")
    code, stdout, stderr = command(
        *("onnx", source, "--out", out, "--class-names", "sky, sand,stone", "--ignored-class", 0, "--opset", 15),
        *("--scale", 0.5, "--mean", "1", "--std", "2", "--architecture", "foreign"),
    )
    assert (code, stderr.splitlines()[:-1]) == (0, [f"wrote {out}"])
    assert stderr.splitlines()[-1].startswith(f"next: engine ensemble --models {out} ")
    assert "member.onnx" in stdout
    stamped = read_stamp(out)
    assert (stamped.classes, stamped.ignored_class) == (("sky", "sand", "stone"), 0)
    assert (stamped.scale, stamped.mean, stamped.std) == (0.5, (1.0,), (2.0,))
    assert (stamped.architecture, stamped.notes["opset"]) == ("foreign", 15)


def test_overwrite_is_asked_for(command, archive, tmp_path):
    out = tmp_path / "member.onnx"
    out.write_bytes(b"mine")
    code, stdout, stderr = command("onnx", archive[0], "--out", out)
    assert (code, stdout) == (2, "")
    assert stderr == f"error: {out}: already exists; choose another name or give --overwrite\n"
    assert out.read_bytes() == b"mine"
    assert command("onnx", archive[0], "--out", out, "--overwrite")[0] == 0
    assert ort.InferenceSession(out, providers=["CPUExecutionProvider"]).get_inputs()[0].name == "images"


def test_refusals_are_one_line(command, archive, tmp_path):
    source = archive[0]
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "twin").mkdir()
    twin = tmp_path / "twin" / source.name
    shutil.copy(source, twin)
    out = tmp_path / "out"
    cases = {
        "give a folder": (source, source, "--out", tmp_path / "one.onnx"),
        "several models would be written": (source, twin, "--out", out),
        "not an .onnx file": (source, "--out", tmp_path / "file.txt"),
        "no such file": (tmp_path / "none.keras", "--out", out),
        "allowed are logits": (source, "--out", out, "--activation", "softmax"),
        "tiles.npz": (source, "--out", out, "--tiles", tmp_path / "tiles.npz"),
        "misses parity": (source, "--out", out, "--tolerance", "0"),
    }
    for words, arguments in cases.items():
        code, stdout, stderr = command("onnx", *arguments)
        assert (code, stdout) == (2, ""), words
        assert stderr.startswith("error: "), words
        assert words in stderr
        assert stderr.count("\n") == 1
    assert not out.exists()


def test_the_command_names_its_subcommand(command):
    code, stdout, _ = command("--help")
    assert code == 0
    assert "onnx" in stdout
    assert command("onnx", "--help")[0] == 0
