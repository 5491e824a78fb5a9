"""One memory arena for all sessions of ONNX Runtime: nets that run in turns use the same warm memory again."""

from __future__ import annotations

from functools import cache
from typing import Any

# Makes a session allocate from the environment's arena. ONNX Runtime ignores it without a word where none is
# registered or the name is misspelt; tests/engine/models/runtimes/test_arena.py checks that it took.
USE_ARENA = "session.use_env_allocators"


def share_arena(options: Any) -> None:
    """Make a session of these ``onnxruntime.SessionOptions`` allocate from the one arena of this process.

    Without an arena every run takes its memory from the system page by page and gives it back; with an arena per
    session each net touches cold memory of its own. One arena for all is as fast as any and needs the least memory, see
    benchmarks/results/arenas.md. Memory patterns stay on, as is the default: without them the same process ran a tenth
    slower at times on a virtual machine.
    """
    register_arena()
    options.add_session_config_entry(USE_ARENA, "1")


@cache
def register_arena() -> None:
    """Register an arena with the environment of ONNX Runtime, without a limit and with the runtime's own defaults."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    automatic = ("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk")
    settings = onnxruntime.OrtArenaCfg({"max_mem": 0, **dict.fromkeys(automatic, -1)})
    onnxruntime.create_and_register_allocator(place, settings)
