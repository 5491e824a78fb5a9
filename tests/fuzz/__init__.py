"""Fuzzing of every parser of ours: some seconds in CI, hours by hand.

MASKFUSE_FUZZ_SECONDS=1800 MASKFUSE_FUZZ_FIGURES=figures python -m pytest tests/fuzz -s

fuzzes each target for half an hour with ever new seeds and writes what it cost: time, inputs, memory, findings.
What is found becomes a plain test (tests/end_to_end/test_hostile.py).
"""
