"""What is fuzzed: each reader with the files that are mutated, and how."""

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from . import mutations as change
from .mutations import Mutation


@dataclass(frozen=True)
class Seed:
    """A sound file, and how it is mutated."""

    name: str
    data: bytes
    mutate: Mutation
    sound: bool = True
    """Whether the reader must accept it before it is mutated."""
    beside: dict[str, bytes] = field(default_factory=dict)
    """Files in the same folder, which stay as they are."""


@dataclass(frozen=True)
class Reader:
    """A function that reads a file."""

    name: str
    make: Callable[[], list[Seed]]
    read: Callable[[Path], object]
    fast: bool = True
    """Whether an input takes about a millisecond, so that tests may try hundreds."""


def _saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _torch_seeds(name: str, content: Any) -> list[Seed]:
    return [
        Seed(name, _saved(content), change.inside_zip(change.mutate_pickle)),
        Seed(name, _saved(content, _use_new_zipfile_serialization=False), change.mutate_pickle),
        Seed(name, _saved(content, _use_new_zipfile_serialization=False), change.mutate_bytes),
    ]


# Checkpoints


def _state_seeds() -> list[Seed]:
    from collections import OrderedDict, deque

    state = OrderedDict({"a.weight": torch.ones(4, 3), "a.bias": torch.zeros(4).half(), "n": torch.tensor(3)})
    whole = {"state_dict": state, "epoch": 3, "beside": [deque([1]), frozenset({2}), range(3), np.ones(2)]}
    plain = save({key: value.contiguous() for key, value in state.items()}, {"format": "pt"})
    return [
        *_torch_seeds("s.ckpt", whole),
        *_torch_seeds("s.ckpt", torch.nn.Linear(2, 2).state_dict()),
        Seed("s.safetensors", plain, change.mutate_safetensors),
    ]


def _read_state(path: Path) -> object:
    from ...files.checkpoint import read_state_dict
    from ...files.header import tensor_names, tensor_shapes
    from ...files.identify import describe

    stated = tensor_names(path), tensor_shapes(path)
    state = read_state_dict(path)
    return stated, describe(state), [tensor.sum() for tensor in state.values() if tensor.numel() < 1000]


def _capface_seeds() -> list[Seed]:
    from ...models.diffusion import CapFace, CapFaceConfig, IdentityTokens

    config = CapFaceConfig((1,), 1, (1,), model_channels=32, context_width=48, hint_widths=(2,) * 7)
    state = {f"control_model.{key}": value for key, value in CapFace(config).state_dict().items()}
    state |= IdentityTokens(8, 8, 48).state_dict()
    state = {key: value.detach() for key, value in state.items()}
    small = {key: value.half() for key, value in state.items()}
    return [*_torch_seeds("c.ckpt", small)[:2], Seed("c.safetensors", save(small), change.mutate_safetensors)]


def _read_capface(path: Path) -> object:
    from ...models.diffusion import load_capface

    return load_capface(path)


_NETWORK_KEYS = {
    "facenet": {"conv2d_1a.conv.weight": (32, 3, 3, 3), "last_linear.weight": (2, 2), "logits.weight": (3, 2)},
    "parser": {"cp.resnet.conv1.weight": (4, 3, 7, 7), "ffm.convblk.conv.weight": (2, 2, 1, 1)},
    "deca": {"E_flame.encoder.conv1.weight": (4, 3, 7, 7), "E_flame.layers.0.weight": (2, 2)},
    "clip": {
        "vision_model.embeddings.patch_embedding.weight": (64, 3, 4, 4),
        "vision_model.embeddings.position_embedding.weight": (5, 64),
        "vision_model.encoder.layers.0.self_attn.q_proj.weight": (64, 64),
        "vision_model.encoder.layers.0.self_attn.k_proj.weight": (64, 64),
        "vision_model.encoder.layers.0.self_attn.v_proj.weight": (64, 64),
    },
    "open_clip": {
        "visual.conv1.weight": (64, 3, 4, 4),
        "visual.positional_embedding": (5, 64),
        "visual.transformer.resblocks.0.ln_1.weight": (64,),
        "token_embedding.weight": (9, 64),
        "positional_embedding": (7, 64),
        "transformer.resblocks.0.ln_1.weight": (64,),
        "text_projection": (64, 8),
    },
}


