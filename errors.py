"""The pack's errors. Every message says what was expected, what came, and what to do about it."""


class CapFaceError(Exception):
    """Base of every error that the pack raises on purpose."""


class BadInput(CapFaceError, ValueError):
    """A value, shape or combination of inputs that cannot work."""


class BadFile(CapFaceError):
    """A file that exists but is not what was asked for: another kind of checkpoint, a broken download."""


class MissingFile(CapFaceError):
    """A file that the user has to put somewhere first."""


class MissingPackage(CapFaceError):
    """An optional Python package that this call needs."""


class NoFaceFound(CapFaceError):
    """A photo in which no usable face was found."""


def how_to_install(packages: str, options: str = "") -> str:
    """Say in a sentence that a package is missing and how to install it.

    Args:
        packages: For pip, separated by spaces; the first one is named.
        options: For pip, such as "--no-deps ".
    """
    return f"{packages.split()[0]} is not installed. In ComfyUI's Python, run: pip install {options}{packages}"
