"""The photos and settings of a training set, stored in its folder so that a resumed run uses the same ones."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput, MissingFile
from ..models.clip import VIT_L, load_clip_tokens
from ..models.faces import InsightFaceDetector, open_detector
from .photo_files import BY_FOLDER, Photo, find_photos
from .rules import Rules
from .samples import Networks, load_head
from .shards import FORMAT, VERSION, digest, read_json, write_json

PLAN = "plan.json"


@dataclass(frozen=True)
class Settings:
    """Settings that decide the contents of a training set."""

    networks: Networks
    """The network files."""
    rules: Rules = field(default_factory=Rules)
    """Limits beyond which photos are rejected."""
    caption: str = "a photo of a person"
    """Caption of photos without a text file."""
    identities: str = BY_FOLDER
    """How photos are grouped by person, one of `IDENTITIES`."""
    per_shard: int = 256
    """Photos per shard, some of which may be rejected: the largest number of samples in a shard."""
    batch: int = 8
    """Photos that the networks process together."""

    def __post_init__(self) -> None:
        if self.per_shard < 1 or self.batch < 1:
            raise BadInput(f"Expected shards and batches of at least 1 photo, got {self.per_shard} and {self.batch}.")


def describe_settings(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Describe how a training set is made.

    Args:
        settings: The settings.

    Returns:
        The first entries of `dataset.json`, and notes for the user.

    Raises:
        MissingFile: A network file is missing.
        MissingPackage: A network needs a package that is not installed.
        BadFile: A network file is invalid.
    """
    networks = settings.networks
    files = {name: getattr(networks, name) for name in ("facenet", "clip", "parser", "deca", "head", "landmarker")}
    known = {name: _file(path) for name, path in files.items() if path}
    model, detector = load_head(networks.head), open_detector(networks.detector, networks.insightface)
    shape = load_clip_tokens(networks.clip, device="meta").shape
    insight = isinstance(detector, InsightFaceDetector)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "head_model": {"kind": model.kind, "name": model.name, **known.get("head", {})},
        "head_read_by": "DECA" if networks.deca else "landmarks",
        "encoders": {
            "global": {"name": "FaceNet (VGGFace2)", "shape": [512], "dtype": "float32", **known["facenet"]},
            "local": {"name": "CLIP, before the last layer norm", "shape": list(shape), "dtype": "float16", **known["clip"]},
        },
        "parser": known.get("parser"),
        "deca": known.get("deca"),
        "detector": f"insightface {detector.folder.name}" if insight else "mtcnn",
        "rules": asdict(settings.rules),
        "caption": settings.caption,
        "identities_by": settings.identities,
        "per_shard": settings.per_shard,
        "batch": settings.batch,
    }
    if "landmarker" in known:
        about["landmarker"] = known["landmarker"]
    notes = []
    if shape != VIT_L:
        notes.append(
            f"The local features are {shape[0]} tokens of {shape[1]}. Encode Identity uses {VIT_L[0]} of {VIT_L[1]} "
            "from CLIP ViT-L/14, so a CapFace that is trained on this set cannot be used there."
        )
    if not networks.parser:
        notes.append("Without a face parser, CLIP encoded the whole portraits, including background and clothes.")
    if not (insight and detector.landmarks is not None) and not networks.deca and not networks.landmarker:
        notes.append(
            "The detector finds five landmarks only: heads have a position and a rotation, but neither shape nor expression. "
            "MediaPipe's face_landmarker.task gives 478, insightface's pack 68."
        )
    return about, notes


def make_plan(photos: Path, out: Path, settings: Settings, about: dict[str, Any]) -> list[Photo]:
    """List the photos, and store the list with the settings in the folder of the training set.

    Args:
        photos: Folder of the photos.
        out: Folder of the training set.
        settings: Settings of the training set.
        about: Its description, from `describe_settings`.

    Returns:
        The photos in the order of their samples.

    Raises:
        MissingFile: The photos are missing.
        BadInput: The folder holds a training set of other photos or settings.
    """
    path = out / PLAN
    before = read_json(path) if path.is_file() else None
    known = [Photo(**photo) for photo in before["photos"]] if before else []
    found = find_photos(photos, settings.identities, known)
    if before:
        other = [key for key in about if about[key] != before["about"].get(key)]
        if other:
            differ = "; ".join(f"{key} was {before['about'].get(key)}, now {about[key]}" for key in other)
            raise BadInput(
                f"{out} was begun with other settings: {differ}. Use the same settings to resume, or choose a new folder."
            )
        was, now = ({(photo.source, photo.digest) for photo in some} for some in (known, found))
        if was != now:
            new, gone = sorted(source for source, _ in now - was), sorted(source for source, _ in was - now)
            raise BadInput(
                f"{out} was begun with other photos: {len(new)} are new or changed ({', '.join(new[:3]) or 'none'}), "
                f"{len(gone)} gone or changed ({', '.join(gone[:3]) or 'none'}). Put them back, or choose a new folder."
            )
        return found
    if any(out.glob("*.tar")):
        raise BadInput(f"{out} holds tars but no {PLAN}: it is not a training set that can be resumed. Choose a new folder.")
    write_json(path, {"about": about, "photos": [asdict(photo) for photo in found]}, indent=None)
    return found


def _file(path: str) -> dict[str, str]:
    """Name and SHA-256 of a network file."""
    if not Path(path).is_file():
        raise MissingFile(f"There is no file {path}.")
    return {"file": Path(path).name, "sha256": digest(Path(path))}
