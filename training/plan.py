"""What a training set is made of and by, kept in its folder so that a stopped run goes on with the same."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

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
    """What decides which samples there are and what is in them."""

    networks: Networks
    rules: Rules = field(default_factory=Rules)
    caption: str = "a photo of a person"
    identities: str = BY_FOLDER
    per_shard: int = 256
    """Photos, of which some are left out; a shard has as many samples at most."""
    batch: int = 8
    """Photos that go through the networks together."""

    def __post_init__(self):
        if self.per_shard < 1 or self.batch < 1:
            raise BadInput(f"Expected shards and batches of at least 1 photo, got {self.per_shard} and {self.batch}.")


def describe(settings: Settings) -> tuple[dict, list[str]]:
    """What the training set is made by, and what the user should know of that.

    Raises:
        MissingFile, MissingPackage, BadFile: A file is not what it should be.
    """
    networks = settings.networks
    files = {name: getattr(networks, name) for name in ("facenet", "clip", "parser", "deca", "head")}
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
    notes = []
    if shape != VIT_L:
        notes.append(
            f"The local features are {shape[0]} tokens of {shape[1]}. Encode Identity reads {VIT_L[0]} of {VIT_L[1]}, by CLIP "
            "ViT-L/14: what is trained on these cannot be used there."
        )
    if not networks.parser:
        notes.append("Without a face parser CLIP read the whole portraits, background and clothes too.")
    if not (insight and detector.landmarks is not None) and not networks.deca:
        notes.append(
            "The detector gives five landmarks: heads have a place and a rotation, but neither shape nor expression. "
            "insightface's pack gives 68."
        )
    return about, notes


def make_plan(photos: Path, out: Path, settings: Settings, about: dict) -> list[Photo]:
    """The photos in their order, kept in the training set's folder with what it is made by.

    Raises:
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
            raise BadInput(f"{out} was begun with other settings: {differ}. Go on with the same ones, or choose a new folder.")
        was, now = ({(photo.source, photo.digest) for photo in some} for some in (known, found))
        if was != now:
            new, gone = sorted(source for source, _ in now - was), sorted(source for source, _ in was - now)
            raise BadInput(
                f"{out} was begun with other photos: {len(new)} are new or changed ({', '.join(new[:3]) or 'none'}), "
                f"{len(gone)} gone or changed ({', '.join(gone[:3]) or 'none'}). Put them back, or choose a new folder."
            )
        return found
    if any(out.glob("*.tar")):
        raise BadInput(f"{out} holds tars but no {PLAN}: no training set that can be gone on with. Choose a new folder.")
    write_json(path, {"about": about, "photos": [asdict(photo) for photo in found]}, indent=None)
    return found


def _file(path: str) -> dict:
    if not Path(path).is_file():
        raise MissingFile(f"There is no file {path}.")
    return {"file": Path(path).name, "sha256": digest(Path(path))}
