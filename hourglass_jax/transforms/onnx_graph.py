"""Converts a traced JAX function to an ONNX graph; supports the operations of this package's networks.

In ONNX images are (b, c, h, w), in JAX's networks (b, h, w, c). So each value records the order of its axes,
and a transposition only changes this record. It becomes an operation where another order is needed: at the
input, and before axes are mixed. Broadcasting along an axis is only recorded, too, because ONNX's operations
broadcast. Values that depend only on constants are computed here, and each constant is stored once.

Trace within `platforms.on("onnx", ...)`, because some kernels have a form for ONNX.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from hourglass_jax.kernels import platforms
from hourglass_jax.transforms import onnx_simplify

OPSET, IR = 18, 9  # of 2022 and 2023, which the runtimes of phones and browsers support
LEAST_HALF = 1024  # values of a constant, from which on it is stored as float16: kernels, not biases


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the traced function.

    Attributes:
      shape: its shape in JAX, but 1 along broadcast axes, and -1 for the batch.
      dtype: type of its elements.
      name: name of ONNX's tensor; "" for a constant.
      order: axis i of the tensor is the array's axis order[i].
      constant: the array, if known.
      origin: the value before new axes and broadcasting, and the places of its axes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    name: str = ""
    order: tuple[int, ...] = ()
    constant: np.ndarray | None = None
    origin: "tuple[Value, tuple[int, ...]] | None" = None


def model(run: Callable, images: jax.ShapeDtypeStruct, *, half: bool = False, metadata: Mapping[str, str]):
    """The function as an `onnx.ModelProto`, checked.

    Args:
      run: images -> {name: array}, with JAX's operations.
      images: (b, h, w, c) uint8, b symbolic.
      half: store large constants as float16; the arithmetic stays float32.
      metadata: written into the model.

    Raises:
      NotImplementedError: the function has an unsupported operation; the message names it.
    """
    import onnx

    closed, outputs = jax.make_jaxpr(platforms.on("onnx", run), return_shape=True)(images)
    graph = _Graph(half)
    batch, *sides, channels = (_dim(size) for size in images.shape)
    # Transpose the bytes, so that pictures need no other transposition.
    order = (0, 3, 1, 2)
    first = graph.emit("Transpose", ["images"], perm=order)
    source = Value((batch, *sides, channels), np.dtype(images.dtype), first, order)
    names = sorted(outputs)  # the order in which JAX flattens a dictionary
    for name, value in zip(names, graph.run(closed.jaxpr, closed.consts, [source]), strict=True):
        value = graph.whole(value, tuple(map(_dim, outputs[name].shape)))
        graph.nodes.append(onnx.helper.make_node("Identity", [graph.name(graph.plain(value))], [name]))
    nodes, tensors = onnx_simplify.simplify(graph.nodes, graph.constants, names)
    kind = onnx.helper.np_dtype_to_tensor_dtype
    described = [
        onnx.helper.make_tensor_value_info(
            name, kind(np.dtype(outputs[name].dtype)), ["batch", *outputs[name].shape[1:]]
        )
        for name in names
    ]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "hourglass",
            [onnx.helper.make_tensor_value_info("images", kind(source.dtype), ["batch", *images.shape[1:]])],
            described,
            [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
        ),
        producer_name="hourglass_jax",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _dim(size) -> int:
    return size if isinstance(size, int) else -1


class _Call(NamedTuple):
    """One operation of the trace: parameters, shapes of the inputs, and shape and type of the result."""

    params: dict[str, Any]
    given: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    dtype: np.dtype


class _Graph:
    """The nodes made so far, and the conversion of each of JAX's operations."""

    def __init__(self, half: bool):
        self.nodes, self.constants = [], {}
        self._half, self._names, self._made = half, {}, {}

    def run(self, jaxpr, constants, values: list[Value]) -> list[Value]:
        """The results of a trace."""
        known = dict(zip(jaxpr.constvars, map(_constant, constants), strict=True))
        known |= dict(zip(jaxpr.invars, values, strict=True))

        def read(var):
            return (
                _constant(np.asarray(var.val, _dtype(var))) if isinstance(var, core.Literal) else known[var]
            )

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(var) for var in equation.invars])
            known |= dict(zip(equation.outvars, found, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _equation(self, equation, values: list[Value]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        for inner in ("jaxpr", "call_jaxpr", "fun_jaxpr"):  # an inner function: jit, custom_jvp_call, ...
            if inner in params:
                closed = params[inner]
                plain = getattr(closed, "jaxpr", closed)
                return self.run(plain, getattr(closed, "consts", ()), values)
        aval: Any = equation.outvars[0].aval
        shape = tuple(_dim(size) for size in aval.shape)
        fixed = -1 not in shape and all(value.constant is not None for value in values)
        if fixed and name not in ("broadcast_in_dim", "name", "stop_gradient"):
            arrays = [
                np.broadcast_to(v.constant, _shape(var))  # pyright: ignore[reportArgumentType, reportCallIssue]
                for v, var in zip(values, equation.invars, strict=True)
            ]
            found = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **params)
            return [_constant(value) for value in (found if equation.primitive.multiple_results else [found])]
        convert = getattr(self, f"_{name}", None)
        condition = values[0].constant if name == "select_n" else None
        if condition is not None and condition.size == 1:
            return [values[1 + int(condition.item())]]
        if name in ELEMENTWISE:
            return [self._elementwise(ELEMENTWISE[name], values, np.dtype(aval.dtype))]
        if convert is None:
            raise NotImplementedError(f"primitive '{name}' has no form in ONNX here")
        given = tuple(map(_shape, equation.invars))
        return [convert(_Call(params, given, shape, np.dtype(aval.dtype)), *values)]

    # Tensors.

    def emit(self, operation: str, inputs: list[str], **attributes) -> str:
        """Adds a node with one output, and returns its name."""
        import onnx

        key = operation, *inputs, repr(sorted(attributes.items()))
        if key in self._made:  # the same operation on the same inputs
            return self._made[key]
        self._made[key] = name = f"{operation.lower()}{len(self._made)}"
        self.nodes.append(onnx.helper.make_node(operation, inputs, [name], name, **attributes))
        return name

    def name(self, value: Value) -> str:
        """The name of a value's tensor, in the value's order."""
        return value.name if value.constant is None else self.tensor(value.constant)

    def tensor(self, array: np.ndarray) -> str:
        """The name of a constant's tensor; equal constants are stored once."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self._names:
            self._names[key] = name = f"constant{len(self._names)}"
            if self._half and array.dtype == np.float32 and array.size >= LEAST_HALF:
                self.constants[f"{name}_half"] = array.astype(np.float16)
                self._names[key] = self.emit("Cast", [f"{name}_half"], to=1)
            else:
                self.constants[name] = array
        return self._names[key]

    def arranged(self, value: Value, order: tuple[int, ...]) -> Value:
        """The value in another order of axes."""
        if value.constant is not None:
            return dataclasses.replace(value, constant=value.constant.transpose(order), order=order)
        if value.order == order:
            return value
        perm = [value.order.index(axis) for axis in order]
        moved = [axis for axis in perm if value.shape[value.order[axis]] != 1]
        if moved == sorted(moved):  # only axes of size 1 are moved
            sizes = np.array([value.shape[axis] for axis in order], np.int64)
            name = self.emit("Reshape", [value.name, self.tensor(sizes)])
        else:
            name = self.emit("Transpose", [value.name], perm=perm)
        return dataclasses.replace(value, name=name, order=order)

    def plain(self, value: Value) -> Value:
        return self.arranged(value, tuple(range(len(value.shape))))

    def whole(self, value: Value, shape: tuple[int, ...]) -> Value:
        """The value with this shape: broadcast axes are expanded."""
        if value.shape == shape:
            return value
        if -1 not in shape and value.constant is not None:
            return _constant(np.broadcast_to(value.constant, shape))
        order = value.order or tuple(range(len(shape)))
        batch = self.emit("Shape", ["images"], start=0, end=1)
        sizes = [
            batch if shape[axis] == -1 else self.tensor(np.array([shape[axis]], np.int64)) for axis in order
        ]
        name = self.emit("Expand", [self.name(value), self.emit("Concat", sizes, axis=0)])
        return Value(shape, value.dtype, name, order)

    # Operations, by JAX's names.

    def _elementwise(self, operation, values: list[Value], dtype) -> Value:
        rank = max(len(value.shape) for value in values)
        orders = [value.order for value in values if value.constant is None and len(value.shape) == rank]
        plain = tuple(range(rank))
        order = next((order for order in orders if order != plain), orders[0] if orders else plain)
        if operation == "Select":  # JAX's first case is that of False
            condition, no, yes = values
            operation, values = "Where", [condition, yes, no]
        shape, names = (1,) * rank, []
        for value in values:
            if value.shape:
                shape = tuple(b if a == 1 else a for a, b in zip(shape, value.shape, strict=True))
                value = self.arranged(value, order)
            names.append(self.name(value))
        return Value(shape, dtype, self.emit(operation, names), order)

    def _same(self, call, value):
        return value

    _name = _stop_gradient = _copy = _copy_p = _optimization_barrier = _same

    def _convert_element_type(self, call, value):
        import onnx

        if value.dtype == call.dtype:
            return value
        if value.constant is not None:
            return dataclasses.replace(value, constant=value.constant.astype(call.dtype), dtype=call.dtype)
        name = self.emit("Cast", [value.name], to=onnx.helper.np_dtype_to_tensor_dtype(call.dtype))
        return dataclasses.replace(value, name=name, dtype=call.dtype, origin=None)

    def _square(self, call, value):
        return self._elementwise("Mul", [value, value], call.dtype)

    def _integer_pow(self, call, value):
        exponent = self.tensor(np.array(call.params["y"], call.dtype))
        return dataclasses.replace(value, name=self.emit("Pow", [value.name, exponent]), origin=None)

    def _rsqrt(self, call, value):
        name = self.emit("Reciprocal", [self.emit("Sqrt", [value.name])])
        return dataclasses.replace(value, name=name, origin=None)

    def _clamp(self, call, low, value, high):
        return self._elementwise(
            "Min", [self._elementwise("Max", [value, low], call.dtype), high], call.dtype
        )

    def _transpose(self, call, value):
        new = call.params["permutation"]  # axis i of the result is the value's new[i]
        if value.constant is not None:
            return _constant(value.constant.transpose(new))
        order = tuple(new.index(axis) for axis in value.order)
        return Value(tuple(value.shape[axis] for axis in new), call.dtype, value.name, order)

    def _broadcast_in_dim(self, call, value):
        places = call.params["broadcast_dimensions"]
        sizes = [1] * len(call.shape)
        for place, size in zip(places, value.shape, strict=True):
            sizes[place] = size
        if value.constant is not None:
            return Value(tuple(sizes), call.dtype, constant=value.constant.reshape(sizes))
        order = [places[axis] for axis in value.order]
        for axis in range(len(call.shape)):  # a new axis goes after its neighbour
            if axis not in places:
                order.insert(order.index(axis - 1) + 1 if axis - 1 in order else 0, axis)
        name = self.emit(
            "Reshape", [value.name, self.tensor(np.array([sizes[axis] for axis in order], np.int64))]
        )
        source, before = value.origin or (value, range(len(value.shape)))
        origin = source, tuple(places[place] for place in before)
        return Value(tuple(sizes), call.dtype, name, tuple(order), origin=origin)

    def _reshape(self, call, value):
        if value.constant is not None and math.prod(value.shape) == 1:
            return Value(
                (1,) * len(call.shape), call.dtype, constant=value.constant.reshape((1,) * len(call.shape))
            )
        if enlarged := self._enlarged(value, call.shape):
            return enlarged
        # Shapes are those of the trace: broadcast axes that are merged with others must be expanded.
        given = call.given[0]
        value = self.whole(value, given)
        order, new_order = _merged(given, call.shape, value.order)
        value = self.arranged(value, order)
        sizes = np.array([call.shape[axis] for axis in new_order], np.int64)
        return Value(
            call.shape, call.dtype, self.emit("Reshape", [value.name, self.tensor(sizes)]), new_order
        )

    def _enlarged(self, value, shape) -> Value | None:
        """Nearest-neighbour upsampling: a value whose cells are repeated along two new axes, then merged."""
        if value.origin is None:
            return None
        source, places = value.origin
        if len(source.shape) != 4 or places != (0, 1, 3, 5) or len(shape) != 4:
            return None
        factors = [b // a if a > 0 else 1 for a, b in zip(source.shape, shape, strict=True)]
        if [a * f for a, f in zip(source.shape, factors, strict=True)] != list(shape):
            return None
        scales = self.tensor(np.array([factors[axis] for axis in source.order], np.float32))
        name = self.emit(
            "Resize", [source.name, "", scales], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        return Value(shape, value.dtype, name, source.order)

    def _squeeze(self, call, value):
        gone = {axis % len(value.shape) for axis in call.params["dimensions"]}
        return self._without(value, gone, self._squeezed(value, gone), call.dtype)

    def _squeezed(self, value, gone):
        sizes = [value.shape[axis] for axis in value.order if axis not in gone]
        return self.emit("Reshape", [value.name, self.tensor(np.array(sizes, np.int64))])

    def _without(self, value, gone, name, dtype) -> Value:
        left = [axis for axis in range(len(value.shape)) if axis not in gone]
        order = tuple(left.index(axis) for axis in value.order if axis not in gone)
        return Value(tuple(value.shape[axis] for axis in left), dtype, name, order)

    def _reduced(self, operation, call, value):
        gone = set(call.params["axes"])
        value = self.whole(value, call.given[0])
        places = np.array([value.order.index(axis) for axis in sorted(gone)], np.int64)
        name = self.emit(operation, [value.name, self.tensor(places)], keepdims=0)
        return self._without(value, gone, name, call.dtype)

    def _reduce_max(self, call, value):
        return self._reduced("ReduceMax", call, value)

    def _reduce_min(self, call, value):
        return self._reduced("ReduceMin", call, value)

    def _reduce_sum(self, call, value):
        return self._reduced("ReduceSum", call, value)

    def _argmax(self, call, value):
        (axis,), value = call.params["axes"], self.whole(value, call.given[0])
        name = self.emit(
            "ArgMax", [value.name], axis=value.order.index(axis), keepdims=0
        )  # the first of equal values
        return self._convert_element_type(call, self._without(value, {axis}, name, np.dtype(np.int64)))

    def _concatenate(self, call, *values):
        order = next((v.order for v in values if v.constant is None), tuple(range(len(call.shape))))
        axis = call.params["dimension"]
        wholes = [self.whole(v, given) for v, given in zip(values, call.given, strict=True)]
        names = [self.name(self.arranged(value, order)) for value in wholes]
        return Value(call.shape, call.dtype, self.emit("Concat", names, axis=order.index(axis)), order)

    def _stack(self, call, *values):
        axis = call.params["axis"] % len(call.shape)
        places = tuple(i for i in range(len(call.shape)) if i != axis)
        sizes = tuple(1 if i == axis else size for i, size in enumerate(call.shape))
        wide = _Call({"broadcast_dimensions": places}, call.given, sizes, call.dtype)
        wholes = [self.whole(v, given) for v, given in zip(values, call.given, strict=True)]
        values = [self._broadcast_in_dim(wide, value) for value in wholes]
        joined = _Call({"dimension": axis}, (sizes,) * len(values), call.shape, call.dtype)
        return self._concatenate(joined, *values)

    def _slice(self, call, value):
        strides = call.params["strides"] or (1,) * len(call.shape)
        cut = [
            (start, limit, stride, value.order.index(axis))
            for axis, (start, limit, stride) in enumerate(
                zip(call.params["start_indices"], call.params["limit_indices"], strides, strict=True)
            )
            if value.shape[axis] > 1 and (start, limit, stride) != (0, value.shape[axis], 1)
        ]
        if not cut:
            return value
        starts, ends, steps, axes = (self.tensor(np.array(list(v), np.int64)) for v in zip(*cut, strict=True))
        name = self.emit("Slice", [value.name, starts, ends, axes, steps])
        sizes = tuple(1 if a == 1 else b for a, b in zip(value.shape, call.shape, strict=True))
        return Value(sizes, call.dtype, name, value.order)

    def _pad(self, call, value, fill):
        if any(inner or low < 0 or high < 0 for low, high, inner in call.params["padding_config"]):
            raise NotImplementedError("primitive 'pad' with gaps or cuts has no form in ONNX here")
        value = self.whole(value, call.given[0])
        config = [call.params["padding_config"][axis] for axis in value.order]
        pads = np.array([low for low, *_ in config] + [high for _, high, _ in config], np.int64)
        name = self.emit("Pad", [value.name, self.tensor(pads), self.name(fill)])
        return Value(call.shape, call.dtype, name, value.order)

    def _gather(self, call, value, indices):
        numbers, value = call.params["dimension_numbers"], self.whole(value, call.given[0])
        if len(numbers.start_index_map) != 1 or numbers.collapsed_slice_dims != numbers.start_index_map:
            raise NotImplementedError("primitive 'gather' of several axes has no form in ONNX here")
        (axis,), rank = numbers.start_index_map, len(value.shape)
        others = tuple(i for i in range(rank) if i != axis)
        if not numbers.operand_batching_dims and indices.constant is not None and indices.constant.size == 1:
            # One index of an axis, x[:, 2].
            index = self.tensor(np.array(indices.constant, np.int64).reshape(()))
            name = self.emit("Gather", [value.name, index], axis=value.order.index(axis))
            return self._without(value, {axis}, name, call.dtype)
        if numbers.operand_batching_dims != others or numbers.start_indices_batching_dims != others:
            raise NotImplementedError("primitive 'gather' of this kind has no form in ONNX here")
        # `take_along_axis`: each element has its own index.
        indices = self.whole(indices, call.given[1])
        indices = self._without(indices, {rank}, self._squeezed(indices, {rank}), indices.dtype)
        indices = self.arranged(indices, value.order)
        name = self.emit("GatherElements", [value.name, indices.name], axis=value.order.index(axis))
        return Value(call.shape, call.dtype, name, value.order)

    def _conv_general_dilated(self, call, x, kernel):
        numbers = call.params["dimension_numbers"]
        if any(d != 1 for d in call.params["lhs_dilation"]) or call.params["batch_group_count"] != 1:
            raise NotImplementedError(
                "primitive 'conv_general_dilated' with dilated inputs has no form in ONNX here"
            )
        x = self.arranged(self.whole(x, call.given[0]), tuple(numbers.lhs_spec))
        kernel = self.arranged(kernel, tuple(numbers.rhs_spec))  # (out, in, ...), as ONNX has it
        pads = [low for low, _ in call.params["padding"]] + [high for _, high in call.params["padding"]]
        name = self.emit(
            "Conv", [x.name, self.name(kernel)], pads=pads, strides=call.params["window_strides"],
            dilations=call.params["rhs_dilation"], group=call.params["feature_group_count"],
        )  # fmt: skip
        return Value(call.shape, call.dtype, name, tuple(numbers.out_spec))

    def _reduce_window_max(self, call, value):
        order, window, strides = (0, 3, 1, 2), call.params["window_dimensions"], call.params["window_strides"]
        if len(call.shape) != 4 or window[0] != 1 or window[3] != 1 or any(map(any, call.params["padding"])):
            raise NotImplementedError("primitive 'reduce_window_max' of this kind has no form in ONNX here")
        value = self.arranged(self.whole(value, call.given[0]), order)
        name = self.emit("MaxPool", [value.name], kernel_shape=window[1:3], strides=strides[1:3])
        return Value(call.shape, call.dtype, name, order)

    def _dot_general(self, call, x, y):
        (x_sum, y_sum), (x_batch, y_batch) = call.params["dimension_numbers"]
        if (
            len(x.shape) == 4
            and (x_sum, x_batch) == ((3,), ())
            and y.constant is not None
            and len(y.shape) == 2
        ):
            # A 1x1 convolution.
            x = self.arranged(self.whole(x, call.given[0]), (0, 3, 1, 2))
            kernel = np.moveaxis(y.constant, y_sum[0], 1)[:, :, None, None]
            return Value(
                call.shape,
                call.dtype,
                self.emit("Conv", [x.name, self.tensor(kernel)], kernel_shape=(1, 1)),
                x.order,
            )
        x, y = (self.plain(self.whole(v, g)) for v, g in zip((x, y), call.given, strict=True))
        if len(x.shape) == len(y.shape) == 2 and (x_sum, y_sum) == ((1,), (0,)):
            return Value(call.shape, call.dtype, self.emit("MatMul", [self.name(x), self.name(y)]), (0, 1))
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        of_x = [next(letters) for _ in x.shape]
        of_y = [next(letters) for _ in y.shape]
        for a, b in [*zip(x_sum, y_sum, strict=True), *zip(x_batch, y_batch, strict=True)]:
            of_y[b] = of_x[a]
        out = [of_x[a] for a in x_batch]
        out += [of_x[a] for a in range(len(of_x)) if a not in (*x_batch, *x_sum)]
        out += [of_y[b] for b in range(len(of_y)) if b not in (*y_batch, *y_sum)]
        equation = f"{''.join(of_x)},{''.join(of_y)}->{''.join(out)}"
        name = self.emit("Einsum", [self.name(x), self.name(y)], equation=equation)
        return Value(call.shape, call.dtype, name, tuple(range(len(call.shape))))


ELEMENTWISE = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
    "pow": "Pow", "neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf", "eq": "Equal",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "and": "And", "or": "Or",
    "not": "Not", "select_n": "Select",
}  # fmt: skip


def _constant(value) -> Value:
    array = np.asarray(value)
    return Value(array.shape, array.dtype, order=tuple(range(array.ndim)), constant=array)


def _dtype(var) -> np.dtype:
    return np.dtype(var.aval.dtype)


def _shape(var) -> tuple[int, ...]:
    return tuple(_dim(size) for size in var.aval.shape)


def _merged(
    old: tuple[int, ...], new: tuple[int, ...], order: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The orders of axes before and after a reshape; the present order if only adjacent axes are mixed."""
    plain = tuple(range(len(old))), tuple(range(len(new)))
    after = []
    groups = _groups(old, new)
    for axes, made in groups:
        places = [order.index(axis) for axis in axes]
        if places != list(range(places[0], places[0] + len(axes))):
            return plain
        after.append((places[0], made))
    return order, tuple(axis for _, made in sorted(after) for axis in made)


def _groups(old, new) -> list[tuple[list[int], list[int]]]:
    """Groups of axes of the old and the new shape with equally many elements; -1 is a number of its own."""
    groups, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        axes, made = [i], [j]
        while (a := _cells(old, axes)) != (b := _cells(new, made)):
            if (a < b and axes[-1] + 1 < len(old)) or made[-1] + 1 == len(new):
                if axes[-1] + 1 == len(old):
                    return [(list(range(len(old))), list(range(len(new))))]
                axes.append(axes[-1] + 1)
            else:
                made.append(made[-1] + 1)
        groups.append((axes, made))
        i, j = axes[-1] + 1, made[-1] + 1
    groups[-1][0].extend(range(i, len(old)))  # axes of size 1
    groups[-1][1].extend(range(j, len(new)))
    return groups


def _cells(shape, axes) -> tuple[int, int]:
    sizes = [shape[axis] for axis in axes]
    return sizes.count(-1), math.prod(size for size in sizes if size != -1)
