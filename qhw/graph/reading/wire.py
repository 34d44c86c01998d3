"""How many parts a protobuf message has, counted before it is parsed: an empty one takes two bytes of a file.

Parsed, each takes a hundred: a file of 20 MB would become a gigabyte of nodes that hold nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from onnx import ModelProto

from qhw.errors import InputError

PART_LIMIT = 1 << 22
"""Fields of all messages in a model file at most; a tensor's raw bytes, or its packed numbers, are one."""

_DEEPEST = 100
"""Messages inside one another that protobuf itself parses."""

_VARINT, _SIZED, _LAST_VALID = 0, 2, 5
_FIXED = {1: 8, 5: 4}
"""Bytes of a field by its wire type, where it has as many always."""

_Children = dict[int, Any]


def check_parts(content: bytes) -> None:
    """Refuse a model file of more than :data:`PART_LIMIT` fields; one that is damaged is left to the parser.

    Raises:
        InputError: it has more.
    """
    left = PART_LIMIT
    waiting = [(0, len(content), _children(ModelProto.DESCRIPTOR), 0)]
    while waiting and left >= 0:
        try:
            left = _walk(content, *waiting.pop(), waiting, left)
        except IndexError:  # cut short
            continue
    if left < 0:
        raise InputError(
            f"The model file has more than {PART_LIMIT:,} parts",
            hint="it was damaged, or made to fill the memory: export the model again",
        )


def _walk(
    content: bytes,
    at: int,
    end: int,
    children: _Children,
    depth: int,
    waiting: list[tuple[int, int, _Children, int]],
    left: int,
) -> int:
    """Go through one message's fields; what its messages hold waits. Returns how many fields are left."""
    while at < end and left >= 0:
        left -= 1
        tag = content[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _number(content, at)
        wire = tag & 7
        if wire == _SIZED:
            size, at = _number(content, at)
            if size > end - at:
                break
            child = children.get(tag >> 3) if size and depth < _DEEPEST else None
            if child is not None:
                waiting.append((at, at + size, _children(child), depth + 1))
            at += size
        elif wire == _VARINT:
            _, at = _number(content, at)
        elif wire > _LAST_VALID:
            break
        else:  # a group begins or ends without a payload
            at += _FIXED.get(wire, 0)
    return left


def _number(content: bytes, at: int) -> tuple[int, int]:
    """The variable-length integer at a place, and the place behind it."""
    value = content[at]
    if value < 0x80:
        return value, at + 1
    value, shift = value & 0x7F, 7
    while (byte := content[at + 1]) >= 0x80 and shift < 63:
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | byte << shift, at + 2


@cache
def _children(descriptor: Any) -> _Children:
    """The messages that a message may hold, by the number of their field."""
    return {field.number: field.message_type for field in descriptor.fields if field.message_type}
