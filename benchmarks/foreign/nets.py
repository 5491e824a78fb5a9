"""The nets: seeded random weights, calibrated batch norm and heads, so that every class is predicted somewhere.

Imports torch and the projects that define the nets; nothing else of the project needs them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn.functional import interpolate

CLASSES = 12
# (height, width) that every export traces; a net with open sides runs on the second.
TRACED, OTHER = (64, 96), (96, 128)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# A pixel whose best two scores lie closer than this has no label that rounding cannot change.
TIE = 1e-4


@dataclass(frozen=True)
class Build:
    """One net.

    Attributes:
        name: project and architecture.
        make: returns it with random weights.
        classes: labels it tells apart.
        facts: the options that tell the engine what the file does not; at most two.
        imagenet: whether images are scaled by ImageNet's mean and standard deviation, else to 0..1.
        strategy: what the engine fuses by.
        own_export: whether its project brings an exporter of its own.
    """

    name: str
    make: Callable[[], Any]
    classes: int = CLASSES
    facts: tuple[str, ...] = ("--normalize", "imagenet")
    imagenet: bool = True
    strategy: str = "mean-logit"
    own_export: bool = False


@dataclass(frozen=True)
class Export:
    """One way to export: which exporter of torch, and whether batch and sides are declared open."""

    name: str
    dynamo: bool
    any_size: bool

    @property
    def file(self) -> str:
        """A name for a folder."""
        return f"{'dynamo' if self.dynamo else 'script'}-{'open' if self.any_size else 'fixed'}"


EXPORTS = (
    Export("default call", True, False),
    Export("dynamic_shapes", True, True),
    Export("dynamo=False", False, False),
    Export("dynamo=False, dynamic_axes", False, True),
)
OWN_EXPORTS = (Export("its own", False, False), Export("its own, dynamic=True", False, True))


def builds() -> list[Build]:
    """Return every net whose project is installed."""
    import segmentation_models_pytorch as smp
    import transformers
    from torchvision.models import segmentation

    def small(architecture: str, classes: int = CLASSES, encoder: str = "resnet18") -> Callable[[], Any]:
        return lambda: getattr(smp, architecture)(encoder, encoder_weights=None, classes=classes)

    def vision(name: str) -> Callable[[], Any]:
        return lambda: getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES)

    # Its defaults are those of mit_b0, the smallest published one.
    config = transformers.SegformerConfig(num_labels=CLASSES)
    made = [
        Build("smp Unet", small("Unet")),
        Build("transformers Segformer", lambda: transformers.SegformerForSemanticSegmentation(config)),
        Build("smp Unet, binary", small("Unet", 1, "mobilenet_v2"), classes=2),
        Build("smp FPN", small("FPN")),
        Build("smp DeepLabV3+", small("DeepLabV3Plus")),
        Build("smp Segformer", small("Segformer", encoder="mit_b0")),
        Build("smp Unet++", small("UnetPlusPlus")),
        Build("torchvision deeplabv3_mobilenet_v3_large", vision("deeplabv3_mobilenet_v3_large")),
        Build("torchvision lraspp_mobilenet_v3_large", vision("lraspp_mobilenet_v3_large")),
        Build("smp PSPNet", small("PSPNet")),
    ]
    if find_spec("ultralytics") is not None:
        made.append(
            Build("Ultralytics YOLO26n-sem", yolo, facts=("--normalize", "0..1"), imagenet=False,
                  strategy="vote", own_export=True)
        )  # fmt: skip
    return made


def yolo() -> Any:
    """Return Ultralytics' semantic net with our number of classes; its file of settings says 19."""
    with tempfile.TemporaryDirectory() as place:
        # No package is installed and no settings are left behind.
        os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=place)
        import ultralytics

        folder = Path(ultralytics.__file__).parent / "cfg" / "models"
        text = next(folder.rglob("yolo26-sem.yaml")).read_text("utf-8").replace("nc: 19", f"nc: {CLASSES}")
        path = Path(place) / "yolo26n-sem.yaml"
        path.write_text(text, "utf-8")
        return ultralytics.YOLO(str(path), task="semantic")


