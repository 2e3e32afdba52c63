"""Simplifies ONNX graphs: replaces several nodes by one operation that ONNX has for them."""

import collections

import numpy as np


def simplify(nodes: list, constants: dict[str, np.ndarray], outputs: list[str]) -> tuple[list, dict]:
    """The same graph with fewer nodes.

    Args:
      nodes: `onnx.NodeProto`, in their order, each with one output.
      constants: the constants by name.
      outputs: names of the tensors to keep.

    Returns:
      the nodes, and the constants that they use.
    """
    graph = _Nodes(nodes, constants)
    for rule in (_bias, _norm, _relu, _leaky_relu):
        for node in list(graph.nodes):
            rule(graph, node)
    kept, used = [], set(outputs)
    for node in reversed(graph.nodes):  # a node comes after its inputs
        if node.output[0] in used:
            used.update(node.input)
            kept.append(node)
    return kept[::-1], {name: value for name, value in graph.constants.items() if name in used}


class _Nodes:
    """Nodes, with the maker and the number of readers of each tensor."""

    def __init__(self, nodes, constants):
        self.nodes, self.constants = nodes, dict(constants)
        self.maker = {node.output[0]: node for node in nodes}
        self.readers = collections.Counter(name for node in nodes for name in node.input)

    def made_by(self, name, operation):
        """The node that makes a tensor, if it has that operation and the tensor has one reader; else None."""
        node = self.maker.get(name)
        return node if node and node.op_type == operation and self.readers[name] == 1 else None

    def of_channels(self, name) -> np.ndarray | None:
        """A constant (1, c, 1, 1) as (c,); None for any other tensor."""
        value = self.constants.get(name)
        if value is None or value.ndim != 4 or value.shape != (1, value.size, 1, 1):
            return None
        return value.ravel()

    def with_channels(self, node):
        """The two inputs of a node if they are a tensor and a constant of its channels; else None."""
        for tensor, other in (node.input, node.input[::-1]):
            if (values := self.of_channels(other)) is not None:
                return tensor, values
        return None

    def constant(self, node, role, value) -> str:
        name = f"{node.output[0]}_{role}"
        self.constants[name] = value
        return name

    def become(self, node, operation, inputs, **attributes) -> None:
        """Replaces a node by another one with the same output."""
        import onnx

        made = onnx.helper.make_node(operation, inputs, list(node.output), node.name, **attributes)
        self.readers.subtract(node.input)
        self.readers.update(inputs)
        node.CopyFrom(made)


def _bias(graph, node):
    """Conv, Add -> Conv."""
    if node.op_type != "Add" or not (found := graph.with_channels(node)):
        return
    conv = graph.made_by(found[0], "Conv")
    if conv and len(conv.input) == 2:
        inputs = [*conv.input, graph.constant(node, "bias", found[1])]
        attributes = list(conv.attribute)
        graph.readers[found[0]] -= 1
        graph.become(node, "Conv", inputs)
        node.attribute.extend(attributes)


def _norm(graph, node):
    """Mul, Add -> BatchNormalization of mean 0 and variance 1: one pass over the tensor, and runtimes have
    it in their own layouts."""
    if node.op_type != "Add" or not (found := graph.with_channels(node)):
        return
    product = graph.made_by(found[0], "Mul")
    if product and (scaled := graph.with_channels(product)):
        zeros, ones = np.zeros_like(found[1]), np.ones_like(found[1])
        values = {"scale": scaled[1], "bias": found[1], "mean": zeros, "var": ones}
        names = [graph.constant(node, role, value) for role, value in values.items()]
        graph.become(node, "BatchNormalization", [scaled[0], *names], epsilon=0.0)


def _relu(graph, node):
    """Max with 0 -> Relu."""
    if node.op_type == "Max" and len(node.input) == 2:
        for tensor, other in (node.input, node.input[::-1]):
            value = graph.constants.get(other)
            if value is not None and value.size == 1 and value.dtype == np.float32 and value.item() == 0:
                return graph.become(node, "Relu", [tensor])


def _leaky_relu(graph, node):
    """Where x >= 0, x, else x times a slope -> LeakyRelu."""
    if node.op_type != "Where":
        return
    condition, product = graph.maker.get(node.input[0]), graph.maker.get(node.input[2])
    if not condition or not product or (condition.op_type, product.op_type) != ("GreaterOrEqual", "Mul"):
        return
    x, zero = node.input[1], graph.constants.get(condition.input[1])
    slopes = [graph.constants.get(name) for name in product.input if name != x]
    if condition.input[0] != x or zero is None or x not in product.input or len(slopes) != 1:
        return
    if zero.size == 1 and zero.item() == 0 and slopes[0] is not None and slopes[0].size == 1:
        graph.become(node, "LeakyRelu", [x], alpha=float(slopes[0].item()))
