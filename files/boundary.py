"""The boundary around everything that parses files: whatever it raises becomes one of the pack's errors.

Parsers of others raise errors of many types, and their texts are of no use to the user, or worse: torch advises to switch its
safety off. So no text of theirs is passed on. A reader states what it expects and what the user can do, and this module adds
what went wrong, as far as the type of the error shows it.
"""

import errno
import functools
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, TypeVar, cast

from ..errors import BadFile, CapFaceError, MissingFile, quote

log = logging.getLogger("capface")

Function = TypeVar("Function", bound=Callable[..., Any])

INTERRUPTS = ("InterruptProcessingException",)
"""Names of errors by which a host stops a run. In older hosts they are derived from `Exception`."""
PANIC = "PanicException"
"""Name of the error of a library in Rust, such as safetensors, that met what it did not expect. It is not an `Exception`."""
OUT_OF_MEMORY = "OutOfMemoryError"
"""Name of torch's error of a full GPU, which passes too: hosts free memory and try again."""
_ALLOCATION = ("not enough memory", "can't allocate memory", "bad allocation")
"""Parts of the texts of torch's untyped errors when the CPU has no memory left."""
_REASONS = {
    errno.EACCES: "it may not be opened. Change its permissions",
    errno.EPERM: "it may not be opened. Change its permissions",
    errno.EISDIR: "it is a folder. Choose a file",
    errno.ENAMETOOLONG: "its name is too long for this file system. Shorten it",
    errno.ELOOP: "it is a link to itself. Replace the link by the file",
    errno.EMFILE: "too many files are open. Restart the program",
    errno.ENFILE: "too many files are open. Restart the program",
    errno.EIO: "the disk reports an error. Check the disk, and copy the file again",
}
_MISSING = (errno.ENOENT, errno.ENOTDIR)


@contextmanager
def reading(path: str | os.PathLike[str], expected: str, remedy: str = "Download it again.") -> Iterator[None]:
    """Translate whatever is raised while a file is read.

    Args:
        path: The file, or its name for messages.
        expected: What the file should be, as a noun phrase: "a checkpoint".
        remedy: What the user can do if the contents are malformed, as sentences.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file cannot be opened, is malformed, or would need more memory than there is.
    """
    try:
        yield
    except BaseException as error:
        if passes(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.debug("%s: %s in %s, line %s", quote(str(path)), type(error).__name__, place.filename, place.lineno)
        raise _translated(error, path, expected, remedy) from None


def reads(expected: str, remedy: str = "Download it again.") -> Callable[[Function], Function]:
    """Decorate a function whose first argument is the file that it reads: `reading` around each call.

    Args:
        expected: As for `reading`.
        remedy: As for `reading`.
    """

    def wrap(function: Function) -> Function:
        @functools.wraps(function)
        def translated(*args: Any, **kwargs: Any) -> Any:
            path: Any = args[0] if args else next(iter(kwargs.values()), "")
            with reading(path, expected, remedy):
                return function(*args, **kwargs)

        return cast(Function, translated)

    return wrap


def passes(error: BaseException) -> bool:
    """Whether an error is one of the pack's own, an interrupt, or a full GPU, which nothing between may translate."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return (
        isinstance(error, CapFaceError)
        or not (isinstance(error, Exception) or PANIC in names)
        or not names.isdisjoint((*INTERRUPTS, OUT_OF_MEMORY))
    )


def _translated(error: BaseException, path: str | os.PathLike[str], expected: str, remedy: str) -> CapFaceError:
    name = quote(PurePath(path).name or str(path))
    if isinstance(error, OSError) and error.errno in _MISSING:
        return MissingFile(f"There is no file {quote(os.fspath(path), 200)}. Expected {expected}. {remedy}")
    if isinstance(error, OSError) and error.errno in _REASONS:
        return BadFile(f"{name} cannot be read: {_REASONS[error.errno]}.")
    if isinstance(error, MemoryError) or any(words in str(error)[:1000] for words in _ALLOCATION):
        return BadFile(
            f"{name} cannot be read as {expected}: it needs more memory than is free, or it is broken. Close other programs. "
            + remedy
        )
    return BadFile(f"{name} cannot be read as {expected}: it is broken, truncated or of another kind. {remedy}")
