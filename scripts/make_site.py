"""Build the documentation's site: ``python scripts/make_site.py [--source-only | --check-links FOLDER]``.

The pages are those of docs/, and what is generated from the repository: the help of every command, the measured tables,
CONTRIBUTING.md and CHANGELOG.md. All of it is gathered in build/docs/, links between them turned to where they stand in
the site; then Zensical builds build/docs/site from it in its strict mode, and every link and picture of the result is
followed once more. Needs the extra ``docs``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("engine", "exporters", "trainers")
# Wide enough for the longest option names, narrow enough for a page.
HELP_WIDTH = 84
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
COMPLETION = """## Completion in your shell

Each program supports Tab completion of commands and options in bash, zsh, fish and PowerShell:

```bash
engine --install-completion
exporters --install-completion
trainers --install-completion
```

Open a new shell afterwards. `engine --show-completion bash` prints the script instead of installing it.
"""


def main() -> int:
    """Build the site, or its source alone; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository; default: this one")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--source-only", action="store_true", help="gather the pages in build/docs/ and stop")
    only.add_argument("--check-links", type=Path, metavar="FOLDER", help="follow the links of a built site and stop")
    options = parser.parse_args()
    if options.check_links:
        return check_links(options.check_links)
    root = options.root.resolve()
    build = root / "build" / "docs"
    gather(root, build / "pages")
    config = write_config(root, build / "pages", build / "mkdocs.yml")
    if options.source_only:
        return 0
    shutil.rmtree(build / "site", ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", config.name], cwd=build
    )
    return built.returncode or check_links(build / "site")


def check_links(site: Path) -> int:
    """Print what a built site lacks; return the exit code."""
    wrong = list(broken(site))
    print("\n".join(wrong) or f"{site}: every link and picture exists, nothing is loaded from other hosts")
    return int(bool(wrong))


def gather(root: Path, target: Path) -> None:
    """Put every page into one folder, in its form for the site."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "tables").mkdir(parents=True)
    for path in sorted((root / "docs").glob("*")):
        if path.suffix == ".md":
            (target / path.name).write_text(turned(path.read_text("utf-8"), path, root), "utf-8")
        elif path.suffix in (".png", ".css"):
            shutil.copy(path, target / path.name)
    for path in sorted((root / "benchmarks" / "results").glob("*.md")):
        (target / "tables" / path.name).write_text(turned(path.read_text("utf-8"), path, root), "utf-8")
    for path in sorted((root / "benchmarks" / "results").glob("*.json")):
        shutil.copy(path, target / "tables" / path.name)
    for name in ("CONTRIBUTING", "CHANGELOG"):
        path = root / f"{name}.md"
        (target / f"{name.lower()}.md").write_text(turned(path.read_text("utf-8"), path, root), "utf-8")
    (target / "commands.md").write_text(commands(), "utf-8")


def plain_sources(root: Path, target: Path) -> Path:
    """Copy the packages' modules for the reference, their docstrings without the roles that Markdown lacks."""
    shutil.rmtree(target, ignore_errors=True)
    for program in PROGRAMS:
        for path in sorted((root / program).rglob("*.py")):
            copy = target / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(re.sub(r":(?:mod|func|class|meth|data|attr):(?=`)", "", path.read_text("utf-8")), "utf-8")
    return target


def place(path: Path, root: Path) -> str | None:
    """Return the place of a repository file in the site, or None if it has no page."""
    inside = path.relative_to(root).as_posix()
    if inside == "README.md":
        return "index.md"
    if inside in ("CONTRIBUTING.md", "CHANGELOG.md"):
        return inside.lower()
    if inside == "benchmarks/results":
        return "tables/kernels.md"
    if inside.startswith("benchmarks/results/"):
        return "tables/" + inside.rpartition("/")[2]
    return inside.removeprefix("docs/") if inside.startswith("docs/") else None


def turned(text: str, path: Path, root: Path) -> str:
    """Rewrite a page's links to repository files as links inside the site; refuse those without a page."""
    own = place(path, root)
    assert own is not None
    up = "../" * own.count("/")

    def change(found: re.Match[str]) -> str:
        link = found[1]
        if urlsplit(link).scheme or link.startswith("#"):
            return link
        name, _, anchor = link.partition("#")
        aim = (path.parent / unquote(name)).resolve()
        if not aim.exists() and aim != root / "docs" / "commands.md":
            raise SystemExit(f"{path.relative_to(root)}: {link} does not exist")
        there = place(aim, root)
        if there is None:
            raise SystemExit(
                f"{path.relative_to(root)}: {link} has no page in the site; name it in code, without a link"
            )
        return up + there + ("#" + anchor if anchor else "")

    return LINK.sub(change, text)


