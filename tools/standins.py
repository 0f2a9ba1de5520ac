"""Stand-in weights: files with the layouts of the real ones, for trying and testing the workflows without the real weights.

Each is random with a fixed seed. The result is an image, not a portrait; it proves that every file is found, read and used.
Large files store zeros for most layers as a sparse region at their end, so they take little time and disk space. This module
also makes the input pictures of the workflows.

python -m capface.tools.standins [FOLDER]   writes them into a folder laid out like ComfyUI's `models`, or into the cache
"""

import hashlib
import json
import math
import os
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path

import torch
from PIL import Image, ImageColor, ImageDraw, ImageOps
from torch import Tensor

from ..models.diffusion.capface import CapFace, CapFaceConfig, IdentityTokens
from ..models.diffusion.denoiser import Denoiser, DenoiserConfig
from ..models.faces.facenet import FaceNet
from ..models.faces.parsing import LABELS, FaceParser

LIST = "stand-ins.json"
SMALL = CapFaceConfig(channel_mult=(1,), num_res_blocks=1, attention_downsamplings=(1,))
"""The smallest network that ComfyUI's checkpoint loader still recognizes as SD1.5: one level, one residual block."""
CLIP_TOKENS, CLIP_VOCABULARY = 77, 49408
PACK = Path(__file__).resolve().parent.parent

_SAFETENSORS_TYPES = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}

Shapes = dict[str, tuple[int, ...]]


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw one random parameter, seeded by its full name: unit-gain weights, small biases, norms near 1."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    n = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return (1 + 0.1 * n).abs() + 0.5
    if len(shape) >= 2:
        return n / math.sqrt(math.prod(shape[1:]))
    return 0.02 * n if name.endswith(("bias", "running_mean")) else 1 + 0.1 * n


def write_safetensors(path: Path, tensors: dict[str, Tensor], zeros: Shapes) -> None:
    """Write a safetensors file with float16 `zeros` at its end, where they take no disk space.

    Args:
        path: The file.
        tensors: Tensors to store in full.
        zeros: Shapes of float16 tensors of zeros.
    """
    header: dict[str, dict[str, str | list[int]]] = {
        "__metadata__": {"format": "pt", "stand_in": "random numbers, not the real weights"}
    }
    end = 0
    for key, t in tensors.items():
        start, end = end, end + t.numel() * t.element_size()
        header[key] = {"dtype": _SAFETENSORS_TYPES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
    for key, shape in zeros.items():
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.contiguous().numpy().tobytes())
        f.truncate(8 + len(text) + end)


def capface_shapes() -> Shapes:
    """Return keys and shapes of the CapFace network that fits the small SD1.5 checkpoint."""
    return _shapes(CapFace(SMALL, device="meta"))


def unet_shapes() -> Shapes:
    """Return keys and shapes of the small SD1.5 UNet."""
    config = DenoiserConfig(SMALL.channel_mult, SMALL.num_res_blocks, SMALL.attention_downsamplings)
    return _shapes(Denoiser(config, device="meta"))


def facenet_shapes() -> Shapes:
    """Return keys and shapes of facenet-pytorch's file, including the classifier, which CapFace does not use."""
    return _shapes(FaceNet(device="meta")) | {"logits.weight": (8631, 512), "logits.bias": (8631,)}


def parser_shapes() -> Shapes:
    """Return keys and shapes of the face parser's file, including the two auxiliary heads, which CapFace does not use."""
    shapes = _shapes(FaceParser(device="meta"))
    head = {k.removeprefix("conv_out."): s for k, s in shapes.items() if k.startswith("conv_out.")}
    small = {"conv.conv.weight": (64, 128, 3, 3), "conv_out.weight": (len(LABELS), 64, 1, 1)}
    for name in ("conv_out16", "conv_out32"):
        shapes |= {f"{name}.{k}": small.get(k, (64,) * len(s)) for k, s in head.items()}
    return shapes


def _shapes(network: torch.nn.Module) -> Shapes:
    return {k: tuple(v.shape) for k, v in network.state_dict().items()}


def transformer_shapes(prefix: str, layers: int, width: int) -> Shapes:
    """Return keys and shapes of a CLIP transformer's layers."""
    shapes = {}
    for i in range(layers):
        layer = f"{prefix}.layers.{i}."
        linears = {f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in linears.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}{norm}.weight": (width,), f"{layer}{norm}.bias": (width,)}
    return shapes


