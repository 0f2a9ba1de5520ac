"""Reading checkpoints: safely, only what is needed, and by what they hold rather than by their names.

Files are mapped, not read: a tensor costs memory when it is used. Pickles go through torch's weights-only unpickler, so that
no code of theirs runs.
"""

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadFile, MissingFile

log = logging.getLogger("capface")


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a checkpoint's tensors lazily.

    Args:
        path: A torch pickle (zip or the format before torch 1.6) or a safetensors file, whatever its name ends in.

    Returns:
        Tensors by key, mapped to the file where its format allows. What lies under `state_dict` is unwrapped, other nested
        dictionaries are joined with dots, and what is no tensor is left out.

    Raises:
        MissingFile: if there is no such file.
        BadFile: if it is no checkpoint, broken, or holds code; the message says which.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"There is no file {path}.")
    with path.open("rb") as file:
        head = file.read(64)
    size = path.stat().st_size
    if not head:
        raise BadFile(f"{path.name} is empty. Download it again.")
    if head.lstrip()[:1] == b"<":
        raise BadFile(
            f"{path.name} is a web page, not a checkpoint: the download gave a login or error page. "
            "Download it again in a browser."
        )
    if head.startswith(b"version https://git-lfs"):
        raise BadFile(f"{path.name} is a Git LFS pointer, not the checkpoint itself. Run `git lfs pull` or download the file.")
    if head[:4] == b"PK\x03\x04":
        state = _read_zip(path)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        state = _read_safetensors(path)
    elif head[:1] == b"\x80":
        state = _unpickle(path, mmap=False)
    elif head[8:9] == b"{":
        raise BadFile(f"{path.name} is a truncated safetensors file ({size:,} bytes). Download it again.")
    else:
        begin = head[:8]
        raise BadFile(
            f"{path.name} is no checkpoint: expected safetensors or a torch pickle, got a file that begins with {begin}."
        )
    tree: Any = state.get("state_dict", state) if isinstance(state, Mapping) else {"": state}
    return _flatten(tree)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  safe_open is no dict
    except SafetensorError as error:
        raise BadFile(f"{path.name} is a broken or truncated safetensors file ({error}). Download it again.") from None


def _read_zip(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except zipfile.BadZipFile:
        size = path.stat().st_size
        raise BadFile(f"{path.name} is a truncated torch checkpoint ({size:,} bytes). Download it again.") from None
    if not any(n.endswith("data.pkl") for n in names):
        raise BadFile(f"{path.name} is a zip archive, not a checkpoint: unpack it. It holds {', '.join(names[:3])}.")
    if any("/code/" in n for n in names):
        raise BadFile(
            f"{path.name} is a TorchScript program, as OpenAI's own CLIP files are, which is never run. Get the same weights "
            "as safetensors."
        )
    return _unpickle(path, mmap=True)


def _unpickle(path: Path, *, mmap: bool) -> object:
    """Unpickle tensors and plain containers. Objects of other classes become inert placeholders; no code of theirs runs."""
    foreign = []
    while True:
        inert: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in foreign]
        try:
            with torch.serialization.safe_globals(inert) if inert else nullcontext():
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            break
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            if not found:
                raise BadFile(f"{path.name} is a broken checkpoint ({error}). Download it again.") from None
            if found[1] in foreign or "." not in found[1]:
                raise BadFile(
                    f"{path.name} holds Python code ({found[1]}), which is never run. Expected tensors alone: get the file "
                    "from its source, as safetensors if there is one."
                ) from None
            foreign.append(found[1])
        except (RuntimeError, EOFError, ValueError, OSError) as error:
            raise BadFile(f"{path.name} is a broken or truncated checkpoint ({error}). Download it again.") from None
    if foreign:
        log.info("%s also holds %s; they are left out.", path.name, ", ".join(foreign))
    return state


class _Inert:
    """Stands for an object of a class that is not loaded: takes any arguments and state, keeps nothing."""

    def __new__(cls, *_args, **_kwargs):
        return super().__new__(cls)

    def __init__(self, *_args, **_kwargs):
        pass

    def __setstate__(self, _state):
        pass


def _flatten(tree: Mapping, prefix: str = "") -> dict[str, Tensor]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Tensor):
            flat[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
    return flat


# What a file looks like

_DIFFUSION = "a diffusion model"
_SIGNS = (  # the first that matches names the file
    ("a LoRA", ("lora_up", "lora_down", "lora_A", "lora_B", ".lokr_", ".hada_")),
    ("a ControlNet", ("control_model.zero_convs.", "zero_convs.0.", "controlnet_cond_embedding.", "controlnet_blocks.")),
    ("an SDXL model", ("conditioner.embedders.", "add_embedding.linear_1")),
    ("a Flux or SD3 model", ("double_blocks.", "joint_blocks.")),
    (_DIFFUSION, ("model.diffusion_model.", "input_blocks.", "down_blocks.0.attentions.")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a face kept by an insightface tool", ("landmark_3d_68", "landmark_2d_106")),
    ("a DECA checkpoint", ("E_flame.",)),
    ("a FaceNet checkpoint", ("conv2d_1a.", "last_linear.")),
    ("a CLIP vision model", ("vision_model.encoder.", "visual.transformer.")),
    ("a VAE", ("first_stage_model.", "decoder.up")),
    ("a text encoder", ("text_model.encoder.", "transformer.resblocks.")),
)
_BY_CONTEXT_WIDTH = {
    768: "a Stable Diffusion 1.x checkpoint",
    1024: "a Stable Diffusion 2.x checkpoint",
    2048: "an SDXL model",
}


def describe(state: Mapping[str, Tensor]) -> str:
    """Say in a few words what a state dict looks like, for error messages.

    Args:
        state: Tensors (or anything with a `shape`) by key.

    Returns:
        A noun phrase such as "a LoRA (192 tensors, the first is lora_unet_…)".
    """
    if not state:
        return "a file without tensors"
    kind = next((kind for kind, signs in _SIGNS if any(sign in key for key in state for sign in signs)), "an unknown file")
    if kind == _DIFFUSION:
        width = next((v.shape[-1] for k, v in state.items() if k.endswith("attn2.to_k.weight")), 0)
        kind = _BY_CONTEXT_WIDTH.get(width, kind)
    return f"{kind} ({len(state)} tensors, the first is {next(iter(state))})"
