"""The import of Keras without its backend's startup messages."""

from __future__ import annotations

import importlib
import logging
import os

from engine.utils.console import silenced


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
    with silenced():
        importlib.import_module("keras")
