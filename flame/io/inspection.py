"""Short descriptions of FLAME's files, for the scan of CapFace Check."""

from collections.abc import Callable
from pathlib import Path

from ...errors import BadFile
from ...files.catalogue import FLAME, FLAME_LANDMARKS, FLAME_TEMPLATE, FLAME_TEXTURE, Asset
from ...files.header import tensor_shapes
from .flame_files import contents, read_landmarks, read_model, read_texture


def _flame(path: Path, asset: Asset) -> str:
    if path.suffix == ".safetensors":
        if "v_template" in tensor_shapes(path):
            return "a converted head model"
        raise BadFile(f"{path.name} is not a head model that Convert Head Model has written.")
    kind = read_model(path)[1]
    names = {"flame2020": "FLAME 2020", "flame2023": "FLAME 2023, whose expressions DECA does not support"}
    return names.get(kind, "a FLAME model")


def _landmarks(path: Path, asset: Asset) -> str:
    return f"landmarks in {len(read_landmarks(path))} tables"


def _template(path: Path, asset: Asset) -> str:
    lines = contents(path).count(b"\nvt ")
    if not lines:
        raise BadFile(f"{path.name} is not a mesh with texture coordinates. {asset.how_to_get()}.")
    return f"a mesh with {lines} texture coordinates"


def _texture(path: Path, asset: Asset) -> str:
    read_texture(path)
    return "mean and components of the skin"


INSPECTORS: dict[Asset, Callable[[Path, Asset], str]] = {
    FLAME: _flame,
    FLAME_LANDMARKS: _landmarks,
    FLAME_TEMPLATE: _template,
    FLAME_TEXTURE: _texture,
}
"""Functions by which `files.scan` inspects FLAME's files."""
