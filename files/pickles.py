"""Reading pickles without running them: an interpreter of their instructions that makes data only.

No class or function that a pickle names is ever looked up. A name becomes a `Name`, and whatever the pickle makes by calling it
a `Kept`, which stores its arguments, its state and its entries. So any object may lie in a file beside those that are wanted.

The interpreter needs time and memory in proportion to the file's length, whatever the file states: positions of the memo are
keys of a dictionary, lengths are compared with the rest of the file, and no key is hashed that could take long.

Source: the instructions as the comments of Python's `pickletools` describe them, protocols 0 to 5.
"""

import codecs
import struct
from collections.abc import Callable
from mmap import mmap
from typing import Any, ClassVar

from ..errors import BadFile, quote
from .budgets import LARGEST_INTEGER, LONGEST_LINE, LONGEST_TUPLE_KEY, MOST_STEPS

Data = bytes | mmap
_SMALL = 1 << 60
"""Integers below are keys as they are: their hashes differ."""
_CODE = {
    *("os", "posix", "nt", "sys", "subprocess", "commands", "pty", "socket", "shutil", "runpy", "ctypes", "importlib"),
    *("code", "codeop", "webbrowser", "pdb", "timeit", "pip"),
}
_CALLS = {"eval", "exec", "execfile", "compile", "open", "file", "input", "raw_input", "__import__", "breakpoint", "apply"}
"""Modules and built-in functions that nothing but an attack calls from a pickle."""


class Opaque:
    """A key that is not compared, because hashing it could take long. It equals only itself."""

    __slots__ = ()


class Name:
    """A class or function that a pickle names; it is not looked up."""

    __slots__ = ("kind",)

    def __init__(self, kind: str):
        self.kind = kind
        """Module and name, joined by a dot."""


class Kept:
    """An object that a pickle makes: how, its state and its entries, unprocessed."""

    __slots__ = ("args", "entries", "items", "kind", "state")

    def __init__(self, kind: str, args: tuple[Any, ...]):
        self.kind = kind
        """The `kind` of what was called."""
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []
        """What was appended, if it acts as a list or a set."""
        self.entries: dict[Any, Any] = {}
        """What was entered, if it acts as a dictionary."""


Found = Callable[[str], None]
Made = Callable[[str, tuple[Any, ...]], Any]
Persistent = Callable[[Any], Any]
Step = Callable[["_Machine"], object]


def refuse_code(kind: str) -> None:
    """Refuse a name that only an attack uses, as the file should not be trusted in other ways either.

    Raises:
        BadFile: It is such a name. The message is a clause without the file's name.
    """
    module, _, name = kind.rpartition(".")
    if module.partition(".")[0] in _CODE or (module in ("builtins", "__builtin__") and name in _CALLS):
        raise BadFile(f"it holds Python code ({quote(kind)}), which is never run")


def read_pickle(
    data: Data,
    start: int = 0,
    *,
    found: Found = refuse_code,
    made: Made = Kept,
    persistent: Persistent | None = None,
) -> tuple[Any, int]:
    """Read one pickle.

    Args:
        data: The bytes that hold it.
        start: Where it begins.
        found: Called with each name; raises a BadFile to refuse it.
        made: Called with the name and the arguments of each call; returns the object. The default keeps them.
        persistent: Called with each reference to something outside the pickle; returns the object. Without it, such references
            are refused.

    Returns:
        The object, and the position after the pickle. Numbers, texts, bytes, lists, tuples and dictionaries are themselves;
        sets and everything else are `Kept`. Texts of Python 2 are read as latin-1.

    Raises:
        BadFile: The pickle is malformed, truncated or beyond a budget. The message is a clause without the file's name.
    """
    machine = _Machine(data, start, found, made, persistent)
    try:
        return machine.run(), machine.place
    except BadFile:
        raise
    except Exception:  # nothing of the file has run, so any error means that it is malformed
        raise BadFile("it is not a pickle, or it is truncated") from None


# Instructions that differ in one thing


def _constant(value: Any) -> Step:
    return lambda machine: machine.push(value)


def _packed(form: str) -> Step:
    kind = struct.Struct(form)
    return lambda machine: machine.push(machine.number(kind))


