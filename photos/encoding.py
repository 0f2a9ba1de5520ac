"""Identity encoding: photos of a person to the global and local features that CapFace is conditioned on.

`IdentityEncoder` is the protocol. `PhotoEncoder` implements it for the released CapFace: the face is found, aligned, parsed and
painted around with white; FaceNet gives the global features and CLIP ViT-L/14 the local ones.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput, NoFaceFound
from ..files import catalogue
from ..models.clip import VIT_L
from ..models.faces import FaceDetection, facenet_face, keep_face
from .analysis import FaceAnalyzer
from .given import GivenFaces
from .portrait import align

Photos = Sequence[Tensor] | Tensor
"""B photos, RGB `[3, H, W]` in 0..1: a batch, or a list of photos of different sizes."""
ON_NO_FACE = ("error", "skip", "passthrough")
PARSE = ("auto", "on", "off")
SMALL_FACE = 64
"""Pixels. A smaller face has lost detail that CLIP would encode."""
PANEL = 512
"""Height of the preview in pixels."""
WITHOUT_PARSER = (
    "The face parser is missing: CLIP encodes the whole portrait, including background and clothes. "
    f"{catalogue.PARSER.how_to_get()} and put it into models/{catalogue.PARSER.folder}, or set parse to off."
)

log = logging.getLogger("capface")


@dataclass(frozen=True)
class Features:
    """The encoders of identity features and the sizes of their outputs. A CapFace accepts those that it was trained with."""

    global_encoder: str
    local_encoder: str
    global_width: int
    local_tokens: int
    local_width: int

    def __str__(self) -> str:
        """Return shapes and encoders for messages."""
        return (
            f"[B, {self.global_width}] ({self.global_encoder}) and "
            f"[B, {self.local_tokens}, {self.local_width}] ({self.local_encoder})"
        )


RELEASED = Features("FaceNet InceptionResnetV1 VGGFace2", "CLIP ViT-L/14 OpenAI", 512, *VIT_L)
"""The features that the released checkpoint was trained with: CLIP's last hidden state before its last layer norm."""


@dataclass(frozen=True)
class EncodeOptions:
    """How photos are encoded."""

    face: str = "largest"
    """The order in which faces are counted, as for `choose_face`."""
    face_index: int = 0
    """Which face in that order."""
    on_no_face: str = "error"
    """One of `ON_NO_FACE`. "error" fails if a photo does not show that face; "skip" leaves such photos out, if any is left;
    "passthrough" gives them a null identity."""
    align: bool = True
    """Whether each face is first brought upright into the middle of a 512 × 512 portrait, as in the training photos. Otherwise
    the whole photo is parsed and encoded by CLIP, as in the released script."""
    parse: str = "auto"
    """One of `PARSE`: whether everything except the face is painted white for CLIP. "auto" does so if there is a parser."""
    hair: bool = False
    """Whether the hair stays unpainted too."""
    ears: bool = False
    """Whether ears and earrings stay unpainted too."""
    given: GivenFaces | None = None
    """The faces among which one is chosen, if they are known."""

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            BadInput: `on_no_face` or `parse` is not one of the choices.
        """
        if self.on_no_face not in ON_NO_FACE:
            raise BadInput(f"on_no_face must be one of {', '.join(ON_NO_FACE)}, got {self.on_no_face!r}.")
        if self.parse not in PARSE:
            raise BadInput(f"parse must be one of {', '.join(PARSE)}, got {self.parse!r}.")


@dataclass(frozen=True, eq=False)
class EncodedPhotos:
    """The features of B photos, and what the user should know about them."""

    global_: Tensor
    """Embeddings float32 `[B, G]`, each of length 1; zeros where the photo has no face."""
    local: Tensor
    """Tokens float32 `[B, N, L]`; zeros where the photo has no face."""
    present: Tensor
    """Whether each photo has a face: bool `[B]`."""
    preview: Tensor
    """RGB `[B, 3, 512, 1536]` in 0..1: the portrait, CLIP's input, and FaceNet's input."""
    scores: list[float]
    """Detection score of each face."""
    areas: list[float]
    """Area of each face in its photo, in square pixels."""
    notes: list[str]
    """Warnings: small faces, a missing parser."""


@runtime_checkable
class IdentityEncoder(Protocol):
    """Photos of people to identity features."""

    @property
    def features(self) -> Features:
        """The encoders and their sizes."""
        ...

    def encode(self, images: Photos, options: EncodeOptions) -> EncodedPhotos:
        """Encode B photos.

        Raises:
            NoFaceFound: A face is missing, as `options.on_no_face` says.
        """
        ...


@dataclass(frozen=True, eq=False)
class EncodedPortraits:
    """The features of N portraits and the inputs of the two networks."""

    global_: Tensor
    """`[N, 512]` float32."""
    local: Tensor
    """`[N, 257, 1024]` float32."""
    faces: Tensor
    """FaceNet's inputs `[N, 3, 160, 160]`."""
    painted: list[Tensor]
    """CLIP's inputs, N of RGB `[3, H, W]` in 0..1."""


Stage = Callable[[str, int], AbstractContextManager[None]]
"""Called with the name of a stage and its number of portraits; the stage runs in the context that it returns."""


