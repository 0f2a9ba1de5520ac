"""Seconds of a portrait on this GPU: SD1.5 in half precision with random weights, and CapFace with and without head control.

    python tasks.py bench portrait_seconds [--steps 20] [--size 512] [--images 10]

A plain loop without ComfyUI: the networks' evaluations of each step with both halves of guidance, the autoencoder's decoder,
and the PNG file. ComfyUI's own work between prompts, and reading the person, come on top; `tasks.py iphc plan --like RUN`
takes the seconds of a real run instead. `iphc/measured.json` holds what this printed.
"""

import argparse
import io
import statistics
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch import nn

from capface.models.diffusion.capface import CapFace, CapFaceConfig
from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
parser.add_argument("--images", type=int, default=10)
options = parser.parse_args()
if not torch.cuda.is_available():
    sys.exit("no GPU: this benchmark measures one")
DEVICE, DTYPE, SIDE = torch.device("cuda"), torch.float16, options.size // 8


def block(width, out):
    """A residual block's convolutions in the decoder of SD1.5's autoencoder."""
    norms = [layer for n in (width, out) for layer in (nn.GroupNorm(32, n), nn.SiLU())]
    return nn.Sequential(*norms[:2], nn.Conv2d(width, out, 3, padding=1), *norms[2:], nn.Conv2d(out, out, 3, padding=1))


def decoder():
    """The convolutions of the decoder of SD1.5's autoencoder, without its shortcuts and its one attention."""
    layers, width = [nn.Conv2d(4, 512, 3, padding=1), block(512, 512), block(512, 512)], 512
    for i, out in enumerate((512, 512, 256, 128)):
        layers += [block(width, out), block(out, out), block(out, out)]
        layers += [] if i == 3 else [nn.Upsample(scale_factor=2), nn.Conv2d(out, out, 3, padding=1)]
        width = out
    return nn.Sequential(*layers, nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))


def ready(network):
    """Fill a network with random numbers, and move it to the GPU."""
    for p in network.parameters():
        nn.init.normal_(p, std=0.02)
    return network.to(DEVICE, DTYPE).eval().requires_grad_(False)


torch.manual_seed(0)
denoiser, capface, decode = ready(Denoiser(DenoiserConfig())), ready(CapFace(CapFaceConfig())), ready(decoder())
text, tokens = (torch.randn(2, n, 768, device=DEVICE, dtype=DTYPE) for n in (77, 258))
hint = torch.rand(1, 9, options.size, options.size, device=DEVICE, dtype=DTYPE)
FILE = np.asarray(Image.effect_noise((options.size, options.size), 20).convert("RGB"))


@torch.inference_mode()
def portrait(controls):
    """Make an image with these controls: True with identity, False without."""
    x = torch.randn(1, 4, SIDE, SIDE, device=DEVICE, dtype=DTYPE)
    guided = capface.encode_hint(hint)[0] if controls else None
    for i in range(options.steps):
        both, t = x.expand(2, -1, -1, -1), torch.full((2,), 999.0 - i, device=DEVICE)
        sums = None
        for identity in controls:
            found = capface(both, t, guided, tokens if identity else None)
            sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        eps = denoiser(both, t, text, sums)
        x = x - 0.05 * (eps[:1] + 7 * (eps[:1] - eps[1:])).clamp(-1, 1)
    image = decode(x)
    image[..., 0, 0].tolist()  # waits for the GPU
    file = io.BytesIO()
    Image.fromarray(FILE).save(file, "PNG", compress_level=4)


about = f"{options.steps} steps, {options.size} x {options.size}, float16"
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {about}")
for name, controls in {"SD1.5 alone": [], "CapFace": [True], "CapFace + head control": [True, False]}.items():
    portrait(controls)
    seconds = []
    for _ in range(options.images):
        start = time.perf_counter()
        portrait(controls)
        seconds.append(time.perf_counter() - start)
    spread = f"median of {options.images}, {min(seconds):.3f} to {max(seconds):.3f}"
    print(f"{name}: {statistics.median(seconds):.3f} s an image ({spread})")
