"""Training samples from photos: face, portrait, head, light, labels and features, or the reason why a photo was rejected.

Faces are analyzed, encoded and fitted by the same code as in the nodes Encode Identity and Fit Head (`photos`). The head is
fitted to the portrait, because it is rendered in the portrait's frame.
"""

import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BadFile, BadInput, MissingFile
from ..flame.builtin import builtin_head
from ..flame.fitting import face_size, light_from_photo
from ..flame.io import heads_to_json, load_flame
from ..flame.model import HeadModel, HeadParams
from ..models.clip import load_clip_tokens
from ..models.faces import (
    ALIGNED_SIZE,
    FaceDetection,
    load_deca,
    load_face_landmarker,
    load_facenet,
    load_parser,
    open_detector,
)
from ..photos.analysis import FaceAnalyzer, PlainNetworks
from ..photos.encoding import PhotoEncoder
from ..photos.heads import deca_refusal, heads_from_codes
from ..photos.landmarks import landmarks_of
from ..photos.pictures import blankness, read_picture
from ..photos.portrait import align
from .photo_files import Photo, caption_of
from .rules import Rejected, Rules
from .shards import Sample

JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
Item = TypeVar("Item")


@dataclass(frozen=True)
class Networks:
    """Paths of the network files."""

    facenet: str
    clip: str
    parser: str | None = None
    deca: str | None = None
    head: str | None = None
    """FLAME; None for the built-in head."""
    detector: str = "auto"
    """As for `open_detector`."""
    insightface: str = "insightface"
    """The folder that holds insightface's `models`."""
    landmarker: str | None = None
    """MediaPipe's Face Landmarker, or None."""

    def absolute(self) -> "Networks":
        """Return the same with paths for processes that have another current folder."""
        paths = {name: path and str(Path(path).resolve()) for name, path in asdict(self).items() if name != "detector"}
        return replace(self, **paths)


@dataclass
class Found:
    """The results for one photo so far."""

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
    """The samples of some photos, and the photos that were rejected."""

    samples: list[Sample] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    """Source, reason and detail of each rejected photo."""
    stages: dict[str, list[float]] = field(default_factory=dict)
    """By name of the stage: the number of its photos, and the CPU seconds that they took."""

    def add(self, other: "Batch") -> None:
        """Append another batch."""
        self.samples += other.samples
        self.rejected += other.rejected
        for name, (count, seconds) in other.stages.items():
            before = self.stages.get(name, [0, 0.0])
            self.stages[name] = [before[0] + count, before[1] + seconds]

    @contextmanager
    def timed(self, stage: str, photos: int = 1) -> Iterator[None]:
        """Count the CPU seconds of this process within the context as those of a stage; waiting does not count."""
        start = time.process_time()
        try:
            yield
        finally:
            self.add(Batch(stages={stage: [photos, time.process_time() - start]}))


