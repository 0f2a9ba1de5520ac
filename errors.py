"""The pack's errors. Every message states the expected value, the actual one, and a remedy."""


class CapFaceError(Exception):
    """Base of every error that the pack raises on purpose."""


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
