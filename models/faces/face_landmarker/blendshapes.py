"""Blendshapes: 52 weights of an expression from 146 of the mesh's points.

Source: Tolstikhin et al., *MLP-Mixer: An all-MLP Architecture for Vision* (NeurIPS 2021), figure 1, and the graph of
MediaPipe's `face_blendshapes.tflite`. The keys are those of ComfyUI's file.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ....shapes import Float
from ...build import Device, Dtype, Operations
from .layers import ScaleNorm

# fmt: off
BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)
"""Names of the weights in MediaPipe's order; here "Left" is the person's left."""
BLENDSHAPE_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80, 81, 82, 84,
    87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159,
    160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283,
    284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361,
    362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415,
    454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
"""Numbers of the mesh's points that the network takes."""
# fmt: on
TOKENS, WIDTH = 96, 64
TOKEN_HIDDEN, CHANNEL_HIDDEN = 384, 256
LAYERS = 4


class MixerBlock(torch.nn.Module):
    """Mixes tokens, then channels, each with a residual (MLP-Mixer, figure 1)."""

    def __init__(self, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        build = {"device": device, "dtype": dtype}
        self.ln1 = ScaleNorm(WIDTH, **build)
        self.ln2 = ScaleNorm(WIDTH, **build)
        self.token_mlp1 = operations.Linear(TOKENS + 1, TOKEN_HIDDEN, **build)
        self.token_mlp2 = operations.Linear(TOKEN_HIDDEN, TOKENS + 1, **build)
        self.channel_mlp1 = operations.Linear(WIDTH, CHANNEL_HIDDEN, **build)
        self.channel_mlp2 = operations.Linear(CHANNEL_HIDDEN, WIDTH, **build)

    def forward(self, x: Float[Tensor, "B 97 64"]) -> Float[Tensor, "B 97 64"]:
        """Map tokens `[B, 97, 64]` to the same shape."""
        x = x + self.token_mlp2(F.relu(self.token_mlp1(self.ln1(x).mT))).mT
        return x + self.channel_mlp2(F.relu(self.channel_mlp1(self.ln2(x))))


class Blendshapes(torch.nn.Module):
    """The network of the 52 weights.

    Args:
        device: Device of the parameters.
        dtype: Type of the parameters.
        operations: Namespace of `Linear`.
    """

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        build = {"device": device, "dtype": dtype}
        self.token_reduce = operations.Linear(len(BLENDSHAPE_POINTS), TOKENS, **build)
        self.token_embed = operations.Linear(2, WIDTH, **build)
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, WIDTH, **build))
        self.blocks = torch.nn.Sequential(*(MixerBlock(operations=operations, **build) for _ in range(LAYERS)))
        self.head = operations.Linear(WIDTH, len(BLENDSHAPES), **build)

    def forward(self, points: Float[Tensor, "B N D"]) -> Float[Tensor, "B 52"]:
        """Compute the weights of expressions.

        Args:
            points: `[B, 478, 2]` or `[B, 478, 3]`, of which `BLENDSHAPE_POINTS` are taken, or only these, `[B, 146, 2]`. Their
                place and scale do not matter; the face should be level.

        Returns:
            `[B, 52]`, in 0..1, in the order of `BLENDSHAPES`.
        """
        chosen = points[..., :2] if points.shape[1] == len(BLENDSHAPE_POINTS) else points[:, BLENDSHAPE_POINTS, :2]
        x = chosen - chosen.mean(1, keepdim=True)
        # the mean distance from the centre becomes ½
        x = 0.5 * x / x.norm(dim=-1, keepdim=True).mean(1, keepdim=True).clamp(min=1e-12)
        x = self.token_embed(self.token_reduce(x.mT).mT)
        x = self.blocks(torch.cat([self.cls_token.to(x).expand(len(x), -1, -1), x], dim=1))
        return F.sigmoid(self.head(x[:, 0]))
