"""Builds the source and binary distribution and checks them.

    python scripts/make_release.py [--home URL] [--out dist]

`--home` is the address of the repository. Links of README into it become absolute then, as an index of packages needs
them, and the metadata names it; without it, README is shown there without such links and pictures. Needs the packages
`build` and `twine`. What is built are the files under version control.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")
PACKAGES = ("engine", "exporters", "trainers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", default="", help="address of the repository, for links")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the distributions go")
    options = parser.parse_args(arguments)
    home = options.home.rstrip("/")
    if home and not home.startswith("https://"):
        parser.error(f"--home {home}: an address that begins with https:// is needed")
    with tempfile.TemporaryDirectory(prefix="release-") as temporary:
        tree = Path(temporary) / "tree"
        copy_tracked(tree)
        version = version_of(tree)
        prepare(tree, home, version)
        command = [sys.executable, "-m", "build", "--outdir", str(options.out), str(tree)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    source = options.out / f"maskfuse-{version}.tar.gz"
    wheel = options.out / f"maskfuse-{version}-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(source), str(wheel)], check=True)
    wrong = [*faults_of_source(source, version), *faults_of_wheel(wheel, home)]
    print("\n".join(wrong) or f"{source.name} and {wheel.name} are whole, in {options.out}")
    return int(bool(wrong))


def copy_tracked(tree: Path) -> None:
    """Copy the files under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)


def version_of(tree: Path) -> str:
    """Return the version that the package states."""
    found = re.search(r'VERSION = "([^"]+)"', (tree / "engine" / "version.py").read_text("utf-8"))
    if found is None:
        raise SystemExit("engine/version.py states no version")
    return found[1]


def prepare(tree: Path, home: str, version: str) -> None:
    """Write README as an index shows it, and the addresses of the project into its metadata."""
    readme = tree / "README.md"
    readme.write_text(with_links(readme.read_text("utf-8"), home, version), "utf-8")
    if not home:
        return
    urls = {
        "Homepage": home,
        "Documentation": f"{home}/blob/v{version}/docs/index.md",
        "Changelog": f"{home}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    project = tree / "pyproject.toml"
    lines = "".join(f"{name} = {json.dumps(url)}\n" for name, url in urls.items())
    text = project.read_text("utf-8").replace("[project.scripts]", f"[project.urls]\n{lines}\n[project.scripts]", 1)
    tomllib.loads(text)
    project.write_text(text, "utf-8")


def with_links(text: str, home: str, version: str) -> str:
    """Return Markdown whose links into the repository are absolute; without an address for them, their texts alone."""

    def replaced(found: re.Match[str]) -> str:
        picture, label, place = found.groups()
        if not home:
            return "" if picture else label
        return f"{picture}[{label}]({home}/{'raw' if picture else 'blob'}/v{version}/{place})"

    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)


def faults_of_source(source: Path, version: str) -> list[str]:
    """Return which files under version control a source distribution lacks."""
    with tarfile.open(source) as archive:
        held = {name.removeprefix(f"maskfuse-{version}/") for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = sorted(set(filter(None, listed.stdout.split("\0"))) - held)
    return [f"{source.name} lacks {name}" for name in missing]


def faults_of_wheel(wheel: Path, home: str) -> list[str]:
    """Return what a wheel lacks or should not hold."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        about = next(archive.read(name).decode() for name in held if name.endswith(".dist-info/METADATA"))
    wrong = [f"{wheel.name} lacks {name}/py.typed" for name in PACKAGES if f"{name}/py.typed" not in held]
    outside = sorted({name.split("/")[0] for name in held if ".dist-info/" not in name} - set(PACKAGES))
    wrong += [f"{wheel.name} holds {name}/, which is no part of the package" for name in outside]
    relative = re.findall(r"\]\((?!https?:|mailto:|#)[^)\s]+\)", re.sub(r"```.*?```", "", about, flags=re.DOTALL))
    wrong += [f"{wheel.name}: its description has the relative link {link[1:]}" for link in relative]
    if home and f"Project-URL: Homepage, {home}" not in about:
        wrong.append(f"{wheel.name} does not name {home}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
