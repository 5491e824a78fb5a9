"""What an error of ONNX Runtime says, without the places in its C++ sources."""

from __future__ import annotations

import re

_FILE = r"\S*\.(?:cc|cpp|cu|cuh|h|hpp)\b"
# A status; a source file with its line and the signature of the function there; what CUDA errors add to their text.
_NOISE = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : "),
    re.compile(_FILE + r":\d+ [^()]*?onnxruntime::[^()]*\([^()]*\)(?: const)?(?: \[with [^\]]*\])?[;:]?\s*"),
    re.compile(_FILE + r":\d+\s+"),
    re.compile(r";?\s*(?:GPU|hostname|file|line|expr)=[^;]*"),
    re.compile(_FILE),
)


def reason_of(error: BaseException) -> str:
    """Return one line of at most 200 characters."""
    text = " ".join(str(error).split())
    for noise in _NOISE:
        text = noise.sub("", text)
    return text.strip(" ;:,")[:200] or type(error).__name__
