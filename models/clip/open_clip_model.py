"""CLIP's image and text encoders, from a file in open_clip's layout.

The architecture is read from the tensors' shapes; open_clip's own list of architectures adds the number of heads, which no
shape shows. Nothing is downloaded. The activation cannot be read from the tensors: OpenAI's weights and a few others were
trained with QuickGELU, x · sigmoid(1.702 x).

Source: Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (ICML 2021).
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadFile, BadInput, MissingPackage, how_to_install, quote
from ...files.boundary import reading, reads
from ...files.budgets import LARGEST_JSON, LONGEST_CONTEXT, MOST_LAYERS, at_most
from ...files.catalogue import OPEN_CLIP
from ...files.checkpoint import read_state_dict, unwrap
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx
from ...shapes import Float
from ..build import Device

ACTIVATIONS = ("auto", "GELU", "QuickGELU")
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
EXPECTED = f"{OPEN_CLIP.reference}, or another CLIP by open_clip"
HEAD_WIDTH = 64  # of OpenAI's own models
QUICK_NAMES = ("openai", "quickgelu", "dfn", "metaclip")  # names of weights that were trained with QuickGELU
PLAIN_VISION = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # stored beside the weights by some files


class OpenClip(torch.nn.Module):
    """Maps images and texts to unit vectors in one space.

    Attributes:
        name: Short description of the model.
        image_size: Side of the image encoder's input in pixels.
    """

    def __init__(self, network: Any, tokenizer: Any, image_size: int, name: str):
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.name = name

    def images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N"]:
        """Compute the embeddings of images.

        Args:
            images: `[B, 3, H, W]`, RGB in 0..1; the central square is used.

        Returns:
            `[B, N]`, each of length 1.

        Raises:
            BadInput: The shape is another.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise BadInput(f"Expected RGB images [B, 3, H, W], got {list(images.shape)}.")
        scale = self.image_size / min(images.shape[-2:])
        size = [max(round(side * scale), self.image_size) for side in images.shape[-2:]]
        x = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - self.image_size) // 2 for side in size)
        x = x[..., top : top + self.image_size, left : left + self.image_size]
        mean, deviation = (x.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return self.network.encode_image((x - mean) / deviation, normalize=True)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "P N"]:
        """Compute the embeddings of texts.

        Args:
            texts: P strings; longer texts are cut to the text encoder's context.

        Returns:
            `[P, N]`, each of length 1.
        """
        tokens = self.tokenizer(list(texts)).to(self.network.positional_embedding.device)
        return self.network.encode_text(tokens, normalize=True)