def images(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Return uint8 (count, height, width, 3): smooth colours under noise."""
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.uniform(0, 255, (count, 3, 5, 7)).astype(np.float32))
    smooth = interpolate(coarse, size=size, mode="bicubic").numpy() + draw.normal(0, 12, (count, 3, *size))
    return np.ascontiguousarray(smooth.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def prepared(pixels: np.ndarray, imagenet: bool) -> torch.Tensor:
    """Return float32 (n, 3, height, width), scaled as the net was trained."""
    scaled = pixels.astype(np.float32) / 255
    if imagenet:
        scaled = (scaled - np.float32(IMAGENET[0])) / np.float32(IMAGENET[1])
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def module(net: Any) -> torch.nn.Module:
    """Return the net itself, out of what its project wraps it in.

    Ultralytics' wrapper is a module too, whose ``train`` starts a training.
    """
    wrapped = type(net).__module__.startswith("ultralytics.") or not isinstance(net, torch.nn.Module)
    return net.model if wrapped else net


def make(build: Build, seed: int = 0) -> Any:
    """Return the net in evaluation mode, batch norm and heads calibrated on random images."""
    torch.manual_seed(seed)
    whole = build.make()
    net = module(whole)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    norms = [part for part in net.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the passes
    batch = prepared(images(8, TRACED, seed + 1), build.imagenet)
    with torch.no_grad():
        net.train()
        for _ in range(3):
            net(batch)
        net.eval()
        maps = 1 if build.classes == 2 else build.classes
        heads = [part for part in net.modules() if isinstance(part, torch.nn.Conv2d) and part.out_channels == maps]
        for head in heads:
            level(head, net, batch)
    return whole


def level(head: torch.nn.Conv2d, net: torch.nn.Module, batch: torch.Tensor) -> None:
    """Scale a last convolution so that each of its maps has mean 0 and deviation 1."""
    seen: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda part, given, out: seen.append(out))
    net(batch)
    hook.remove()
    if not seen:
        return  # an auxiliary head, left out in evaluation
    mean, deviation = seen[0].mean((0, 2, 3)), seen[0].std((0, 2, 3)).clamp_min(1e-6)
    head.weight.div_(deviation[:, None, None, None])
    if head.bias is None:
        head.bias = torch.nn.Parameter(torch.zeros(len(mean)), requires_grad=False)
    head.bias.sub_(mean).div_(deviation)


def logits(net: Any, pixels: np.ndarray, imagenet: bool) -> np.ndarray:
    """Return torch's own logits, float32 (n, maps, height, width) at the images' size."""
    with torch.no_grad():
        found = module(net)(prepared(pixels, imagenet))
    if isinstance(found, dict):
        found = found["out"] if "out" in found else found["logits"]
    if found.shape[2:] != pixels.shape[1:3]:
        found = interpolate(found, size=pixels.shape[1:3], mode="bilinear", align_corners=False)
    return found.numpy()


def labels(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 labels (n, height, width), and where a difference of rounding could change them."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.uint8), np.abs(scores[:, 0]) < TIE
    best = np.partition(scores, -2, axis=1)[:, -2:]
    return scores.argmax(1).astype(np.uint8), best[:, 1] - best[:, 0] < TIE


def export(net: Any, build: Build, how: Export, path: Path) -> None:
    """Write the file as the exporter writes it.

    Raises:
        Exception: whatever the exporter raises.
    """
    with silence():
        if build.own_export:
            made = net.export(format="onnx", imgsz=TRACED, dynamic=how.any_size)
            Path(made).replace(path)
            return
        # A batch of one is taken for a constant where axes are declared by dynamic_shapes.
        image = torch.rand(2 if how.any_size and how.dynamo else 1, 3, *TRACED)
        options: dict[str, Any] = {} if how.dynamo else {"dynamo": False}
        if how.any_size and how.dynamo:
            options["dynamic_shapes"] = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
        elif how.any_size:
            axes = {0: "n", 2: "height", 3: "width"}
            options |= {"input_names": ["image"], "output_names": ["maps"]}
            options["dynamic_axes"] = {"image": axes, "maps": axes}
        torch.onnx.export(module(net), (image,), str(path), **options)


def sibling(path: Path, out: Path, seed: int = 0, amount: float = 0.05) -> Path:
    """Write the same graph in one file, its weights moved by so much of their size; return its path."""
    draw = np.random.default_rng(seed)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            weights = numpy_helper.to_array(tensor)
            moved = weights * (1 + amount * draw.standard_normal(weights.shape))
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    onnx.save(model, out)
    return out


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what the exporters say of their progress to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(before)
