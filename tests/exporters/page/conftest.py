"""Pages of several ensembles behind one web server, and one browser for all tests."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from exporters.pack import pack
from exporters.page import runtime
from exporters.page.build import make_page
from tests.helpers.browser import Site, opened_site, runtime_tarball, shared_folder
from tests.helpers.foreign_nets import CASES, save_foreign
from tests.helpers.nets import save_member

ODD = ["stride", "uneven maps", "resized", "windows of half maps", "uint8", "float16"]
SAMPLES = Path(__file__).resolve().parents[3] / "engine" / "samples"
PLANS = {
    # Grey, 64 x 128 alone: as the nets of README.
    "tiles": ('strategy = "mean-prob"', [SAMPLES / "unet.onnx", SAMPLES / "unet_plus_plus.onnx"], {}),
    # Any size, RGB, with doubt.
    "colour": ("", ["colour_a.onnx", "colour_b.onnx"], {"doubt": "entropy"}),
    # Foreign nets with all that is done around them, one of them with NaN for some pictures; uint8, any size.
    "odd": ("suppress = [1]", ODD, {}),
}


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published package, fetched with npm."""
    return runtime_tarball(shared_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def package(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it lies in node_modules."""
    folder = tmp_path_factory.mktemp("node_modules")
    wanted = [f"package/dist/{name}" for name in runtime.FILES]
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, [archive.getmember(name) for name in wanted], filter="data")
    return folder / "package"


@dataclass(frozen=True)
class World:
    """Packed ensembles and their pages.

    Attributes:
        folder: pages in folders of their names.
        packed: the ensembles' files.
        plans: what they were packed from.
    """

    folder: Path
    packed: dict[str, Path]
    plans: dict[str, Path]


@pytest.fixture(scope="session")
def world(package: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    nets, folder = tmp_path_factory.mktemp("nets"), tmp_path_factory.mktemp("pages")
    for seed, name in enumerate(("colour_a", "colour_b")):
        save_member(nets / f"{name}.onnx", seed, channels=3)
    for seed, name in enumerate(ODD):
        save_foreign(nets / f"{name}.onnx", seed, failing=name == "float16", **CASES[name].shape)
    packed, plans = {}, {}
    for name, (head, members, options) in PLANS.items():
        plans[name] = nets / f"{name}.toml"
        tables = [f'\n[[members]]\nmodel = "{member}"\n' for member in members]
        if name == "odd":
            tables = [
                tomli_w.dumps({"members": [{"model": f"{key}.onnx", "contract": CASES[key].facts}]}) for key in ODD
            ]
        plans[name].write_text(f"{head}\n" + "\n".join(tables))
        packed[name] = pack(plans[name], nets / f"{name} packed.onnx", **options).path
        make_page(packed[name], folder / name, runtime_from=package)
    return World(folder, packed, plans)


@pytest.fixture(scope="module")
def site(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The pages in a browser; afterwards nothing has left this machine."""
    with opened_site(world.folder, tmp_path_factory.mktemp("downloads")) as (opened, _):
        yield opened


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write arrays as PNGs; return the files."""
    from PIL import Image

    def save(images: np.ndarray, start: str = "tile") -> list[Path]:
        paths = [tmp_path / f"{start}{index}.png" for index in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        return paths

    return save