class SampleMaker:
    """Makes samples of photos by networks that are loaded once.

    Args:
        folder: The folder of the photos.
        networks: The network files.
        rules: The limits beyond which a photo is rejected.
        caption: The caption of photos without a text file.
        device: The device of the networks.

    Raises:
        MissingFile, MissingPackage, BadFile: A network cannot be loaded.
        BadInput: The head model does not fit DECA, or there is neither DECA nor landmarks to fit it to.
    """

    def __init__(self, folder: Path, networks: Networks, rules: Rules, caption: str, device: str = "cpu"):
        self.folder, self.rules, self.caption = folder, rules, caption
        self.model = load_head(networks.head)
        if networks.deca:
            refusal = deca_refusal(self.model, "Give --head generic_model.pkl of FLAME 2020, or leave --deca out.")
            if refusal is not None:
                raise refusal
        elif not self.model.has_landmarks:
            raise BadInput(
                f"The head model '{self.model.name}' was loaded without landmarks and DECA was not provided: put "
                "landmark_embedding.npy beside it, or give --deca."
            )
        on = torch.device(device)
        self.analyzer = FaceAnalyzer(
            PlainNetworks(
                open_detector(networks.detector, networks.insightface),
                load_facenet(networks.facenet, device=on),
                load_parser(networks.parser, device=on) if networks.parser else None,
                load_deca(networks.deca, device=on) if networks.deca else None,
                on,
                load_face_landmarker(networks.landmarker) if networks.landmarker else None,
            )
        )
        clip = load_clip_tokens(networks.clip, device=on)
        self.encoder = PhotoEncoder(self.analyzer, lambda portraits: clip(torch.stack(portraits).to(on)).float().cpu())

    @torch.inference_mode()
    def read(self, photos: list[tuple[int, Photo]]) -> Batch:
        """Make samples of numbered photos."""
        batch = Batch()
        found = self._each(batch, photos, lambda item: self._find(batch, *item), lambda item: item[1])
        if found and self.analyzer.networks.deca_problem() is None:
            with batch.timed("DECA", len(found)):
                codes, crops = self.analyzer.deca_codes([one.portrait for one in found], [one.face for one in found])
            encoded = list(zip(found, codes.split(1), crops.split(1), strict=True))
            found = self._each(batch, encoded, lambda each: self._start_head(*each), lambda each: each[0].photo)
        found = self._each(batch, found, lambda one: self._fit(batch, one), lambda one: one.photo)
        if found and self.analyzer.networks.has_parser():
            with batch.timed("parse", len(found)):
                labels = self.analyzer.parse(torch.stack([one.portrait for one in found]))
            for one, found_labels in zip(found, labels, strict=True):
                one.labels = found_labels
            found = self._each(batch, found, self._check_labels, lambda one: one.photo)
        if found:
            portraits, faces, labels = zip(*((one.portrait, one.face, one.labels) for one in found), strict=True)
            features = self.encoder.encode_portraits(portraits, faces, labels, stage=batch.timed)
            with batch.timed("write", len(found)):
                rows = zip(found, features.global_, features.local.half(), strict=True)
                batch.samples = [self._sample(*each) for each in rows]
        batch.rejected.sort(key=lambda one: one["source"])
        return batch

    def _each(
        self, batch: Batch, items: list[Item], do: Callable[[Item], Found], photo_of: Callable[[Item], Photo]
    ) -> list[Found]:
        """Process each item, and return the results of those that are not rejected."""
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
            faces = self.analyzer.detect(image)
            if not faces and (color := blankness(image)):
                raise Rejected("no face", f"the picture is almost entirely {color}")
            face = self.rules.choose(faces)
        with batch.timed("align"):
            portrait, moved, transform = align(image, face)
            outside = self.rules.check_frame(transform, *image.shape[-2:])
        about = {
            "side": round(ALIGNED_SIZE / transform[:2, 0].norm().item(), 1),
            "outside": round(outside, 4),
            "score": round(face.score, 4),
            "landmarks": 478 if face.mesh is not None else 5 if face.points68 is None else 68,
        }
        return Found(number, photo, caption, portrait, moved, about)

    def _start_head(self, one: Found, code: Tensor, crop: Tensor) -> Found:
        """Set the head by DECA's code `[1, 236]`; `crop` `[1, 3, 3]` maps portrait pixels to crop pixels."""
        try:
            one.head = heads_from_codes(code, crop, ALIGNED_SIZE, ALIGNED_SIZE)
        except BadFile as error:  # one odd photo must not end a long run; if the file is wrong, every photo is rejected
            raise Rejected("bad fit", str(error)) from None
        return one

    def _fit(self, batch: Batch, one: Found) -> Found:
        """Fit the head to landmarks, starting from DECA's head if there is one; estimate the light if DECA did not."""
        head, by_deca, error = one.head, one.head is not None, math.nan
        if self.model.has_landmarks:
            with batch.timed("fit"):
                landmarks = landmarks_of(self.model, [one.face], ALIGNED_SIZE, ALIGNED_SIZE)
                head = landmarks.fit(head)
                error = (landmarks.error(head) / face_size(self.model, head)).item()
        assert head is not None, "a head model without landmarks needs DECA, as the constructor checks"
        one.about["turn"] = round(self.rules.check_head(head, error), 2)
        one.about["fit_error"] = None if math.isnan(error) else round(error, 5)
        if not by_deca:
            with batch.timed("light"):
                try:
                    light = light_from_photo(self.model, head, one.portrait[None])
                except BadInput as few:
                    raise Rejected("badly exposed", str(few)) from None
            head = head.replace(light=light)
        one.head = head
        return one

    def _check_labels(self, one: Found) -> Found:
        assert one.labels is not None, "labels are checked after parsing"
        self.rules.check_labels(one.labels)
        return one

    def _sample(self, one: Found, embedding: Tensor, tokens: Tensor) -> Sample:
        assert one.head is not None, "samples are made after the fit"
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


def load_head(path: str | None) -> HeadModel:
    """Load FLAME from a file, or the built-in head if there is none."""
    return load_flame(path) if path else builtin_head()


def load_photo(path: Path) -> Tensor:
    """Load a photo upright, as viewers show it: RGB float32 `[3, H, W]` in 0..1.

    Raises:
        Rejected: The file cannot be read.
    """
    try:
        return read_picture(path)
    except (BadFile, MissingFile) as error:
        raise Rejected("unreadable", str(error)) from None


def encode(pixels: Tensor, **options: Any) -> bytes:
    """Encode pixels uint8 `[H, W]` or `[H, W, 3]` as an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, **options)
    return file.getvalue()


def array_bytes(array: Tensor) -> bytes:
    """Encode an array as an npy file."""
    file = io.BytesIO()
    np.save(file, array.contiguous().numpy(), allow_pickle=False)
    return file.getvalue()
