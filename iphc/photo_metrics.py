"""What published networks tell about portraits of people on photos: the paper's seven numbers and more, see README.md.

Faces are found, aligned, embedded and fitted by the same code as in the nodes Encode Identity, Fit Head and Measure Portrait
(`photos`). In every picture the largest face counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ..errors import BadInput, MissingFile, NoFaceFound, how_to_install
from ..files import catalogue
from ..flame.builtin import builtin_head
from ..flame.editing import edit_head
from ..flame.fitting import ERROR_GROUPS, face_size, head_difference, head_rmse
from ..flame.io import load_flame
from ..flame.model import HeadModel, HeadParams
from ..models.clip import cosine, is_best, load_open_clip_model, prompt_scores
from ..models.faces import (
    ArcFace,
    FaceDetection,
    detector_problems,
    load_deca,
    load_face_landmarker,
    load_facenet,
    open_detector,
)
from ..photos.analysis import FaceAnalyzer, PlainNetworks
from ..photos.heads import fit_one_by_one, heads_from_codes
from ..photos.landmarks import landmarks_of
from ..photos.pictures import read_picture
from ..photos.portrait import cut_portrait
from .model_files import find
from .people import Person
from .workflow import head_inputs, shapes_face

if TYPE_CHECKING:
    from .manifest import Manifest

VERSION = 1
"""Changes when the same images would get other numbers."""
BATCH = 16
"""Pictures that a network takes at once."""


class Recogniser(Protocol):
    """ArcFace."""

    def embed(self, image: Tensor, points5: Tensor) -> Tensor:
        """Return the vector `[N]` of a face in an RGB image `[3, H, W]` in 0..1."""
        ...


class ImagesAndTexts(Protocol):
    """CLIP."""

    def images(self, images: Tensor) -> Tensor:
        """Return the vectors `[B, N]` of RGB images `[B, 3, H, W]` in 0..1."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors `[P, N]` of texts."""
        ...


@dataclass(frozen=True, eq=False)
class PhotoNetworks:
    """The networks of a manifest's metrics."""

    analyzer: FaceAnalyzer
    """Detector, FaceNet and DECA."""
    arcface: Recogniser | None = None
    clip: ImagesAndTexts | None = None
    flame: HeadModel | None = None
    """FLAME 2020, whose components DECA's numbers belong to."""
    device: torch.device | str = "cpu"
    """Of CLIP."""
    about: str = ""
    """Names the files and the detector; numbers of other ones are not mixed."""


def problems(manifest: "Manifest", folders: Sequence[Path]) -> list[str]:
    """Return what the metrics lack besides model files, which `model_files.missing` names: packages, and any face detector.

    Args:
        manifest: The manifest.
        folders: Folders laid out like ComfyUI's `models`.
    """
    from importlib.util import find_spec

    found = []
    if "clip" in manifest.metrics and find_spec("open_clip") is None:
        found.append(f"metric clip: {how_to_install('open_clip_torch')}")
    if "arcface" in manifest.metrics and find_spec("insightface") is None:
        found.append(f"metric arcface: {how_to_install('insightface onnxruntime')}")
    if asks_faces(manifest) and _landmarker(folders) is None:
        lacking = detector_problems(_insightface(folders))
        if all(lacking.values()):
            found.append(
                f"no face detector: needs models/{catalogue.FACE_LANDMARKER.folder}/{catalogue.FACE_LANDMARKER.file}, or "
                + ", or ".join(text for text in lacking.values() if text)
            )
    return found


def asks_faces(manifest: "Manifest") -> bool:
    """Return whether any metric of a manifest looks for faces."""
    return bool({"facenet", "arcface", "deca", "landmarks"} & set(manifest.metrics))


def _landmarker(folders: Sequence[Path]) -> Path | None:
    assets = (catalogue.FACE_LANDMARKER, catalogue.COMFYUI_FACE_LANDMARKER)
    return next((path for asset in assets if (path := find(folders, f"{asset.folder}/{asset.file}"))), None)


def _insightface(folders: Sequence[Path]) -> Path:
    """Return the folder of insightface's packs."""
    found = find(folders, f"{catalogue.INSIGHTFACE.folder}/{catalogue.INSIGHTFACE.file}")
    first = folders[0] if folders else Path("models")
    return first / catalogue.INSIGHTFACE.folder if found is None else found.parents[2]