@reads("CLIP", f"Expected {EXPECTED}.")
def load_open_clip_model(path: str | os.PathLike[str], activation: str = "auto", *, device: Device = None) -> OpenClip:
    """Read a CLIP model that open_clip supports.

    Args:
        path: A torch pickle or safetensors file with `visual.*` and the text encoder's tensors.
        activation: "GELU", "QuickGELU", or "auto": the activation in `open_clip_config.json` beside the file, else QuickGELU if
            the name of the file or its folder is that of weights trained with it.
        device: Device of the parameters; the CPU by default.

    Returns:
        An `OpenClip` in float32, in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        MissingPackage: open_clip is not installed.
        BadFile: The file is broken or another network.
        BadInput: The activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise BadInput(f"The activation is one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    path = Path(path)
    refuse_onnx(path, kind="CLIP", source=EXPECTED)
    everything = unwrap(read_state_dict(path), "visual.conv1.")
    state = {k: v for k, v in everything.items() if k not in NO_WEIGHTS}
    if "visual.conv1.weight" not in state or "token_embedding.weight" not in state:
        raise BadFile(f"{path.name} is {describe(state)}, not a CLIP of images and texts by open_clip. Expected {EXPECTED}.")
    try:
        import open_clip
    except ImportError as error:
        raise MissingPackage(how_to_install("open_clip_torch") + f" ({error})") from None
    vision, text, embedding = _configuration(state, path.name)
    for encoder in (vision, text):
        at_most(encoder["layers"], MOST_LAYERS, "layers", path.name)
    at_most(text["context_length"], LONGEST_CONTEXT, "positions", path.name)
    at_most(len(state["visual.positional_embedding"]), LONGEST_CONTEXT, "positions", path.name)
    name = _architecture(open_clip, vision, text, embedding)
    quick = activation == "QuickGELU" or (activation == "auto" and _trained_with_quick_gelu(path))
    encoders: Any = {"vision_cfg": vision, "text_cfg": text}
    with torch.device("meta"):
        network = open_clip.CLIP(embedding, **encoders, quick_gelu=quick)
    network = load_strictly(network, state, file=path.name, kind="CLIP", source=EXPECTED, device=device)
    # The one buffer that no file contains: a token attends to itself and to those before it.
    mask = torch.full((text["context_length"],) * 2, -torch.inf, device=device).triu(1)
    network.register_buffer("attn_mask", mask, persistent=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
    return OpenClip(network, tokenizer, vision["image_size"], f"{name} with {'QuickGELU' if quick else 'GELU'}").eval()


def _configuration(state: Mapping[str, Tensor], file: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Return the sizes of the image and the text encoder under open_clip's names, and the width of the embedding."""
    axes = {"visual.conv1.weight": 4, "visual.positional_embedding": 2, "token_embedding.weight": 2}
    axes |= {"positional_embedding": 2, "text_projection": 2}
    odd = [key for key, count in axes.items() if key not in state or state[key].ndim != count or not state[key].numel()]
    if odd:
        raise BadFile(
            f"{quote(file)} is an incomplete CLIP, or one without a plain vision transformer ({odd[0]}). Expected {EXPECTED}."
        )
    width, _, patch, _ = state["visual.conv1.weight"].shape
    vision = {
        "image_size": patch * round((len(state["visual.positional_embedding"]) - 1) ** 0.5),
        "layers": _layers(state, "visual.transformer.resblocks."),
        "width": width,
        "head_width": HEAD_WIDTH,
        "patch_size": patch,
    }
    vocabulary, width = state["token_embedding.weight"].shape
    text = {
        "context_length": len(state["positional_embedding"]),
        "vocab_size": vocabulary,
        "width": width,
        "heads": max(width // HEAD_WIDTH, 1),
        "layers": _layers(state, "transformer.resblocks."),
    }
    return vision, text, state["text_projection"].shape[1]


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].partition(".")[0] for key in state if key.startswith(prefix)})


def _architecture(open_clip: Any, vision: dict[str, Any], text: dict[str, Any], embedding: int) -> str:
    """Complete the encoders' sizes in place from open_clip's list, and return the architecture's name."""
    for name in open_clip.list_models():
        known = open_clip.get_model_config(name)
        seen, said = known.get("vision_cfg", {}), known.get("text_cfg", {})
        if not (set(seen) <= PLAIN_VISION and set(said) <= PLAIN_TEXT):
            continue
        shapes = known["embed_dim"] == embedding
        shapes &= all(seen.get(key) == vision[key] for key in ("image_size", "layers", "width", "patch_size"))
        shapes &= all(said.get(key) == text[key] for key in ("context_length", "vocab_size", "width", "layers"))
        if shapes:
            vision.update(seen)
            text.update(said)
            return name.removesuffix("-quickgelu")
    return f"a CLIP with {vision['layers']} layers of {vision['width']}"


def _trained_with_quick_gelu(path: Path) -> bool:
    config = path.with_name("open_clip_config.json")
    if config.is_file():
        try:
            with reading(config, "an open_clip configuration"):
                at_most(config.stat().st_size, LARGEST_JSON, "bytes", config.name)
                return bool(json.loads(config.read_text(encoding="utf-8"))["model_cfg"].get("quick_gelu", False))
        except BadFile:
            shown = quote(str(config), 200)
            raise BadFile(f"{shown} is not an open_clip configuration. Download it again, or remove it.") from None
    names = f"{path.parent.name}/{path.name}".lower()
    return any(name in names for name in QUICK_NAMES)
