"""The CAPFACE_IDENTITY socket: its type, its arithmetic, its file."""

from .identity import COMBINE, MINIATURE, RELEASED, Features, Identity, blend, combine, null_identity, take_parts
from .identity_file import ENDING, load_identity, save_identity, write_identity

__all__ = [
    "COMBINE",
    "ENDING",
    "MINIATURE",
    "RELEASED",
    "Features",
    "Identity",
    "blend",
    "combine",
    "load_identity",
    "null_identity",
    "save_identity",
    "take_parts",
    "write_identity",
]
