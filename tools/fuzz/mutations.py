"""Mutations of files: of bytes, and of the structure of pickles, archives, safetensors, JSON and texts.

A mutation depends only on the random numbers that it is given, so an input is known by reader, seed and number.
"""

import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63,
)  # fmt: skip
TEXTS = (
    b"", b"0", b"-1", b"NaN", b"nan", b"inf", b"1e400", b"-1e38", b"3e38", b"1e-45", b"99999999999999999999", b"null", b"true",
    b"[]", b"{}", b'""', b"[[[[", b"\xff\xfe", b"\x00", b"../../../etc/passwd", b"/etc/passwd", b"9" * 400, b"a" * 5000, b"1/1",
    b"vt", b"f",
)  # fmt: skip
SNIPPETS = (
    b"}", b"]", b")", b"N", b"\x88", b"(", b"t", b"l", b"d", b"0", b"1", b"2", b"a", b"e", b"s", b"u", b"b", b"R", b"\x81",
    b"o", b"\x85", b"\x86", b"\x87", b"\x8f", b"\x90", b"\x91", b"\x93", b"\x94", b"h\x00", b"h\x01", b"q\x00",
    b"r\xff\xff\xff\x7f", b"p300000000\n", b"K\x00", b"J\xff\xff\xff\x7f", b"M\xff\xff",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"I00\n", b"I99999999999999999999\n", b"L5L\n",
    b"F1e400\n", b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b"U\x01a", b"X\x01\x00\x00\x00a", b"C\x01a",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x96\xff\xff\xff\xff\x00\x00\x00\x00", b"B\xff\xff\xff\x7f", b"S'a'\n", b"Va\n",
    b"P1\n", b"Q", b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ictypes\nX\n", b"\x80\x04",
    b"\x95\xff\x00\x00\x00\x00\x00\x00\x00", b".", b"(q\x00h\x00h\x00tq\x00" * 20, b"]q\x00(h\x00h\x00eq\x00" * 20,
    b"}q\x00X\x01\x00\x00\x00ah\x00s", b"h\x00h\x00\x86q\x00" * 30,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove, repeat or move a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            return bytes(rng.randbytes(rng.randrange(40)))
        place = rng.randrange(min(len(changed), 4096) if rng.random() < 0.5 else len(changed))
        stop = min(len(changed), place + rng.choice((1, 2, 4, 8, 16, 64, 1024)))
        kind = rng.randrange(9)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
            changed[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del changed[place:stop]
        elif kind == 4:
            changed[place:place] = rng.choice((changed[place:stop], rng.randbytes(stop - place), bytes(stop - place)))
        elif kind == 5:
            del changed[place:]
        elif kind == 6:
            other = rng.randrange(len(changed))
            changed[place:stop] = changed[other : other + stop - place]
        elif kind == 7:
            changed[place:stop] = rng.choice(TEXTS)
        else:
            changed += rng.choice((bytes(stop - place), changed[place:stop], rng.randbytes(8)))
    return bytes(changed)


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    """Insert, remove, repeat or replace whole instructions of a pickle, or make a pickle of nothing but instructions."""
    if rng.random() < 0.1:
        return b"\x80\x02" + b"".join(rng.choices(SNIPPETS, k=rng.randrange(1, 60))) + b"."
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except ValueError:
        return mutate_bytes(data, rng)
    parts = [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind == 0:
            parts[place:place] = rng.choices(SNIPPETS, k=rng.choice((1, 1, 2, 5)))
        elif kind == 1:
            parts[place] = rng.choice(SNIPPETS)
        elif kind == 2:
            del parts[place]
        elif kind == 3:
            parts[place:place] = parts[max(0, place - rng.randrange(1, 12)) : place]
        elif kind == 4:
            other = rng.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        else:
            parts[place] = mutate_bytes(parts[place], rng)
        if not parts:
            return b"."
    return b"".join(parts)


def inside_zip(inner: Mutation) -> Mutation:
    """Mutate a member of a zip archive, and pack it again with a right checksum; sometimes its name or its method changes."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return mutate_bytes(data, rng)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(one.filename, archive.read(one), one.compress_type) for one in archive.infolist()]
        index = rng.randrange(len(members)) if rng.random() < 0.5 else 0
        name, content, method = members[index]
        kind = rng.randrange(10)
        if kind == 0:
            name = rng.choice(("../x", "/etc/x", "", name * 2, "a/code/b.py", "data.pkl"))
        elif kind == 1:
            method = zipfile.ZIP_DEFLATED
        elif kind == 2:
            content = bytes(rng.choice((0, 1, 100, 1 << 20)))
        else:
            content = inner(content, rng)
        members[index] = (name, content, method)
        if kind == 3:
            del members[rng.randrange(len(members))]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for one, (called, held, how) in enumerate(members):
                archive.writestr(zipfile.ZipInfo(called or f"m{one}"), held, compress_type=how)
        return packed.getvalue()

    return mutate


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file as JSON, and give it its right length."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    header = json.loads(data[8 : 8 + length])
    changed = _mutate_json(header, rng)
    text = json.dumps(changed).encode()
    if rng.random() < 0.2:
        text = mutate_bytes(text, rng)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a value, a key or the text of a JSON file."""
    if rng.random() < 0.3:
        return mutate_text(data, rng)
    return json.dumps(_mutate_json(json.loads(data), rng)).encode()


_VALUES = (
    None, True, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), 3e38, -3e38, 1e-45, "", "a", "../x",
    "/etc/passwd", "x" * 3000, [], {}, [[]], [0] * 300, {"a": 1}, [1, 2, 3], "F32", "F64", "I64", "BOOL", [0], [10**11, 0, 3],
)  # fmt: skip


def _mutate_json(value: Any, rng: random.Random) -> Any:
    """Change something somewhere in a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        value = dict(value)
        key = rng.choice(list(value))
        kind = rng.randrange(8)
        if kind == 0:
            value[rng.choice(("", "x", f"{key}x", "y" * 3000, "shape", "frames"))] = value.pop(key)
        elif kind == 1:
            del value[key]
        elif kind == 2:
            value[f"{key}_"] = rng.choice(_VALUES)
        else:
            value[key] = _mutate_json(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.9:
        value = list(value)
        place = rng.randrange(len(value))
        kind = rng.randrange(6)
        if kind == 0:
            del value[place]
        elif kind == 1:
            value[place:place] = value[place : place + 1] * rng.choice((1, 2, 100))
        else:
            value[place] = _mutate_json(value[place], rng)
        return value
    return rng.choice(_VALUES)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Change words and lines of a text."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(lines))
        words = lines[place].split(b" ")
        kind = rng.randrange(5)
        if kind == 0:
            lines[place:place] = lines[place : place + 1] * rng.choice((1, 3, 200))
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        else:
            words[rng.randrange(len(words))] = rng.choice(TEXTS)
            lines[place] = b" ".join(words)
    return b"\n".join(lines)


def after(count: int, inner: Mutation) -> Mutation:
    """Keep the first bytes, such as a header, and mutate the rest; sometimes all."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        return mutate_bytes(data, rng) if rng.random() < 0.3 else data[:count] + inner(data[count:], rng)

    return mutate
