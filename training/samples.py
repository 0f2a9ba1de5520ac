"""From photos to samples: face, portrait, head, light, labels and features, or why a photo was left out.

What is read of a portrait is what the nodes Encode Identity and Fit Head read of a photo: the same detectors, crops, networks
and fit. The head is fitted to the portrait, in whose frame it will be drawn.
"""

import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import BadFile, BadInput
from ..flame.builtin import builtin_head
from ..flame.fitting import DECA_KINDS, deca_heads, face_size, fit_landmarks, landmark_error, light_from_photo
from ..flame.io import heads_to_json, load_flame
from ..flame.model import HeadModel, HeadParams, detected_to_frame
from ..models.clip import load_clip_tokens
from ..models.faces import (
    ALIGNED_SIZE,
    FaceDetection,
    facenet_face,
    keep_face,
    load_deca,
    load_facenet,
    load_parser,
    open_detector,
    split_code,
)
from ..photos.portrait import align, deca_face
from .photo_files import Photo, caption_of
from .rules import Rejected, Rules
from .shards import Sample

JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}


@dataclass(frozen=True)
class Networks:
    """Files of what reads faces; a path each."""

    facenet: str
    clip: str
    parser: str | None = None
    deca: str | None = None
    head: str | None = None
    """FLAME; the built-in head where there is none."""
    detector: str = "auto"
    """As for `open_detector`."""
    insightface: str = "insightface"
    """The folder that holds insightface's `models`."""


@dataclass
class Found:
    """What is known of a photo so far."""

    number: int
    photo: Photo
    caption: str
    portrait: Tensor
    face: FaceDetection
    about: dict
    head: HeadParams | None = None
    labels: Tensor | None = None


@dataclass
class Batch:
    """What was made of some photos."""

    samples: list[Sample] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    """Source, reason and detail of each."""
    stages: dict[str, list[float]] = field(default_factory=dict)
    """Name of each stage: how many photos came to it, and how many seconds of a core they took."""

    def add(self, other: "Batch") -> None:
        """Put another one's behind."""
        self.samples += other.samples
        self.rejected += other.rejected
        for name, (count, seconds) in other.stages.items():
            before = self.stages.get(name, [0, 0.0])
            self.stages[name] = [before[0] + count, before[1] + seconds]

    @contextmanager
    def timed(self, stage: str, photos: int = 1) -> Iterator[None]:
        """Count what happens as a stage's, in seconds of a core: those that this process works, not those that it waits."""
        start = time.process_time()
        try:
            yield
        finally:
            self.add(Batch(stages={stage: [photos, time.process_time() - start]}))


