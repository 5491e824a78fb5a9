"""Writes the table of wrong requests in docs/serve.md: each is sent to a server, and its answer is the row.

python -m benchmarks.reliability.wrong_requests
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.helpers.world import make_world
from tests.helpers.wrong_requests import BEGIN, END, refusals, table

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def main() -> None:
    """Send all requests and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "world"
        place.mkdir()
        rows = refusals(make_world(place), Path(folder))
    text = PAGE.read_text("utf-8")
    held = BEGIN + "\n" + table(rows) + "\n" + END
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: held, text, flags=re.DOTALL), "utf-8")
    print(f"{len(rows)} wrong requests: {PAGE}")


if __name__ == "__main__":
    main()