def taesd_shapes() -> Shapes:
    """Return keys and shapes of TAESD, the small autoencoder that stands in for SD1.5's."""
    shapes = {"vae_scale": (), "vae_shift": ()}
    # positions in the two sequences: residual blocks, convolutions without bias at the changes of size, first and last
    # convolutions
    for part, blocks, resizing, ends in (
        ("taesd_encoder", (1, 3, 4, 5, 7, 8, 9, 11, 12, 13), (2, 6, 10), {0: (64, 3), 14: (4, 64)}),
        ("taesd_decoder", (3, 4, 5, 8, 9, 10, 13, 14, 15, 18), (7, 12, 17), {1: (64, 4), 19: (3, 64)}),
    ):
        for i in blocks:
            for j in (0, 2, 4):
                shapes |= {f"{part}.{i}.conv.{j}.weight": (64, 64, 3, 3), f"{part}.{i}.conv.{j}.bias": (64,)}
        shapes |= {f"{part}.{i}.weight": (64, 64, 3, 3) for i in resizing}
        for i, (out, into) in ends.items():
            shapes |= {f"{part}.{i}.weight": (out, into, 3, 3), f"{part}.{i}.bias": (out,)}
    return shapes


def split_layers(shapes: Shapes) -> tuple[Shapes, Shapes]:
    """Split a transformer's parameters into those to fill (first layer, norms) and those that stay zero."""
    real = {k: s for k, s in shapes.items() if ".layers.0." in k or ".layer_norm" in k}
    return real, {k: s for k, s in shapes.items() if k not in real}


def write_checkpoint(path: Path) -> None:
    """Write a small SD1.5 checkpoint (UNet, CLIP-L text encoder and TAESD) for the stock checkpoint loader."""
    tensors = {k: fill(k, s) for k, s in (("model.diffusion_model." + k, s) for k, s in unet_shapes().items())}
    vae = {k: fill(k, s) for k, s in taesd_shapes().items()} | {"vae_scale": torch.ones(()), "vae_shift": torch.zeros(())}
    for key in vae:
        # ten residual blocks each add to their input; damping keeps the picture in the range of an image
        if key.endswith("conv.4.weight"):
            vae[key] *= 0.2
    vae["taesd_decoder.19.weight"] *= 0.4
    vae["taesd_decoder.19.bias"] += 0.5
    tensors |= {f"first_stage_model.{k}": t for k, t in vae.items()}

    text, width = "cond_stage_model.transformer.text_model.", 768
    real, zeros = split_layers(transformer_shapes(f"{text}encoder", 12, width))
    real |= {
        f"{text}embeddings.token_embedding.weight": (CLIP_VOCABULARY, width),
        f"{text}embeddings.position_embedding.weight": (CLIP_TOKENS, width),
        f"{text}final_layer_norm.weight": (width,),
        f"{text}final_layer_norm.bias": (width,),
    }
    tensors |= {k: fill(k, s) for k, s in real.items()}
    tensors = {k: t.half() for k, t in tensors.items()}
    tensors[f"{text}embeddings.position_ids"] = torch.arange(CLIP_TOKENS)[None]
    write_safetensors(path, tensors, zeros)


def write_clip_vision(path: Path) -> None:
    """Write CLIP ViT-L/14's vision tower, 24 layers of width 1024, 257 tokens, for the stock CLIP vision loader."""
    vision, width = "vision_model.", 1024
    real, zeros = split_layers(transformer_shapes(f"{vision}encoder", 24, width))
    real |= {
        f"{vision}embeddings.class_embedding": (width,),
        f"{vision}embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{vision}embeddings.position_embedding.weight": (257, width),
        "visual_projection.weight": (768, width),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):  # every CLIP file spells the first one this way
        real |= {f"{vision}{norm}.weight": (width,), f"{vision}{norm}.bias": (width,)}
    tensors = {k: fill(k, s).half() for k, s in real.items()}
    tensors[f"{vision}embeddings.position_ids"] = torch.arange(257)[None]
    write_safetensors(path, tensors, zeros)


