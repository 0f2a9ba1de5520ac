"""Reading identities from photos: the face is aligned, cut out and painted around, and read by FaceNet and CLIP."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput, NoFaceFound
from ..models.faces import FaceDetection, keep_face
from ..photos.portrait import cut
from .clip_vision import clip_tokens
from .identity import Identity, nobody
from .reader import FaceReader

ON_NO_FACE = ("error", "skip", "passthrough")
PARSE = ("auto", "on", "off")
SMALL_FACE = 64
"""Pixels; a face that is smaller has lost what CLIP would read of it."""
PANEL = 512
"""Height of the preview, in pixels."""

log = logging.getLogger("capface")


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read from photos, and how well."""

    identity: Identity
    """One row a photo."""
    preview: Tensor
    """RGB `[B, 3, 512, 1536]`: the portrait, what CLIP saw of it, and what FaceNet saw."""
    scores: list[float]
    """The detector's, one a photo."""
    areas: list[float]
    """Of the faces in their photos, in square pixels."""
    notes: list[str]
    """What the user should know: small faces, a missing parser."""


def find_references(
    reader: FaceReader, images: Tensor, which: str, index: int, on_no_face: str
) -> tuple[Tensor, list[FaceDetection | None]]:
    """Find the person in each photo.

    Args:
        reader: What finds faces.
        images: RGB `[B, 3, H, W]` in 0..1.
        which: The order in which faces are counted, as for `choose_face`.
        index: Which face in that order.
        on_no_face: "error"; "skip" leaves such photos out, if any is left; "passthrough" keeps them with None.

    Returns:
        The photos that stay, and the face of each.

    Raises:
        NoFaceFound: for "error", if a photo does not show that face; for "skip", if none does.
        BadInput: for another `on_no_face`.
    """
    if on_no_face not in ON_NO_FACE:
        raise BadInput(f"Photos without a face are treated by {', '.join(ON_NO_FACE)}, got {on_no_face!r}.")
    if on_no_face == "error":
        return images, reader.faces(images, which, index)
    try:
        faces = reader.faces_where_there_are(images, which, index)
    except NoFaceFound:
        if on_no_face == "skip":
            raise
        return images, [None] * len(images)
    if on_no_face == "passthrough":
        return images, faces
    kept = [i for i, face in enumerate(faces) if face is not None]
    return images[kept], [faces[i] for i in kept]


def encode_identity(
    reader: FaceReader,
    images: Tensor,
    faces: Sequence[FaceDetection | None],
    clip_vision=None,
    *,
    align: bool = True,
    parse: str = "auto",
    hair: bool = False,
    ears: bool = False,
) -> Reading:
    """Read who is in the photos.

    Args:
        reader: What reads faces.
        images: RGB `[B, 3, H, W]` in 0..1.
        faces: The face of each; None gives a row of nobody.
        clip_vision: ComfyUI's CLIP_VISION with CLIP ViT-L/14; the reader's open_clip file by default.
        align: Bring each face upright into the middle of a 512 × 512 portrait first, as the training photos were. Without it
            the whole photo is parsed and read by CLIP, as the released script does.
        parse: Paint all but the face white for CLIP: "on", "off", or "auto", where the parser's file is there.
        hair: Leave the hair unpainted too.
        ears: Leave ears and earrings unpainted too.

    Raises:
        BadInput: without any CLIP, with another one, or for another `parse`.
        MissingFile: when a network's file is not there.
    """
    if parse not in PARSE:
        raise BadInput(f"Faces are parsed {', '.join(PARSE)}, got {parse!r}.")
    clip_vision = clip_vision or reader.clip_vision
    if clip_vision is None:
        raise BadInput(
            "The local identity is read by CLIP ViT-L/14: connect Load CLIP Vision to clip_vision, or choose an open_clip file "
            "in Load Face Reader."
        )
    parsed = parse == "on" or (parse == "auto" and reader.can_parse)
    notes = [reader.without_parser] if reader.without_parser and not parsed and parse != "off" else []
    shown = [i for i, face in enumerate(faces) if face is not None]
    portraits, painted, crops = [], [], []
    for i in shown:
        notes += _small(faces[i], i)
        portrait, crop = cut(images[i].cpu(), faces[i], align)
        portraits.append(portrait)
        painted.append(keep_face(portrait[None], reader.parse(portrait[None]), hair=hair, ears=ears)[0] if parsed else portrait)
        crops.append(crop)

    identity = nobody(len(faces), reader.features)
    preview = torch.ones(len(faces), 3, PANEL, 3 * PANEL)
    if shown:
        identity.global_[shown] = reader.embed(torch.stack(crops))
        identity.local[shown] = clip_tokens(clip_vision, painted, reader.features)
        identity.strength[shown] = 1
    for i, *pictures in zip(shown, portraits, painted, crops, strict=True):
        preview[i] = side_by_side(*pictures[:2], (pictures[2] * 128 + 127.5) / 255)
    return Reading(
        Identity(identity.global_, identity.local, identity.strength, features=reader.features),
        preview,
        [0.0 if face is None else face.score for face in faces],
        [0.0 if face is None else face.area for face in faces],
        notes,
    )


def side_by_side(*pictures: Tensor, height: int = PANEL) -> Tensor:
    """Scale `[3,H,W]` pictures to one height, put on white squares of it, and join them from left to right."""
    panels = []
    for picture in pictures:
        scale = height / max(picture.shape[-2:])
        size = [max(round(side * scale), 1) for side in picture.shape[-2:]]
        panel = picture.new_ones(3, height, height)
        top, left = (height - size[0]) // 2, (height - size[1]) // 2
        scaled = torch.nn.functional.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]
        panel[:, top : top + size[0], left : left + size[1]] = scaled
        panels.append(panel)
    return torch.cat(panels, dim=-1)


def _small(face: FaceDetection, i: int) -> list[str]:
    width, height = (face.box[2:] - face.box[:2]).tolist()
    if min(width, height) >= SMALL_FACE:
        return []
    note = (
        f"The face in image {i + 1} has {width:.0f} × {height:.0f} pixels; under {SMALL_FACE}, little of its detail is left to "
        "read. Use a larger photo of it."
    )
    log.warning(note)
    return [note]
