"""Identity files: safetensors whose metadata names their maker and the encoders."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...errors import BadFile
from ...files.atomic import write_atomically
from ...files.checkpoint import read_state_dict
from ...files.identify import describe
from ...files.mapped import own_copies
from .identity import MINIATURE, RELEASED, Identity

ENDING = ".identity.safetensors"
KIND = "capface identity"
VERSION = 1
"""Version of the layout: tensors `global`, `local` and `strength`. A missing `strength` or `references` gets its default."""
KNOWN = (RELEASED, MINIATURE)
"""The features that a file may hold."""
UNIT_LENGTH_TOLERANCE = 1e-3


def save_identity(path: Path, identity: Identity) -> Path:
    """Write an identity atomically; an existing file of that name is replaced.

    Args:
        path: The new file.
        identity: An identity with any rows, tokens and strengths.

    Returns:
        The path.

    Raises:
        CannotWrite: The folder or the disk cannot be written to.
    """
    write_atomically(path, lambda partial: write_identity(partial, identity))
    return path


def write_identity(path: Path, identity: Identity) -> None:
    """Write an identity to a path that another function makes atomic."""
    tensors = {"global": identity.global_, "local": identity.local, "strength": identity.strength}
    metadata = {"kind": KIND, "version": str(VERSION), "references": str(identity.references), "made_by": "CapFace"}
    metadata |= {part: getattr(identity.features, part) for part in ("global_encoder", "local_encoder")}
    tensors = {k: t.float().cpu().contiguous() for k, t in tensors.items()}
    save_file(tensors, path, metadata=metadata)


def load_identity(path: Path) -> Identity:
    """Load an identity of this version or an older one.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, of another kind, from a newer version, or from other encoders.
    """
    state, metadata = read_state_dict(path), _metadata(path)
    if metadata.get("kind") != KIND:
        raise BadFile(
            f"{path.name} is {describe(state)}, not an identity that CapFace saved. Embeddings of other tools cannot be used: "
            "ArcFace's vectors have 512 values too, but differ in meaning from FaceNet's. Encode photos with Encode Identity."
        )
    version = metadata.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise BadFile(
            f"{path.name} was made by a newer CapFace (format {version or 'unknown'}); this one reads formats up to {VERSION}. "
            "Update the pack."
        )
    encoders = [metadata.get(part, "an unnamed encoder") for part in ("global_encoder", "local_encoder")]
    features = next((known for known in KNOWN if [known.global_encoder, known.local_encoder] == encoders), None)
    if features is None:
        raise BadFile(
            f"{path.name} holds features of {' and '.join(encoders)}, CapFace was trained on those of "
            f"{RELEASED.global_encoder} and {RELEASED.local_encoder}. Encode the photos again with Encode Identity."
        )
    if not {"global", "local"} <= set(state):
        raise BadFile(f"{path.name} is an incomplete identity: expected global and local, got {', '.join(state) or 'nothing'}.")
    tensors = {k: t.float() for k, t in own_copies(state).items()}
    references = int(metadata.get("references", 1))
    strength = tensors.get("strength", torch.ones(len(tensors["global"]), 2))
    identity = Identity(tensors["global"], tensors["local"], strength, references, features)
    lengths = identity.global_[identity.present].norm(dim=1)
    if not torch.isfinite(identity.local).all() or ((lengths - 1).abs() > UNIT_LENGTH_TOLERANCE).any():
        raise BadFile(
            f"{path.name} was changed after saving: expected vectors of length 1 and finite tokens, got vectors of "
            f"length {[round(n, 3) for n in lengths.tolist()]}. Encode the photos again with Encode Identity."
        )
    return identity


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}  # a torch pickle, which `read_state_dict` has read