def shaded_balls(count: int = 8, size: int = 128) -> tuple[Tensor, Tensor]:
    """Draw hints of balls of many sizes and colours `[count, 9, size, size]`, and their masks `[count, size, size]`."""
    radius, x, y, *colour = torch.rand(6, count, 1, 1, generator=torch.Generator().manual_seed(count))
    radius, x, y = 0.3 + 0.4 * radius, x - 0.5, y - 0.5
    v, u = torch.meshgrid(*2 * [torch.linspace(-1, 1, size)], indexing="ij")
    normal = torch.stack([(u - x) / radius, (y - v) / radius, torch.zeros(count, size, size)], dim=1)
    inside = normal.square().sum(1) < 1
    normal[:, 2] = (1 - normal.square().sum(1)).clamp(0).sqrt()
    albedo = torch.stack(colour, dim=1).expand(-1, -1, size, size)
    return torch.cat([normal, albedo, albedo * normal[:, 2:]], dim=1) * inside[:, None], inside


@torch.no_grad()
def write_capface(path: Path) -> None:
    """Write CapFace and the two projections in the released file's layout, with a few tensors of the base model."""
    control = {k: fill("control_model." + k, s) for k, s in capface_shapes().items()}
    net = CapFace(SMALL, device="meta")
    net.load_state_dict(control, assign=True)
    for key in control:
        if key.startswith("input_hint_block.") and key.endswith(".weight"):
            control[key] *= 1.8  # SiLU shrinks small values; without this factor the hint would vanish
    # The mask is linear in the encoded hint. It is fitted to be open on shaded balls and closed around them.
    hint, inside = shaded_balls()
    features = net.input_hint_block(hint).permute(0, 2, 3, 1).flatten(0, 2)
    features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    target = torch.where(inside[:, 4::8, 4::8].reshape(-1, 1), 4.0, -4.0)
    solved = torch.linalg.lstsq(features, target).solution[:, 0]
    control["mask_predict.0.weight"].zero_()[0, :, 1, 1] = solved[:-1]
    control["mask_predict.0.bias"][0] = solved[-1]
    state = {f"control_model.{k}": t for k, t in control.items()}
    state |= {k: fill(k, tuple(t.shape)) for k, t in IdentityTokens(device="meta").state_dict().items()}
    base = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.0.0.bias": (320,),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    }
    torch.save({"state_dict": state | {k: fill(k, s) for k, s in base.items()}}, path)


def write_controlnet(path: Path) -> None:
    """Write a ControlNet for RGB control images that fits the small SD1.5."""
    shapes = {k: s for k, s in capface_shapes().items() if not k.startswith("mask_predict.")}
    shapes["input_hint_block.0.weight"] = (16, 3, 3, 3)
    write_safetensors(path, {f"control_model.{k}": fill("stock." + k, s) for k, s in shapes.items()}, {})


def write_lora(path: Path) -> None:
    """Write a LoRA of rank 4 in kohya's layout, for one attention layer of the small SD1.5 and one of its text encoder."""
    tensors = {}
    for layer, into, out in (
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v", 768, SMALL.model_channels),
        ("lora_te_text_model_encoder_layers_0_self_attn_v_proj", 768, 768),
    ):
        down, up = f"{layer}.lora_down.weight", f"{layer}.lora_up.weight"
        tensors |= {down: fill(down, (4, into)), up: fill(up, (out, 4)), f"{layer}.alpha": torch.tensor(4.0)}
    write_safetensors(path, tensors, {})


def write_facenet(path: Path) -> None:
    """Write FaceNet in the layout that facenet-pytorch publishes."""
    torch.save({k: fill("facenet." + k, s) for k, s in facenet_shapes().items()}, path)


def write_parser(path: Path) -> None:
    """Write the face parser in the layout that its repository publishes."""
    state = {k: fill("parsing." + k, s) for k, s in parser_shapes().items()}
    # the most frequent label of these weights is painted over; swapping it with skin leaves part of the portrait visible
    skin, neck = LABELS.index("skin"), LABELS.index("neck")
    state["conv_out.conv_out.weight"][[skin, neck]] = state["conv_out.conv_out.weight"][[neck, skin]]
    torch.save(state, path)


