"""The import of Keras without its backend's startup messages."""

from __future__ import annotations

import importlib
import logging
import os

from engine.errors import PlanError
from engine.utils.console import first_line, silenced

EXTRA, NEEDS = "train", "training needs Keras and a backend for it"


def import_backend() -> None:
    """Import Keras with TensorFlow's startup messages suppressed, unless the user requested them.

    Some of them are written to the file descriptor before any log level is read, so that is redirected meanwhile.

    Raises:
        PlanError: Keras or its backend is missing, or cannot be imported.
    """
    try:
        _import_backend()
    except ImportError:
        raise PlanError(f"{NEEDS}: pip install 'maskfuse[{EXTRA}]'") from None
    except Exception as error:  # a broken installation, or a backend that does not exist
        raise PlanError(f"Keras cannot be imported ({first_line(error, kind=True)}): install it again") from None


def _import_backend() -> None:
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        importlib.import_module("keras")
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # One process trains several specialists; TensorFlow would warn that it traces a graph for each.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with silenced():
        importlib.import_module("keras")
