"""Evaluation of portraits: whose face they show, which head, and whether they follow the prompt.

Each part is measured if its inputs, files and packages are available; otherwise the reason is given. An image without a face
gets a row that says so, and the other images are still measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import comfy.model_management as mm
import torch
from torch import Tensor

from ..errors import BadFile, CapFaceError, MissingFile, MissingPackage, NoFaceFound
from ..files import catalogue
from ..flame.builtin import builtin_head
from ..flame.fitting import DECA_KINDS, ERROR_GROUPS, face_size, head_difference, head_rmse
from ..flame.model import HeadModel, HeadParams
from ..flame.render import overlay, render_head
from ..models.clip import OpenClip, cosine, is_best, load_open_clip_model, prompt_scores
from ..models.faces import ArcFace, FaceDetection
from ..photos.analysis import FaceAnalyzer
from ..photos.encoding import EncodeOptions
from ..photos.heads import fit_one_by_one, heads_from_codes
from ..photos.landmarks import Landmarks, landmarks_of
from . import model_folders
from .encode import EncoderProvider
from .identity import Identity
from .memory import managed

NO_CLIP = "none"
ID, ARCFACE, LANDMARKS, TURN, POSITION, SIZE, CLIP, PROMPT = (
    "ID similarity", "ArcFace", "landmarks %", "turn °", "position %", "size %", "CLIP score", "prompt"
)  # fmt: skip
COLUMNS = {ID: 4, ARCFACE: 4, LANDMARKS: 2, TURN: 1, POSITION: 2, SIZE: 2, **dict.fromkeys(ERROR_GROUPS, 4), CLIP: 4, PROMPT: 0}
"""Headings of the table, and the number of decimals of each; the prompt is shown as yes or no."""
LEGEND = {
    ID: "cosine of FaceNet's embeddings (the paper's ID similarity)",
    ARCFACE: "cosine of ArcFace's embeddings",
    LANDMARKS: "root mean square distance of the landmarks from the condition's, of the face's height",
    TURN: "angle between the head fitted to the image and the condition's",
    POSITION: "distance of the two heads, of the face's height",
    SIZE: "difference of their sizes",
    "shape": "shape, pose, expression, light: RMSE of DECA's values against the condition's, as in the paper",
    CLIP: "cosine of image and prompt",
    PROMPT: "whether the right prompt scores above the others (the paper's prompt accuracy)",
}


class _NotAsked(CapFaceError):
    """A part whose inputs are not connected, or do not apply."""


@dataclass(frozen=True, eq=False)
class References:
    """The identity, head and prompt that the images are compared with; each is optional."""

    identity: Identity | None = None
    photos: Tensor | None = None
    """RGB `[R, 3, H, W]` in 0..1 of the person; the largest face of each is used."""
    head: HeadParams | None = None
    head_model: HeadModel | None = None
    """The model of `head`."""
    prompt: str = ""
    other_prompts: tuple[str, ...] = ()
    clip_file: str = NO_CLIP
    """A file in models/open_clip."""
    clip_activation: str = "auto"
    """As for `load_open_clip_model`."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """The results for B images."""

    columns: dict[str, Tensor]
    """Values `[B]` by heading; NaN where an image shows no face."""
    faceless: list[int]
    """Indices of the images without a face."""
    unmeasured: dict[str, str]
    """The parts that could not be measured, with the reasons."""
    notes: list[str]
    picture: Tensor
    """RGB `[B, 3, H, W]` in 0..1: the fitted heads over the images."""

    def mean(self, heading: str) -> float:
        """Return the mean over the images that show a face; NaN if it was not measured."""
        return self.columns[heading].nanmean().item() if heading in self.columns else math.nan

    def table(self) -> str:
        """Return the results as text: one row per image, their mean, a legend, and the parts that were not measured."""
        headings = [name for name in COLUMNS if name in self.columns]
        rows = [["image", *headings]]
        for i in range(len(self.picture)):
            cells = [_cell(name, self.columns[name][i].item()) for name in headings]
            rows.append([str(i + 1), *cells, *(["no face"] if i in self.faceless else [])])
        if headings and len(self.picture) > 1:
            rows.append(["mean", *(_cell(name, self.mean(name), mean=True) for name in headings)])
        lines = aligned(rows)
        lines += [""] + [f"{name}: {text}" for name, text in LEGEND.items() if name in self.columns] + self.notes
        lines += [f"Not measured: {part}. {reason}" for part, reason in self.unmeasured.items()]
        return "\n".join(lines).strip()


def aligned(rows: list[list[str]]) -> list[str]:
    """Format cells as lines with right-aligned columns; rows may end early."""
    columns = max(len(row) for row in rows)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]


def _cell(heading: str, value: float, mean: bool = False) -> str:
    if math.isnan(value):
        return "-"
    if heading == PROMPT:
        return f"{value:.0%}" if mean else ("yes" if value else "no")
    return f"{value:.{COLUMNS[heading]}f}"


def measure(
    images: Tensor, reader: EncoderProvider, references: References, *, face: str = "largest", face_index: int = 0
) -> Measurement:
    """Measure images.

    Args:
        images: RGB `[B, 3, H, W]` in 0..1.
        reader: The value of the CAPFACE_READER socket.
        references: The identity, head and prompt to compare with. One identity or head serves all images; if there are fewer
            than images, they repeat, as in Apply CapFace.
        face: The order in which faces are counted, as for `choose_face`.
        face_index: Which face in that order.

    Returns:
        The measurement.
    """
    return _Measuring(images.cpu(), reader, references, face, face_index).run()


class _Measuring:
    """One call of `measure`."""

    def __init__(self, images: Tensor, reader: EncoderProvider, references: References, face: str, face_index: int):
        """Find the faces, and fit a head to each."""
        self.images, self.reader, self.references = images, reader, references
        self.photos = None if references.photos is None else references.photos.cpu()
        self.analyzer = reader if isinstance(reader, FaceAnalyzer) else None
        self.notes: list[str] = []
        self.no_faces: Exception | None = None
        self.rows = list(range(len(images)))  # of the images with a face; all of them if the whole picture is the portrait
        self.faces: list[FaceDetection] = []
        if self.analyzer is not None:
            found: Sequence[FaceDetection | None] = [None] * len(images)
            try:
                found = self.analyzer.find_faces_or_none(images, face, face_index)
            except (NoFaceFound, MissingPackage, MissingFile, BadFile) as error:
                self.no_faces = error
            self.rows = [i for i, one in enumerate(found) if one is not None]
            self.faces = [one for one in found if one is not None]
        self.shown = [images[i] for i in self.rows]
        self.landmarks = self._observe()
        self.fitted = self._fit()

    def run(self) -> Measurement:
        """Measure all parts."""
        columns, unmeasured = {}, {}
        of_faces: dict[str, Callable[[], dict[str, Tensor]]] = {
            "ID similarity": self._facenet,
            "ArcFace": self._arcface,
            "landmark error": self._landmarks,
            "shape, pose, expression and light": self._deca,
        }
        of_images = {"CLIP score": self._clip}
        for name, part in (of_faces | of_images).items():
            mm.throw_exception_if_processing_interrupted()
            try:
                if self.no_faces is not None and name in of_faces:
                    raise self.no_faces
                columns |= part()
            except (_NotAsked, NoFaceFound, MissingPackage, MissingFile, BadFile) as error:
                unmeasured[name] = str(error)
        if PROMPT not in columns and CLIP in columns:
            unmeasured["prompt accuracy"] = "Write other prompts, one per line, for the right one to compete with."
        faceless = [i for i in range(len(self.images)) if i not in self.rows]
        if self.no_faces is not None and not isinstance(self.no_faces, NoFaceFound):
            faceless = []  # nothing is known of faces
        return Measurement(columns, faceless, unmeasured, self.notes, self._picture())

    # Faces

    def _facenet(self) -> dict[str, Tensor]:
        identity, photos = self.references.identity, self.photos
        if identity is not None:
            # a null identity has no similarity
            wanted = torch.where(identity.present[:, None], identity.global_, torch.nan)
        elif photos is None:
            raise _NotAsked("Connect the identity, or a photo of the person as reference.")
        else:
            wanted = self._embed(photos, self._reference if self.analyzer else [])
        return {ID: self._spread(cosine(self._embed(self.shown, self.faces), self._pair(wanted)))}

    def _arcface(self) -> dict[str, Tensor]:
        if self.photos is None:
            raise _NotAsked("Connect a photo of the person as reference; an identity only holds FaceNet's embedding.")
        self._need_faces()
        network = self._open_arcface()
        wanted, got = (
            torch.stack([network.embed(image, face.points5) for image, face in zip(images, found, strict=True)])
            for images, found in ((self.photos, self._reference), (self.shown, self.faces))
        )
        return {ARCFACE: self._spread(cosine(got, self._pair(wanted)))}

    def _open_arcface(self) -> ArcFace:
        root = model_folders.folder(catalogue.INSIGHTFACE)
        try:
            return ArcFace(root)
        except MissingFile:
            try:
                return ArcFace(root, "antelopev2")
            except MissingFile:
                pass
            raise

    @cached_property
    def _reference(self) -> list[FaceDetection]:
        """The largest face in each reference photo."""
        if self.photos is None:
            return []
        try:
            return self._need_faces().find_faces(self.photos)
        except NoFaceFound as error:
            raise NoFaceFound(f"The reference: {error}") from None

    def _embed(self, images: Sequence[Tensor] | Tensor, faces: list[FaceDetection]) -> Tensor:
        """Return the global features of photos, as Encode Identity gives them by default."""
        if self.analyzer is None:
            return self.reader.encoder(None).encode(torch.stack(list(images)), EncodeOptions()).global_
        return self.analyzer.embed_aligned(images, faces)

    def _need_faces(self) -> FaceAnalyzer:
        if self.analyzer is None:
            raise _NotAsked("The miniature's reader treats the whole picture as the portrait and does not detect faces.")
        return self.analyzer

    # Heads

    def _landmarks(self) -> dict[str, Tensor]:
        model, wanted = self._condition()
        self._need_faces()
        if self.landmarks is None or self.fitted is None:
            raise _NotAsked(f"The head model '{model.name}' was loaded without landmarks.")
        size = face_size(model, wanted)
        difference = head_difference(model, wanted, self.fitted)
        if not self.landmarks.point_set.shows_face:
            self.notes.append(
                "The detector gives 5 landmarks instead of 68, so rotation and size are inaccurate. insightface gives all 68."
            )
        return {
            LANDMARKS: self._spread(100 * self.landmarks.error(wanted) / size),
            TURN: self._spread(difference.rotation),
            POSITION: self._spread(100 * difference.position),
            SIZE: self._spread(100 * difference.size.abs()),
        }

    def _deca(self) -> dict[str, Tensor]:
        model, wanted = self._condition()
        if model.kind not in DECA_KINDS:
            raise _NotAsked(f"DECA's values are those of FLAME 2020, the condition's those of '{model.name}'.")
        codes, crops = self._need_faces().deca_codes(self.shown, self.faces)
        errors = head_rmse(wanted, heads_from_codes(codes, crops, *self.images.shape[-2:]))
        return {group: self._spread(error) for group, error in errors.items()}

    def _condition(self) -> tuple[HeadModel, HeadParams]:
        """Return the head model and the wanted heads, one for each face."""
        if self.references.head is None or self.references.head_model is None:
            raise _NotAsked("Connect the wanted head and its head model.")
        return self.references.head_model.to("cpu"), self.references.head.to("cpu").expand(len(self.images))[self.rows]

    def _observe(self) -> Landmarks | None:
        """Return the landmarks of the faces, if there are faces and the head model has landmarks."""
        model = (self.references.head_model or builtin_head()).to("cpu")
        return landmarks_of(model, self.faces, *self.images.shape[-2:]) if self.faces and model.has_landmarks else None

    def _fit(self) -> HeadParams | None:
        """Fit a head to each face."""
        if self.landmarks is None:
            return None
        return fit_one_by_one(self.landmarks, progress=lambda *_: mm.throw_exception_if_processing_interrupted())

    def _picture(self) -> Tensor:
        picture = self.images.clone()
        model = (self.references.head_model or builtin_head()).to("cpu")
        if self.fitted is not None and model.uv is not None:
            height, width = self.images.shape[-2:]
            for i, row in enumerate(self.rows):
                maps = render_head(model, self.fitted[i], height, width)
                picture[row] = overlay(self.images[row : row + 1], maps)[0]
        return picture

    # Prompts

    @torch.inference_mode()
    def _clip(self) -> dict[str, Tensor]:
        prompt = " ".join(self.references.prompt.split())
        if not prompt:
            raise _NotAsked("Write the prompt in plain words, without weights.")
        if self.references.clip_file == NO_CLIP:
            raise _NotAsked(f"Choose a CLIP file. {catalogue.OPEN_CLIP.how_to_get()}.")
        path = model_folders.path_of(catalogue.OPEN_CLIP, self.references.clip_file)
        offload_device = mm.text_encoder_offload_device()
        clip: OpenClip = load_open_clip_model(path, self.references.clip_activation, device=offload_device)
        patcher = managed(clip, mm.text_encoder_device(), offload_device)
        mm.load_models_gpu([patcher])
        texts = [prompt, *self.references.other_prompts]
        seen = torch.cat([clip.images(one[None].to(patcher.load_device)) for one in self.images])
        scores = prompt_scores(seen.cpu(), clip.texts(texts).cpu())
        self.notes.append(f"CLIP is {clip.name}, from {path.name}.")
        columns = {CLIP: scores[:, 0]}
        return columns | {PROMPT: is_best(scores).float()} if len(texts) > 1 else columns

    # Rows

    def _pair(self, wanted: Tensor) -> Tensor:
        """Return the row for each face: one row serves all faces, and fewer rows than images repeat."""
        return wanted[torch.tensor(self.rows) % len(wanted)]

    def _spread(self, values: Tensor) -> Tensor:
        """Spread values of the faces over the images, with NaN for images without a face."""
        column = torch.full((len(self.images),), torch.nan)
        column[self.rows] = values.cpu()
        return column


def other_prompts(text: str) -> tuple[str, ...]:
    """Split a text into prompts, one per line; blank lines are left out."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
