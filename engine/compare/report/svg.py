"""matplotlib figures as inline SVG with the page's colours and font, allowed under a strict policy."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.utils.optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Placeholder colours that no figure uses otherwise; each becomes a CSS variable, so a plot turns dark with the page.
INK, MUTED, LINE, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
FIRST, SECOND, GAIN, LOSS = "#0d0e0f", "#101112", "#131415", "#161718"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    GAIN: "var(--gain)",
    LOSS: "var(--loss)",
}
RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
#: Start of the message where a package of the extra is missing.
NEEDS = "engine report needs additional packages"


@contextmanager
def page_style() -> Iterator[None]:
    """Give matplotlib the page's style, regardless of the user's settings, and silence warnings about missing glyphs.

    Raises:
        PlanError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "report", NEEDS)
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        warnings.simplefilter("ignore", UserWarning)
        yield


def inline(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an ``<svg>`` element for the page.

    Args:
        figure: drawn under :func:`page_style`, in the colours of this module.
        name: prefix of every id, so that ids are unique within a page.
        label: description for screen readers.
    """
    import matplotlib

    held = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(held, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    text = held.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    for pattern in (r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>", r"<!--.*?-->"):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    text = _in_tags(text, lambda tag: _retouched(tag, name))
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    head = (
        f'<svg class="plot" role="img" aria-label="{_escaped(label)}" viewBox="0 0 {width} {height}" '
        f'width="{float(width) * 4 / 3:.0f}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">") + 1 :].strip()


def _in_tags(text: str, change: Callable[[str], str]) -> str:
    """Change only the tags; names given by the user (the text between them, already escaped) stay unchanged."""
    return re.sub(r"<[^>]*>", lambda found: change(found[0]), text)


def _retouched(tag: str, name: str) -> str:
    tag = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), tag)
    for stand_in, variable in VARIABLES.items():
        tag = tag.replace(stand_in, variable)
    tag = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", tag)
    return re.sub(r'xlink:href="#([^"]*)"', rf'xlink:href="#{name}-\1"', tag)


def _attributes(style: str) -> str:
    """Return a style as presentation attributes, which a page without inline styles may use."""
    made: dict[str, str] = {}
    for part in style.split(";"):
        key, _, value = (item.strip() for item in part.partition(":"))
        if key == "font":
            size = re.search(r"([\d.]+)px", value)
            made |= {"font-size": size[1]} if size else {}
            made |= {"font-weight": "600"} if re.match(r"(bold|[6-9]00)\b", value) else {}
        elif key == "font-size":
            made[key] = value.removesuffix("px")
        elif key and not key.startswith("font-"):
            made[key] = value
    return "".join(f' {key}="{value}"' for key, value in made.items())


def _escaped(text: str) -> str:
    import html

    return html.escape(text, quote=True)


def axes(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of the given size in inches, outside any window system, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()
