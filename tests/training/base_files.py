"""A Stable Diffusion 1.x checkpoint in one file, with every layer of the real ones and few channels."""

from safetensors.torch import save_file

from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig
from capface.tests.synthetic import fill
from capface.tools.standins import transformer_shapes

CONTEXT = 24
TEXT_LAYERS = 2
DENOISER = DenoiserConfig((1, 2), 1, (1, 2), model_channels=32, context_width=CONTEXT)
AUTOENCODER = {"ch": 32, "ch_mult": (1, 1, 2, 2), "num_res_blocks": 1}


def _conv(name, out, into, size=3):
    return {f"{name}.weight": (out, into, size, size), f"{name}.bias": (out,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _block(name, out, into):
    shapes = {**_norm(f"{name}.norm1", into), **_conv(f"{name}.conv1", out, into)}
    shapes |= {**_norm(f"{name}.norm2", out), **_conv(f"{name}.conv2", out, out)}
    return shapes | (_conv(f"{name}.nin_shortcut", out, into, 1) if out != into else {})


def _middle(part, width):
    shapes = {**_block(f"{part}.mid.block_1", width, width), **_block(f"{part}.mid.block_2", width, width)}
    shapes |= _norm(f"{part}.mid.attn_1.norm", width)
    for layer in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{part}.mid.attn_1.{layer}", width, width, 1)
    return shapes


def autoencoder_shapes(sizes=AUTOENCODER):
    """Keys and shapes as in `first_stage_model.*`."""
    widths = [sizes["ch"] * m for m in sizes["ch_mult"]]
    blocks, levels = sizes["num_res_blocks"], len(widths)
    shapes = {**_conv("quant_conv", 8, 8, 1), **_conv("post_quant_conv", 4, 4, 1)}
    shapes |= _conv("encoder.conv_in", widths[0], 3)
    into = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            shapes |= _block(f"encoder.down.{i}.block.{j}", width, into)
            into = width
        if i + 1 < levels:
            shapes |= _conv(f"encoder.down.{i}.downsample.conv", width, width)
    shapes |= {**_middle("encoder", into), **_norm("encoder.norm_out", into), **_conv("encoder.conv_out", 8, into)}
    shapes |= {**_conv("decoder.conv_in", into, 4), **_middle("decoder", into)}
    for i in reversed(range(levels)):
        for j in range(blocks + 1):
            shapes |= _block(f"decoder.up.{i}.block.{j}", widths[i], into)
            into = widths[i]
        if i > 0:
            shapes |= _conv(f"decoder.up.{i}.upsample.conv", into, into)
    return shapes | {**_norm("decoder.norm_out", into), **_conv("decoder.conv_out", 3, into)}


def text_shapes():
    """Keys and shapes as in `cond_stage_model.transformer.*`."""
    shapes = transformer_shapes("text_model.encoder", TEXT_LAYERS, CONTEXT) | _norm("text_model.final_layer_norm", CONTEXT)
    shapes["text_model.embeddings.token_embedding.weight"] = (49408, CONTEXT)
    shapes["text_model.embeddings.position_embedding.weight"] = (77, CONTEXT)
    return shapes


def parts():
    """The three networks' tensors by their prefixes."""
    denoiser = {k: tuple(v.shape) for k, v in Denoiser(DENOISER, device="meta").state_dict().items()}
    shapes = {
        "model.diffusion_model.": denoiser,
        "first_stage_model.": autoencoder_shapes(),
        "cond_stage_model.transformer.": text_shapes(),
    }
    return {prefix: {k: fill(prefix + k, s) for k, s in part.items()} for prefix, part in shapes.items()}


def write_base(path):
    """Write the checkpoint; returns its path."""
    save_file({prefix + k: v for prefix, part in parts().items() for k, v in part.items()}, path)
    return path
