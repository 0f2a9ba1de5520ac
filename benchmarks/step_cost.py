"""Compare the cost of a sampling step with CapFace, with a stock ControlNet, and with neither, inside the host.

    python tasks.py bench step_cost [--size 256] [--rounds 5]

The three networks have SD1.5's full size and random weights, float32 on the CPU; both guidance halves are evaluated (cfg 7).
The variants alternate, so that changes in the machine's load affect all of them. Medians are printed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

import torch

from capface.tools.comfy import import_host

parser = argparse.ArgumentParser()
parser.add_argument("--size", type=int, default=256, help="side of the image in pixels")
parser.add_argument("--rounds", type=int, default=5)
options = parser.parse_args()
if not os.environ.get("COMFYUI_PATH"):
    sys.exit("no ComfyUI: set COMFYUI_PATH, or put one into ~/comfy/ComfyUI")
import_host(os.environ["COMFYUI_PATH"], tempfile.mkdtemp())

import comfy.controlnet  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402

from capface.flame.builtin import builtin_head  # noqa: E402
from capface.flame.model.params import HeadParams  # noqa: E402
from capface.flame.render.condition import HeadCondition  # noqa: E402
from capface.host.capface_model import load_model  # noqa: E402
from capface.host.identity.identity import Identity  # noqa: E402
from capface.models.diffusion.capface import CapFace, CapFaceConfig, IdentityTokens  # noqa: E402
from capface.tests.host import pipeline  # noqa: E402

UNET = {
    "image_size": 32, "use_checkpoint": False, "legacy": False, "use_spatial_transformer": True, "in_channels": 4,
    "out_channels": 4, "model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1, "context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None,
    "use_temporal_attention": False, "num_heads": 8, "num_head_channels": -1, "dtype": torch.float32,
}  # fmt: skip


def random_weights(module):
    """Fill a network's parameters. The values do not affect the time if they are normal, finite numbers."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.02)
    return module.requires_grad_(False)


def random_state(module, prefix):
    """Return a state dict of random weights for a network built on the meta device."""
    return {f"{prefix}{k}": 0.02 * torch.randn(v.shape) for k, v in module.state_dict().items()}


def base_model():
    """Build SD1.5's denoiser as the host's MODEL."""
    config = comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(torch.float32, None)
    model = random_weights(comfy.model_base.BaseModel(config))
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


torch.manual_seed(0)
capface_state = random_state(CapFace(CapFaceConfig(), device="meta"), "control_model.")
stock_state = {k: v for k, v in capface_state.items() if "mask_predict" not in k}
stock_state["control_model.input_hint_block.0.weight"] = torch.randn(16, 3, 3, 3)
capface = load_model(capface_state | random_state(IdentityTokens(device="meta"), ""), "random", torch.float32)
stock = comfy.controlnet.load_controlnet_state_dict(stock_state, model_options={"dtype": torch.float32})
model = base_model()

text = torch.randn(1, 77, 768)
plain = ([[text, {}]], [[text.flip(1), {}]])
person = Identity(torch.randn(1, 512), torch.randn(1, 257, 1024))
head = HeadCondition(builtin_head(), HeadParams.neutral(1))
hint = torch.rand(1, 3, options.size, options.size)
control = stock.copy().set_cond_hint(hint, 1.0, (0.0, 1.0))
with_stock = [[[c[0][0], {"control": control, "control_apply_to_uncond": False}]] for c in plain]
variants = {
    "neither": plain,
    "CapFace": pipeline.apply(text, capface, head, person, previous=plain),
    "ControlNet": with_stock,
}


def steps(denoise):
    """Time each step except the first, which also encodes the hint."""
    seconds = []
    for i in range(3):
        x, sigma = torch.randn(shape), torch.tensor([5.0 - i])
        start = time.perf_counter()
        denoise(x, sigma)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


shape = (1, 4, options.size // 8, options.size // 8)
seconds = {name: [] for name in variants}
for round_ in range(options.rounds + 1):
    for name, (positive, negative) in variants.items():
        times = pipeline.sample(model, positive, negative, steps, shape=shape, cfg=7.0)
        if round_:  # the first round warms up
            seconds[name] += times
    print(f"round {round_} of {options.rounds}", flush=True)

median = {name: statistics.median(times) for name, times in seconds.items()}
print(f"\none step at {options.size} × {options.size}, seconds (median of {len(seconds['neither'])}; least, most)")
for name, times in seconds.items():
    print(f"  {name:<11} {median[name]:6.2f}   ({min(times):.2f}, {max(times):.2f})")
added = {name: median[name] - median["neither"] for name in ("CapFace", "ControlNet")}
print(f"CapFace adds {added['CapFace']:.2f} s, the ControlNet {added['ControlNet']:.2f} s", end=": ")
print(f"{added['CapFace'] / added['ControlNet']:.2f} times as much")
