"""Write files with FLAME's published layout for tests: a Python 2 pickle with chumpy's and scipy's classes, and the others."""

import io
import pickle
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch

from capface.flame.io.flame_files import FLAME_2023_KEY, LANDMARKS_FILE, MODEL_FILE, TEMPLATE_FILE, TEXTURE_FILE
from capface.tests.flame.heads import forward_numbers

SIDE = 512


def foreign(module, name, state):
    """An object of a missing class. Its pickle holds the class's name and the state."""
    thing = type(name, (), {"__module__": module})()
    thing.__dict__.update(state)
    return thing


def chumpy(array):
    """A pickled `chumpy.Ch`."""
    return foreign("chumpy.ch", "Ch", {"x": array, "_dirty_vars": set(), "_itr": None, "_depends_on_deps": {}})


def chumpy_part(array, spare=3):
    """A `chumpy.reordering.Select`: some values of a larger array, by their flat indices."""
    whole = np.concatenate([array, np.ones((*array.shape[:-1], spare))], axis=-1)
    positions = np.arange(whole.size).reshape(whole.shape)[..., :-spare].ravel()
    return foreign("chumpy.reordering", "Select", {"a": chumpy(whole), "idxs": positions, "preferred_shape": array.shape})


def sparse(array):
    """A `scipy.sparse.csc_matrix` of scipy before 1.8."""
    columns, rows = np.nonzero(array.T)
    starts = np.searchsorted(columns, np.arange(array.shape[1] + 1)).astype(np.int32)
    state = {"_shape": array.shape, "maxprint": 50, "data": array[rows, columns], "indices": rows.astype(np.int32)}
    return foreign("scipy.sparse.csc", "csc_matrix", {**state, "indptr": starts})


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did: text as bytes, the old modules' names, and no check that a class exists."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = pickle._Pickler.dispatch.copy()
    # typeshed leaves these two out
    write: Callable[[bytes], object]
    memoize: Callable[[object], None]

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)

    def save_text(self, value):
        self.save_bytes(value.encode("latin1"))

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text

    def save_global(self, value, name=None):
        module = value.__self__.__name__ if value.__module__ is None else str(value.__module__)
        module = module.replace("numpy._core", "numpy.core").replace("builtins", "__builtin__")
        self.write(pickle.GLOBAL + f"{module}\n{value.__name__}\n".encode())
        self.memoize(value)


def python2_pickle(value):
    """The bytes of a protocol 2 pickle of Python 2."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def model_content(numbers=None):
    """The content of the published pickle for the golden numbers' synthetic head; components that are not read are noise."""
    numbers = numbers or forward_numbers()
    V = len(numbers["v_template"])
    noise = np.random.default_rng(5).normal(size=(V, 3, 250))
    golden = numbers["shapedirs"].astype(np.float64)
    shapedirs = np.concatenate([golden[:, :, :100], noise[:, :, :200], golden[:, :, 100:], noise[:, :, 200:]], axis=2)
    tree = np.stack([numbers["parents"], np.arange(5)]).astype(np.uint32)
    return {
        "f": numbers["faces"].astype(np.uint32),
        "J_regressor": sparse(numbers["J_regressor"].astype(np.float64)),
        "kintree_table": tree,
        "J": np.zeros((5, 3)),
        "weights": chumpy(numbers["weights"].astype(np.float64)),
        "posedirs": chumpy_part(np.asfortranarray(numbers["posedirs"].astype(np.float64))),
        "bs_style": "lbs",
        "v_template": chumpy(numbers["v_template"].astype(np.float64)),
        "shapedirs": chumpy(shapedirs),
        "bs_type": "lrotmin",
    }


def landmark_content(numbers=None):
    """The content of the published landmark file: numpy arrays and torch tensors, some with a leading axis of 1."""
    numbers = numbers or forward_numbers()
    content = {key: value for key, value in numbers.items() if "_lmk_" in key}
    content |= {key: torch.from_numpy(value) for key, value in content.items() if key.startswith("dynamic")}
    content |= {key: value[None] for key, value in content.items() if key.startswith("full")}
    return content


def write_template(path, faces, uv):
    """Write an OBJ that lists the faces backwards and the UVs in a different order, and starts each face at another corner."""
    lines = [f"v {x} 0 0" for x in range(faces.max() + 1)] + [f"vt {u} {v}" for u, v in uv[::-1]]
    for turn, face in enumerate(faces[::-1]):
        corners = np.roll(face, turn % 3)
        lines.append("f " + " ".join(f"{corner + 1}/{len(uv) - corner}" for corner in corners))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_texture(path, components=52, order: Literal["C", "F"] = "C"):
    """Write a texture file whose values encode their positions; return its arrays."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mean = np.stack([rows % 256, columns % 256, rows * 0 + 100], axis=2).astype(np.uint8)
    basis = np.empty((SIDE, SIDE, 3, components), np.int8, order=order)
    basis[:] = (rows % 50)[:, :, None, None] + np.arange(components) - 10 * np.arange(3)[:, None]
    np.savez(path, mean=mean, tex_dir=basis)
    return mean, basis


def write_flame(folder, *, content=None, landmarks=True, skin=False):
    """Write FLAME's files to a folder; return the model's path."""
    numbers = forward_numbers()
    (folder / MODEL_FILE).write_bytes(python2_pickle(model_content() if content is None else content))
    if landmarks:
        np.save(folder / LANDMARKS_FILE, np.array(landmark_content()), allow_pickle=True)
    if skin:
        write_template(folder / TEMPLATE_FILE, numbers["faces"], numbers["uv"])
        write_texture(folder / TEXTURE_FILE)
    return folder / MODEL_FILE


def flame_2023_content():
    """The model as in FLAME 2023 Open, which has one more key."""
    return {**model_content(), FLAME_2023_KEY: {}}
