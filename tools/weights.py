"""Choose the weights of the demo's portrait: real files from a ComfyUI's own folders, else stand-ins."""

from dataclasses import dataclass
from pathlib import Path

from ..files.header import tensor_shapes
from ..files.identify import is_clip_vit_l, is_sd15
from .standins import STAND_INS, make_standins

CHECKPOINT, CLIP_VISION, CAPFACE, FACENET, PARSER, *_ = STAND_INS
INPUTS = {
    CHECKPOINT: ("CheckpointLoaderSimple", "ckpt_name"),
    CLIP_VISION: ("CLIPVisionLoader", "clip_name"),
    CAPFACE: ("CapFaceLoad", "checkpoint"),
    FACENET: ("CapFaceLoadFaceReader", "facenet"),
    PARSER: ("CapFaceLoadFaceReader", "parser"),
}
"""Files of the portrait workflow, and the node input that names each."""


@dataclass(frozen=True)
class Weights:
    """One file that the workflow loads."""

    folder: Path
    """The folder of its kind, such as `models/checkpoints`."""
    name: str
    what: str
    real: bool


DEEP_LAYER = "model.diffusion_model.input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight"
"""Stand-ins lack it, because they are shallower."""
RECOGNISED = {
    CHECKPOINT: lambda path: is_sd15(path) and DEEP_LAYER in tensor_shapes(path),
    CLIP_VISION: is_clip_vit_l,
    CAPFACE: lambda path: path.name == "caphuman.ckpt" or "zero_convs.11.0.weight" in "\n".join(tensor_shapes(path)),
    FACENET: lambda path: path.name == Path(FACENET).name,
    PARSER: lambda path: path.name in (Path(PARSER).name, "parsing_bisenet.pth"),
}


def real_file(models: Path, kind: str) -> Path | None:
    """Find the first file in a ComfyUI's `models` folder that is the real one of its kind."""
    folder = models / Path(kind).parent
    found = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    return next((p for p in found if RECOGNISED[kind](p)), None)


def choose(models: Path, *, say=print) -> dict[str, Weights]:
    """Choose a real file or a stand-in for each place.

    CapFace and the checkpoint are chosen together: a stand-in for one does not fit the real other.

    Args:
        models: The host's own `models` folder.
        say: Called with one line per file.
    """
    real = {kind: real_file(models, kind) for kind in INPUTS}
    if real[CAPFACE] is None or real[CHECKPOINT] is None:
        real[CAPFACE] = real[CHECKPOINT] = None
    standins = make_standins(say=say) if None in real.values() else None
    chosen = {}
    for kind, path in real.items():
        root = models if path else standins
        assert root is not None, "stand-ins are made if any file is missing"
        folder = root / Path(kind).parent
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
