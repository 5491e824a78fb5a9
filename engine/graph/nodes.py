"""Which nodes of an ONNX graph an output needs, and which tensors they read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def live_nodes(nodes: Sequence[Any], outputs: Iterable[str]) -> list[Any]:
    """Return the nodes that the outputs depend on, each after those it reads, from any order."""
    producers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    ordered: list[int] = []
    done: set[int] = set()
    # Depth first without recursion: (node, False) enters a node, (node, True) leaves it once its inputs are there.
    stack = [(producers[name], False) for name in reversed(list(outputs)) if name in producers]
    while stack:
        index, ready = stack.pop()
        if ready:
            ordered.append(index)
        elif index not in done:
            done.add(index)
            stack.append((index, True))
            needed = sorted({producers[name] for name in names_read(nodes[index]) if name in producers}, reverse=True)
            stack.extend((inner, False) for inner in needed if inner not in done)
    return [nodes[index] for index in ordered]


def with_one_output(model: Any, output: str) -> Any:
    """Leave a model one output and what that needs; a model of one output stays as it is. ``model`` is changed."""
    graph = model.graph
    if len(graph.output) == 1:
        return model
    kept = [item for item in graph.output if item.name == output]
    del graph.output[:]
    graph.output.extend(kept)
    nodes = live_nodes(graph.node, [output])
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in names_read(node)}
    weights = [item for item in graph.initializer if item.name in used]
    dropped = {item.name for item in graph.initializer} - used
    inputs = [item for item in graph.input if item.name not in dropped]
    for field, left in ((graph.initializer, weights), (graph.input, inputs)):
        del field[:]
        field.extend(left)
    return model


def maps_of(model: Any, output: str, count: int) -> list[str] | None:
    """Return the tensors that an output concatenates, one per map, or None if it does not concatenate ``count``."""
    node = next((node for node in model.graph.node if output in node.output), None)
    if node is None or node.op_type != "Concat" or len(node.input) != count:
        return None
    axis = next((int(item.i) for item in node.attribute if item.name == "axis"), 0)
    return list(node.input) if axis in (1, -3) else None


def reach_weights(node: Any, weights: set[str], prefix: str) -> None:
    """Prefix the outer weights that the inner graphs of a node read; ``add_prefix`` does not."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                for index, name in enumerate(inner.input):
                    inner.input[index] = prefix + name if name in weights else name
                reach_weights(inner, weights, prefix)


def names_read(node: Any) -> set[str]:
    """Return the tensors a node reads, including those that its inner graphs take from outside."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(name for inner in graph.node for name in names_read(inner))
            names.update(output.name for output in graph.output)
    return names
