"""Model files that a manifest needs, for its workflows and its metrics, and where they are. Imports no network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import catalogue
from ..files.catalogue import Asset
from .manifest import Manifest
from .person_files import LORA
from .workflow import marks_of, shapes_face

LOADERS: dict[str, dict[str, str]] = {
    "CheckpointLoaderSimple": {"ckpt_name": "checkpoints"},
    "VAELoader": {"vae_name": "vae"},
    "LoraLoader": {"lora_name": "loras"},
    "LoraLoaderModelOnly": {"lora_name": "loras"},
    "ControlNetLoader": {"control_net_name": "controlnet"},
    "CLIPVisionLoader": {"clip_name": "clip_vision"},
    "CapFaceLoad": {"checkpoint": "capface"},
    "CapFaceLoadFaceReader": {
        "facenet": "facenet", "deca": "deca", "parser": "face_parsing", "open_clip": "open_clip",
    },
    "CapFaceLoadHeadModel": {"model": "flame"},
    "IPAdapterModelLoader": {"ipadapter_file": "ipadapter"},
    "InstantIDModelLoader": {"instantid_file": "instantid"},
    "PulidModelLoader": {"pulid_file": "pulid"},
}  # fmt: skip
"""Inputs that name a file, and the folder of models that it is in, by the node's class."""
INSIGHTFACE = {
    "IPAdapterInsightFaceLoader": "buffalo_l",
    "InstantIDFaceAnalysis": "antelopev2",
    "PulidInsightFaceLoader": "antelopev2",
}
"""Nodes that load a pack of insightface, and its usual name."""
NO_FILE = ("auto", "none", "built-in")
"""Choices of these inputs that name no file."""
METRICS: dict[str, tuple[Asset, ...]] = {
    "facenet": (catalogue.FACENET,),
    "arcface": (catalogue.INSIGHTFACE,),
    "clip": (catalogue.OPEN_CLIP,),
    "deca": (catalogue.DECA,),
    "landmarks": (),
}
"""Files of each metric for photos."""


@dataclass(frozen=True)
class Needed:
    """A file, and who needs it."""

    file: str
    """Relative to a folder of models."""
    by: str
    source: str = ""
    """Where to get it, if known."""

    def __str__(self) -> str:
        return f"models/{self.file}, for {self.by}" + (f": {self.source}" if self.source else "")


def needed(manifest: Manifest) -> list[Needed]:
    """Return the model files of a manifest, each with the first method or metric that needs it."""
    known = {f"{asset.folder}/{asset.file}": asset.provenance for asset in catalogue.ASSETS}
    found: dict[str, Needed] = {}
    for method in manifest.methods:
        for file in _of_workflow(method.workflow or {}):
            found.setdefault(file, Needed(file, f"method {method.name}", known.get(file, "")))
    for metric in manifest.metrics:
        assets = METRICS.get(metric, ())
        if metric == "deca" and any(shapes_face(condition) for condition in manifest.heads.values()):
            assets += (catalogue.FLAME, catalogue.FLAME_LANDMARKS)  # for the conditions' expressions in DECA's numbers
        for asset in assets:
            file = f"{asset.folder}/{asset.file}"
            found.setdefault(file, Needed(file, f"metric {metric}", asset.provenance))
    return list(found.values())


def _of_workflow(workflow: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for node in workflow.values():
        if LORA in marks_of(node):  # trained for each person
            continue
        for name, folder in LOADERS.get(node["class_type"], {}).items():
            value = node["inputs"].get(name)
            if isinstance(value, str) and value not in NO_FILE:
                yield f"{folder}/{value}"
        if node["class_type"] in INSIGHTFACE:
            yield f"insightface/models/{node['inputs'].get('model_name', INSIGHTFACE[node['class_type']])}/*.onnx"


def find(folders: Sequence[Path], file: str) -> Path | None:
    """Return a file in the first of some folders of models that has it.

    Args:
        folders: Folders laid out like ComfyUI's `models`.
        file: The file, relative to such a folder; its name may be a pattern.
    """
    for folder in folders:
        path = next(iter(sorted(folder.glob(file))), None) if "*" in file else folder / file
        if path is not None and path.is_file():
            return path
    return None


def missing(manifest: Manifest, folders: Sequence[Path]) -> list[Needed]:
    """Return the model files that no folder has."""
    return [one for one in needed(manifest) if find(folders, one.file) is None]
