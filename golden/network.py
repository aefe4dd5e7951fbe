"""Compressed networks: integer layers whose weights are indices into a codebook.

Everything is an integer with its zero point removed, so real zero is 0 everywhere. A layer's
output is ``clip(round((bias + sum(w * a)) * scale >> shift))``; see ``golden.requantise``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from thresher.golden.config import MultiplierKind
from thresher.golden.descriptors import Rounding
from thresher.golden.pooling import MOST_LACKING, lacking
from thresher.golden.requantise import requantise

__all__ = [
    "Add",
    "AveragePool",
    "ChannelShuffle",
    "CompressedNetwork",
    "Concat",
    "Convolution",
    "Flatten",
    "Layer",
    "Linear",
    "Lookup",
    "MaxPool",
    "Multiply",
    "Range",
    "Shape",
    "WeightedLayer",
    "accumulator_bound",
    "check_accumulators",
]

Shape = tuple[int, int, int]
Range = tuple[int, int]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

_BIAS = (-(1 << 47), (1 << 47) - 1)
_SCALE = (0, (1 << 31) - 1)
_SHIFT = (0, 63)
_WEIGHT = (-256, 256)  # 256 as a shift multiplier sees 255
_ACTIVATION = (-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A named operation on the maps of its inputs.

    Parameters
    ----------
    name
        Unique in its network; not ``"input"``.
    inputs
        Names of the layers whose outputs it takes; ``"input"`` is the network's input.
    """

    name: str
    inputs: tuple[str, ...] = ("input",)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name == "input":
            raise ValueError(f"a layer's name must be a text other than 'input', not {self.name!r}")
        self._set("inputs", tuple(self.inputs))
        least, most, wanted = self._input_counts()
        if not least <= len(self.inputs) <= most or not all(
            isinstance(item, str) for item in self.inputs
        ):
            raise self._error(f"inputs must be {wanted}, not {self.inputs!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the output's (channels, height, width) for inputs of ``shapes``.

        Raises
        ------
        ValueError
            If the layer does not take such inputs.
        """
        raise NotImplementedError

    def output_range(self, *ranges: Range) -> Range:
        """Return the least and greatest possible output for inputs in ``ranges``."""
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def _input_counts(self) -> tuple[int, int, str]:
        """Return how many inputs there are at least and at most, and that in words."""
        return 1, 1, "one name"

    def __eq__(self, other: object) -> bool:
        """Layers are equal if they are of one type and all their fields are."""
        if type(self) is not type(other):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, item.name), getattr(other, item.name))
            for item in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def _error(self, what: str) -> ValueError:
        return ValueError(f"layer {self.name!r}: {what}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _set_integers(self, name: str, count: int, low: int, high: int) -> None:
        values = getattr(self, name)
        if (
            not isinstance(values, tuple | list)
            or len(values) != count
            or not all(_is_integer(value) and low <= value <= high for value in values)
        ):
            raise self._error(f"{name} must be {count} integers in {low}..{high}, not {values!r}")
        self._set(name, tuple(int(value) for value in values))

    def _set_integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not _is_integer(value) or not low <= value <= high:
            raise self._error(f"{name} must be an integer in {low}..{high}, not {value!r}")
        self._set(name, int(value))

    def _set_array(self, name: str, shape: tuple[int, ...], allowed: Range) -> None:
        array = np.array(getattr(self, name))
        if not np.issubdtype(array.dtype, np.integer):
            raise self._error(f"{name} must be integers, not {array.dtype}")
        if array.shape != shape:
            raise self._error(f"{name} must have shape {shape}, not {array.shape}")
        for value in (int(array.min()), int(array.max())):
            if not allowed[0] <= value <= allowed[1]:
                raise self._error(f"{name} must be in {allowed[0]}..{allowed[1]}, not {value}")
        array = array.astype(np.int64)
        array.flags.writeable = False
        self._set(name, array)

    def _set_rounding(self) -> None:
        try:
            self._set("rounding", Rounding(getattr(self, "rounding")))  # noqa: B009  # subclasses'
        except ValueError:
            raise self._error(
                f"rounding must be a Rounding, not {self.__dict__['rounding']!r}"
            ) from None


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedLayer(Layer):
    """A layer with weights: :class:`Convolution` or :class:`Linear`.

    Parameters
    ----------
    weights
        uint8 indices into ``codebook``; the first axis is the output channel.
    codebook
        1 to 256 integers in -256..256.
    bias
        One integer an output channel, of up to 48 bits.
    scale, shift
        The requantiser's multiplier (up to 31 bits) and right shift (0..63), one an output channel.
    rounding
        How the requantiser rounds.
    clip
        Least and greatest output.
    """

    weights: UInt8Array
    codebook: Int64Array
    bias: Int64Array
    scale: Int64Array
    shift: Int64Array
    rounding: Rounding = Rounding.HALF_UP
    clip: Range = (0, 255)

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = np.array(self.weights)
        axes = self._weight_axes()
        if weights.dtype != np.uint8:
            raise self._error(f"weights must be uint8 indices, not {weights.dtype}")
        if weights.ndim != len(axes) or weights.size == 0:
            raise self._error(f"weights must have shape ({', '.join(axes)}), not {weights.shape}")
        weights.flags.writeable = False
        self._set("weights", weights)
        entries = np.size(self.codebook)
        if not 1 <= entries <= 256:
            raise self._error(f"codebook must have 1 to 256 entries, not {entries}")
        self._set_array("codebook", (entries,), _WEIGHT)
        if int(weights.max()) >= entries:
            raise self._error(
                f"weights must be indices below {entries}, the codebook's length, "
                f"not {int(weights.max())}"
            )
        channels = (weights.shape[0],)
        self._set_array("bias", channels, _BIAS)
        self._set_array("scale", channels, _SCALE)
        self._set_array("shift", channels, _SHIFT)
        self._set_rounding()
        self._set_integers("clip", 2, *_ACTIVATION)
        if self.clip[0] > self.clip[1]:
            raise self._error(f"clip must be (low, high) with low <= high, not {self.clip!r}")

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return int(self.weights.shape[0])

    def dense_weights(self) -> Int64Array:
        """Return the weights themselves, ``codebook[weights]``."""
        dense: Int64Array = self.codebook[self.weights]
        return dense

    def output_range(self, *ranges: Range) -> Range:
        return self.clip

    def _weight_axes(self) -> tuple[str, ...]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(WeightedLayer):
    """A two-dimensional convolution (cross-correlation).

    Parameters
    ----------
    weights
        Indices of shape (out, in / groups, kernel height, kernel width).
    stride, dilation
        (y, x), each at least 1.
    padding
        Rows and columns of zeros (top, left, bottom, right), up to 255.
    groups
        Output channels of group g see input channels of group g only.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integers("stride", 2, 1, 255)
        self._set_integers("dilation", 2, 1, 255)
        self._set_integers("padding", 4, 0, 255)
        self._set_integer("groups", 1, self.out_channels)
        if self.out_channels % self.groups:
            raise self._error(
                f"groups must divide the {self.out_channels} output channels, not {self.groups}"
            )

    @property
    def kernel(self) -> tuple[int, int]:
        """Kernel height and width, in taps."""
        return int(self.weights.shape[2]), int(self.weights.shape[3])

    @property
    def extent(self) -> tuple[int, int]:
        """Kernel height and width with its dilation."""
        height, width = self.kernel
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    @property
    def in_channels(self) -> int:
        """Number of input channels."""
        return int(self.weights.shape[1]) * self.groups

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape[0] != self.in_channels:
            raise self._error(f"input must have {self.in_channels} channels, not {shape[0]}")
        return (self.out_channels, *_window_counts(self, shape, self.extent))

    def _weight_axes(self) -> tuple[str, ...]:
        return "out", "in / groups", "kernel height", "kernel width"


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(WeightedLayer):
    """A fully connected layer on a map flattened in (channel, row, column) order.

    Parameters
    ----------
    weights
        Indices of shape (out, in). The output has shape (out, 1, 1).
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if int(np.prod(shape)) != self.weights.shape[1]:
            raise self._error(f"input must have {self.weights.shape[1]} values, not shape {shape}")
        return self.out_channels, 1, 1

    def _weight_axes(self) -> tuple[str, ...]:
        return "out", "in"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pool(Layer):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integers("kernel", 2, 1, 4095)
        self._set_integers("stride", 2, 1, 4095)
        self._set_integers("padding", 4, 0, 255)
        for amount, extent in zip(self.padding, self.kernel * 2, strict=True):
            if amount >= extent:
                raise self._error(
                    f"padding must be smaller than the kernel {self.kernel}, not {self.padding}"
                )

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return (shape[0], *_window_counts(self, shape, self.kernel))


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(_Pool):
    """The greatest value of each window; padded positions are ignored.

    Parameters
    ----------
    kernel, stride
        (y, x), each at least 1.
    padding
        (top, left, bottom, right), each smaller than the kernel. A size rounded up ("ceil mode")
        is a larger bottom or right padding.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool(_Pool):
    """``round(sum * scale >> shift)`` of each window; padded positions are zeros in the sum.

    Parameters
    ----------
    kernel, stride, padding
        As for :class:`MaxPool`.
    scale, shift
        Reciprocal of the divisor: an integer of up to 31 bits and a right shift (0..63).
    rounding
        How the mean is rounded.
    origin
        The mean is rounded as if each value were so much more: with the zero point of a network
        whose halves are rounded away from a stored zero.
    cut_scales
        Scales of the windows that the edges of the map cut: ``cut_scales[r][c]`` if r rows and c
        columns lie outside, 0 to 15 of each, and ``cut_scales[0][0]`` is ``scale``. A single row
        of them is for any number of rows outside, a single column likewise. None: all windows have
        one divisor.
    clip
        Least and greatest output; None where no mean goes beyond the activations' width.
    """

    scale: int
    shift: int
    rounding: Rounding = Rounding.HALF_UP
    origin: int = 0
    clip: Range | None = None
    cut_scales: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("scale", *_SCALE)
        self._set_integer("shift", *_SHIFT)
        self._set_rounding()
        self._set_integer("origin", *_ACTIVATION)
        self._set_cut_scales()
        if self.clip is not None:
            self._set_integers("clip", 2, *_ACTIVATION)
            if self.clip[0] > self.clip[1]:
                raise self._error(f"clip must be (low, high) with low <= high, not {self.clip!r}")

    def _set_cut_scales(self) -> None:
        if self.cut_scales is None:
            return
        table = self.cut_scales
        most = [min(MOST_LACKING + 1, extent) for extent in self.kernel]
        if not isinstance(table, tuple | list) or not (
            1 <= len(table) <= most[0]
            and all(isinstance(row, tuple | list) for row in table)
            and len({len(row) for row in table}) == 1
            and 1 <= len(table[0]) <= most[1]
            and all(
                _is_integer(scale) and _SCALE[0] <= scale <= _SCALE[1]
                for row in table
                for scale in row
            )
        ):
            raise self._error(
                f"cut_scales must be up to {most[0]} x {most[1]} scales of up to 31 bits,"
                f" not {table!r}"
            )
        if table[0][0] != self.scale:
            raise self._error(f"cut_scales must begin with scale, {self.scale}, not {table[0][0]}")
        self._set("cut_scales", tuple(tuple(int(scale) for scale in row) for row in table))

    def output_shape(self, *shapes: Shape) -> Shape:
        shape = super().output_shape(*shapes)
        if self.cut_scales is not None:
            allowed = len(self.cut_scales), len(self.cut_scales[0])
            for axis in (0, 1):
                lacks = lacking(
                    shapes[0][axis + 1],
                    self.kernel[axis],
                    self.stride[axis],
                    self.padding[axis],
                    shape[axis + 1],
                )
                if lacks.max() >= allowed[axis] > 1:
                    raise self._error(
                        f"a window has {lacks.max()} {('rows', 'columns')[axis]} outside of the"
                        f" map, and cut_scales are for less than {allowed[axis]}"
                    )
        return shape

    def output_range(self, *ranges: Range) -> Range:
        low, high = ranges[0][0] + self.origin, ranges[0][1] + self.origin
        height, width = self.kernel
        cases = [(height * width, self.scale)]
        if self.cut_scales is not None:
            cases = [
                (places_y * places_x, scale)
                for rows, line in enumerate(self.cut_scales)
                for columns, scale in enumerate(line)
                for places_y in self._places(0, height - rows)
                for places_x in self._places(1, width - columns)
            ]
        elif any(self.padding):  # a window may hold as little as one value
            cases.append((1, self.scale))
        means = [
            requantise(np.array([places * low, places * high]), scale, self.shift, self.rounding)
            for places, scale in cases
        ]
        bounds = np.array([np.min(means), np.max(means)]) - self.origin
        if self.clip is not None:
            bounds = np.clip(bounds, *self.clip)
        return int(bounds[0]), int(bounds[1])

    def _places(self, axis: int, most: int) -> tuple[int, ...]:
        """Return most and least rows, or columns, inside of windows of an entry of the table."""
        assert self.cut_scales is not None
        entries = len(self.cut_scales[0]) if axis else len(self.cut_scales)
        any_number = entries == 1 and self.padding[axis] + self.padding[axis + 2] > 0
        return (most, 1) if any_number else (most,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Layer):
    """The map as a vector in (channel, row, column) order, of shape (values, 1, 1)."""

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape[0] * shape[1] * shape[2], 1, 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Layer):
    """The sum of two maps that have different scales.

    ``clip(round(sum * scale >> shift))``, where the sum is the first input, times 2^19, and the
    second, times 2^20 and then ``round(... * operand_scale >> operand_shift)``. So the first is
    the input of the greater scale s1, the second that of the lesser, s2; operand_scale stands for
    s2 / (2 * s1), and scale for 2^-19 * s1 / (scale of the output).

    Parameters
    ----------
    operand_scale, operand_shift
        Multiplier (up to 31 bits) and right shift (0..63) of the second input; together at most 1.
    scale, shift
        The same of the sum.
    rounding
        How both are rounded.
    clip
        Least and greatest output.

    References
    ----------
    TFLite's reference kernel of ADD for int8, with ``left_shift`` 20.
    """

    operand_scale: int
    operand_shift: int
    scale: int
    shift: int
    rounding: Rounding = Rounding.HALF_UP
    clip: Range = (0, 255)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("operand_scale", "scale"):
            self._set_integer(name, *_SCALE)
        for name in ("operand_shift", "shift"):
            self._set_integer(name, *_SHIFT)
        if self.operand_scale > 1 << self.operand_shift:
            raise self._error(
                f"operand_scale must be at most 2^operand_shift, not {self.operand_scale} with "
                f"operand_shift {self.operand_shift}; exchange the inputs"
            )
        self._set_rounding()
        self._set_integers("clip", 2, *_ACTIVATION)
        if self.clip[0] > self.clip[1]:
            raise self._error(f"clip must be (low, high) with low <= high, not {self.clip!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise self._error(f"inputs must have one shape, not {shapes[0]} and {shapes[1]}")
        return shapes[0]

    def output_range(self, *ranges: Range) -> Range:
        return self.clip

    def _input_counts(self) -> tuple[int, int, str]:
        return 2, 2, "two names"


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(Layer):
    """The product of two maps: ``clip(round(first * second * scale >> shift))``.

    The second input has the shape of the first, or one value a channel, (channels, 1, 1), as in
    squeeze-and-excite.

    Parameters
    ----------
    scale, shift
        Multiplier (up to 31 bits) and right shift (0..63) of the product.
    rounding
        How it is rounded.
    clip
        Least and greatest output.

    References
    ----------
    TFLite's reference kernel of MUL for int8.
    """

    scale: int
    shift: int
    rounding: Rounding = Rounding.HALF_UP
    clip: Range = (0, 255)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("scale", *_SCALE)
        self._set_integer("shift", *_SHIFT)
        self._set_rounding()
        self._set_integers("clip", 2, *_ACTIVATION)
        if self.clip[0] > self.clip[1]:
            raise self._error(f"clip must be (low, high) with low <= high, not {self.clip!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if second not in {first, (first[0], 1, 1)}:
            raise self._error(
                f"its second input must have shape {first}, or one value a channel, not {second}"
            )
        return first

    def output_range(self, *ranges: Range) -> Range:
        return self.clip

    def _input_counts(self) -> tuple[int, int, str]:
        return 2, 2, "two names"


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Layer):
    """The channels of all inputs, one input after another."""

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({shape[1:] for shape in shapes}) != 1:
            raise self._error(f"inputs must have one height and width, not {shapes}")
        return sum(shape[0] for shape in shapes), *shapes[0][1:]

    def _input_counts(self) -> tuple[int, int, str]:
        return 2, 4095, "two names or more"


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelShuffle(Layer):
    """Channels of its input in another order; all of them, or some.

    Parameters
    ----------
    order
        Output channel k is input channel ``order[k]``; none twice.
    """

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.order or len(set(self.order)) != len(self.order):
            raise self._error(f"order must name channels, none twice, not {self.order!r}")
        self._set_integers("order", len(self.order), 0, (1 << 16) - 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if max(self.order) >= shape[0]:
            raise self._error(f"order must be below {shape[0]}, the channels of its input")
        return len(self.order), *shape[1:]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup(Layer):
    """A function of one value, as a table: hard-swish, sigmoid, or any other.

    Parameters
    ----------
    first
        The input whose output is ``table[0]``; the next greater ones follow.
    table
        Outputs; one for each possible input.
    """

    first: int
    table: Int64Array

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_integer("first", *_ACTIVATION)
        entries = np.size(self.table)
        if not 1 <= entries <= 1 << 16:
            raise self._error(f"table must have 1 to {1 << 16} entries, not {entries}")
        self._set_array("table", (entries,), _ACTIVATION)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return shape

    def output_range(self, *ranges: Range) -> Range:
        ((low, high),) = ranges
        last = self.first + self.table.size - 1
        if low < self.first or high > last:
            raise self._error(f"table must cover inputs {low}..{high}, not {self.first}..{last}")
        possible = self.table[low - self.first : high - self.first + 1]
        return int(possible.min()), int(possible.max())


@dataclass(frozen=True, kw_only=True)
class CompressedNetwork:
    """Layers in an order in which each comes after its inputs. The last one is the output.

    Parameters
    ----------
    name
        Name of the network.
    input_shape
        (channels, height, width) of an input.
    input_range
        Least and greatest input value, within 16 bits.
    layers
        At least one layer.
    multiplier
        The multiplier for which the weights were chosen.
    metadata
        Anything that JSON holds, e.g. how the network was trained.

    Raises
    ------
    ValueError
        If the layers do not fit together; the message names the layer.
    """

    name: str
    input_shape: Shape
    input_range: Range
    layers: tuple[Layer, ...]
    multiplier: MultiplierKind = MultiplierKind.EXACT
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a network's name must be a text, not {self.name!r}")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        object.__setattr__(self, "input_range", tuple(self.input_range))
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "multiplier", MultiplierKind(self.multiplier))
        if len(self.input_shape) != 3 or not all(
            _is_integer(size) and 1 <= size <= most
            for size, most in zip(self.input_shape, (65535, 4095, 4095), strict=True)
        ):
            raise ValueError(
                f"input_shape must be (channels, height, width) in 1..65535, 1..4095, 1..4095, "
                f"not {self.input_shape}"
            )
        low, high = _ACTIVATION
        if len(self.input_range) != 2 or not all(
            _is_integer(value) and low <= value <= high for value in self.input_range
        ):
            raise ValueError(f"input_range must be in {low}..{high}, not {self.input_range}")
        if self.input_range[0] > self.input_range[1]:
            raise ValueError(f"input_range must be (low, high), not {self.input_range}")
        if not self.layers:
            raise ValueError("a network must have at least one layer, not 0")
        known = {"input"}
        for layer in self.layers:
            if layer.name in known:
                raise ValueError(f"layer {layer.name!r}: the name is taken")
            for source in layer.inputs:
                if source not in known:
                    raise ValueError(
                        f"layer {layer.name!r}: its input {source!r} is no layer before it"
                    )
            known.add(layer.name)
        self._derived  # noqa: B018  # checks that shapes fit together

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``.

        Raises
        ------
        KeyError
            If there is none; the message lists the names.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r} in {[layer.name for layer in self.layers]}")

    @property
    def output(self) -> str:
        """Name of the last layer."""
        return self.layers[-1].name

    def shapes(self) -> dict[str, Shape]:
        """Return each layer's output (channels, height, width), and that of ``"input"``."""
        return dict(self._derived[0])

    def ranges(self) -> dict[str, Range]:
        """Return each layer's least and greatest possible output, and those of ``"input"``."""
        return dict(self._derived[1])

    def with_codebooks(self, codebooks: Mapping[str, npt.ArrayLike]) -> CompressedNetwork:
        """Return the network with other codebooks for the layers named in ``codebooks``."""
        layers = [
            replace(layer, codebook=np.asarray(codebooks[layer.name]))
            if isinstance(layer, WeightedLayer) and layer.name in codebooks
            else layer
            for layer in self.layers
        ]
        return replace(self, layers=tuple(layers))

    @cached_property
    def _derived(self) -> tuple[dict[str, Shape], dict[str, Range]]:
        shapes = {"input": self.input_shape}
        ranges = {"input": self.input_range}
        for layer in self.layers:
            shapes[layer.name] = layer.output_shape(*(shapes[source] for source in layer.inputs))
            values = layer.output_range(*(ranges[source] for source in layer.inputs))
            if values[0] < _ACTIVATION[0] or values[1] > _ACTIVATION[1]:
                raise ValueError(
                    f"layer {layer.name!r}: its outputs must fit 16 bits, "
                    f"not reach {values[0]}..{values[1]}"
                )
            ranges[layer.name] = values
        return shapes, ranges