STAND_INS = {
    "checkpoints/realisticVisionV60B1_v51VAE.safetensors": (write_checkpoint, "Realistic Vision (SD 1.5)"),
    "clip_vision/clip-vit-large-patch14.safetensors": (write_clip_vision, "CLIP ViT-L/14's image encoder"),
    "capface/caphuman.ckpt": (write_capface, "CapFace (the released caphuman.ckpt)"),
    "facenet/20180402-114759-vggface2.pt": (write_facenet, "FaceNet trained on VGGFace2"),
    "face_parsing/79999_iter.pth": (write_parser, "the face parser (BiSeNet)"),
    "checkpoints/toonyou_beta6.safetensors": (write_checkpoint, "ToonYou (SD 1.5)"),
    "controlnet/control_v11p_sd15_openpose_fp16.safetensors": (write_controlnet, "the OpenPose ControlNet"),
    "controlnet/control_v11f1p_sd15_depth_fp16.safetensors": (write_controlnet, "the depth ControlNet"),
    "loras/add_detail.safetensors": (write_lora, "a LoRA"),
}
"""File in a models folder -> its writer, and the name of the real file's content."""


def kept_folder() -> Path:
    """Return the folder that caches stand-ins, named by a hash of the code that makes them. Older folders are removed."""
    rooms = {"diffusion": ("capface", "denoiser", "encoder", "layers"), "faces": ("facenet", "parsing", "batchnorm", "resnet")}
    sources = (Path(__file__), *(PACK / "models" / room / f"{name}.py" for room, names in rooms.items() for name in names))
    folder = PACK / "output" / "stand-ins" / hashlib.sha256(b"".join(f.read_bytes() for f in sources)).hexdigest()[:10]
    for old in folder.parent.glob("*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def make_standins(models: Path | None = None, *, say=print) -> Path:
    """Write the missing stand-ins into a folder laid out like ComfyUI's `models`.

    `stand-ins.json` in the folder lists them, each as {"file", "stands_in_for"}.

    Args:
        models: The folder, which must not hold real weights; `kept_folder()` by default.
        say: Called with one line per file that is written.

    Returns:
        The folder.
    """
    models = kept_folder() if models is None else Path(models)
    for file, (write, name) in STAND_INS.items():
        path = models / file
        if path.exists():
            continue
        start = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may be writing it too
        write(part)
        part.replace(path)
        say(f"made a stand-in for {name}: {file} ({time.monotonic() - start:.1f} s)")
    rows = [{"file": file, "stands_in_for": name} for file, (_, name) in STAND_INS.items()]
    (models / LIST).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return models


def receding_floor(side: int = 512) -> Image.Image:
    """Draw a depth picture: near is bright, and lower."""
    return Image.linear_gradient("L").convert("RGB").resize((side, side))


def skeleton(width: int = 512, height: int = 768) -> Image.Image:
    """Draw a standing person in OpenPose's style: one colour per limb."""
    picture = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(picture)
    nose, neck, hips = (0.5, 0.2), (0.5, 0.28), ((0.44, 0.55), (0.56, 0.55))
    shoulders, hands = ((0.38, 0.29), (0.62, 0.29)), ((0.33, 0.55), (0.67, 0.55))
    limbs = [(nose, neck)]
    for shoulder, hand, hip in zip(shoulders, hands, hips, strict=True):
        elbow = ((shoulder[0] + hand[0]) / 2, (shoulder[1] + hand[1]) / 2)
        knee, foot = (hip[0], 0.74), (hip[0], 0.93)
        limbs += [(neck, shoulder), (shoulder, elbow), (elbow, hand), (neck, hip), (hip, knee), (knee, foot)]
    for i, ends in enumerate(limbs):
        colour = ImageColor.getrgb(f"hsv({360 * i // len(limbs)}, 100%, 100%)")
        pen.line([(x * width, y * height) for x, y in ends], colour, width // 50)
    return picture


def write_inputs(folder: Path) -> None:
    """Write the workflows' input pictures, under the names that the workflows use, into ComfyUI's input folder.

    The photos show scikit-image's astronaut, original and mirrored; the depth picture is a receding floor.
    """
    import skimage.data

    photo = Image.fromarray(skimage.data.astronaut())
    photo.save(folder / "photo.png")
    ImageOps.mirror(photo).save(folder / "photo2.png")
    skeleton().save(folder / "openpose.png")
    receding_floor().save(folder / "depth.png")


def main() -> None:
    """Write the stand-ins into the folder named on the command line, or into the cache, and print the folder."""
    print(make_standins(Path(sys.argv[1]) if len(sys.argv) > 1 else None))


if __name__ == "__main__":
    main()