def open_networks(manifest: "Manifest", folders: Sequence[Path], device: str = "cpu") -> PhotoNetworks:
    """Load the networks of a manifest's metrics.

    Args:
        manifest: The manifest.
        folders: Folders laid out like ComfyUI's `models`.
        device: Of the networks except detector and landmarker.

    Raises:
        MissingFile, MissingPackage: Something is missing.
        BadFile: A file is another network.
    """
    used: list[str] = []

    def path(asset: catalogue.Asset) -> Path:
        found = find(folders, f"{asset.folder}/{asset.file}")
        if found is None:
            searched = ", ".join(map(str, folders)) or "no folder: name one with --models"
            raise MissingFile(f"models/{asset.folder}/{asset.file} is missing (searched: {searched}). {asset.how_to_get()}.")
        used.append(f"{asset.folder}/{asset.file} ({found.stat().st_size} bytes)")
        return found

    asked, on = manifest.metrics, torch.device(device)
    facenet = load_facenet(path(catalogue.FACENET), device=on) if "facenet" in asked else None
    deca = load_deca(path(catalogue.DECA), device=on) if "deca" in asked else None
    clip = load_open_clip_model(path(catalogue.OPEN_CLIP), device=on) if "clip" in asked else None
    flame = None
    if "deca" in asked and any(shapes_face(condition) for condition in manifest.heads.values()):
        flame = load_flame(path(catalogue.FLAME))
    arcface = detector = landmarker = None
    if "arcface" in asked:
        path(catalogue.INSIGHTFACE)
        arcface = ArcFace(_insightface(folders))
    if asks_faces(manifest):
        mesh, packs = _landmarker(folders), _insightface(folders)
        landmarker = None if mesh is None else load_face_landmarker(mesh)
        if landmarker is None or not all(detector_problems(packs).values()):
            detector = open_detector("auto", packs)
        used.append(f"detector {type(detector or landmarker).__name__}, face mesh {mesh.name if mesh else 'none'}")
    networks = PlainNetworks(detector, facenet, None, deca, on, landmarker)
    return PhotoNetworks(FaceAnalyzer(networks), arcface, clip, flame, on, "; ".join(used))


@dataclass(frozen=True, eq=False)
class _Reference:
    """What is known of a person's photo."""

    facenet: Tensor | None = None
    """`[1, 512]`."""
    arcface: Tensor | None = None
    """`[1, N]`."""
    deca: HeadParams | None = None
    """The head in DECA's numbers."""
    head: HeadParams | None = None
    """The built-in head, fitted to the landmarks."""


@dataclass(frozen=True, eq=False)
class _Face:
    """A face in a picture."""

    picture: Tensor
    face: FaceDetection
    crop: Tensor
    """FaceNet's input."""


