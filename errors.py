"""The pack's errors. Every message states the expected value, the actual one, and a remedy."""

LONGEST_QUOTE = 60
"""Characters of a text from a file, or of a name, in a message."""
LONGEST_MESSAGE = 600
"""Characters of a message. A longer one loses its middle."""


def quote(text: object, most: int = LONGEST_QUOTE) -> str:
    """Shorten a text from a file or a user for a message, and make it printable in one line.

    Args:
        text: A text; of anything else only the type is shown, because writing it out may take forever.
        most: The most characters that are kept.
    """
    if not isinstance(text, str | int | float | bool | None):
        return f"a {type(text).__name__}"
    if isinstance(text, int) and text.bit_length() > 4 * most:  # a long integer takes long to write out
        return "a very long number"
    words = text if isinstance(text, str) else str(text)
    shown = words if len(words) <= most else f"{words[:most]}\N{HORIZONTAL ELLIPSIS}"
    return "".join(character if character.isprintable() else "?" for character in shown)


class CapFaceError(Exception):
    """Base of every error that the pack raises on purpose."""

    def __init__(self, message: str = ""):
        if len(message) > LONGEST_MESSAGE:
            kept = (LONGEST_MESSAGE - 5) // 3
            message = f"{message[: 2 * kept]} \N{HORIZONTAL ELLIPSIS} {message[-kept:]}"
        super().__init__(message)


class BadInput(CapFaceError, ValueError):
    """An invalid value, shape or combination of inputs."""


class BadFile(CapFaceError):
    """A file that exists but is not the expected one: another kind of checkpoint, or a broken download."""


class MissingFile(CapFaceError):
    """A file that the user must provide first."""


class CannotWrite(CapFaceError):
    """A file that could not be written: a full disk, a closed folder, a name that the disk does not take."""


class DownloadFailed(CapFaceError):
    """A file that could not be fetched; what was good of it is kept, and the next run continues there."""


class MissingPackage(CapFaceError):
    """An optional Python package that this call needs."""


class NoFaceFound(CapFaceError):
    """A photo in which no usable face was found."""


def how_to_install(packages: str, options: str = "") -> str:
    """State that a package is missing and how to install it.

    Args:
        packages: Packages for pip, separated by spaces; the message names the first one.
        options: Options for pip, such as "--no-deps ".
    """
    return f"{packages.split()[0]} is not installed. In ComfyUI's Python, run: pip install {options}{packages}"
