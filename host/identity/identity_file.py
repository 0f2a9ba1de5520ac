"""Identity files: safetensors whose metadata names their maker and the encoders."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ...errors import BadFile, BadInput, quote
from ...files.atomic import write_atomically
from ...files.boundary import reads
from ...files.checkpoint import read_safetensors, read_state_dict
from ...files.header import is_safetensors
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
MOST_REFERENCES = 1_000_000
"""Photos behind an identity."""
_AGAIN = "Encode the photos again with Encode Identity."


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


@reads("an identity", _AGAIN)
def load_identity(path: Path) -> Identity:
    """Load an identity of this version or an older one.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, of another kind, from a newer version, or from other encoders.
    """
    # a torch pickle has no metadata, and is named for what it is
    state, metadata = read_safetensors(path) if is_safetensors(path) else (read_state_dict(path), {})
    name = quote(path.name)
    if metadata.get("kind") != KIND:
        raise BadFile(
            f"{name} is {describe(state)}, not an identity that CapFace saved. Embeddings of other tools cannot be used: "
            "ArcFace's vectors have 512 values too, but differ in meaning from FaceNet's. Encode photos with Encode Identity."
        )
    version = metadata.get("version", "")
    if version not in map(str, range(1, VERSION + 1)):
        raise BadFile(
            f"{name} was made by a newer CapFace (format {quote(version) or 'unknown'}); this one reads formats up to "
            f"{VERSION}. Update the pack."
        )
    encoders = [metadata.get(part, "an unnamed encoder") for part in ("global_encoder", "local_encoder")]
    features = next((known for known in KNOWN if [known.global_encoder, known.local_encoder] == encoders), None)
    if features is None:
        raise BadFile(
            f"{name} holds features of {' and '.join(map(quote, encoders))}, CapFace was trained on those of "
            f"{RELEASED.global_encoder} and {RELEASED.local_encoder}. Encode the photos again with Encode Identity."
        )
    if not {"global", "local"} <= set(state):
        held = ", ".join(map(quote, list(state)[:4])) or "nothing"
        raise BadFile(f"{name} is an incomplete identity: expected global and local, got {held}.")
    counted = metadata.get("references", "1")
    references = int(counted) if counted.isdecimal() and len(counted) <= len(str(MOST_REFERENCES)) else MOST_REFERENCES + 1
    if references > MOST_REFERENCES:
        raise BadFile(f"{name} was changed after saving: it states {quote(counted)} photos. {_AGAIN}")
    held = {part: state[part] for part in ("global", "local", "strength") if part in state}
    tensors = {part: tensor.float() for part, tensor in own_copies(held).items()}
    strength = tensors.get("strength", torch.ones(*tensors["global"].shape[:1], 2))
    try:
        identity = Identity(tensors["global"], tensors["local"], strength, references, features)
    except BadInput as error:
        raise BadFile(
            f"{name} was changed after saving; it should have vectors of length 1 and finite tokens. {error} {_AGAIN}"
        ) from None
    lengths = identity.global_[identity.present].norm(dim=1)
    if ((lengths - 1).abs() > UNIT_LENGTH_TOLERANCE).any():
        raise BadFile(
            f"{name} was changed after saving: expected vectors of length 1 and finite tokens, got vectors of "
            f"length {[round(n, 3) for n in lengths.tolist()[:4]]}. {_AGAIN}"
        )
    return identity
