"""The pack's capabilities with the installed files and packages, and the missing requirements of the others."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from . import catalogue
from .catalogue import Asset
from .identify import is_clip_vit_l, is_sd15
from .insightface_packs import LANDMARK_FILE, RECOGNITION_FILES
from .scan import AssetReport


@dataclass(frozen=True)
class Package:
    """A Python package that the pack can use."""

    module: str
    distributions: tuple[str, ...]
    """Names of the distributions that install it."""
    purpose: str
    install: str
    """How to install it in ComfyUI's Python."""

    @property
    def installed(self) -> bool:
        """Whether it can be found for import; it is not imported."""
        return find_spec(self.module) is not None

    @property
    def version(self) -> str | None:
        """Its version, if known."""
        for name in self.distributions:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None


INSIGHTFACE_PACKAGE = Package(
    "insightface", ("insightface",), "finds faces with 68 landmarks; ArcFace", "pip install insightface"
)
ONNXRUNTIME = Package(
    "onnxruntime",
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"),
    "runs insightface's networks",
    "pip install onnxruntime",
)
FACENET_PYTORCH = Package(
    "facenet_pytorch",
    ("facenet-pytorch",),
    "MTCNN, which finds faces with 5 landmarks",
    "pip install --no-deps facenet-pytorch",
)
OPEN_CLIP_PACKAGE = Package("open_clip", ("open_clip_torch",), "CLIP score and prompt accuracy", "pip install open_clip_torch")
PYTORCH3D = Package(
    "pytorch3d", ("pytorch3d",), "another rasteriser in Render Head", "github.com/facebookresearch/pytorch3d, INSTALL.md"
)
KORNIA = Package("kornia", ("kornia",), "required by ComfyUI; the pack does not use it", "pip install kornia")
PORTRAIT = "Portraits with the built-in head"
PACKAGES = (INSIGHTFACE_PACKAGE, ONNXRUNTIME, FACENET_PYTORCH, OPEN_CLIP_PACKAGE, PYTORCH3D, KORNIA)


@dataclass(frozen=True)
class Capability:
    """A capability of the pack and its missing requirements."""

    name: str
    missing: tuple[str, ...]
    """Empty if it works, else a short description of each missing requirement."""


@dataclass(frozen=True)
class Inventory:
    """The files and packages that were found."""

    reports: Sequence[AssetReport]
    checkpoints: Sequence[Path]
    clip_visions: Sequence[Path]
    has: Callable[[Package], bool] = lambda package: package.installed

    def file(self, asset: Asset) -> bool:
        """Whether a usable file of an asset was found."""
        return any(report.usable for report in self.reports if report.asset is asset)

    def in_pack(self, *patterns: str) -> bool:
        """Whether an insightface pack was found that contains a file matching one of the patterns."""
        packs = [one.path for report in self.reports if report.asset is catalogue.INSIGHTFACE for one in report.found]
        return any(any(pack.glob(pattern)) for pack in packs for pattern in patterns)


def capabilities(inventory: Inventory) -> list[Capability]:
    """List the capabilities, in the order in which a user meets them."""

    def file(asset: Asset) -> list[str]:
        return [] if inventory.file(asset) else [f"{asset.file} in models/{asset.folder}"]

    def packages(*wanted: Package) -> list[str]:
        return [f"the package {one.distributions[0]}" for one in wanted if not inventory.has(one)]

    insightface = packages(INSIGHTFACE_PACKAGE, ONNXRUNTIME) + file(catalogue.INSIGHTFACE)
    mtcnn = packages(FACENET_PYTORCH)
    dense = insightface or ([] if inventory.in_pack(LANDMARK_FILE) else [f"{LANDMARK_FILE} in the insightface pack"])
    mesh = any(map(inventory.file, (catalogue.FACE_LANDMARKER, catalogue.COMFYUI_FACE_LANDMARKER)))
    found = mesh or not insightface or not mtcnn
    detector = [] if found else [f"a face detector ({' and '.join(insightface)}; or {mtcnn[0]}; or face_landmarker.task)"]
    mesh = [] if mesh else [*file(catalogue.FACE_LANDMARKER), f"or {catalogue.COMFYUI_FACE_LANDMARKER.file} there"]
    arcface = insightface or (
        []
        if inventory.in_pack(*RECOGNITION_FILES)
        else ["a recognition network in the insightface pack, such as w600k_r50.onnx"]
    )
    flame = file(catalogue.FLAME)
    drawn = flame + file(catalogue.FLAME_TEMPLATE)
    deca = detector + file(catalogue.DECA) + flame

    clip = any(is_clip_vit_l(path) for path in inventory.clip_visions) or any(
        path.suffix != ".safetensors" for path in inventory.clip_visions
    )
    clip = [] if clip or inventory.file(catalogue.OPEN_CLIP) else ["CLIP ViT-L/14 in models/clip_vision"]
    base = any(path.suffix != ".safetensors" or is_sd15(path) for path in inventory.checkpoints)
    base = [] if base else ["a Stable Diffusion 1.x checkpoint in models/checkpoints"]
    portrait = file(catalogue.CAPHUMAN) + file(catalogue.FACENET) + clip + base + detector

    needs = {
        PORTRAIT: portrait,
        "Portraits with FLAME's head": portrait + drawn,
        "Heads from 478 landmarks": mesh,
        "Heads from 68 landmarks": dense,
        "Heads from 5 landmarks": detector,
        "Heads by DECA": deca,
        "FLAME's heads fitted to landmarks": flame + file(catalogue.FLAME_LANDMARKS) + detector,
        "FLAME's skin": drawn + file(catalogue.FLAME_TEXTURE),
        "Painting all but the face white (parsing)": file(catalogue.PARSER),
        "Drawing heads with PyTorch3D": packages(PYTORCH3D),
        "Measuring ID similarity": file(catalogue.FACENET) + detector,
        "Measuring ID similarity by ArcFace, too": arcface,
        "Measuring landmark errors": detector,
        "Measuring head precision by DECA": deca,
        "Measuring CLIP score and prompt accuracy": file(catalogue.OPEN_CLIP) + packages(OPEN_CLIP_PACKAGE),
    }
    return [Capability(name, tuple(dict.fromkeys(missing))) for name, missing in needs.items()]
