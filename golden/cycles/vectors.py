"""Vectors for the jitted loops: a number for each lane or each column, as LLVM knows them.

Operators work place by place; a scalar counts for all places, and a vector of 32 bits is widened
beside one of 64. A comparison gives -1 where it holds, else 0.
"""

# numba's decorators are untyped, and its types are LLVM's.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,no-untyped-def,misc,import-untyped"
# ruff: noqa: ANN001, ANN002, ANN201, ANN202, PLR0917

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.extending import models, overload, register_model

__all__ = [
    "all_bits", "any_of", "first_of", "gather", "gather_words", "holds_in", "largest",
    "least_repeated", "load", "load_rows", "low_bits", "lowest_place", "maximum", "minimum",
    "narrow", "next_places", "put_rows", "repeated", "running_maximum", "shifted_down",
    "shifted_up", "smallest", "spread", "store", "trailing_zeros", "unsigned_minimum", "vector",
    "where",
]  # fmt: skip

intrinsic: Any = extending.intrinsic

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):
    """The type of a vector of ``size`` numbers of ``bits`` bits."""

    def __init__(self, size: int, bits: int) -> None:
        self.size, self.bits = size, bits
        super().__init__(name=f"int{bits}x{size}")

    @property
    def llvm(self) -> ir.VectorType:
        """What LLVM calls it."""
        return ir.VectorType(ir.IntType(self.bits), self.size)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, kind.llvm)


def _places(numbers):
    """Return a constant that says from which places a shuffle takes."""
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(_INT32, len(numbers)), numbers)


def _converted(builder, value, kind, to):
    """Return a value of type ``kind`` as a vector of type ``to``: a scalar in all places."""
    bits = kind.bits if isinstance(kind, Vector) else kind.bitwidth
    wanted = to.llvm if isinstance(kind, Vector) else to.llvm.element
    if bits < to.bits:
        value = builder.sext(value, wanted)
    elif bits > to.bits:
        value = builder.trunc(value, wanted)
    if isinstance(kind, Vector):
        return value
    nothing = ir.Constant(to.llvm, ir.Undefined)
    first = builder.insert_element(nothing, value, _INT32(0))
    return builder.shuffle_vector(first, nothing, _places([0] * to.size))


def _common(*kinds):
    """Return the type of the widest of the vectors."""
    vectors = [kind for kind in kinds if isinstance(kind, Vector)]
    return max(vectors, key=lambda kind: kind.bits)


def _holds(builder, condition):
    return builder.icmp_signed("!=", condition, ir.Constant(condition.type, None))


