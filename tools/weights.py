"""Which weights the demo's portrait is made with: the real ones of a ComfyUI's own folders, else stand-ins."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from .standins import STAND_INS, make_standins

CHECKPOINT, CLIP_VISION, CAPFACE, FACENET, PARSER, *_ = STAND_INS
INPUTS = {
    CHECKPOINT: ("CheckpointLoaderSimple", "ckpt_name"),
    CLIP_VISION: ("CLIPVisionLoader", "clip_name"),
    CAPFACE: ("CapFaceLoad", "checkpoint"),
    FACENET: ("CapFaceLoadFaceReader", "facenet"),
    PARSER: ("CapFaceLoadFaceReader", "parser"),
}
"""Files of the portrait workflow: which node's input names each."""


@dataclass(frozen=True)
class Weights:
    """One file that the workflow loads."""

    folder: Path
    """The folder of its kind, such as `models/checkpoints`."""
    name: str
    what: str
    real: bool


def shapes(path: Path) -> dict[str, list[int]]:
    """Keys and shapes in a safetensors file, from its header alone; {} for anything else."""
    try:
        with path.open("rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size)) if size < 100_000_000 else {}
    except (OSError, ValueError, struct.error):
        return {}
    return {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}


def is_sd15(path: Path) -> bool:
    """Whether a file is a whole SD1.5 checkpoint: denoiser, text encoder and autoencoder."""
    found = shapes(path)
    attention = "model.diffusion_model.input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight"
    return found.get(attention) == [1280, 768] and {"cond_stage_model", "first_stage_model"} <= {k.split(".")[0] for k in found}


def is_clip_vit_l(path: Path) -> bool:
    """Whether a file holds CLIP ViT-L/14's image encoder for 224 pixels."""
    return shapes(path).get("vision_model.embeddings.position_embedding.weight") == [257, 1024]


RECOGNISED = {
    CHECKPOINT: is_sd15,
    CLIP_VISION: is_clip_vit_l,
    CAPFACE: lambda path: path.name == "caphuman.ckpt" or "zero_convs.11.0.weight" in "\n".join(shapes(path)),
    FACENET: lambda path: path.name == Path(FACENET).name,
    PARSER: lambda path: path.name in (Path(PARSER).name, "parsing_bisenet.pth"),
}


def real_file(models: Path, kind: str) -> Path | None:
    """Find the first file in a ComfyUI's `models` folder that is the real one of its kind."""
    folder = models / Path(kind).parent
    found = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    return next((p for p in found if RECOGNISED[kind](p)), None)


def choose(models: Path, *, say=print) -> dict[str, Weights]:
    """Choose each file.

    CapFace and the checkpoint go together: a stand-in of one does not fit the real other.

    Args:
        models: The host's own `models` folder.
        say: Takes one line for each file.
    """
    real = {kind: real_file(models, kind) for kind in INPUTS}
    if real[CAPFACE] is None or real[CHECKPOINT] is None:
        real[CAPFACE] = real[CHECKPOINT] = None
    standins = make_standins(say=say) if None in real.values() else None
    chosen = {}
    for kind, path in real.items():
        folder = (models if path else standins) / Path(kind).parent
        name = path.relative_to(folder).as_posix() if path else Path(kind).name
        what = STAND_INS[kind][1]
        chosen[kind] = Weights(folder, name, what, path is not None)
        say(f"  {'real     ' if path else 'STAND-IN '} {what}: {path or name}")
    return chosen


def use(prompt: dict, chosen: dict[str, Weights]) -> None:
    """Name the chosen files in an API workflow, in place."""
    for kind, weights in chosen.items():
        class_type, name = INPUTS[kind]
        for node in prompt.values():
            if node["class_type"] == class_type:
                node["inputs"][name] = weights.name