class PhotoMetrics:
    """Measures portraits of one manifest."""

    def __init__(self, manifest: "Manifest", networks: PhotoNetworks):
        """Take the networks; the texts are read by CLIP now."""
        self.manifest, self.networks = manifest, networks
        self.model = builtin_head()
        self.mark = repr((VERSION, sorted(manifest.metrics), networks.about))
        self.identity = "facenet" in manifest.metrics
        self._known: tuple[str, _Reference | None] = ("", None)
        self._texts: Tensor | None = None
        if networks.clip is not None:
            subject = manifest.resolved["subject"]
            with torch.inference_mode():
                texts = [prompt.replace("{subject}", subject) for prompt in manifest.prompts]
                self._texts = networks.clip.texts(texts).float().cpu()

    @torch.inference_mode()
    def measure(
        self, person: Person, heads: Sequence[str], prompts: Sequence[int], pictures: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Measure portraits of a person.

        Args:
            person: Whom they should show.
            heads: Names of the N head conditions.
            prompts: Indices of the N prompts.
            pictures: N pictures, RGB `[3, H, W]` in 0..1.

        Returns:
            Numbers `[N]` by column; NaN where a picture shows no face, or the person's photo does not.
        """
        columns: dict[str, Tensor] = {}
        if asks_faces(self.manifest):
            found = [self._face(picture) for picture in pictures]
            rows = [i for i, one in enumerate(found) if one is not None]
            faces = [one for one in found if one is not None]
            columns["found"] = torch.zeros(len(pictures)).index_fill(0, torch.tensor(rows, dtype=torch.int64), 1.0)
            reference = self._reference(person)
            for name, values in self._of_faces(reference, [heads[i] for i in rows], faces).items():
                columns[name] = torch.full((len(pictures),), math.nan).index_copy(
                    0, torch.tensor(rows, dtype=torch.int64), values.float()
                )
        if self._texts is not None:
            columns |= self._of_prompts(prompts, pictures, self._texts)
        return columns

    def _face(self, picture: Tensor) -> _Face | None:
        """Return the largest face of a picture, or None."""
        try:
            face = self.networks.analyzer.find_face(picture)
            return _Face(picture, face, cut_portrait(picture, face)[1])
        except (NoFaceFound, BadInput):  # BadInput: its eyes and mouth coincide
            return None

    def _reference(self, person: Person) -> _Reference | None:
        """Return what is known of a person's photo; None if it shows no face."""
        if self._known[0] != person.name:
            assert person.photo is not None
            found = self._face(read_picture(person.photo))
            self._known = person.name, None if found is None else self._read(found)
        return self._known[1]

    def _read(self, found: _Face) -> _Reference:
        networks = self.networks
        facenet = self._facenet([found]) if "facenet" in self.manifest.metrics else None
        arcface = None if networks.arcface is None else self._arcface(networks.arcface, [found])
        deca = self._deca([found])[0] if "deca" in self.manifest.metrics else None
        head = self._fit(found) if "landmarks" in self.manifest.metrics else None
        return _Reference(facenet, arcface, deca, head)

    def _of_faces(self, reference: _Reference | None, heads: Sequence[str], faces: Sequence[_Face]) -> dict[str, Tensor]:
        """Return the columns `[R]` of R faces."""
        if reference is None or not faces:
            return {}
        columns = {}
        if reference.facenet is not None:
            columns["id"] = cosine(self._facenet(faces), reference.facenet)
        if reference.arcface is not None and self.networks.arcface is not None:
            columns["arcface"] = cosine(self._arcface(self.networks.arcface, faces), reference.arcface)
        if reference.deca is not None:
            model = self.networks.flame or self.model
            wanted = {name: self._wanted(model, reference.deca, name) for name in set(heads)}
            errors = [head_rmse(wanted[name], found) for name, found in zip(heads, self._deca(faces), strict=True)]
            columns |= {group: torch.cat([error[group] for error in errors]) for group in ERROR_GROUPS}
        if reference.head is not None:
            wanted = {name: self._wanted(self.model, reference.head, name) for name in set(heads)}
            found = [self._landmarks(one, wanted[name]) for one, name in zip(faces, heads, strict=True)]
            columns["landmarks"], columns["turn"] = torch.tensor(found).reshape(-1, 2).unbind(1)
        return columns

    def _wanted(self, model: HeadModel, own: HeadParams, head: str) -> HeadParams:
        """Return the head that was asked for: the person's own, changed by a head condition."""
        return edit_head(model, own, **head_inputs(self.manifest.heads[head]))

    def _facenet(self, faces: Sequence[_Face]) -> Tensor:
        crops = torch.stack([one.crop for one in faces])
        return torch.cat([self.networks.analyzer.embed(batch) for batch in crops.split(BATCH)])

    def _arcface(self, network: Recogniser, faces: Sequence[_Face]) -> Tensor:
        return torch.stack([network.embed(one.picture, one.face.points5) for one in faces])

    def _deca(self, faces: Sequence[_Face]) -> list[HeadParams]:
        """Return the heads that DECA reads."""
        codes, crops = self.networks.analyzer.deca_codes([one.picture for one in faces], [one.face for one in faces])
        pairs = zip(codes.split(1), crops.split(1), faces, strict=True)
        return [heads_from_codes(code, crop, *one.picture.shape[-2:]) for code, crop, one in pairs]

    def _fit(self, found: _Face) -> HeadParams | None:
        """Return the built-in head, fitted to the landmarks; None if they lie on one point."""
        try:
            return fit_one_by_one(landmarks_of(self.model, [found.face], *found.picture.shape[-2:]))
        except BadInput:
            return None

    def _landmarks(self, found: _Face, wanted: HeadParams) -> tuple[float, float]:
        """Return the distance of the landmarks from those asked for, in percent of the face's height, and the turn in degrees.

        Both are NaN if the landmarks lie on one point.
        """
        head = self._fit(found)
        if head is None:
            return math.nan, math.nan
        landmarks = landmarks_of(self.model, [found.face], *found.picture.shape[-2:])
        error = 100 * landmarks.error(wanted) / face_size(self.model, wanted)
        return error.item(), head_difference(self.model, wanted, head).rotation.item()

    def _of_prompts(self, prompts: Sequence[int], pictures: Sequence[Tensor], texts: Tensor) -> dict[str, Tensor]:
        assert self.networks.clip is not None
        seen = torch.cat([self.networks.clip.images(one[None].to(self.networks.device)).float().cpu() for one in pictures])
        scores = prompt_scores(seen, texts)
        # the right prompt first, as `is_best` expects it
        orders = [[right, *(i for i in range(len(texts)) if i != right)] for right in prompts]
        scores = scores.gather(1, torch.tensor(orders))
        columns = {"clip": scores[:, 0]}
        return columns | {"accuracy": is_best(scores).float()} if len(texts) > 1 else columns