def _greatest(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _least(builder, a, b):
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _least_unsigned(builder, a, b):
    return builder.select(builder.icmp_unsigned("<", a, b), a, b)


def _comparison(sign):
    def compare(builder, a, b):
        return builder.sext(builder.icmp_signed(sign, a, b), a.type)

    return compare


def _of_two(emit):
    """Return the function of two vectors, or a vector and a scalar, that ``emit`` writes."""

    @intrinsic
    def apply(_context, a, b):
        made = _common(a, b)

        def write(_context, builder, signature, arguments):
            pairs = zip(arguments, signature.args, strict=True)
            return emit(builder, *(_converted(builder, *pair, made) for pair in pairs))

        return made(a, b), write

    return apply


def _operator(sign, emit):
    apply = _of_two(emit)

    @overload(sign, jit_options={"forceinline": True})
    def of_two(a, b):
        if isinstance(a, Vector) or isinstance(b, Vector):
            return lambda a, b: apply(a, b)  # noqa: PLW0108  # numba wants a function
        return None


for _sign, _emit in {
    operator.add: ir.IRBuilder.add,
    operator.sub: ir.IRBuilder.sub,
    operator.mul: ir.IRBuilder.mul,
    operator.and_: ir.IRBuilder.and_,
    operator.or_: ir.IRBuilder.or_,
    operator.lt: _comparison("<"),
    operator.le: _comparison("<="),
    operator.ge: _comparison(">="),
    operator.gt: _comparison(">"),
    operator.eq: _comparison("=="),
    operator.ne: _comparison("!="),
}.items():
    _operator(_sign, _emit)

maximum = _of_two(_greatest)
minimum = _of_two(_least)
unsigned_minimum = _of_two(_least_unsigned)
shifted_down = _of_two(ir.IRBuilder.lshr)
shifted_up = _of_two(ir.IRBuilder.shl)


@intrinsic
def vector(_context, numbers):
    """Return a tuple of scalars as a vector of 32 bits."""
    made = Vector(numbers.count, 32)

    def write(_context, builder, _signature, arguments):
        found = ir.Constant(made.llvm, ir.Undefined)
        for place in range(made.size):
            number = builder.trunc(builder.extract_value(arguments[0], place), _INT32)
            found = builder.insert_element(found, number, _INT32(place))
        return found

    return made(numbers), write


@intrinsic
def narrow(_context, numbers):
    """Return the lowest 32 bits of numbers of 64."""
    made = Vector(numbers.size, 32)

    def write(_context, builder, _signature, arguments):
        return builder.trunc(arguments[0], made.llvm)

    return made(numbers), write


@intrinsic
def repeated(_context, numbers, like):
    """Return the numbers one time after another, as many as ``like`` has."""
    made = Vector(like.size, numbers.bits)

    def write(_context, builder, _signature, arguments):
        again = _places(place % numbers.size for place in range(made.size))
        return builder.shuffle_vector(arguments[0], arguments[0], again)

    return made(numbers, like), write


@intrinsic
def least_repeated(_context, numbers, like):
    """Return of repeated numbers the least in each place, as many places as ``like`` has."""
    made = Vector(like.size, numbers.bits)

    def write(_context, builder, _signature, arguments):
        parts = [
            builder.shuffle_vector(arguments[0], arguments[0], _places(range(k, k + made.size)))
            for k in range(0, numbers.size, made.size)
        ]
        return reduce(partial(_least, builder), parts)

    return made(numbers, like), write


@intrinsic
def spread(_context, value, like):
    """Return a vector with a scalar in all places, of the type of ``like``."""
    made = like

    def write(_context, builder, signature, arguments):
        return _converted(builder, arguments[0], signature.args[0], made)

    return made(value, like), write


@intrinsic
def where(_context, condition, a, b):
    """Return ``a`` where the condition is not 0, else ``b``."""
    made = _common(condition, a, b)

    def write(_context, builder, signature, arguments):
        one, other = (_converted(builder, arguments[k], signature.args[k], made) for k in (1, 2))
        return builder.select(_holds(builder, arguments[0]), one, other)

    return made(condition, a, b), write


@intrinsic
def low_bits(_context, counts):
    """Return numbers of 64 bits whose lowest bits are set, as many as ``counts`` says: 0 to 63."""
    made = Vector(counts.size, 64)

    def write(_context, builder, signature, arguments):
        count = _converted(builder, arguments[0], counts, made)
        ones, one, most = (ir.Constant(made.llvm, [k] * made.size) for k in (-1, 1, 63))
        return builder.lshr(builder.lshr(ones, builder.sub(most, count)), one)

    return made(counts), write


@intrinsic
def trailing_zeros(_context, numbers):
    """Return in each place the number of its lowest bit that is set; of 0 anything."""

    def write(_context, builder, _signature, arguments):
        flag = ir.IntType(1)
        count = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(numbers.llvm, [numbers.llvm, flag]),
            f"llvm.cttz.v{numbers.size}i{numbers.bits}",
        )
        return builder.call(count, [arguments[0], flag(1)])

    return numbers(numbers), write


def _bits(builder, condition):
    """Return a condition as an integer, a bit for each place, the first the lowest."""
    holds = _holds(builder, condition)
    return builder.bitcast(holds, ir.IntType(holds.type.count))


@intrinsic
def any_of(_context, condition):
    """Return whether a condition holds in any place."""

    def write(_context, builder, _signature, arguments):
        bits = _bits(builder, arguments[0])
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(condition), write


@intrinsic
def holds_in(_context, condition):
    """Return the places in which a condition holds as an integer, a bit each."""

    def write(_context, builder, _signature, arguments):
        return builder.zext(_bits(builder, arguments[0]), _INT64)

    return types.int64(condition), write


