"""FLAME's published files, read as the arrays of `HeadModel.from_arrays`.

Conventions: of FLAME's 300 shape and 100 expression components, the first 100 and the first 50 are read; of the texture's 200,
the first 50. DECA's codes have these components, and CapFace was trained with them. The texture's colours are BGR in 0..255
at 512 × 512; every second row and column is used, as in the released code.
Source: flame.is.tue.mpg.de; Li et al., "Learning a model of facial shape and expression from 4D scans" (2017).
"""

import hashlib
import io
import math
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...errors import BadFile, quote
from ...files.boundary import reading, reads
from ...files.budgets import (
    LARGEST_FLAME,
    LARGEST_TEMPLATE,
    MOST_INFLATION,
    MOST_SKIN_COMPONENTS,
    at_most,
)
from ...files.catalogue import FLAME, FLAME_2020_MD5, FLAME_LANDMARKS, FLAME_TEMPLATE, FLAME_TEXTURE
from ...files.header import read_begin
from ...files.npy import Stream, read_header
from ...shapes import Int
from ..model import SIZES
from .safe_pickle import sole_object, to_array, unpickle

MODEL_FILE, LANDMARKS_FILE = FLAME.file, FLAME_LANDMARKS.file
TEMPLATE_FILE, TEXTURE_FILE = FLAME_TEMPLATE.file, FLAME_TEXTURE.file

# FLAME 2020 is recognised by its MD5 in the catalogue, FLAME 2023 (with and without jaw, Open) by the start of its SHA-256.
# FLAME 2023 Open also has a key of its own, which survives saving the file again.
FLAME_2023_SHA256 = ("8fb1af0d", "b291fcd1", "e75a0990")
FLAME_2023_KEY = "supr_expression_metadata"

SHAPES = 300
COMPONENTS = 400
TEXTURE_SIDE = 256

_MODEL_KEYS = {
    "v_template": "v_template", "faces": "f", "shapedirs": "shapedirs", "posedirs": "posedirs",
    "J_regressor": "J_regressor", "weights": "weights", "parents": "kintree_table",
}  # fmt: skip
"""Arguments of `from_arrays` -> FLAME's keys."""
_LANDMARK_KEYS = tuple(f"{part}_lmk_{what}" for part in ("static", "dynamic", "full") for what in ("faces_idx", "bary_coords"))


def contents(path: Path, largest: int = LARGEST_FLAME) -> bytes:
    """Read a file's bytes and reject the usual broken downloads by name.

    Args:
        path: The file.
        largest: The most bytes that it may have.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is empty, a web page or a Git LFS pointer, or too large.
    """
    read_begin(path)
    with reading(path, "a file of FLAME"):
        at_most(path.stat().st_size, largest, "bytes", path.name)
        return path.read_bytes()


# generic_model.pkl