def _sized(form: str, finish: Callable[[bytes], Any]) -> Step:
    kind = struct.Struct(form)
    return lambda machine: machine.push(finish(machine.take(machine.number(kind))))


def _tuple_of(count: int) -> Step:
    def do(machine: "_Machine") -> None:
        if len(machine.stack) < count:
            raise IndexError
        values = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.push(values)

    return do


def _latin(data: bytes) -> str:
    return data.decode("latin1")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _key(key: Any) -> Any:
    """Return a key that is quick to hash in place of one that may not be."""
    if _is_quick(key) or (type(key) is tuple and len(key) <= LONGEST_TUPLE_KEY and all(map(_is_quick, key))):
        return key
    return Opaque()


def _is_quick(key: Any) -> bool:
    return key is None or type(key) in (str, bytes, float, bool) or (type(key) is int and -_SMALL < key < _SMALL)


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


class _Machine:
    """The stack, the memo and the instructions."""

    def __init__(self, data: Data, start: int, found: Found, made: Made, persistent: Persistent | None):
        self.data, self.place, self.end = data, start, len(data)
        self.found, self.made, self.persistent = found, made, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[str, Name] = {}

    def run(self) -> Any:
        steps = self.STEPS
        for _ in range(MOST_STEPS):
            code = self.data[self.place]
            self.place += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            steps[code](self)
        raise BadFile(f"it has more than {MOST_STEPS:,} instructions")

    # Parts of instructions

    def take(self, count: int) -> bytes:
        place = self.place
        if count > self.end - place:
            raise EOFError
        self.place = place + count
        return self.data[place : self.place]

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def line(self, longest: int = LONGEST_LINE) -> bytes:
        stop = self.data.find(b"\n", self.place, self.place + longest)
        if stop < 0:
            raise EOFError
        text = self.data[self.place : stop]
        self.place = stop + 1
        return text

    def top(self) -> Any:
        return self.stack[-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """Return what was pushed since the last mark."""
        values = self.stack
        self.stack = self.marks.pop()
        return values

    def name(self, module: str, name: str) -> Name:
        kind = f"{module}.{name}"
        if kind not in self.names:
            self.found(kind)
            self.names[kind] = Name(kind)
        return self.names[kind]

    def call(self, what: Any, args: Any) -> Any:
        if not isinstance(args, tuple) or not isinstance(what, Name | Kept):
            raise ValueError
        # the result of a call may be called: partial(f, 1)(2)
        return self.made(what.kind, args) if isinstance(what, Name) else Kept("the result of a call", args)

    # Values

    def integer_line(self) -> None:
        text = self.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))

    def long_line(self) -> None:
        self.push(int(self.line().rstrip(b"L")))

    def long_bytes(self, count: int) -> None:
        if not 0 <= count <= LARGEST_INTEGER:
            raise BadFile(f"it holds an integer of {count:,} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def string_line(self) -> None:
        text = self.line(self.end)
        self.push(codecs.escape_decode(text.strip()[1:-1])[0].decode("latin1"))

    def frame(self) -> None:  # frames only group what follows
        self.take(8)

    # Containers

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def append(self) -> None:
        self.extend([self.stack.pop()])

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        (target.items if isinstance(target, Kept) else _a(list, target)).extend(values)

    def enter(self, values: list[Any]) -> None:
        target = self.top()
        entries = target.entries if isinstance(target, Kept) else _a(dict, target)
        for key, value in zip(values[::2], values[1::2], strict=True):
            entries[_key(key)] = value

    def enter_one(self) -> None:
        value = self.stack.pop()
        self.enter([self.stack.pop(), value])

    def dictionary(self) -> None:
        values = self.marked()
        self.push({})
        self.enter(values)

    def frozen_set(self) -> None:
        values = self.marked()
        self.push(Kept("builtins.frozenset", (values,)))

    # The memo

    def remember(self, position: int) -> None:
        self.memo[position] = self.top()

    def recall(self, position: int) -> None:
        self.push(self.memo[position])

    # Objects

    def global_lines(self) -> None:
        module = self.line().decode()
        self.push(self.name(module, self.line().decode()))

    def global_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if len(_a(str, module)) + len(_a(str, name)) > LONGEST_LINE:
            raise ValueError
        self.push(self.name(module, name))

    def reduce(self) -> None:
        args = self.stack.pop()
        self.push(self.call(self.stack.pop(), args))

    def new_object_keywords(self) -> None:
        self.stack.pop()  # the keyword arguments
        self.reduce()

    def instance(self) -> None:
        module = self.line().decode()
        name = self.name(module, self.line().decode())
        self.push(self.call(name, tuple(self.marked())))

    def object_on_stack(self) -> None:
        what, *args = self.marked()
        self.push(self.call(what, tuple(args)))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.top()
        if isinstance(target, Kept):
            target.state = state

    def outside(self, reference: Any) -> None:
        if self.persistent is None:
            raise BadFile("it refers to something outside itself")
        self.push(self.persistent(reference))

    # numbers and names of the instructions are those of pickletools
    STEPS: ClassVar[dict[int, Step]] = {
        # numbers, texts and bytes
        ord("N"): _constant(None),
        0x88: _constant(True),
        0x89: _constant(False),
        ord("I"): integer_line,
        ord("J"): _packed("<i"),
        ord("K"): _packed("<B"),
        ord("M"): _packed("<H"),
        ord("L"): long_line,
        0x8A: lambda self: self.long_bytes(self.take(1)[0]),
        0x8B: lambda self: self.long_bytes(self.number(struct.Struct("<i"))),
        ord("F"): lambda self: self.push(float(self.line())),
        ord("G"): _packed(">d"),
        ord("S"): string_line,
        ord("T"): _sized("<I", _latin),
        ord("U"): _sized("<B", _latin),
        ord("V"): lambda self: self.push(self.line(self.end).decode("raw-unicode-escape")),
        ord("X"): _sized("<I", _text),
        0x8C: _sized("<B", _text),
        0x8D: _sized("<Q", _text),
        ord("B"): _sized("<I", bytes),
        ord("C"): _sized("<B", bytes),
        0x8E: _sized("<Q", bytes),
        0x96: _sized("<Q", bytes),  # a bytearray
        # containers
        ord("("): mark,
        ord("0"): pop,
        ord("1"): lambda self: self.marked(),
        ord("2"): lambda self: self.push(self.top()),
        ord(")"): lambda self: self.push(()),
        ord("]"): lambda self: self.push([]),
        ord("}"): lambda self: self.push({}),
        0x8F: lambda self: self.push(Kept("builtins.set", ())),
        ord("t"): lambda self: self.push_marked(tuple),
        ord("l"): lambda self: self.push_marked(list),
        ord("d"): dictionary,
        0x85: _tuple_of(1),
        0x86: _tuple_of(2),
        0x87: _tuple_of(3),
        ord("a"): append,
        ord("e"): lambda self: self.extend(self.marked()),
        ord("s"): enter_one,
        ord("u"): lambda self: self.enter(self.marked()),
        0x90: lambda self: self.extend(self.marked()),
        0x91: frozen_set,
        # the memo
        ord("p"): lambda self: self.remember(int(self.line())),
        ord("q"): lambda self: self.remember(self.take(1)[0]),
        ord("r"): lambda self: self.remember(self.number(struct.Struct("<I"))),
        0x94: lambda self: self.remember(len(self.memo)),
        ord("g"): lambda self: self.recall(int(self.line())),
        ord("h"): lambda self: self.recall(self.take(1)[0]),
        ord("j"): lambda self: self.recall(self.number(struct.Struct("<I"))),
        # objects
        ord("c"): global_lines,
        0x93: global_stack,
        ord("R"): reduce,
        0x81: reduce,  # NEWOBJ: a class and its arguments
        0x92: new_object_keywords,
        ord("i"): instance,
        ord("o"): object_on_stack,
        ord("b"): build,
        ord("P"): lambda self: self.outside(self.line().decode()),
        ord("Q"): lambda self: self.outside(self.stack.pop()),
        # the protocol
        0x80: lambda self: self.take(1),
        0x95: frame,
    }

    def push_marked(self, kind: Callable[[list[Any]], Any]) -> None:
        values = self.marked()
        self.push(kind(values))
