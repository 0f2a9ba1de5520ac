"""The catalogue's files, fetched at the user's command: `files/weights.py` starts it. No node imports this package."""

from .command import main
from .transfer import Request, fetch
from .web import Web

__all__ = ["Request", "Web", "fetch", "main"]