def _network_seeds() -> list[Seed]:
    return [
        Seed(f"{name}.safetensors", save({k: torch.ones(shape) for k, shape in keys.items()}), change.mutate_safetensors, False)
        for name, keys in _NETWORK_KEYS.items()
    ]


def _read_network(path: Path) -> object:
    from ...models.clip import load_clip_tokens, load_open_clip_model
    from ...models.faces import load_deca, load_facenet, load_parser

    loaders: dict[str, Any] = {"facenet": load_facenet, "parser": load_parser, "deca": load_deca}
    loaders |= {"clip": load_clip_tokens, "open_clip": load_open_clip_model}
    return loaders[path.stem](path)


# FLAME


def _small_flame() -> dict[str, Any]:
    from ...tests.flame import flame_files

    rng = np.random.default_rng(1)
    count = 6
    return {
        "f": np.array([[0, 1, 2], [2, 3, 4], [4, 5, 0]], np.uint32),
        "J_regressor": flame_files.sparse(np.full((5, count), 1 / count)),
        "kintree_table": np.stack([np.array([2**32 - 1, 0, 1, 1, 1]), np.arange(5)]).astype(np.uint32),
        "weights": flame_files.chumpy(np.full((count, 5), 0.2)),
        "posedirs": flame_files.chumpy_part(np.asfortranarray(rng.normal(size=(count, 3, 36)))),
        "v_template": flame_files.chumpy(rng.normal(size=(count, 3))),
        "shapedirs": rng.normal(size=(count, 3, 400)).astype(np.float32),
        "bs_type": "lrotmin",
    }


def _flame_seeds() -> list[Seed]:
    from ...tests.flame import flame_files

    data = flame_files.python2_pickle(_small_flame())
    return [Seed("generic_model.pkl", data, change.mutate_pickle), Seed("generic_model.pkl", data, change.mutate_bytes)]


def _unpickle_seeds() -> list[Seed]:
    from ...tests.flame import flame_files

    small = {key: value for key, value in _small_flame().items() if key != "shapedirs"}
    tensors = {"t": torch.ones(2, 3), "l": [[1.0, 2.0], [3.0, 4.0]], "s": np.float64(3)}
    data = [flame_files.python2_pickle({**small, **tensors}), flame_files.python2_pickle(tensors)]
    return [Seed("x.pkl", one, how) for one in data for how in (change.mutate_pickle, change.mutate_bytes)]


def _read_pickle(path: Path) -> object:
    from ...errors import BadFile
    from ...flame.io.safe_pickle import sole_object, to_array, unpickle

    content = unpickle(path.read_bytes())
    sole_object(content)
    last = None
    for value in content.values() if isinstance(content, dict) else [content]:
        try:
            last = to_array(value)
        except BadFile as error:
            last = error
    if isinstance(last, BadFile):
        raise last
    return last


def _read_flame(path: Path) -> object:
    from ...flame.io import load_flame

    return load_flame(path)


def _landmark_seeds() -> list[Seed]:
    keys = {f"{part}_lmk_{what}": (3,) for part in ("static", "dynamic", "full") for what in ("faces_idx", "bary_coords")}
    content: dict[str, Any] = {key: np.ones(shape) for key, shape in keys.items()}
    content["dynamic_lmk_faces_idx"] = torch.ones(2, 3)
    file = io.BytesIO()
    np.save(file, np.array(content), allow_pickle=True)
    header = file.getvalue().index(b"\n") + 1
    return [
        Seed("landmark_embedding.npy", file.getvalue(), change.after(header, change.mutate_pickle)),
        Seed("landmark_embedding.npy", file.getvalue(), change.mutate_bytes),
    ]


def _read_landmarks(path: Path) -> object:
    from ...flame.io.flame_files import read_landmarks

    return read_landmarks(path)


_FACES = np.array([[0, 1, 2], [2, 3, 4]])


def _uv_seeds() -> list[Seed]:
    lines = [f"v {i} 0 0" for i in range(5)] + [f"vt 0.{i} 0.5" for i in range(5)] + ["f 1/1 2/2 3/3", "f 3/3 4/4 5/5"]
    return [Seed("head_template.obj", "\n".join(lines).encode(), change.mutate_text)]


def _read_uvs(path: Path) -> object:
    from ...flame.io.flame_files import read_uvs

    return read_uvs(path, _FACES)


_SIDE = 8


