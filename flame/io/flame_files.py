"""FLAME's published files: what is in them, as the arrays of `HeadModel.from_arrays`.

Conventions: of FLAME's 300 shape and 100 expression components the first 100 and the first 50 are read, of the texture's 200
the first 50: those that DECA's codes have and CapFace was trained with. The texture's colours are BGR over 255 at 512 × 512;
every second row and column of it is taken, as the released code does.
Source: flame.is.tue.mpg.de; Li et al., "Learning a model of facial shape and expression from 4D scans" (2017).
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import BadFile, MissingFile
from ...files.catalogue import FLAME, FLAME_2020_MD5, FLAME_LANDMARKS, FLAME_TEMPLATE, FLAME_TEXTURE
from ..model import SIZES
from .safe_pickle import sole_object, to_array, unpickle

MODEL_FILE, LANDMARKS_FILE = FLAME.file, FLAME_LANDMARKS.file
TEMPLATE_FILE, TEXTURE_FILE = FLAME_TEMPLATE.file, FLAME_TEXTURE.file

# FLAME 2020 is known by its MD5 in the catalogue, FLAME 2023 (with and without jaw, Open) by how the SHA-256 begins.
# FLAME 2023 Open also has a key of its own, however it was saved.
FLAME_2023_SHA256 = ("8fb1af0d", "b291fcd1", "e75a0990")
FLAME_2023_KEY = "supr_expression_metadata"

SHAPES = 300
COMPONENTS = 400
TEXTURE_SIDE = 256

_MODEL_KEYS = {
    "v_template": "v_template", "faces": "f", "shapedirs": "shapedirs", "posedirs": "posedirs",
    "J_regressor": "J_regressor", "weights": "weights", "parents": "kintree_table",
}  # fmt: skip
"""Names of `from_arrays` -> FLAME's keys."""
_LANDMARK_KEYS = tuple(f"{part}_lmk_{what}" for part in ("static", "dynamic", "full") for what in ("faces_idx", "bary_coords"))


def contents(path: Path) -> bytes:
    """A file's bytes; the usual broken downloads are refused by name.

    Raises:
        MissingFile: there is no such file.
        BadFile: it is empty, a web page or a Git LFS pointer.
    """
    if not path.is_file():
        raise MissingFile(f"There is no file {path}.")
    data = path.read_bytes()
    if not data:
        raise BadFile(f"{path.name} is empty. Download it again.")
    if data[:512].lstrip()[:1] == b"<":
        raise BadFile(f"{path.name} is a web page: the download gave a login or error page. Download it again in a browser.")
    if data.startswith(b"version https://git-lfs"):
        raise BadFile(f"{path.name} is a Git LFS pointer, not the file itself. Run `git lfs pull` or download the file.")
    return data


# generic_model.pkl


