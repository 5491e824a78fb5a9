"""Small Keras nets of the kinds that segmentation uses, and archives of them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.models.contract import KERAS_MEMBER, METADATA_KEY, ModelContract

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Looked up, not imported: it would bring TensorFlow along for tests that need none.
if find_spec("tf2onnx") is None:
    pytest.skip("needs the export extra", allow_module_level=True)

HEIGHT, WIDTH = 16, 32
CLASSES = ("background", "soil", "rock")
Net = Any


def _conv(x: Any, filters: int, name: str = "conv") -> Any:
    from keras import layers

    if name == "depthwise":
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)(x)
    else:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    if name == "squeeze":
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(4, 1, activation="relu")(gate)
        x = layers.Multiply()([x, layers.Conv2D(filters, 1, activation="sigmoid")(gate)])
    return x


def _up(x: Any, filters: int, name: str) -> Any:
    from keras import layers

    if name in ("nearest", "bilinear"):
        return layers.UpSampling2D(2, interpolation=name)(x)
    return layers.Conv2DTranspose(filters, 3 if name == "odd kernel" else 2, strides=2, padding="same")(x)


def _unet(name: str) -> Net:
    import keras
    from keras import layers

    free = name == "free size"
    image = layers.Input((None, None, 1) if free else (HEIGHT, WIDTH, 3 if name == "colour" else 1))
    x = _conv(image, 6, name)
    skip = x
    x = layers.MaxPooling2D()(x)
    x = _conv(x, 8, name)
    if name == "dropout":
        x = layers.SpatialDropout2D(0.5)(layers.Dropout(0.5)(x))
    x = layers.Concatenate()([_up(x, 6, name), skip])
    x = _conv(x, 6, name)
    maps = 1 if name == "specialist" else len(CLASSES)
    activation = {"softmax": "softmax", "sigmoid": "sigmoid"}.get(name)
    return keras.Model(image, layers.Conv2D(maps, 1, activation=activation)(x))


def _sequential() -> Net:
    import keras
    from keras import layers

    return keras.Sequential(
        [layers.Input((HEIGHT, WIDTH, 1)), layers.Conv2D(4, 3, padding="same"), layers.Conv2D(len(CLASSES), 1)]
    )


def _settle(net: Net) -> None:
    """Give the batch statistics and biases values a trained net could have; fresh ones are all 0 and 1."""
    draw = np.random.default_rng(7)
    for weight in net.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(draw.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean", "bias")):
            weight.assign(draw.normal(0, 0.3, weight.shape))


@pytest.fixture(scope="session")
def build() -> Callable[[str], Net]:
    """Builder of a net by the name of what is special about it; the same name gives the same weights."""
    import keras

    def make(name: str) -> Net:
        keras.utils.set_random_seed(3)
        if name == "mixed_float16":
            keras.config.set_dtype_policy("mixed_float16")
        try:
            net = _sequential() if name == "sequential" else _unet(name)
        finally:
            keras.config.set_dtype_policy("float32")
        _settle(net)
        return net

    return make


def write_archive(path: Path, net: Net, contract: ModelContract | None = None) -> Path:
    net.save(path)
    if contract is not None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(KERAS_MEMBER, contract.to_json())
    return path


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    return write_archive


@pytest.fixture(scope="session")
def contract() -> ModelContract:
    return ModelContract(
        classes=CLASSES,
        size=(HEIGHT, WIDTH),
        scale=1 / 255,
        ignored_class=0,
        architecture="little_unet",
        output_layout="NHWC",
        notes={"validation_miou": 0.5},
    )


@pytest.fixture(scope="session")
def archive(
    tmp_path_factory: pytest.TempPathFactory, build: Callable[[str], Net], contract: ModelContract
) -> tuple[Path, Net]:
    """One archive with a contract, and the net in it."""
    net = build("transposed")
    return write_archive(tmp_path_factory.mktemp("archive") / "little.keras", net, contract), net


@pytest.fixture(scope="session")
def read_stamp() -> Callable[[Path], ModelContract]:
    """Reader of the contract in an ONNX file, the way the engine meets it."""
    import onnxruntime as ort

    def read(path: Path) -> ModelContract:
        meta = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta()
        return ModelContract.from_json(meta.custom_metadata_map[METADATA_KEY])

    return read
