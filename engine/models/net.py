"""Opens ONNX files, checks their contract, and runs batches into planar logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError, InputError, ModelError
from engine.models.contract import LABELS, METADATA_KEY, ModelContract
from engine.models.external_data import model_checksum
from engine.models.foreign import Ports, complete_contract
from engine.models.runtimes import Session
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.utils.console import one_line
from engine.utils.sides import nearest_sizes, told_size

# A probability of 0 becomes this logit, log(2**-126): finite, so that one sure member cannot turn a sum into NaN.
LEAST_PROBABILITY = np.float32(2.0**-126)


@dataclass(frozen=True)
class Net:
    """One opened ONNX file that keeps a contract.

    Attributes:
        name: file name without suffix, or what the plan calls it.
        path: the file.
        contract: what it promises, completed by what the user stated.
        session: the file, opened in a runtime.
        output_name: the output that is read.
        checksum: SHA-256, hexadecimal, of the file, and of the weights it keeps beside it.
        grey_as_rgb: whether a grey image is repeated over the three channels the net takes.
    """

    name: str
    path: Path
    contract: ModelContract
    session: Session
    output_name: str
    checksum: str
    grey_as_rgb: bool = False

    @property
    def input_key(self) -> tuple[object, ...]:
        """Return what decides the network's input: members with an equal key share one prepared batch."""
        held = self.contract
        return (held.input_layout, held.channels, held.scale, held.mean, held.std)

    def prepare(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the network's input, float32, for raw images (batch, height, width, channels)."""
        held = self.contract
        if self.grey_as_rgb and pixels.shape[3] == 1:
            pixels = np.repeat(pixels, held.channels, axis=3)
        with np.errstate(over="ignore"):  # infinity shows in the logits and is refused there, by name
            scaled = pixels.astype(np.float32)
        if held.scale != 1.0:
            scaled *= np.float32(held.scale)
        if any(held.mean):
            scaled -= np.asarray(held.mean, np.float32)
        if held.std != (1.0,):
            scaled /= np.asarray(held.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)) if held.input_layout == "NCHW" else scaled

    def run(self, prepared: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Run a prepared batch.

        Args:
            prepared: float32, what :meth:`prepare` returned.
            out: float32 (batch, maps, pixels), the result: logits, or log-odds of specialists, calibrated; of a packed
                file, (batch, classes, pixels): 1 for the class of its label, 0 for all others.

        Raises:
            ModelError: the runtime fails, or the output has another shape than promised.
        """
        held = self.contract
        if held.kind == "packed":
            labels = _flat_labels(self.session.run(self.output_name, prepared), out.shape, self.path)
            np.equal(labels, np.arange(out.shape[1])[:, None], out=out)
            return
        planar = (
            held.input_layout == held.output_layout == "NCHW"
            and prepared.shape[2] * prepared.shape[3] == out[0, 0].size
        )
        planes = out.reshape(*out.shape[:2], *prepared.shape[2:]) if planar else None
        maps = self.session.run(self.output_name, prepared, planes)
        if maps is not planes:
            self._copy(maps, out)
        if held.activation == "probabilities":
            _to_logits(out, specialist=held.kind in ("specialist", "specialists"))
        if held.calibration is not None:
            biases, temperatures = (np.asarray(values, np.float32)[:, None] for values in held.calibration)
            out += biases
            out /= temperatures

    def _copy(self, maps: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Copy what a runtime put out elsewhere into the planar logits, once it has the promised shape."""
        if maps.ndim != 4 or maps.dtype.kind != "f":
            raise ModelError(f"{self.path} puts out {maps.dtype} of shape {maps.shape}; float of rank 4 is needed")
        if self.contract.output_layout == "NHWC":
            maps = maps.transpose(0, 3, 1, 2)
        batch, count, pixels = out.shape
        if maps.shape[:2] != (batch, count) or maps.shape[2] * maps.shape[3] != pixels:
            raise ModelError(
                f"{self.path} puts out {maps.shape} as (batch, maps, height, width); its contract promises {count} "
                f"maps of {pixels} pixels: state --output-layout or export it again"
            )
        np.copyto(out.reshape(maps.shape), maps)


def open_net(
    path: Path,
    stated: Mapping[str, Any] | None = None,
    sample: NDArray[Any] | None = None,
    name: str = "",
    grey_as_rgb: bool = False,
) -> Net:
    """Open an ONNX file and settle its contract.

    Args:
        path: the file.
        stated: contract fields the user states; for a file that carries a contract they replace nothing.
        sample: one raw image (height, width, channels); a foreign file is run on it once to see its output.
        name: what to call the member; the file's stem by default.
        grey_as_rgb: let a net of three channels take grey images.

    Raises:
        ModelError: not an ONNX file, damaged, or one the runtime cannot run.
        ContractError: what the file is remains unclear, or contradicts what it promises.
        InputError: no such file, or the sample does not fit.
    """
    if not path.is_file():
        raise InputError(f"no such model: {path}")
    stated = dict(stated or {})
    output_name = stated.pop("output_name", "")
    checksum = model_checksum(path)
    session = OnnxSession(path)
    try:
        carried = session.raw.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        contract = None if carried is None else ModelContract.from_json(carried)
        ports = _ports(session.raw, output_name, packed=contract is not None and contract.kind == "packed")
        if contract is not None:
            ports.check(contract)
        else:
            contract = complete_contract(ports, stated, sample, lambda image: _probe(session, ports, image))
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path} holds names that are not UTF-8: it is damaged, export or copy it again") from None
    # The name goes into tables and files; a file's own may hold escape sequences.
    net = Net(one_line(name or path.stem), path, contract, session, ports.output_name, checksum, grey_as_rgb)
    if sample is not None:
        check_sample(net, sample.shape)
    return net


