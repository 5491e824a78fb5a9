"""Fuzzing of every parser of ours: some seconds in CI, hours by hand.

MASKFUSE_FUZZ_SECONDS=1800 python -m pytest tests/fuzz -s

fuzzes each target for half an hour with ever new seeds and prints how many inputs it was given and how far memory grew.
What is found becomes a plain test (tests/engine/test_hostile.py).
"""