def read_model(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """FLAME itself.

    Args:
        path: `generic_model.pkl`.

    Returns:
        v_template, faces, shapedirs, posedirs, J_regressor, weights and parents; and "flame2020", "flame2023" or, where the
        file is neither's published one, "flame".

    Raises:
        MissingFile, BadFile: it is not there, or something else.
    """
    file, data = path.name, contents(path)
    wanted = f"Expected {MODEL_FILE} of FLAME 2020 (MD5 {FLAME_2020_MD5}) from flame.is.tue.mpg.de"
    if data[:4] == b"PK\x03\x04":
        what = "a torch checkpoint or an archive: unpack it if it is FLAME's"
        raise BadFile(f"{file} is a zip file ({what}). {wanted}.")
    try:
        content = unpickle(data)
    except BadFile as error:
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


def _version(file: str, data: bytes, content: dict) -> str:
    """Which FLAME it is: by the published files' checksums, by what only FLAME 2023 has, and by its name."""
    if hashlib.md5(data, usedforsecurity=False).hexdigest() == FLAME_2020_MD5:
        return "flame2020"
    digest = hashlib.sha256(data).hexdigest()
    if FLAME_2023_KEY in content or digest.startswith(FLAME_2023_SHA256) or "2023" in file:
        return "flame2023"
    return "flame"


def _array(file: str, content: dict, key: str) -> np.ndarray:
    try:
        return to_array(content[key])
    except BadFile as error:
        raise BadFile(f"{file}: {key}: {error}. Download it again.") from None


def _holds(content: object) -> str:
    if isinstance(content, dict):
        return "a dictionary of " + (", ".join(sorted(str(key) for key in content)[:6]) or "nothing")
    return f"a {type(content).__name__}"


# landmark_embedding.npy


def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """The 68 landmarks on the mesh.

    Args:
        path: `landmark_embedding.npy`.

    Returns:
        Triangles and weights of the static, the dynamic and the full landmarks.

    Raises:
        MissingFile, BadFile: it is not there, or something else.
    """
    wanted = f"Expected {LANDMARKS_FILE}, which comes with DECA (github.com/yfeng95/DECA, data)"
    data = contents(path)
    try:
        stream = io.BytesIO(data)
        _, _, dtype = _npy_header(stream)
        content = sole_object(unpickle(data[stream.tell() :])) if dtype.hasobject else None
    except (BadFile, ValueError) as error:
        raise BadFile(f"{path.name} cannot be read as landmarks: {error}. {wanted}.") from None
    if not isinstance(content, dict) or not all(key in content for key in _LANDMARK_KEYS):
        raise BadFile(f"{path.name} is no landmark embedding: it holds {_holds(content)}. {wanted}.")
    arrays = {key: _array(path.name, content, key) for key in _LANDMARK_KEYS}
    for key in arrays:
        if key.startswith(("static", "full")) and arrays[key].shape[:1] == (1,):
            arrays[key] = arrays[key][0]
    return arrays


def _npy_header(stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type of the array whose data follows in the stream."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


# head_template.obj


def read_uvs(path: Path, faces: np.ndarray) -> dict[str, np.ndarray]:
    """UVs, and for each of the model's faces those of its corners.

    Args:
        path: `head_template.obj`.
        faces: `[F, 3]` the model's, which the template may list in another order.

    Returns:
        uv `[T, 2]` and uv_faces `[F, 3]`.

    Raises:
        MissingFile, BadFile: it is not there, something else, or of another mesh.
    """
    wanted = f"Expected {TEMPLATE_FILE}, which comes with DECA (github.com/yfeng95/DECA, data)"
    uv, corners = [], []
    try:
        for line in contents(path).decode("ascii").splitlines():
            key, *values = line.split() or [""]
            if key == "vt":
                uv.append([float(value) for value in values[:2]])
            elif key == "f":
                corners.append([[int(number) for number in value.split("/")[:2]] for value in values])
        uv, corners = np.array(uv, np.float32), np.array(corners, np.int64) - 1
    except ValueError as error:
        raise BadFile(f"{path.name} is no OBJ file of triangles ({error}). {wanted}.") from None
    if corners.ndim != 3 or corners.shape[1:] != (3, 2):
        raise BadFile(f"{path.name} is no OBJ file of triangles with UVs (f v/vt v/vt v/vt). {wanted}.")
    # Turned until its smallest vertex comes first, a triangle is the same wherever it was begun.
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


def _smallest_first(faces: np.ndarray) -> np.ndarray:
    """Positions `[F, 3]` that turn each triangle until its smallest vertex comes first."""
    return (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3


# FLAME_texture.npz


def read_texture(path: Path) -> dict[str, np.ndarray]:
    """The skin.

    Args:
        path: `FLAME_texture.npz`.

    Returns:
        texture_mean `[3, 256, 256]` and texture_basis `[50, 3, 256, 256]`, RGB in 0..1.

    Raises:
        MissingFile, BadFile: it is not there, or something else.
    """
    wanted = f"Expected {TEXTURE_FILE} (mean and tex_dir) from flame.is.tue.mpg.de"
    if not path.is_file():
        raise MissingFile(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if not {"mean", "tex_dir"} <= names:
                raise BadFile(f"it holds {', '.join(sorted(names)[:6]) or 'nothing'}")
            mean = _components(archive, "mean", None)
            basis = _components(archive, "tex_dir", SIZES["texture"][0])
    except (BadFile, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadFile(f"{path.name} is no texture of FLAME, or a broken one: {error}. {wanted}.") from None
    if mean.shape != (TEXTURE_SIDE, TEXTURE_SIDE, 3) or basis.shape[:3] != mean.shape:
        raise BadFile(f"{path.name}: got a mean {list(mean.shape)} and a basis {list(basis.shape)} at half size. {wanted}.")
    # [h, w, BGR, C] to [C, RGB, h, w]
    return {
        "texture_mean": np.ascontiguousarray(mean[:, :, ::-1].transpose(2, 0, 1)) / np.float32(255),
        "texture_basis": np.ascontiguousarray(basis[:, :, ::-1].transpose(3, 2, 0, 1)) / np.float32(255),
    }


def _components(archive: zipfile.ZipFile, key: str, count: int | None) -> np.ndarray:
    """An array of the archive at half its rows and columns, its last axis cut to `count`.

    It is read in pieces: the whole basis takes over a gigabyte, what is needed of it a thirtieth.
    """
    with archive.open(f"{key}.npy") as stream:
        shape, fortran, dtype = _npy_header(stream)
        if dtype.kind not in "fiu" or len(shape) != (3 if count is None else 4):
            raise BadFile(f"{key} has shape {list(shape)} and type {dtype}")
        # Rows come first in the file, or, in Fortran's order, components.
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


def _numbers(stream, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends too early")
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(np.float32)