def check_sample(net: Net, shape: tuple[int, ...]) -> None:
    """Refuse images the net cannot take.

    Args:
        net: the opened file.
        shape: (height, width, channels) of the images.

    Raises:
        InputError: wrong size, a side that the stride does not divide, or a wrong number of channels.
    """
    height, width, channels = shape
    held = net.contract
    if held.size is not None and held.size != (height, width):
        raise InputError(
            f"images are {height}x{width}; {net.path.name} takes {held.size[0]}x{held.size[1]} alone: "
            f"cut them into tiles with --tile {held.size[0]}x{held.size[1]}, resize them, or export it for their size"
        )
    if height % held.stride or width % held.stride:
        below, above = map(told_size, nearest_sizes((height, width), held.stride))
        raise InputError(
            f"images are {height}x{width}; {net.path.name} takes sides that {held.stride} divides: "
            f"pad them to {above}, or cut them into tiles with --tile {below}"
        )
    grey = channels == 1 and held.channels == 3
    if held.channels != channels and not (grey and net.grey_as_rgb):
        advice = "add --grey-as-rgb to repeat the grey channel" if grey else "convert the images"
        raise InputError(
            f"images have {channels} channel{'s' if channels > 1 else ''}; {net.path.name} takes "
            f"{held.channels}: {advice}"
        )


def check_range(pixels: NDArray[Any], nets: Iterable[Net]) -> None:
    """Refuse images that were scaled to 0..1 already where the nets scale raw 0..255 values themselves.

    Args:
        pixels: the first raw images.
        nets: who would scale them.

    Raises:
        InputError: naming the net whose scale does not fit.
    """
    if pixels.dtype.kind != "f" or not pixels.size:
        return
    top = float(pixels.max())  # NaN passes here: it is refused where it shows, with the image's name
    if not 0 < top <= 1:
        return
    for net in nets:
        if net.contract.scale <= 1 / 128:
            raise InputError(
                f"the images hold floats up to {top:.3g}; {net.path.name} expects raw values "
                "0..255 and scales them itself: store the images unscaled"
            )


def _ports(session: Any, output_name: str, packed: bool) -> Ports:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    output_name = LABELS if packed else output_name
    if len(inputs) != 1:
        raise ContractError(f"it takes {len(inputs)} inputs; a member takes one batch of images: export it so")
    named = {output.name: output for output in outputs}
    if output_name and output_name not in named:
        raise ContractError(f"it has no output {output_name!r}; there are: {', '.join(named)}")
    if not output_name and len(outputs) > 1:
        raise ContractError(f"it has several outputs, {', '.join(named)}: pick one with --output-name")
    output = named[output_name] if output_name else outputs[0]
    if inputs[0].type != "tensor(float)":
        raise ContractError(f"it takes {inputs[0].type}; tensor(float) is needed: export it with a float32 input")
    shape = tuple(output.shape)
    if packed and (output.type != "tensor(uint8)" or len(shape) != 3):
        raise ContractError(f"its labels are {output.type} of rank {len(shape)}; uint8 of rank 3: pack it again")
    # Label maps are one map an image: with that axis put in, a packed file is checked like any other.
    ports = Ports(tuple(inputs[0].shape), (shape[0], 1, *shape[1:]) if packed else shape, output.name)
    if isinstance(ports.input_shape[0], int):
        raise ContractError(f"it takes batches of {ports.input_shape[0]} alone: export it with a dynamic batch")
    return ports


def _probe(session: OnnxSession, ports: Ports, image: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        return np.asarray(session.run(ports.output_name, image))
    except ModelError as error:
        reason = str(error).partition(f"{image.shape}: ")[2]
        raise ContractError(
            f"it fails on one image of shape {image.shape} ({reason}): check --input-layout and the images' size"
        ) from None


def _flat_labels(labels: NDArray[Any], shape: tuple[int, ...], path: Path) -> NDArray[Any]:
    batch, classes, pixels = shape
    if labels.dtype != np.uint8 or labels.size != batch * pixels or int(labels.max(initial=0)) >= classes:
        raise ModelError(f"{path} puts out {labels.dtype} {labels.shape}; labels of {classes} classes: pack it again")
    return labels.reshape(batch, 1, pixels)


def _to_logits(out: NDArray[np.float32], specialist: bool) -> None:
    """Turn probabilities into logits in place: softmax (or the sigmoid of a specialist) gives them back."""
    if specialist:
        clipped = np.clip(out, LEAST_PROBABILITY, np.float32(1 - 2**-24))
        np.log(clipped / (1 - clipped), out=out)
    else:
        np.log(np.maximum(out, LEAST_PROBABILITY), out=out)