def _texture_seeds() -> list[Seed]:
    arrays: dict[str, Any] = {
        "mean": np.full((2 * _SIDE, 2 * _SIDE, 3), 9, np.uint8),
        "tex_dir": np.ones((2 * _SIDE, 2 * _SIDE, 3, 4), np.int8),
    }
    seeds = []
    for write in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        write(file, **arrays)
        seeds.append(Seed("FLAME_texture.npz", file.getvalue(), change.inside_zip(change.mutate_bytes)))
    return seeds


def _read_texture(path: Path) -> object:
    from ...flame.io import flame_files

    flame_files.TEXTURE_SIDE = _SIDE  # the same code, at a size that is written in a millisecond
    return flame_files.read_texture(path)


def _converted_seeds() -> list[Seed]:
    from ...flame.io import convert_flame
    from ...tests.flame import flame_files

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generic_model.pkl"
        path.write_bytes(flame_files.python2_pickle(_small_flame()))
        data = convert_flame(path, Path(folder) / "head.safetensors").read_bytes()
    return [Seed("head.safetensors", data, change.mutate_safetensors)]


# The pack's own files


def _head_seeds() -> list[Seed]:
    from ...flame.io import heads_to_json
    from ...flame.model import HeadParams

    return [Seed("h.json", heads_to_json(HeadParams.neutral(2), "builtin").encode(), change.mutate_json)]


def _read_heads(path: Path) -> object:
    from ...flame.io import read_heads

    return read_heads(path)


def _identity_seeds() -> list[Seed]:
    from ...host.identity.identity import RELEASED, Identity
    from ...host.identity.identity_file import save_identity

    vector = torch.nn.functional.normalize(torch.ones(1, RELEASED.global_width), dim=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.identity.safetensors"
        save_identity(path, Identity(vector, torch.ones(1, 2, RELEASED.local_width)))
        return [Seed(path.name, path.read_bytes(), change.mutate_safetensors)]


def _read_identity(path: Path) -> object:
    from ...host.identity.identity_file import load_identity

    identity = load_identity(path)
    if not all(torch.isfinite(part).all() for part in (identity.global_, identity.local, identity.strength)):
        raise AssertionError("an identity of NaN was accepted")
    return identity


def _miniature_seeds() -> list[Seed]:
    from ...miniature.networks import MINIATURE_FILE

    return [Seed("miniature.safetensors", MINIATURE_FILE.read_bytes(), change.mutate_safetensors)]


def _read_miniature(path: Path) -> object:
    from ...miniature.networks import load_miniature

    return load_miniature(path)


# Detectors and the Face Landmarker


def _onnx_seeds() -> list[Seed]:
    from ...tests.models.test_detection import write_landmarks, write_scrfd

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for write in (write_scrfd, write_landmarks):
            path = Path(folder) / "det_10g.onnx"
            write(path)
            seeds.append(Seed(path.name, path.read_bytes(), change.mutate_bytes))
    return seeds


def _detector_seeds() -> list[Seed]:
    return [_onnx_seeds()[0]]


def _read_onnx(path: Path) -> object:
    from ...files.onnx import check_onnx

    return check_onnx(path)


def _open_onnx(path: Path) -> object:
    from insightface.model_zoo import get_model

    from ...models.faces.detection import open_network

    return open_network(get_model, path, "detection")


def _tflite_seeds() -> list[Seed]:
    from ...tests.files import test_tflite as written

    data = next(value for value in vars(written).values() if isinstance(value, bytes) and value[4:8] == b"TFL3")
    return [Seed("x.tflite", data, change.mutate_bytes)]


def _read_tflite(path: Path) -> object:
    from ...files.tflite import read_tflite

    return read_tflite(path.read_bytes(), path.name)


# Photos and training


def _photo_seeds() -> list[Seed]:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (24, 20, 3), np.uint8))
    seeds = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        file = io.BytesIO()
        picture.save(file, kind)
        seeds.append(Seed(f"p.{kind.lower()}", file.getvalue(), change.mutate_bytes))
    return seeds


def _read_photo(path: Path) -> object:
    from ...photos.pictures import read_picture

    return read_picture(path)