def accumulator_bound(layer: WeightedLayer, input_range: Range) -> Range:
    """Return bounds of every partial sum ``bias + sum(w * a)``, over all channels.

    The bounds hold in whatever order the products are added, and with padding.

    Parameters
    ----------
    layer
        Its weights decide the bounds.
    input_range
        Least and greatest input of the layer.
    """
    low, high = min(input_range[0], 0), max(input_range[1], 0)
    weights = layer.dense_weights().reshape(layer.out_channels, -1)
    positive = np.maximum(weights, 0).sum(axis=1)
    negative = np.minimum(weights, 0).sum(axis=1)
    least = np.minimum(layer.bias, 0) + positive * low + negative * high
    greatest = np.maximum(layer.bias, 0) + positive * high + negative * low
    return int(least.min()), int(greatest.max())


def check_accumulators(network: CompressedNetwork, bits: int) -> None:
    """Prove that no accumulator of ``bits`` bits overflows, for any input.

    Raises
    ------
    ValueError
        If a sum could leave the range; the message names the layer and the bits it needs.
    """
    ranges = network.ranges()
    for layer in network.layers:
        if not isinstance(layer, WeightedLayer):
            continue
        low, high = accumulator_bound(layer, ranges[layer.inputs[0]])
        needed = max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1
        if needed > bits:
            raise ValueError(
                f"layer {layer.name!r}: accumulators must have {needed} bits or more "
                f"for sums in {low}..{high}, not {bits}"
            )


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _window_counts(
    layer: Convolution | _Pool, shape: Shape, extent: tuple[int, int]
) -> tuple[int, int]:
    top, left, bottom, right = layer.padding
    padded = (shape[1] + top + bottom, shape[2] + left + right)
    if padded[0] < extent[0] or padded[1] < extent[1]:
        raise ValueError(
            f"layer {layer.name!r}: a window of {extent} must fit the padded map, not {padded}"
        )
    return (
        (padded[0] - extent[0]) // layer.stride[0] + 1,
        (padded[1] - extent[1]) // layer.stride[1] + 1,
    )
