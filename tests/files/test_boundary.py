"""Whatever a parser raises becomes the pack's error; interrupts pass; messages are short and hold no foreign text."""

import errno
import os

import pytest

from capface.errors import LONGEST_MESSAGE, BadFile, BadInput, MissingFile, quote
from capface.files.boundary import reading, reads


class InterruptProcessingException(Exception):
    """As ComfyUI's older versions declare it."""


class OutOfMemoryError(RuntimeError):
    """As torch's error of a full GPU."""


class PanicException(BaseException):
    """As the errors of libraries in Rust."""


def read(error):
    with reading("folder/x.ckpt", "a checkpoint"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret advice"),
        KeyError("secret advice"),
        RuntimeError("weights_only=False: secret advice"),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"secret advice", 0, 1, "secret advice"),
        AssertionError("secret advice"),
        OSError(errno.EINVAL, "secret advice"),
        PanicException("secret advice"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_becomes_the_packs_own_without_its_text(error):
    with pytest.raises(BadFile, match=r"^x\.ckpt cannot be read as a checkpoint: .* Download it again\.$") as caught:
        read(error)
    assert "advice" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FileNotFoundError(errno.ENOENT, ""), MissingFile, "There is no file folder/x.ckpt"),
        (PermissionError(errno.EACCES, ""), BadFile, "may not be opened. Change its permissions"),
        (IsADirectoryError(errno.EISDIR, ""), BadFile, "it is a folder"),
        (OSError(errno.ENAMETOOLONG, ""), BadFile, "name is too long"),
        (MemoryError(), BadFile, "more memory than is free"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), BadFile, "more memory than is free"),
    ],
)
def test_the_message_says_what_to_do(error, kind, words):
    with pytest.raises(kind, match=words):
        read(error)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), InterruptProcessingException(), OutOfMemoryError(), BadInput("mine")]
)
def test_interrupts_a_full_gpu_and_own_errors_pass(error):
    with pytest.raises(type(error)) as caught:
        read(error)
    assert caught.value is error


def test_a_decorated_function_names_its_first_argument(tmp_path):
    @reads("a thing", "Make it again.")
    def load(path):
        return path.read_bytes()

    (tmp_path / "here").write_bytes(b"1")
    assert load(tmp_path / "here") == b"1"
    with pytest.raises(MissingFile, match=r"gone.*Expected a thing\. Make it again"):
        load(tmp_path / "gone")
    with pytest.raises(BadFile, match="it is a folder"):
        load(path=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="names of the operating system")
def test_a_name_that_no_disk_takes_is_an_error_of_the_pack(tmp_path):
    for name in ("x" * 300, "x\0y", "\udcff" * 300):
        with pytest.raises(BadFile), reading(tmp_path / name, "a thing"):
            (tmp_path / name).read_bytes()


def test_quoted_texts_and_messages_are_short_and_printable():
    assert quote("a\nb\x1b[31m") == "a?b?[31m"
    assert len(quote("x" * 5_000_000)) < 100 and len(quote(10**100_000)) < 100
    nested = ()
    for _ in range(60):
        nested = (nested, nested)
    assert quote(nested) == "a tuple"
    long = str(BadFile("begin " + "x" * 5_000_000 + " end"))
    assert len(long) <= LONGEST_MESSAGE and long.startswith("begin x") and long.endswith("x end")
