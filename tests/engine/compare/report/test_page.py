"""``engine report``: what stands on the page, that nothing a user named can act on it, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compare.command import compare
from engine.compare.options import CompareOptions
from engine.compare.result import Comparison
from engine.compare.runfile import read_run, write_run
from engine.runs.options import Options
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_member
from tests.helpers.world import World

pytest.importorskip("matplotlib", reason="the page needs maskfuse[report]")
pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")

from engine.compare.report.figures import short
from engine.compare.report.page import render
from engine.compare.report.pictures import MOST_SIDE, dispute, mask, photograph
from engine.compare.report.scatter import pareto
from engine.compare.report.svg import _attributes, axes, inline, page_style

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script></style><img src=x onerror=document.title='owned'>",
    "\"'><svg/onload=document.title=`owned`>&amp;",
    r"{{7*7}} $\frac{1}{0$ {% include 'x' %}",
    "javascript:document.title='owned'",
)


class Page(HTMLParser):
    """Every element with its attributes, and the text beside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._raw = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else data

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Classes, members and images whose names would like to run."""
    return hostile_run(tmp_path_factory.mktemp("hostile"))


def hostile_run(folder: Path, labels: bool = True) -> Comparison:
    from PIL import Image

    names = ("<img src=x onerror=document.title='owned'>", 'b"&', "c")
    for seed, name in enumerate(names):
        save_member(folder / f"{name}.onnx", seed, classes=HOSTILE)
    draw = np.random.default_rng(1)
    for kind in ("images", "truth"):
        (folder / kind).mkdir()
        for name in ("<b onclick=document.title='owned'>1", "2&amp;", "3", "4"):
            pixels = draw.integers(0, 240 if kind == "images" else 5, (16, 24)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{name}.png")
    truth = str(folder / "truth") if labels else ""
    job = Options(models=(str(folder / "*.onnx"),), input=str(folder / "images"), labels=truth)
    return compare(CompareOptions(job, folds=2, gallery=2, pixels=2000, command="engine compare -i '</code><script>'"))


def test_every_part_is_there_and_nothing_named_by_a_user_acts(hostile: Comparison) -> None:
    text = render(hostile)
    page = Page(text)
    for name in HOSTILE:
        assert name in page.text
    assert "<img src=x onerror" in page.text
    assert "<b onclick" in page.text
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("script"), tags.count("style"), tags.count("iframe")) == (1, 1, 0)
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    plots = [attributes["aria-label"] for tag, attributes in page.elements if attributes.get("class") == "plot"]
    # Four of the eight have a second width, for phones.
    assert (len(plots), len(set(plots))) == (12, 8)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_policy_names_this_very_style_and_script(hostile: Comparison) -> None:
    text = render(hostile)
    policy = next(a["content"] for t, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        held = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert held is not None
        digest = base64.b64encode(hashlib.sha256(held[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_is_the_same_each_time(hostile: Comparison, tmp_path: Path) -> None:
    write_run(tmp_path / "run.npz", hostile)
    assert render(hostile) == render(read_run(tmp_path / "run.npz"))


def test_the_page_says_what_the_run_found(hostile: Comparison) -> None:
    facts, text = hostile.facts, Page(render(hostile)).text
    best, single = facts.rows[facts.fused], facts.rows[facts.baseline[facts.metric]]
    for value in (best.scores[facts.metric].value, single.scores["per-image"].high, facts.ablation[-1].value):
        assert f"{value:.4f}" in text
    assert facts.run_sha256 in text
    assert facts.command in text
    assert all(member.sha256[:12] in text for member in facts.members)
    assert len(re.findall(r"\bimage (?:<b|2&amp;|3|4)", text)) == len(facts.tiles)


def test_without_labels_there_are_shares_and_no_scores(tmp_path: Path) -> None:
    page = Page(render(hostile_run(tmp_path, labels=False)))
    labels = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("class") == "plot"]
    assert list(dict.fromkeys(labels)) == [
        "Score against images per second, with the Pareto front",
        "How often each class is predicted",
        "Share of pixels on which two members agree, in percent",
        "Share of members that disagree with the mean of all, by class",
    ]
    assert "Confusion" not in page.text
    assert "No labels were given" in page.text


def test_one_member_many_classes_and_missing_scores(hostile: Comparison) -> None:
    """Of what a comparison may lack, nothing may break the page."""
    facts = hostile.facts
    nothing = {
        name: replace(found, **dict.fromkeys(vars(found), math.nan)) for name, found in facts.rows[0].scores.items()
    }
    rows = [replace(row, scores=nothing) if index else row for index, row in enumerate(facts.rows)]
    alone = replace(facts, rows=rows, members=facts.members[:1], tiles=[], agreement=[[1.0]], ablation=[], groups=0)
    pictures = replace(hostile.pictures, **{name: array[:0] for name, array in vars(hostile.pictures).items()})
    text = render(Comparison(alone, pictures))
    assert "nan" not in Page(text).text
    classes = 40
    wide = [
        replace(
            row,
            confusion=np.diag(np.arange(classes)).tolist(),
            share=[1 / classes] * classes,
        )
        for row in facts.rows
    ]
    names = [f"a class with a rather long name, number {index}" for index in range(classes)]
    many = replace(alone, rows=wide, classes=names, disputed_by_class=[0.1] * classes)
    assert names[39] in Page(render(Comparison(many, pictures))).text


POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_holds_what_no_other_beats_in_both(points: list[tuple[int, int]]) -> None:
    front = {points[index] for index in pareto([x for x, _ in points], [y for _, y in points])}
    want = {
        (x, y) for x, y in points if not any((a >= x and b > y) or (a > x and b >= y) for a, b in points)
    }  # plain twin
    assert front == want


def test_the_front_leaves_out_what_has_no_score() -> None:
    assert pareto([1, 2, 3], [0.5, math.nan, 0.2]) == [2, 0]


def test_svg_has_no_styles_and_follows_the_page() -> None:
    with page_style():
        figure, plot = axes(3, 2)
        plot.plot([0, 1], [0, 1], color="#0d0e0f")
        plot.set_title("<script>alert(1)</script> & $x$")
        text = inline(figure, "name", 'a "label"')
    assert 'stroke="var(--first)"' in text
    assert " style=" not in text
    assert "<style" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x$" in text
    assert 'aria-label="a &quot;label&quot;"' in text
    assert all(name.startswith("name-") for name in re.findall(r' id="([^"]*)"', text))
    used = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text)
    assert used
    assert all(f'id="{a or b}"' in text for a, b in used)


def test_styles_become_attributes() -> None:
    assert _attributes("fill: none; stroke-width: 2") == ' fill="none" stroke-width="2"'
    assert _attributes("font: 700 9.5px 'DejaVu Sans', serif; text-anchor: end") == (
        ' font-size="9.5" font-weight="600" text-anchor="end"'
    )


def test_pictures_hold_the_labels() -> None:
    import io

    from PIL import Image

    def opened(uri: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))

    labels = np.arange(6, dtype=np.uint8).reshape(2, 3) % 5
    np.testing.assert_array_equal(np.asarray(opened(mask(labels, 5))), labels)
    grey = np.random.default_rng(0).integers(0, 256, (4, 5, 1)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(photograph(grey))), grey[..., 0])
    assert opened(photograph(np.zeros((20, 3 * MOST_SIDE, 3), np.uint8))).size[0] == MOST_SIDE
    assert np.asarray(opened(dispute(np.array([[0.0, 0.5, 1.0]]))))[0, :, 3].tolist() == [0, 128, 255]
    assert short("x" * 30, 10) == "x" * 9 + "\N{HORIZONTAL ELLIPSIS}"


def tampered(change: Callable[[dict, dict], None]) -> Callable[[Path], None]:
    """A run file with something else in it."""

    def write(path: Path) -> None:
        with np.load(path) as held:
            arrays = dict(held)
        head = json.loads(str(arrays.pop("metadata")))
        change(head, arrays)
        np.savez(path, metadata=np.array(json.dumps(head)), **arrays)

    return write


def resigned(change: Callable[[dict, dict], None]) -> Callable[[Path], None]:
    """The same with a digest that fits, as someone who means it would write it."""
    from engine.compare.runfile import _digest

    def both(head: dict, arrays: dict) -> None:
        change(head, arrays)
        head["content_sha256"] = _digest(head["facts"], arrays)

    return tampered(both)


REFUSED: dict[str, tuple[Callable[[Path], object], str, list[str]]] = {
    "missing run": (lambda path: None, "report nope.npz", ["nope.npz"]),
    "a folder": (lambda path: Path("runs").mkdir(), "report runs", ["runs", "engine compare --out"]),
    "not an npz": (lambda path: Path("x.json").write_text("{}"), "report x.json", ["x.json", "no run"]),
    "damaged": (lambda path: path.write_bytes(path.read_bytes()[:900]), "report run.npz", ["run.npz", "damaged"]),
    "masks, no run": (lambda path: np.savez(path, masks=np.zeros(3)), "report run.npz", ["no run"]),
    "metadata of masks": (
        lambda path: np.savez(path, metadata=np.array('{"maskfuse": "0.1"}')),
        "report run.npz",
        ["no run"],
    ),
    "metadata is no JSON": (lambda path: np.savez(path, metadata=np.array("{")), "report run.npz", ["no run"]),
    "pickled metadata": (lambda path: np.savez(path, metadata=np.array([{}])), "report run.npz", ["no run"]),
    "another version": (tampered(lambda head, _: head.update(schema=99)), "report run.npz", ["schema 99", "reads 3"]),
    "changed by hand": (
        tampered(lambda head, _: head["facts"]["rows"][0].update(rate=1e9)),
        "report run.npz",
        ["damaged or changed"],
    ),
    "without pictures": (tampered(lambda _, arrays: arrays.pop("fused")), "report run.npz", ["lacks its pictures"]),
    "without facts": (tampered(lambda head, _: head.pop("facts")), "report run.npz", ["damaged or changed"]),
    "a field of another type": (
        resigned(lambda head, _: head["facts"].update(images="many")),
        "report run.npz",
        ["images is not what it should be"],
    ),
    "a field too many": (
        resigned(lambda head, _: head["facts"].update(more=1)),
        "report run.npz",
        ["facts is not what it should be"],
    ),
    "pictures of another size": (
        resigned(lambda _, arrays: arrays.update(fused=arrays["fused"][:, :4])),
        "report run.npz",
        ["contradicts itself"],
    ),
    "a class that is not there": (
        resigned(lambda _, arrays: arrays.update(fused=arrays["fused"] + 100)),
        "report run.npz",
        ["contradicts itself"],
    ),
    "a row that is not there": (
        resigned(lambda head, _: head["facts"].update(fused=999)),
        "report run.npz",
        ["contradicts itself"],
    ),
    "page is no html": (lambda path: None, "report run.npz -o page.pdf", ["page.pdf", ".html"]),
    "page exists": (lambda path: Path("p.html").write_text("mine"), "report run.npz -o p.html", ["--overwrite"]),
    "page is a folder": (lambda path: Path("p.html").mkdir(), "report run.npz -o p.html --overwrite", ["folder"]),
    "no such folder": (lambda path: None, "report run.npz -o no/p.html", ["no such folder"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(
    name: str, hostile: Comparison, engine: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run.npz"), hostile)
    arrange, command, facts = REFUSED[name]
    arrange(Path("run.npz"))
    before = {path: path.read_bytes() if path.is_file() else b"" for path in tmp_path.iterdir()}
    result = engine(*shlex.split(command))
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert result.err.startswith("error: ")
    for fact in facts:
        assert fact in result.err
    assert {path: path.read_bytes() if path.is_file() else b"" for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named(
    package: str, hostile: Comparison, engine: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    write_run(tmp_path / "run.npz", hostile)
    result = engine("report", tmp_path / "run.npz", "-o", tmp_path / "page.html")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "maskfuse[report]" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_the_command_line_writes_one_file(world: World, engine: Callable[..., Result], tmp_path: Path) -> None:
    run, page = tmp_path / "run.npz", tmp_path / "page.html"
    labels = world.labels_file
    options = [
        "-m",
        world.models,
        "-i",
        world.images_file,
        "--labels",
        labels,
        "--folds",
        2,
        "--no-ablation",
        "-o",
        run,
    ]
    assert engine("compare", *options).code == 0
    result = engine("report", run, "-o", page)
    assert (result.code, result.out) == (0, "")
    assert "any browser" in result.err
    assert FIVE[4] in page.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run.npz"]
    assert engine("report", run, "-o", page).code == 2
    assert engine("report", run, "-o", page, "--overwrite").code == 0
