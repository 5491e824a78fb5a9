"""Imports every module of the packages; the exit code is 1 if one fails for another reason than a missing extra."""

from __future__ import annotations

import importlib
import pkgutil
import sys

# Packages of extras, which may be missing.
EXTRAS = {"keras", "tensorflow", "tf2onnx", "onnxslim", "onnx", "scipy", "optuna", "ray", "openvino", "cc3d"}
EXTRAS |= {"starlette", "uvicorn", "prometheus_client"}


def main() -> int:
    """Import all; print how many were imported and which wait for an extra."""
    done, waiting, failed = 0, set(), []
    for package in ("engine", "exporters", "trainers"):
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if found.name.endswith("__main__"):
                continue
            try:
                importlib.import_module(found.name)
                done += 1
            except ModuleNotFoundError as error:
                missing = (error.name or "").split(".")[0]
                if missing not in EXTRAS:
                    failed.append(f"{found.name}: {error}")
                waiting.add(missing)
            except Exception as error:
                failed.append(f"{found.name}: {type(error).__name__}: {error}")
    print(f"{done} modules imported; left out where an extra is missing: {', '.join(sorted(waiting)) or 'none'}")
    print("\n".join(failed), end="\n" if failed else "")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
