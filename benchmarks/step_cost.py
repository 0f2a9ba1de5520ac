"""Compare what CapFace and a stock ControlNet add to a sampling step, inside the host.

    python tasks.py bench step_cost [--size 256] [--rounds 5] [--json FILE]

The networks have SD1.5's full size and random weights, float32 on the CPU; both guidance halves are evaluated (cfg 7). A step
without control is measured as a whole. For the other rows the denoiser is left out, so the time is that of the control alone.
The variants alternate, so that changes in the machine's load affect all of them. Steps that keep residuals are counted with
the step that evaluates them. Medians over the rounds are printed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from capface.tools.comfy import import_host

parser = argparse.ArgumentParser()
parser.add_argument("--size", type=int, default=256, help="side of the image in pixels")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows for `overview`")
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
capface_state["control_model.mask_predict.0.bias"] += 100  # the mask is 1 everywhere
stock_state = {k: v for k, v in capface_state.items() if "mask_predict" not in k}
stock_state["control_model.input_hint_block.0.weight"] = torch.randn(16, 3, 3, 3)
capface = load_model(capface_state | random_state(IdentityTokens(device="meta"), ""), "random", torch.float32)
stock = comfy.controlnet.load_controlnet_state_dict(stock_state, model_options={"dtype": torch.float32})
model = base_model()

text = torch.randn(1, 77, 768)
plain = ([[text, {}]], [[text.flip(1), {}]])
person = Identity(torch.randn(1, 512), torch.randn(1, 257, 1024))
shape = (1, 4, options.size // 8, options.size // 8)
hint = torch.rand(1, 3, options.size, options.size)
control = stock.copy().set_cond_hint(hint, 1.0, (0.0, 1.0))
with_stock = tuple([[c[0][0], {"control": control, "control_apply_to_uncond": False}]] for c in plain)
SIGMAS = tuple(10.0 - i for i in range(7))
PERIOD = 5
"""Number of timed steps, after a first one that also encodes the hint. With `evaluate_every` at 5, one of them is evaluated."""


def head(scale=5.0, x=0.0):
    """Return a condition with the built-in head."""
    return HeadCondition(builtin_head(), HeadParams.neutral(1).replace(camera=torch.tensor([[scale, x, 0.0]])))


def apply(previous=plain, condition=None, **settings):
    """Apply CapFace."""
    return pipeline.apply(text, capface, condition or head(), person, previous=previous, **settings)


nothing = torch.zeros(1, 8, 8)
variants = {
    "a ControlNet": with_stock,
    "CapFace": apply(),
    "identity dropped": apply(tau=0.0),
    f"evaluated at every {PERIOD}th step": apply(evaluate_every=PERIOD),
    "likeness 2": apply(likeness=2.0),
    f"likeness 2, at every {PERIOD}th step": apply(likeness=2.0, evaluate_every=PERIOD),
    "with pi*": apply(head_control=capface),
    "two people": apply(apply(condition=head(3.0, -0.5)), head(3.0, 0.5)),
    f"two people, at every {PERIOD}th step": apply(
        apply(condition=head(3.0, -0.5), evaluate_every=PERIOD), head(3.0, 0.5), evaluate_every=PERIOD
    ),
    "no head in the frame": apply(mask=nothing),
}


def steps(count):
    """Return sampler steps that return the mean time of `count` steps, after one that does not count."""

    def run(denoise):
        seconds = []
        for sigma in SIGMAS[: 1 + count]:
            x = torch.randn(shape)
            start = time.perf_counter()
            denoise(x, torch.tensor([sigma]))
            seconds.append(time.perf_counter() - start)
        return statistics.mean(seconds[1:])

    return run


load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
print(f"load average before {load}, {torch.get_num_threads()} threads", flush=True)
whole, seconds = [], {name: [] for name in variants}
for round_ in range(options.rounds + 1):
    timings = {"": pipeline.sample(model, *plain, steps(2), shape=shape, cfg=7.0)}
    model.set_model_unet_function_wrapper(lambda _, arguments: torch.zeros_like(arguments["input"]))  # only the controls
    for name, (positive, negative) in variants.items():
        arguments = {"shape": shape, "cfg": 7.0, "schedule": (*SIGMAS, 0.0)}
        timings[name] = pipeline.sample(model, positive, negative, steps(PERIOD), **arguments)
    del model.model_options["model_function_wrapper"]
    if round_:  # the first round warms up
        whole.append(timings.pop(""))
        for name, time_ in timings.items():
            seconds[name].append(time_)
    print(f"round {round_} of {options.rounds}", flush=True)

step, median = statistics.median(whole), {name: statistics.median(times) for name, times in seconds.items()}
reference = next(iter(variants))
rows = [{"name": "without control", "amount": f"{step:.2f} s", "ratio": None, "of": ""}]
for name, value in median.items():
    rows.append(
        {"name": name, "amount": f"+ {value:.3f} s", "seconds": value, "ratio": value / median[reference], "of": reference}
    )
print(f"\n{options.size} × {options.size}, medians of {options.rounds} rounds\n")
print("| a step | seconds | compared |\n| --- | --- | --- |")
for row in rows:
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['of']}"
    print(f"| {row['name']} | {row['amount']} | {ratio} |")
if options.json:
    options.json.write_text(json.dumps(rows), encoding="utf-8")
