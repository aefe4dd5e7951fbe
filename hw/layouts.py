"""Layouts of payloads that more than one part uses, as functions of the configuration."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Value, signed, unsigned
from amaranth.lib import data

from thresher.golden.config import Config
from thresher.golden.descriptors import POOL_SCALE, Record

__all__ = [
    "activation_layout",
    "constant_layout",
    "lookup_write_layout",
    "memory_request_layout",
    "operand_layout",
    "pointer_place",
    "pointer_write_layout",
    "pool_factor_layout",
    "pool_scale_write_layout",
    "record_layout",
    "result_layout",
    "row_word_layout",
    "store_write_layout",
    "tap_layout",
    "tap_write_layout",
    "token_layout",
    "value_layout",
    "word_layout",
    "write_request_layout",
]


def record_layout(record: Record) -> data.StructLayout:
    """All fields of a descriptor record, in the order of their words, without gaps."""
    return data.StructLayout(
        {
            field.name: signed(field.bits) if field.signed else unsigned(field.bits)
            for word in record.words
            for field in word
        }
    )


def token_layout(config: Config) -> data.StructLayout:
    """A token of the array: work on the taps of groups ``lo`` to ``hi``, or a row marker."""
    return data.StructLayout(
        {
            "marker": unsigned(1),
            "open": unsigned(1),
            "lo": unsigned(config.group_bits),
            "hi": unsigned(config.group_bits),
            "base": unsigned(config.offset_bits),
            "value": signed(config.activation_bits),
        }
    )


def tap_layout(config: Config) -> data.StructLayout:
    """A word of a tap store; ``zero`` if the code is 0, which is known too late behind it."""
    return data.StructLayout(
        {
            "offset": unsigned(config.offset_bits),
            "code": unsigned(config.weight_code_bits),
            "zero": unsigned(1),
        }
    )


def tap_write_layout(config: Config) -> data.StructLayout:
    """A loader's write to the tap store of one row of its column."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "row": unsigned(max(1, (config.lanes - 1).bit_length())),
            "address": unsigned(config.tap_bits),
            "tap": tap_layout(config),
        }
    )


def pointer_write_layout(config: Config) -> data.StructLayout:
    """A loader's write to the start pointers of one row of its column."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "row": unsigned(max(1, (config.lanes - 1).bit_length())),
            "address": unsigned(config.group_bits),
            "value": unsigned(config.tap_bits),
        }
    )


def store_write_layout(config: Config) -> data.StructLayout:
    """A write to the one memory of taps and start pointers, the latter in its upper half."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "row": unsigned(max(1, (config.lanes - 1).bit_length())),
            "address": unsigned(max(config.tap_bits, config.group_bits) + 1),
            "data": unsigned(max(tap_layout(config).size, config.tap_bits)),
        }
    )


def pointer_place(config: Config, address: Value) -> Value:
    """Address of a start pointer in that memory."""
    bits = max(config.tap_bits, config.group_bits)
    return Cat(address, Const(0, bits - len(address)), Const(1, 1))


def constant_layout(config: Config) -> data.StructLayout:
    """A loader's write to the constants of its column."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "address": unsigned(config.channel_bits),
            "bias": signed(config.accumulator_bits),
            "scale": unsigned(config.scale_bits),
            "shift": unsigned(6),
        }
    )


def lookup_write_layout(config: Config) -> data.StructLayout:
    """A loader's write to the lookup table of its column."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "address": unsigned(config.activation_bits),
            "value": signed(config.activation_bits),
        }
    )


def pool_scale_write_layout() -> data.StructLayout:
    """The sequencer's write to the pooler's table of scales, by the places a window lacks."""
    (fields,) = POOL_SCALE.words
    widths = {field.name: field.bits for field in fields}
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "columns": unsigned(widths["columns"]),
            "rows": unsigned(widths["rows"]),
            "scale": unsigned(widths["scale"]),
        }
    )


def operand_layout(config: Config) -> data.StructLayout:
    """A value on its way to be scaled for an addition, or multiplied by ``factor``."""
    width = config.activation_bits
    return data.StructLayout(
        {"value": signed(width), "factor": unsigned(width if config.product else 0)}
    )


def pool_factor_layout(config: Config, bits: int) -> data.StructLayout:
    """A finished sum of ``bits`` bits, on its way to be scaled by what its window lacks."""
    return data.StructLayout(
        {
            "value": signed(bits),
            "lacks": unsigned(2 * config.pool_lacks.bit_length()),
            "last": unsigned(1),
        }
    )


def word_layout(config: Config) -> data.StructLayout:
    """A word of an activation row; ``empty``: a row without words; ``last`` ends the row."""
    return data.StructLayout(
        {"data": unsigned(config.port_bits), "empty": unsigned(1), "last": unsigned(1)}
    )


def row_word_layout(config: Config) -> data.StructLayout:
    """A word on its way to the RLC decoder, with the channels of its segment."""
    return data.StructLayout(
        {
            **dict(word_layout(config).members),
            "channels": unsigned(16),
            "first_channel": unsigned(16),
        }
    )


def activation_layout(config: Config) -> data.StructLayout:
    """What the RLC decoder finds, one item at a time."""
    return data.StructLayout(
        {
            "value": signed(config.activation_bits),
            "channel": unsigned(16),
            "step": unsigned(1),
            "hit": unsigned(1),
            "last": unsigned(1),
        }
    )


def result_layout(bits: int) -> data.StructLayout:
    """A value of the output stage, of ``bits`` bits; ``last`` ends its row."""
    return data.StructLayout({"value": signed(bits), "last": unsigned(1)})


def value_layout(config: Config) -> data.StructLayout:
    """An output activation; ``last`` ends its row."""
    return result_layout(config.activation_bits)


def write_request_layout(config: Config) -> data.StructLayout:
    """A write of one memory word."""
    return data.StructLayout(
        {"address": unsigned(config.address_bits), "data": unsigned(config.port_bits)}
    )


def memory_request_layout(config: Config) -> data.StructLayout:
    """A request at the memory port."""
    return data.StructLayout(
        {
            "address": unsigned(config.address_bits),
            "write": unsigned(1),
            "data": unsigned(config.port_bits),
        }
    )
