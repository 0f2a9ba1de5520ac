"""Loading FLAME from its files, and converting them to one safetensors file.

Conventions: arrays have the names of the arguments of `HeadModel.from_arrays`; `flame_files.py` states which of FLAME's
components are read.
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ...errors import BadFile, BadInput, MissingFile, quote
from ...files.atomic import write_atomically
from ...files.boundary import reading
from ...files.checkpoint import read_safetensors
from ...files.header import is_safetensors
from ...files.mapped import own_copies
from ..model import SIZES, HeadModel
from .flame_files import (
    FLAME_2020_MD5,
    LANDMARKS_FILE,
    MODEL_FILE,
    TEMPLATE_FILE,
    TEXTURE_FILE,
    read_landmarks,
    read_model,
    read_texture,
    read_uvs,
)

log = logging.getLogger("capface")

NAMES = {"flame2020": "FLAME 2020", "flame2023": "FLAME 2023", "flame": "FLAME"}
"""Display name of each kind of model. "flame" is of unknown version."""
NEUTRAL_SKIN = (0.72, 0.56, 0.48)
"""RGB of the whole head if there is no texture."""

Arrays = dict[str, Any]
"""Arguments of `HeadModel.from_arrays` by name."""
Given = str | os.PathLike[str] | None
"""A path from the caller; None for the file beside the model."""

_FORMAT = "CapFace head"
_NEEDED = ("v_template", "faces", "shapedirs", "J_regressor", "parents", "weights")
_REMARKS = {
    "flame2023": "%s is FLAME 2023. Its template and expression basis are not those of FLAME 2020, with which CapFace and DECA "
    "were trained: it can be fitted to landmarks, posed and lit, but DECA's codes give different faces on it, and its "
    "expressions are not those that CapFace was trained with. Use generic_model.pkl of FLAME 2020 if they matter.",
    "flame": f"%s is not the published file of FLAME 2020 (MD5 {FLAME_2020_MD5}): saved again, of one sex, or of another year. "
    "It is treated as FLAME 2020; if it is FLAME 2023, its expression basis is not the one that CapFace was trained with.",
}


def load_flame(
    path: str | os.PathLike[str],
    *,
    landmarks: str | os.PathLike[str] | None = None,
    template: str | os.PathLike[str] | None = None,
    texture: str | os.PathLike[str] | None = None,
) -> HeadModel:
    """Load FLAME from its published files, or from a safetensors file by `convert_flame`. No code in the files is run.

    Without landmarks the model can be posed and rendered, but not fitted to landmarks. Without a texture, whose UVs are in the
    template, the whole head has one colour, NEUTRAL_SKIN.

    Args:
        path: `generic_model.pkl` of FLAME 2020, or a safetensors file by `convert_flame`, which holds everything.
        landmarks: `landmark_embedding.npy`; by default the one beside the model, if it exists.
        template: `head_template.obj`; by default the one beside the model, if it exists.
        texture: `FLAME_texture.npz`; by default the one beside the model, if it exists.

    Returns:
        A HeadModel of kind "flame2020", "flame2023" or "flame".

    Raises:
        MissingFile: A given file does not exist, or there is a texture without a template.
        BadFile: A file is not what it should be, is broken, or holds NaN; the message states what it looks like instead.
    """
    path = Path(path)
    arrays, kind = _read(path, landmarks, template, texture)
    if kind in _REMARKS:
        log.warning(_REMARKS[kind], path.name)
    return _build(path.name, arrays, kind)


def convert_flame(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = True,
    landmarks: str | os.PathLike[str] | None = None,
    template: str | os.PathLike[str] | None = None,
    texture: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the contents that `load_flame` reads to one safetensors file, atomically.

    Args:
        path: As for `load_flame`.
        target: The new file.
        replace: Whether an existing file is replaced.
        landmarks: As for `load_flame`.
        template: As for `load_flame`.
        texture: As for `load_flame`.

    Returns:
        The target.

    Raises:
        MissingFile: As for `load_flame`.
        BadFile: As for `load_flame`.
        CannotWrite: As for `write_atomically`.
    """
    path, target = Path(path), Path(target)
    arrays, kind = _read(path, landmarks, template, texture)
    _build(path.name, arrays, kind)  # rejects a file that could not be loaded again
    tensors = {name: torch.as_tensor(value).contiguous() for name, value in arrays.items()}
    metadata = {"format": _FORMAT, "kind": kind, "source": path.name}
    write_atomically(target, lambda partial: save_file(tensors, partial, metadata=metadata), replace=replace)
    return target


def _build(file: str, arrays: Arrays, kind: str) -> HeadModel:
    if missing := [name for name in _NEEDED if name not in arrays]:
        raise BadFile(f"{quote(file)} lacks {', '.join(missing)} of a FLAME head. Download it and the files beside it again.")
    with reading(file, "a FLAME head", "Download it and the files beside it again."):
        try:
            for name, value in arrays.items():
                if "lmk" in name and not torch.isfinite(torch.as_tensor(value)).all():
                    raise BadInput(f"{name}: holds NaN or infinite numbers.")
            return HeadModel.from_arrays(**arrays, n_shape=SIZES["shape"][0], name=NAMES[kind], kind=kind)
        except BadInput as error:
            raise BadFile(
                f"{quote(file)} and the files beside it do not form a FLAME head: {error} Download them again."
            ) from None


def _read(path: Path, landmarks: Given, template: Given, texture: Given) -> tuple[Arrays, str]:
    """Return the arrays for `from_arrays`, and the kind of model."""
    if is_safetensors(path):
        return _from_safetensors(path)
    landmarks, template, texture = (
        _companion(path, given, usual)
        for given, usual in ((landmarks, LANDMARKS_FILE), (template, TEMPLATE_FILE), (texture, TEXTURE_FILE))
    )
    arrays, kind = read_model(path)
    if landmarks is not None:
        arrays |= read_landmarks(landmarks)
    if texture is None:
        # The whole head takes its colour from the middle of a tiny texture.
        arrays["uv"] = np.full((len(arrays["v_template"]), 2), 0.5, np.float32)
        arrays["albedo_uv"] = np.array(NEUTRAL_SKIN, np.float32)[:, None, None].repeat(2, 1).repeat(2, 2)
        log.info("%s: without %s the head has one colour.", path.name, TEXTURE_FILE)
    elif template is None:
        raise MissingFile(f"{texture.name} needs the UVs of {TEMPLATE_FILE}, which is not in {path.parent}. Put it there.")
    else:
        arrays |= read_uvs(template, arrays["faces"]) | read_texture(texture)
    return arrays, kind


def _companion(path: Path, given: Given, usual: str) -> Path | None:
    if given is not None:
        return Path(given)
    beside = path.with_name(usual)
    return beside if beside.is_file() else None


def _from_safetensors(path: Path) -> tuple[Arrays, str]:
    try:
        mapped, metadata = read_safetensors(path)
        arrays = own_copies(mapped)
    except BadFile:
        raise BadFile(f"{quote(path.name)} is a broken safetensors file. Convert the head model again.") from None
    if metadata.get("format") != _FORMAT or metadata.get("kind") not in NAMES:
        raise BadFile(
            f"{quote(path.name)} is not a head model: it holds {', '.join(map(quote, sorted(arrays)[:4])) or 'nothing'}. "
            f"Expected {MODEL_FILE} of FLAME, or the safetensors file that Convert Head Model to safetensors makes from it."
        )
    return arrays, metadata["kind"]