def _training_set_seeds() -> list[Seed]:
    from ...flame.io import heads_to_json
    from ...flame.model import HeadParams
    from ...training.shards import DATASET, FORMAT, VERSION, Sample, write_json, write_shard

    head = json.loads(heads_to_json(HeadParams.neutral(), "builtin"))
    picture, arrays = io.BytesIO(), []
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture, "JPEG")
    for shape in ((512,), (257, 4)):
        arrays.append(io.BytesIO())
        np.save(arrays[-1], np.ones(shape, np.float32))
    about = json.dumps({"caption": "a", "head": head}).encode()
    members = {"jpg": picture.getvalue(), "json": about}
    members |= {"global.npy": arrays[0].getvalue(), "local.npy": arrays[1].getvalue()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shard(folder, 0, [Sample("00000000", "a", "a.jpg", members)], {})
        shards = [{"file": "000000.tar", "samples": 1}]
        about = {"format": FORMAT, "version": VERSION, "head_model": {"kind": "builtin"}, "shards": shards}
        write_json(folder / DATASET, about)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    ways = {DATASET: change.mutate_json, "000000.json": change.mutate_json, "000000.tar": change.mutate_bytes}
    return [
        Seed(mutated, files[mutated], how, beside={name: data for name, data in files.items() if name != mutated})
        for mutated, how in ways.items()
    ]


def _read_training_set(path: Path) -> object:
    from ...training.dataset import TrainingSet

    samples = TrainingSet(path.parent, size=16)
    return samples[0] if len(samples) else samples


def _training_state_seeds() -> list[Seed]:
    state = {"step": 3, "settings": {"seed": 0, "rate": 0.1}, "network": {"a": torch.ones(2)}, "random": torch.get_rng_state()}
    return _torch_seeds("state-00000003.pt", state)


def _read_training_state(path: Path) -> object:
    from ...training.state import load_state, steps_done

    return steps_done(path.parent), load_state(path.parent, {"seed": 0, "rate": 0.1})


# Edit Head's preview


def _preview_seeds() -> list[Seed]:
    from ..comfy import find_host, import_host

    if (host := find_host()) is None:
        return []
    import_host(host, tempfile.mkdtemp(prefix="capface-fuzz-"))
    from ...host.head_models import BUILT_IN_HEAD
    from ...host.model_folders import register_folders

    register_folders()
    values = {"pose_mode": "absolute", "yaw": 20.0, "smile_left": 0.5, "light": "custom", "key_color": "#ffffff"}
    fields = {"view": "a", "client": "b", "values": values, "side": 256, "over": True, "close": False, "raw": True, "head": 0}
    fields |= {"given": "c", "model": BUILT_IN_HEAD, "file": "a.json"}
    body = json.dumps(fields).encode()
    return [Seed("body.json", body, change.mutate_json)] * 3 + [Seed("body.json", body, change.mutate_bytes)]


def _answer_preview(path: Path) -> object:
    from ...errors import BadInput
    from ...host.editor import route
    from ...nodes.edit_head import EditHead

    try:
        return route.render(route.parse_request(path.read_bytes(), EditHead.define_schema().inputs))
    except route.BadRequest as error:
        raise BadInput(str(error)) from None


READERS = (
    Reader("state", _state_seeds, _read_state),
    Reader("unpickle", _unpickle_seeds, _read_pickle),
    Reader("flame", _flame_seeds, _read_flame),
    Reader("landmarks", _landmark_seeds, _read_landmarks),
    Reader("uvs", _uv_seeds, _read_uvs),
    Reader("texture", _texture_seeds, _read_texture),
    Reader("converted", _converted_seeds, _read_flame),
    Reader("heads", _head_seeds, _read_heads),
    Reader("identity", _identity_seeds, _read_identity),
    Reader("onnx", _onnx_seeds, _read_onnx),
    Reader("tflite", _tflite_seeds, _read_tflite),
    Reader("photos", _photo_seeds, _read_photo),
    Reader("training_state", _training_state_seeds, _read_training_state),
    Reader("training_set", _training_set_seeds, _read_training_set, fast=False),
    Reader("capface", _capface_seeds, _read_capface, fast=False),
    Reader("networks", _network_seeds, _read_network, fast=False),
    Reader("miniature", _miniature_seeds, _read_miniature, fast=False),
    Reader("detector", _detector_seeds, _open_onnx, fast=False),
    Reader("preview", _preview_seeds, _answer_preview, fast=False),
)
"""All readers. Those that are not fast build networks or render heads."""


def write_input(folder: Path, seed: Seed, data: bytes) -> Path:
    """Write a mutated file and those beside it to an emptied folder; return its path."""
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name, content in seed.beside.items():
        (folder / name).write_bytes(content)
    path = folder / seed.name
    path.write_bytes(data)
    return path
