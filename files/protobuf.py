"""Safe reading of a protobuf message: its fields, one after the other. Nothing is decoded beyond that.

Source: the encoding of protocol buffers (developers.google.com/protocol-buffers/docs/encoding).
"""

from collections.abc import Iterator

from ..errors import BadFile

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Kinds of fields. The others are groups, which no current writer makes."""
LONGEST_VARINT = 10


def read_fields(message: bytes | memoryview, name: str) -> Iterator[tuple[int, int | memoryview]]:
    """Go through the fields of a message, in the order of the file.

    Args:
        message: The message.
        name: Name of the file, for messages to the user.

    Yields:
        The number of a field, and its content: an integer for a varint, else the bytes.

    Raises:
        BadFile: The message is truncated or malformed.
    """
    data, place = memoryview(message), 0
    while place < len(data):
        tag, place = _varint(data, place, name)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, place = _varint(data, place, name)
            yield number, value
            continue
        if kind == BYTES:
            length, place = _varint(data, place, name)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise _bad(name, f"a field of kind {kind} at byte {place:,}")
        if length > len(data) - place:
            raise _bad(name, f"{length:,} bytes stated at byte {place:,} of {len(data):,}")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int, name: str) -> tuple[int, int]:
    value = 0
    for i in range(LONGEST_VARINT):
        if place + i >= len(data):
            break
        value |= (data[place + i] & 0x7F) << (7 * i)
        if data[place + i] < 0x80:
            return value, place + i + 1
    raise _bad(name, f"an unfinished number at byte {place:,} of {len(data):,}")


def _bad(name: str, got: str) -> BadFile:
    return BadFile(f"{name} cannot be read: expected a protobuf message, got {got}. Download the file again.")