class Reader:
    """Reads photos by networks that are loaded once.

    Args:
        folder: Of the photos.
        networks: What they are read by.
        rules: Which of them are left out.
        caption: Of photos without a text file.
        device: Where the networks run.

    Raises:
        MissingFile, MissingPackage, BadFile: A network cannot be loaded.
        BadInput: DECA with a head that its codes mean nothing on, or a head that neither DECA nor landmarks can be read into.
    """

    def __init__(self, folder: Path, networks: Networks, rules: Rules, caption: str, device: str = "cpu"):
        self.folder, self.rules, self.caption, self.device = folder, rules, caption, torch.device(device)
        self.model = load_head(networks.head)
        if networks.deca and self.model.kind not in DECA_KINDS:
            raise BadInput(
                f"DECA reads heads in the components of FLAME 2020, which mean nothing on the head model '{self.model.name}'. "
                "Give --head generic_model.pkl of FLAME 2020, or leave --deca out."
            )
        if not (networks.deca or self.model.has_landmarks):
            raise BadInput(
                f"The head model '{self.model.name}' was loaded without landmarks and there is no DECA: put "
                "landmark_embedding.npy beside it, or give --deca."
            )
        self.detector = open_detector(networks.detector, networks.insightface)
        self.facenet = load_facenet(networks.facenet, device=self.device)
        self.clip = load_clip_tokens(networks.clip, device=self.device)
        self.parser = load_parser(networks.parser, device=self.device) if networks.parser else None
        self.deca = load_deca(networks.deca, device=self.device) if networks.deca else None

    @torch.inference_mode()
    def read(self, photos: list[tuple[int, Photo]]) -> Batch:
        """Make samples of photos, each with its number."""
        batch = Batch()
        found = self._each(batch, photos, lambda item: self._find(batch, *item), lambda item: item[1])
        if self.deca and found:
            with batch.timed("DECA", len(found)):
                crops, transforms = zip(*(deca_face(one.portrait, one.face) for one in found), strict=True)
                codes = self.deca(self._on_device(crops)).float().cpu().split(1)
            seen = list(zip(found, codes, transforms, strict=True))
            found = self._each(batch, seen, lambda each: self._start_head(*each), lambda each: each[0].photo)
        found = self._each(batch, found, lambda one: self._fit(batch, one), lambda one: one.photo)
        if self.parser and found:
            with batch.timed("parse", len(found)):
                labels = self.parser.parse(self._on_device([one.portrait for one in found])).cpu()
            for one, found_labels in zip(found, labels, strict=True):
                one.labels = found_labels
            found = self._each(batch, found, self._check_labels, lambda one: one.photo)
        if found:
            with batch.timed("FaceNet", len(found)):
                faces = [facenet_face(one.portrait, one.face.box) for one in found]
                embeddings = self.facenet(self._on_device(faces)).float().cpu()
            with batch.timed("CLIP", len(found)):
                tokens = self.clip(self._on_device([painted(one) for one in found])).half().cpu()
            with batch.timed("write", len(found)):
                batch.samples = [self._sample(*each) for each in zip(found, embeddings, tokens, strict=True)]
        batch.rejected.sort(key=lambda one: one["source"])
        return batch

    def _each(self, batch: Batch, items: list, do: Callable, photo_of: Callable) -> list:
        """Do something with each, and keep what is not rejected."""
        kept = []
        for item in items:
            try:
                kept.append(do(item))
            except (Rejected, BadInput) as error:  # BadInput: landmarks that lie on one point
                reason = error.reason if isinstance(error, Rejected) else "bad fit"
                batch.rejected.append({"source": photo_of(item).source, "reason": reason, "detail": str(error)})
        return kept

    def _find(self, batch: Batch, number: int, photo: Photo) -> Found:
        if photo.same_as:
            raise Rejected("duplicate", f"of {photo.same_as}")
        path = self.folder / photo.source
        try:
            caption = caption_of(path, self.caption)
        except UnicodeDecodeError as error:
            raise Rejected("caption", str(error)) from None
        with batch.timed("decode"):
            image = load_photo(path)
        with batch.timed("detect"):
            face = self.rules.choose(self.detector.detect(image))
        with batch.timed("align"):
            portrait, moved, transform = align(image, face)
            outside = self.rules.check_frame(transform, *image.shape[-2:])
        about = {
            "side": round(ALIGNED_SIZE / transform[:2, 0].norm().item(), 1),
            "outside": round(outside, 4),
            "score": round(face.score, 4),
            "landmarks": 5 if face.points68 is None else 68,
        }
        return Found(number, photo, caption, portrait, moved, about)

    def _start_head(self, one: Found, code: Tensor, transform: Tensor) -> Found:
        """The head by DECA's code `[1, 236]` of the crop that the transform leads to."""
        try:
            one.head = deca_heads(split_code(code), transform[None], ALIGNED_SIZE, ALIGNED_SIZE)
        except BadFile as error:  # one odd photo shall not end a long run; if it is the file, all photos say so
            raise Rejected("bad fit", str(error)) from None
        return one

    def _fit(self, batch: Batch, one: Found) -> Found:
        """The head by landmarks, from DECA's on where there is one, and what light it is in where DECA did not say."""
        by_deca, error = one.head is not None, torch.nan
        if self.model.has_landmarks:
            with batch.timed("fit"):
                points = one.face.points5 if one.face.points68 is None else one.face.points68
                points = detected_to_frame(points[None], ALIGNED_SIZE, ALIGNED_SIZE)
                one.head = fit_landmarks(self.model, points, start=one.head).params
                error = (landmark_error(self.model, one.head, points) / face_size(self.model, one.head)).item()
        one.about["turn"] = round(self.rules.check_head(one.head, error), 2)
        one.about["fit_error"] = None if error != error else round(error, 5)
        if not by_deca:
            with batch.timed("light"):
                try:
                    light = light_from_photo(self.model, one.head, one.portrait[None])
                except BadInput as few:
                    raise Rejected("badly exposed", str(few)) from None
            one.head = one.head.replace(light=light)
        return one

    def _check_labels(self, one: Found) -> Found:
        self.rules.check_labels(one.labels)
        return one

    def _sample(self, one: Found, embedding: Tensor, tokens: Tensor) -> Sample:
        head = json.loads(heads_to_json(one.head, self.model.kind))
        del head["units"]  # the same in every sample
        about = {"caption": one.caption, "identity": one.photo.identity, "source": one.photo.source, **one.about, "head": head}
        members = {
            "jpg": encode(one.portrait.mul(255).round().byte().movedim(0, -1), **JPEG),
            "json": json.dumps(about, ensure_ascii=False).encode(),
            "global.npy": array_bytes(embedding),
            "local.npy": array_bytes(tokens),
        }
        if one.labels is not None:
            members["parsing.png"] = encode(one.labels.byte(), format="PNG")
        return Sample(f"{one.number:08d}", one.photo.identity, one.photo.source, members)

    def _on_device(self, images) -> Tensor:
        return torch.stack(list(images)).to(self.device)


def load_head(path: str | None) -> HeadModel:
    """FLAME of a file, or the built-in head where there is none."""
    return load_flame(path) if path else builtin_head()


def load_photo(path: Path) -> Tensor:
    """A photo as it is looked at, float32 `[3, H, W]` in 0..1.

    Raises:
        Rejected: It cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no reason to speak
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception as error:  # Pillow's readers each raise their own for a broken file
        raise Rejected("unreadable", f"{type(error).__name__}: {error}") from None
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 255


def painted(one: Found) -> Tensor:
    """What CLIP sees: the face on white, or the whole portrait where nothing tells what is face."""
    return one.portrait if one.labels is None else keep_face(one.portrait[None], one.labels[None])[0]


def encode(pixels: Tensor, **options) -> bytes:
    """Pixels uint8 `[H, W]` or `[H, W, 3]` as a picture file."""
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, **options)
    return file.getvalue()


def array_bytes(array: Tensor) -> bytes:
    """An array as an npy file."""
    file = io.BytesIO()
    np.save(file, array.contiguous().numpy(), allow_pickle=False)
    return file.getvalue()
