"""The import of Keras without its backend's startup messages."""

from __future__ import annotations

import importlib
import logging
import os
import sys


def import_backend() -> None:
    """Import Keras with TensorFlow's startup messages suppressed, unless the user requested them.

    Some of them are written to the file descriptor before any log level is read, so that is redirected meanwhile; an
    import that fails still raises.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # One process trains several specialists; TensorFlow would warn that it traces a graph for each.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a device, not a path of the user's)
            os.dup2(nowhere.fileno(), 2)
        importlib.import_module("keras")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
