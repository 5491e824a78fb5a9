"""What the nodes of an ONNX file show of a net, read without the onnx package: here, pools that an exporter froze.

The default exporter of torch 2.13 writes AdaptiveAvgPool2d (PSPNet, UPerNet and the like) for the size it traced, be
height and width declared open or not: as an AveragePool of a fixed kernel, or as gathers of a fixed number of pixels
that are averaged. Such a file runs at other sizes and computes something else there. Two things tell it from a net
that was made with a fixed pool: windows that tile (kernel and stride are equal, nothing is padded), and what comes of
them is enlarged to a size that is read from another map, with nothing in between that looks at neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.errors import ModelError
from engine.models.graph import Graph, Node, read_graph

MOST_LETTERS = 100
# A single square pool of this side or more, the others being such as nets are made with (2x2, 3x3).
LEAST_SIDE = 4

_POOLS = {"AveragePool", "MaxPool", "LpPool"}
_RESIZES = {"Resize", "Upsample"}
_RESHAPES = {"Reshape", "Flatten"}
# What treats every pixel alone, a convolution of 1x1 besides.
_POINTWISE = {
    *("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Erf", "Mish", "Softplus", "Tanh", "Clip"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Mul", "Div", "Identity", "Dropout", "Cast", "Transpose"),
}
# What adds up gathered pixels.
_SUMS = {"Add", "Gather", "Where", "Mul", "Cast", "Transpose", "Squeeze", "Unsqueeze", "Identity"}


def frozen_pools(path: Path) -> list[str]:
    """Return the names of pools that make a net with an open height or width right at one size alone.

    Args:
        path: an ONNX file. One that is damaged, or too large to be looked through, shows nothing: whether it runs is
            for the runtime to say. Bodies of If, Loop and functions are not looked into.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        graph = read_graph(path.read_bytes())
    except ValueError:
        return []
    except OSError as error:
        raise ModelError(
            f"cannot read {path} ({error.strerror or error}): see to its rights, or copy it again"
        ) from None
    return [(node.name or "".join(node.outputs[:1]))[:MOST_LETTERS] for node in find_frozen_pools(graph)]


def find_frozen_pools(graph: Graph) -> list[Node]:
    """Return the pools of :func:`frozen_pools`, in the graph's order."""
    if not graph.any_size:
        return []
    makers = {value: index for index, node in enumerate(graph.nodes) for value in node.outputs if value}
    sized = _from_shapes(graph.nodes)
    enlarged = [
        node.inputs[0]
        for node in graph.nodes
        if node.operator in _RESIZES and any(value in sized for value in node.inputs[1:])
    ]
    found = _above(graph.nodes, makers, sized, enlarged)
    tiles = {index for index in found if graph.nodes[index].operator in _POOLS}
    large = {index for index in tiles if _large(graph.nodes[index])}
    frozen = (found - tiles) | large | _of_pyramids(graph.nodes, tiles)
    # Pools laid end to end, as of attention over a pyramid: one alone may be meant so, several of different sizes tell.
    flat = _above(graph.nodes, makers, sized, _flattened(graph.nodes, makers))
    frozen |= _of_pyramids(graph.nodes, {index for index in flat if graph.nodes[index].operator in _POOLS})
    return [graph.nodes[index] for index in sorted(frozen)]


def _from_shapes(nodes: Iterable[Node]) -> set[str]:
    """Return the values that are computed from the shape of another; a file's nodes stand in the order of the data."""
    found: set[str] = set()
    for node in nodes:
        if node.operator in ("Shape", "Size") or any(value in found for value in node.inputs):
            found.update(value for value in node.outputs if value)
    return found


def _above(nodes: tuple[Node, ...], makers: Mapping[str, int], sized: set[str], starts: Iterable[str]) -> set[int]:
    """Return the tiling pools, and the gathers of averages, that lead to a value pixel by pixel."""
    found: set[int] = set()
    queue = [(value, False) for value in starts]
    seen = set(queue)
    while queue:
        value, summed = queue.pop()
        index = makers.get(value)
        if index is None:
            continue
        node = nodes[index]
        if (node.operator == "GatherND" and summed and node.inputs[1:2] and node.inputs[1] in sized) or (
            _tiles(node) and not summed
        ):
            found.add(index)
            continue
        steps = []
        if (summed and node.operator in _SUMS) or (not summed and node.operator in ("ReduceMean", "Div")):
            steps += [(given, True) for given in node.inputs]
        if not summed and (node.operator in _POINTWISE or _one_by_one(node)):
            steps += [(given, False) for given in node.inputs]
        queue += (step for step in steps if step not in seen)
        seen.update(steps)
    return found


def _flattened(nodes: tuple[Node, ...], makers: Mapping[str, int]) -> list[str]:
    """Return what is flattened and then joined to something by a Concat."""
    found: list[str] = []
    queue = [value for node in nodes if node.operator == "Concat" for value in node.inputs]
    seen = set(queue)
    while queue:
        index = makers.get(queue.pop())
        if index is None:
            continue
        node = nodes[index]
        if node.operator in _RESHAPES:
            found += node.inputs[:1]
        elif node.operator in _POINTWISE:
            steps = [value for value in node.inputs if value not in seen]
            seen.update(steps)
            queue += steps
    return found


def _tiles(node: Node) -> bool:
    kernel = node.integers.get("kernel_shape", ())
    return (
        node.operator in _POOLS
        and bool(node.inputs)
        and len(kernel) == 2
        and node.integers.get("strides") == kernel
        and not any(node.integers.get("pads", ()))
    )


def _large(node: Node) -> bool:
    kernel = node.integers["kernel_shape"]
    return max(kernel) >= LEAST_SIDE or len(set(kernel)) > 1


def _of_pyramids(nodes: tuple[Node, ...], pools: set[int]) -> set[int]:
    """Return those pools whose input is pooled by another kernel too."""
    kernels: dict[str, set[tuple[int, ...]]] = {}
    for index in pools:
        kernels.setdefault(nodes[index].inputs[0], set()).add(nodes[index].integers["kernel_shape"])
    return {index for index in pools if len(kernels[nodes[index].inputs[0]]) > 1}


def _one_by_one(node: Node) -> bool:
    kernel = node.integers.get("kernel_shape", ())
    return node.operator == "Conv" and bool(kernel) and set(kernel) == {1}
