"""The route and the preview behind Edit Head."""

from .preview import Given, shelf
from .route import client

__all__ = ["Given", "client", "shelf"]
