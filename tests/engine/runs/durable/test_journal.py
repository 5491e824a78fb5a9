"""The journal: what a kill or a full disk tears is dropped, what stands before it stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runs.durable.journal import Journal, decode, encode, read_journal
from tests.helpers.properties import examples

ENTRIES = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), max_size=5)


@given(ENTRIES, st.integers(0, 400), st.binary(max_size=40))
@examples(150)
def test_a_torn_journal_keeps_its_whole_entries(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, object]], cut: int, garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal"
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    journal.close()
    whole = path.read_bytes()
    assert read_journal(path) == (entries, [len(b"".join(map(encode, entries[: n + 1]))) for n in range(len(entries))])
    torn = whole[: max(0, len(whole) - cut)]
    path.write_bytes(torn + garbage)
    kept, ends = read_journal(path)
    whole_lines = torn.count(b"\n")
    assert kept[:whole_lines] == entries[:whole_lines]
    if decode(torn[(ends[-1] if ends else 0) :] + garbage.partition(b"\n")[0] + b"\n") is None:
        assert len(kept) == whole_lines