@reads("FLAME", f"Expected FLAME 2020: {FLAME.reference}.")
def read_model(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read the FLAME model.

    Args:
        path: `generic_model.pkl`.

    Returns:
        v_template, faces, shapedirs, posedirs, J_regressor, weights and parents; and "flame2020", "flame2023" or, if the file
        is not a published one of either, "flame".

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, or not FLAME.
    """
    file, data = quote(path.name), contents(path)
    wanted = f"Expected FLAME 2020: {FLAME.reference}"
    if data[:4] == b"PK\x03\x04":
        what = "a torch checkpoint or an archive: unpack it if it is FLAME's"
        raise BadFile(f"{file} is a zip file ({what}). {wanted}.")
    try:
        content = unpickle(data)
    except BadFile as error:  # a clause
        raise BadFile(f"{file} cannot be read as FLAME: {error}. {wanted}.") from None
    if not isinstance(content, dict) or not all(key in content for key in _MODEL_KEYS.values()):
        raise BadFile(f"{file} is not FLAME: it holds {_holds(content)}. {wanted}.")
    arrays = {name: _array(file, content, key) for name, key in _MODEL_KEYS.items()}
    shapedirs, tree, faces = arrays["shapedirs"], arrays["parents"], arrays["faces"]
    if shapedirs.ndim != 3 or shapedirs.shape[2] != COMPONENTS or tree.shape != (2, 5):
        raise BadFile(
            f"{file} is a body, hand or another head model: expected FLAME's {COMPONENTS} components and 5 joints, got "
            f"shapedirs {list(shapedirs.shape)} and kintree_table {list(tree.shape)}. {wanted}."
        )
    ours = np.r_[: SIZES["shape"][0], SHAPES : SHAPES + SIZES["expression"][0]]
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()} | {
        "shapedirs": shapedirs[:, :, ours].astype(np.float32),
        "faces": faces.astype(np.int64),
        # The root's parent is -1, written as the largest unsigned number.
        "parents": np.concatenate([[-1], tree[0, 1:].astype(np.int64)]),
    }
    return arrays, _version(file, data, content)


def _version(file: str, data: bytes, content: dict[Any, Any]) -> str:
    """Recognise the version of FLAME by the published files' checksums, by a key that only FLAME 2023 has, and by the name."""
    if hashlib.md5(data, usedforsecurity=False).hexdigest() == FLAME_2020_MD5:
        return "flame2020"
    digest = hashlib.sha256(data).hexdigest()
    if FLAME_2023_KEY in content or digest.startswith(FLAME_2023_SHA256) or "2023" in file:
        return "flame2023"
    return "flame"


def _array(file: str, content: dict[Any, Any], key: str) -> np.ndarray:
    try:
        return to_array(content[key])
    except BadFile as error:
        raise BadFile(f"{file}: {key}: {error}. Download it again.") from None


def _holds(content: object) -> str:
    if isinstance(content, dict):
        return "a dictionary of " + (", ".join(sorted(quote(key) for key in content if isinstance(key, str))[:6]) or "nothing")
    return f"a {type(content).__name__}"


# landmark_embedding.npy


@reads("landmarks", f"Expected {FLAME_LANDMARKS.reference}.")
def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """Read the 68 landmarks on the mesh.

    Args:
        path: `landmark_embedding.npy`.

    Returns:
        Triangles and barycentric weights of the static, the dynamic and the full landmarks.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, or not a landmark embedding.
    """
    wanted = f"Expected {FLAME_LANDMARKS.reference}"
    data = contents(path)
    try:
        stream = io.BytesIO(data)
        _, _, dtype = read_header(stream)
        content = sole_object(unpickle(data[stream.tell() :])) if dtype.hasobject else None
    except BadFile as error:  # a clause
        raise BadFile(f"{quote(path.name)} cannot be read as landmarks: {error}. {wanted}.") from None
    if not isinstance(content, dict) or not all(key in content for key in _LANDMARK_KEYS):
        raise BadFile(f"{path.name} is not a landmark embedding: it holds {_holds(content)}. {wanted}.")
    arrays = {key: _array(path.name, content, key) for key in _LANDMARK_KEYS}
    for key in arrays:
        if key.startswith(("static", "full")) and arrays[key].shape[:1] == (1,):
            arrays[key] = arrays[key][0]
    return arrays


# head_template.obj


@reads("a mesh with texture coordinates", f"Expected {FLAME_TEMPLATE.reference}.")
def read_uvs(path: Path, faces: Int[np.ndarray, "F 3"]) -> dict[str, np.ndarray]:
    """Read the UVs, and match them to the corners of the model's faces.

    Args:
        path: `head_template.obj`.
        faces: Triangles of the model; the template may list them in another order.

    Returns:
        uv `[T, 2]` and uv_faces `[F, 3]`.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, not an OBJ file of triangles with UVs, or of another mesh.
    """
    wanted = f"Expected {FLAME_TEMPLATE.reference}"
    uv, corners = [], []
    try:
        for line in contents(path, LARGEST_TEMPLATE).decode("ascii").splitlines():
            key, *values = line.split() or [""]
            if key == "vt":
                uv.append([float(value) for value in values[:2]])
            elif key == "f":
                corners.append([[int(number) for number in value.split("/")[:2]] for value in values])
        uv, corners = np.array(uv, np.float32), np.array(corners, np.int64) - 1
    except (ValueError, OverflowError):
        raise BadFile(f"{quote(path.name)} is not an OBJ file of triangles. {wanted}.") from None
    if corners.ndim != 3 or corners.shape[1:] != (3, 2):
        raise BadFile(f"{path.name} is not an OBJ file of triangles with UVs (f v/vt v/vt v/vt). {wanted}.")
    # Triangles are rotated until their smallest vertex comes first, so they match wherever their list of vertices starts.
    mine, theirs = _smallest_first(faces), _smallest_first(corners[:, :, 0])
    triangles = np.take_along_axis(corners[:, :, 0], theirs, axis=1).tolist()
    by_triangle = {tuple(triangle): number for number, triangle in enumerate(triangles)}
    numbers = [by_triangle.get(tuple(triangle)) for triangle in np.take_along_axis(faces, mine, axis=1).tolist()]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        missing = f"{len(numbers) - len(known)} of the model's {len(faces)} faces are not in it"
        raise BadFile(f"{path.name} is the template of another mesh: {missing}. {wanted}.")
    uv_faces = np.empty_like(faces)
    np.put_along_axis(uv_faces, mine, np.take_along_axis(corners[:, :, 1], theirs, axis=1)[known], axis=1)
    return {"uv": uv, "uv_faces": uv_faces}


def _smallest_first(faces: Int[np.ndarray, "N 3"]) -> Int[np.ndarray, "N 3"]:
    """Return the positions that rotate each triangle until its smallest vertex comes first."""
    return (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3


# FLAME_texture.npz


@reads("a texture of FLAME", f"Expected {FLAME_TEXTURE.reference}, with mean and tex_dir.")
def read_texture(path: Path) -> dict[str, np.ndarray]:
    """Read the texture and its basis.

    Args:
        path: `FLAME_texture.npz`.

    Returns:
        texture_mean `[3, 256, 256]` and texture_basis `[50, 3, 256, 256]`, RGB in 0..1.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, or not FLAME's texture.
    """
    wanted = f"Expected {FLAME_TEXTURE.reference}, with mean and tex_dir"
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if not {"mean", "tex_dir"} <= names:
                raise BadFile(f"it holds {', '.join(map(quote, sorted(names)[:6])) or 'nothing'}")
            mean = _components(archive, "mean", None)
            basis = _components(archive, "tex_dir", SIZES["texture"][0])
    except BadFile as error:  # a clause
        raise BadFile(f"{quote(path.name)} is not a texture of FLAME, or it is broken: {error}. {wanted}.") from None
    # [h, w, BGR, C] to [C, RGB, h, w]
    return {
        "texture_mean": np.ascontiguousarray(mean[:, :, ::-1].transpose(2, 0, 1)) / np.float32(255),
        "texture_basis": np.ascontiguousarray(basis[:, :, ::-1].transpose(3, 2, 0, 1)) / np.float32(255),
    }


def _components(archive: zipfile.ZipFile, key: str, count: int | None) -> np.ndarray:
    """Read an array of the archive at half its rows and columns, its last axis cut to `count`.

    It is read in pieces: the whole basis takes over a gigabyte, but only a thirtieth of it is needed.
    """
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as stream:
        shape, fortran, dtype = read_header(stream)
        if dtype.kind not in "fiu" or len(shape) != (3 if count is None else 4):
            raise BadFile(f"{key} has shape {list(shape)} and type {dtype}")
        half = [(length + 1) // 2 for length in shape[:2]]
        if half != [TEXTURE_SIDE] * 2 or shape[2] != 3 or not 0 < math.prod(shape[3:]) <= MOST_SKIN_COMPONENTS:
            raise BadFile(f"{key} has shape {[*half, *shape[2:]]} at half size")
        size = math.prod(shape) * dtype.itemsize
        if size > member.file_size or size > MOST_INFLATION * max(member.compress_size, 1):
            raise BadFile(f"{key} states {size:,} bytes and has {member.compress_size:,}")
        # Rows come first in the file; in Fortran order, components come first.
        pieces = []
        if fortran:
            for _ in range(shape[-1] if count is None else min(count, shape[-1])):
                pieces.append(_numbers(stream, dtype, shape[:-1], "F")[::2, ::2])
            return np.stack(pieces, axis=-1)
        for row in range(shape[0]):
            piece = _numbers(stream, dtype, shape[1:], "C")
            if row % 2 == 0:
                pieces.append(piece[::2] if count is None else piece[::2, :, :count])
        return np.stack(pieces)


def _numbers(stream: Stream, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    data = stream.read(size)
    if len(data) < size:
        raise BadFile("it ends too early")
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(np.float32)