@intrinsic
def lowest_place(_context, bits):
    """Return the number of the lowest bit of an integer that is set; it is not 0."""

    def write(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(bits), write


@intrinsic
def first_of(_context, condition):
    """Return the first place in which a condition holds, or their number."""

    def write(_context, builder, _signature, arguments):
        bits = _bits(builder, arguments[0])
        return builder.zext(builder.cttz(bits, ir.IntType(1)(0)), _INT64)

    return types.int64(condition), write


def _folded(choose):
    """Return the function that reduces a vector to one number by ``choose``."""

    @intrinsic
    def fold(_context, numbers):
        def write(_context, builder, _signature, arguments):
            found, half = arguments[0], numbers.size // 2
            while half:
                moved = [place + half if place < half else 0 for place in range(numbers.size)]
                found = choose(builder, found, builder.shuffle_vector(found, found, _places(moved)))
                half //= 2
            number = builder.extract_element(found, _INT32(0))
            return number if numbers.bits == _INT64.width else builder.sext(number, _INT64)

        return types.int64(numbers), write

    return fold


largest = _folded(_greatest)
smallest = _folded(_least)
all_bits = _folded(ir.IRBuilder.or_)


@intrinsic
def next_places(_context, numbers):
    """Return in each place the number of the next one, 0 in the last."""

    def write(_context, builder, _signature, arguments):
        nothing = ir.Constant(numbers.llvm, None)
        return builder.shuffle_vector(arguments[0], nothing, _places(range(1, numbers.size + 1)))

    return numbers(numbers), write


@intrinsic
def running_maximum(_context, numbers):
    """Return in each place the maximum of those up to it."""

    def write(_context, builder, _signature, arguments):
        found, step = arguments[0], 1
        while step < numbers.size:
            before = [max(place - step, 0) for place in range(numbers.size)]
            moved = builder.shuffle_vector(found, found, _places(before))
            found = _greatest(builder, found, moved)
            step *= 2
        return found

    return numbers(numbers), write


def _address(context, builder, kind, array, index):
    """Return a pointer to a number of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _address_in(context, builder, kind, array, indices, place):
    """Return a pointer to the number of an array whose index is in a place of a vector."""
    index = builder.extract_element(indices, _INT32(place))
    if index.type != _INT64:
        index = builder.zext(index, _INT64)
    return _address(context, builder, kind, array, index)


@intrinsic
def load(_context, array, index, like):
    """Return the numbers of an array from an index on, as many as ``like`` has."""
    made = Vector(like.size, array.dtype.bitwidth)

    def write(context, builder, signature, arguments):
        at = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        pointer = builder.bitcast(at, made.llvm.as_pointer())
        return builder.load(pointer, align=made.bits // 8)

    return made(array, index, like), write


@intrinsic
def store(_context, array, index, numbers):
    """Write the numbers to an array from an index on."""
    to = Vector(numbers.size, array.dtype.bitwidth)

    def write(context, builder, signature, arguments):
        at = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        pointer = builder.bitcast(at, to.llvm.as_pointer())
        written = _converted(builder, arguments[2], numbers, to)
        builder.store(written, pointer, align=to.bits // 8)
        return context.get_dummy_value()

    return types.void(array, index, numbers), write


@intrinsic
def gather(_context, array, indices):
    """Return the number of an array at each place's index."""
    made = Vector(indices.size, array.dtype.bitwidth)

    def write(context, builder, signature, arguments):
        found = ir.Constant(made.llvm, ir.Undefined)
        for place in range(made.size):
            at = _address_in(context, builder, signature.args[0], arguments[0], arguments[1], place)
            found = builder.insert_element(found, builder.load(at), _INT32(place))
        return found

    return made(array, indices), write


@intrinsic
def load_rows(_context, array, index, like):
    """Return the first, second, third, fourth numbers of rows of four of an array, as vectors."""
    made = Vector(like.size, array.dtype.bitwidth)

    def write(context, builder, signature, arguments):
        at = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        rows = ir.VectorType(made.llvm.element, 4 * made.size)
        found = builder.load(builder.bitcast(at, rows.as_pointer()), align=made.bits // 8)
        columns = [
            builder.shuffle_vector(found, found, _places(range(k, 4 * made.size, 4)))
            for k in range(4)
        ]
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(made, 4)(array, index, like), write


@intrinsic
def put_rows(_context, array, indices, a, b, c, d):
    """Write to an array of 32 bits from each place's index on its numbers of four vectors."""
    made = Vector(indices.size, 32)

    def write(context, builder, signature, arguments):
        numbers = [
            _converted(builder, *pair, made)
            for pair in zip(arguments[2:], signature.args[2:], strict=True)
        ]
        pairs = _places(k for place in range(made.size) for k in (place, made.size + place))
        ab, cd = (builder.shuffle_vector(*numbers[k : k + 2], pairs) for k in (0, 2))
        for place in range(made.size):
            at = _address_in(context, builder, signature.args[0], arguments[0], arguments[1], place)
            mine = (2 * place, 2 * place + 1)
            of_both = _places([*mine, *(2 * made.size + k for k in mine)])
            row = builder.shuffle_vector(ab, cd, of_both)
            builder.store(row, builder.bitcast(at, row.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, indices, a, b, c, d), write


@intrinsic
def gather_words(_context, array, indices):
    """Return 64 bits of an array of bytes from each place's index on, the lowest first."""
    made = Vector(indices.size, 64)

    def write(context, builder, signature, arguments):
        found = ir.Constant(made.llvm, ir.Undefined)
        for place in range(made.size):
            at = _address_in(context, builder, signature.args[0], arguments[0], arguments[1], place)
            word = builder.load(builder.bitcast(at, _INT64.as_pointer()), align=1)
            found = builder.insert_element(found, word, _INT32(place))
        return found

    return made(array, indices), write
