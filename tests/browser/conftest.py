"""The tests in this folder need what those of tests/host need, and a browser."""

from capface.tests.host.conftest import comfyui

__all__ = ["comfyui"]