def _untimed(_stage: str, _portraits: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, eq=False)
class PhotoEncoder:
    """The `IdentityEncoder` of the released CapFace."""

    analyzer: FaceAnalyzer
    tokens: Callable[[list[Tensor]], Tensor]
    """Encodes N RGB portraits `[3, H, W]` in 0..1, all of one size, by CLIP: float `[N, 257, 1024]`."""
    features: Features = RELEASED

    def encode(self, images: Photos, options: EncodeOptions) -> EncodedPhotos:
        """Encode B photos.

        Raises:
            NoFaceFound: For "error", a photo does not show the face; for "skip", no photo does.
            MissingFile: The file of a network is missing.
        """
        return self.encode_faces(*find_person(self.analyzer, images, options), options)

    def encode_faces(self, images: Photos, faces: Sequence[FaceDetection | None], options: EncodeOptions) -> EncodedPhotos:
        """Encode photos in which the faces are known.

        Args:
            images: B photos.
            faces: The face in each image; None gives a null identity.
            options: How they are encoded. Faces are not searched for.
        """
        networks = self.analyzer.networks
        parsed = options.parse == "on" or (options.parse == "auto" and networks.has_parser())
        notes = [WITHOUT_PARSER] if options.parse == "auto" and not parsed else []
        rows, portraits, moved, labels = [], [], [], []
        for i, face in enumerate(faces):
            if face is None:
                continue
            notes += _small(face, i)
            portrait, in_portrait = align(images[i].cpu(), face)[:2] if options.align else (images[i].cpu(), face)
            rows.append(i)
            portraits.append(portrait)
            moved.append(in_portrait)
            labels.append(self.analyzer.parse(portrait[None])[0] if parsed else None)

        batch, known = len(faces), self.features
        global_, local = torch.zeros(batch, known.global_width), torch.zeros(batch, known.local_tokens, known.local_width)
        preview = torch.ones(batch, 3, PANEL, 3 * PANEL)
        present = torch.zeros(batch, dtype=torch.bool)
        if rows:
            encoded = self.encode_portraits(portraits, moved, labels, hair=options.hair, ears=options.ears)
            global_[rows], local[rows], present[rows] = encoded.global_, encoded.local, True
            for i, portrait, painted, crop in zip(rows, portraits, encoded.painted, encoded.faces, strict=True):
                preview[i] = side_by_side(portrait, painted, (crop * 128 + 127.5) / 255)
        return EncodedPhotos(
            global_,
            local,
            present,
            preview,
            [0.0 if face is None else face.score for face in faces],
            [0.0 if face is None else face.area for face in faces],
            notes,
        )

    def encode_portraits(
        self,
        portraits: Sequence[Tensor],
        faces: Sequence[FaceDetection],
        labels: Sequence[Tensor | None],
        *,
        hair: bool = False,
        ears: bool = False,
        stage: Stage = _untimed,
    ) -> EncodedPortraits:
        """Encode portraits that were parsed already.

        Args:
            portraits: N of RGB `[3, H, W]` in 0..1.
            faces: The face in each portrait.
            labels: The parser's labels `[H, W]` of each portrait; None leaves it unpainted.
            hair: Whether the hair stays unpainted.
            ears: Whether ears and earrings stay unpainted.
            stage: Wraps FaceNet and CLIP, to time them.
        """
        with stage("FaceNet", len(portraits)):
            crops = torch.stack([facenet_face(image, face.box) for image, face in zip(portraits, faces, strict=True)])
            global_ = self.analyzer.embed(crops)
        with stage("CLIP", len(portraits)):
            painted = [
                portrait if found is None else keep_face(portrait[None], found[None], hair=hair, ears=ears)[0]
                for portrait, found in zip(portraits, labels, strict=True)
            ]
            one_size = len({portrait.shape for portrait in painted}) == 1
            local = self.tokens(painted) if one_size else torch.cat([self.tokens([portrait]) for portrait in painted])
        return EncodedPortraits(global_, local, crops, painted)


def find_person(
    analyzer: FaceAnalyzer, images: Photos, options: EncodeOptions
) -> tuple[Photos, Sequence[FaceDetection | None]]:
    """Find the person in each photo.

    Args:
        analyzer: The face analyzer.
        images: B photos.
        options: Which face, and what happens to photos without it.

    Returns:
        The photos that are kept, and the face of each; None only for "passthrough".

    Raises:
        NoFaceFound: For "error", a photo does not show the face; for "skip", no photo does.
    """
    if options.on_no_face == "error":
        return images, analyzer.find_faces(images, options.face, options.face_index, options.given)
    try:
        faces = analyzer.find_faces_or_none(images, options.face, options.face_index, options.given)
    except NoFaceFound:
        if options.on_no_face == "skip":
            raise
        return images, [None] * len(images)
    if options.on_no_face == "passthrough":
        return images, faces
    kept = [i for i, face in enumerate(faces) if face is not None]
    return [images[i] for i in kept], [faces[i] for i in kept]


def side_by_side(*pictures: Tensor, height: int = PANEL) -> Tensor:
    """Scale `[3, H, W]` pictures to fit white squares of one height, and join the squares from left to right."""
    panels = []
    for picture in pictures:
        scale = height / max(picture.shape[-2:])
        size = [max(round(side * scale), 1) for side in picture.shape[-2:]]
        panel = picture.new_ones(3, height, height)
        top, left = (height - size[0]) // 2, (height - size[1]) // 2
        scaled = F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]
        panel[:, top : top + size[0], left : left + size[1]] = scaled
        panels.append(panel)
    return torch.cat(panels, dim=-1)


def _small(face: FaceDetection, i: int) -> list[str]:
    width, height = (face.box[2:] - face.box[:2]).tolist()
    if min(width, height) >= SMALL_FACE:
        return []
    note = (
        f"The face in image {i + 1} has {width:.0f} × {height:.0f} pixels; under {SMALL_FACE}, little of its detail is left. "
        "Use a larger photo of it."
    )
    log.warning(note)
    return [note]