def commands() -> str:
    """Return the page of all commands: the help that each program prints, word for word."""
    parts = ["# Commands\n\nThe help of each program, as it prints it.\n", COMPLETION]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for program in PROGRAMS:
            names = names_of(program)
            whole, *own = pool.map(help_of, [program] * (len(names) + 1), ["", *names])
            parts.append(f"## {program}\n\n{block(whole)}")
            parts += [f"### {program} {name}\n\n{block(text)}" for name, text in zip(names, own, strict=True)]
    return "\n".join(parts)


def block(text: str) -> str:
    """Return text in a code block."""
    return f"```text\n{text}\n```\n"


def names_of(program: str) -> list[str]:
    """Return the commands of a program in its own order."""
    import typer

    group: Any = typer.main.get_command(import_module(f"{program}.cli").app)
    return list(group.commands)


def help_of(program: str, command: str = "") -> str:
    """Return the output of ``PROGRAM [COMMAND] --help`` on a terminal of :data:`HELP_WIDTH` columns without colours."""
    code = f"import sys; sys.argv = {[program, *command.split(), '--help']}; from {program}.cli import main; main()"
    plain = {"COLUMNS": str(HELP_WIDTH), "TERMINAL_WIDTH": str(HELP_WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    plain = {**os.environ, **plain, "PYTHONIOENCODING": "utf-8"}
    for forced in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS"):
        plain.pop(forced, None)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=plain, capture_output=True, encoding="utf-8", check=True
    )
    return "\n".join(line.rstrip() for line in found.stdout.splitlines()).strip("\n")


def write_config(root: Path, pages: Path, target: Path) -> Path:
    """Write the configuration of this build: the nav without missing pages, ``tables/*`` expanded."""
    import yaml

    config = yaml.safe_load((root / "mkdocs.yml").read_text("utf-8"))
    config |= {"docs_dir": pages.name, "site_dir": "site", "nav": kept(config["nav"], pages)}
    handlers = next(plugin["mkdocstrings"] for plugin in config["plugins"] if "mkdocstrings" in plugin)["handlers"]
    handlers["python"]["paths"] = [str(plain_sources(root, target.parent / "sources"))]
    shown = set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(config["nav"])))
    lost = sorted({path.relative_to(pages).as_posix() for path in pages.rglob("*.md")} - shown)
    if lost:
        raise SystemExit(f"mkdocs.yml: its nav does not name {', '.join(lost)}")
    target.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    return target


def kept(nav: list[dict[str, Any]], pages: Path) -> list[dict[str, Any]]:
    """Return the entries of a nav whose pages exist."""
    found: list[dict[str, Any]] = []
    for entry in nav:
        ((title, aim),) = entry.items()
        if isinstance(aim, list):
            below = kept(aim, pages)
        elif aim.endswith("*"):
            below = [{title_of(page): page.relative_to(pages).as_posix()} for page in sorted(pages.glob(aim))]
        else:
            found += [entry] if (pages / aim).exists() else []
            continue
        found += [{title: below}] if below else []
    return found


def title_of(page: Path) -> str:
    """Return the heading of a page."""
    return page.read_text("utf-8").partition("\n")[0].removeprefix("# ")


class Links(HTMLParser):
    """Links, loaded files and anchors of a built page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.aims: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take one element."""
        held = dict(attrs)
        self.anchors |= {value for value in (held.get("id"), held.get("name")) if value}
        aim = held.get("href") or held.get("src")
        if aim and tag == "a":
            self.aims.append(aim)
        elif aim and held.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(aim)


def broken(site: Path) -> Iterator[str]:
    """Yield a line for each missing link target or picture of a built site, and for each file from another host."""
    pages = {path: Links(path.read_text("utf-8")) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        yield from (f"{name}: loads {aim} from another host" for aim in page.loads if urlsplit(aim).netloc)
        for aim in page.aims + page.loads:
            parts = urlsplit(aim)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists():
                yield f"{name}: {aim} is missing"
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
                yield f"{name}: {aim} has no such anchor"


if __name__ == "__main__":
    sys.exit(main())
