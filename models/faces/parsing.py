"""Face parsing: labels a portrait's pixels as skin, eyes, hair and so on, and paints everything but the face white.

Images are `[B, 3, H, W]`, RGB in 0..1. The network was trained on aligned portraits of 512 × 512 and finds less in others.
Labels are those of CelebAMask-HQ in the order of the published weights (`LABELS`).

Source: Yu et al., *BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation* (ECCV 2018), figures 2 and 3,
on ResNet-18 (He et al., CVPR 2016), whose second stage stands in for the spatial path, as in the published weights.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadFile, BadInput
from ...files.boundary import reads
from ...files.catalogue import PARSER
from ...files.checkpoint import read_state_dict, unwrap
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx
from ...shapes import Float, Int
from ..build import Device, Dtype, Operations
from .batchnorm import ConvUnit, FrozenBatchNorm
from .resnet import BasicBlock, ResNet

# fmt: off
LABELS = (
    "background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear", "earring",
    "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat",
)
# fmt: on
FACE = tuple(LABELS.index(name) for name in LABELS[1:7] + LABELS[10:14])
EARS = tuple(LABELS.index(name) for name in ("left ear", "right ear", "earring"))
HAIR = (LABELS.index("hair"),)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING_HEADS = ("conv_out16.", "conv_out32.")  # outputs at coarser scales, used only in training


class AttentionRefinement(torch.nn.Module):
    """A convolution whose channels are weighted by the mean over the image (BiSeNet, figure 2b)."""

    def __init__(self, inputs: int, outputs: int, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        self.conv = ConvUnit(inputs, outputs, 3, 1, 1, device=device, dtype=dtype, operations=operations)
        self.conv_atten = operations.Conv2d(outputs, outputs, 1, bias=False, device=device, dtype=dtype)
        self.bn_atten = FrozenBatchNorm(outputs, device=device)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Map `[B, inputs, H, W]` to `[B, outputs, H, W]`."""
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(x))))


class ContextPath(torch.nn.Module):
    """ResNet-18, whose coarse features are refined and upsampled to 1/8 of the image."""

    def __init__(self, **build: Any):
        super().__init__()
        self.resnet = ResNet(BasicBlock, (2, 2, 2, 2), **build)
        self.arm16 = AttentionRefinement(256, 128, **build)
        self.arm32 = AttentionRefinement(512, 128, **build)
        self.conv_head32 = ConvUnit(128, 128, 3, 1, 1, **build)
        self.conv_head16 = ConvUnit(128, 128, 3, 1, 1, **build)
        self.conv_avg = ConvUnit(512, 128, 1, 1, 0, **build)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B 128 h w"], Float[Tensor, "B 128 h w"]]:
        """Return the trunk's and the refined features at 1/8, 128 channels each."""
        eighth, sixteenth, thirtysecond = self.resnet(x)
        x = self.arm32(thirtysecond) + self.conv_avg(_mean(thirtysecond))
        x = self.conv_head32(F.interpolate(x, sixteenth.shape[-2:]))
        x = self.conv_head16(F.interpolate(self.arm16(sixteenth) + x, eighth.shape[-2:]))
        return eighth, x


class FeatureFusion(torch.nn.Module):
    """Fuses both paths, and adds the result once more with its channels weighted (BiSeNet, figure 2c)."""

    def __init__(self, channels: int, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        self.convblk = ConvUnit(channels, channels, 1, 1, 0, device=device, dtype=dtype, operations=operations)
        self.conv1 = operations.Conv2d(channels, channels // 4, 1, bias=False, device=device, dtype=dtype)
        self.conv2 = operations.Conv2d(channels // 4, channels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, spatial: Float[Tensor, "B C H W"], context: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 2*C H W"]:
        """Map two `[B, channels/2, H, W]` to `[B, channels, H, W]`."""
        x = self.convblk(torch.cat([spatial, context], dim=1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(_mean(x)))))


class Head(torch.nn.Module):
    """Maps features to one score per label."""

    def __init__(self, channels: int, labels: int, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        self.conv = ConvUnit(channels, channels, 3, 1, 1, device=device, dtype=dtype, operations=operations)
        self.conv_out = operations.Conv2d(channels, labels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B L H W"]:
        """Map `[B, channels, H, W]` to `[B, labels, H, W]`."""
        return self.conv_out(self.conv(x))


class FaceParser(torch.nn.Module):
    """BiSeNet with 19 labels.

    Args:
        device: Device of the parameters.
        dtype: Type of the convolutions; batch norms stay in float32.
        operations: A namespace with `Conv2d`, such as `torch.nn` or a host's casting layers.
    """

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        build = {"device": device, "dtype": dtype, "operations": operations}
        self.cp = ContextPath(**build)
        self.ffm = FeatureFusion(256, **build)
        self.conv_out = Head(256, len(LABELS), **build)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 19 H W"]:
        """Compute the scores of each label.

        Args:
            images: `[B, 3, H, W]`, RGB in 0..1.

        Returns:
            `[B, 19, H, W]`; the label is the one with the largest score.

        Raises:
            BadInput: The shape is another.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise BadInput(f"The face parser takes images of shape [B, 3, H, W], got {list(images.shape)}.")
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        scores = self.conv_out(self.ffm(*self.cp((images - mean) / std)))
        return F.interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=True)

    def parse(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B H W"]:
        """Label each pixel of images `[B, 3, H, W]` in 0..1: `[B, H, W]`, int64."""
        return self(images).argmax(dim=1)


def keep_face(
    images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, "B H W"], *, hair: bool = False, ears: bool = False
) -> Float[Tensor, "B 3 H W"]:
    """Paint everything but the face white, as the local identity features require.

    Skin, brows, eyes, glasses, nose, mouth and lips are kept.

    Args:
        images: `[B, 3, H, W]` in 0..1.
        labels: `[B, H, W]`, from `FaceParser.parse`.
        hair: Whether to keep the hair too.
        ears: Whether to keep ears and earrings too.

    Returns:
        `[B, 3, H, W]`.

    Raises:
        BadInput: Images and labels differ in size.
    """
    if images.ndim != 4 or labels.shape != (len(images), *images.shape[-2:]):
        raise BadInput(f"Labels [B, H, W] belong to images [B, 3, H, W], got {list(labels.shape)} and {list(images.shape)}.")
    kept = torch.tensor(FACE + (HAIR if hair else ()) + (EARS if ears else ()), device=labels.device)
    return torch.where(torch.isin(labels, kept)[:, None], images, images.new_ones(()))


@reads("the face parser", f"Expected {PARSER.reference}.")
def load_parser(
    path: str | os.PathLike[str], *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn
) -> FaceParser:
    """Read the face parser's published weights.

    Args:
        path: `79999_iter.pth`, facexlib's `parsing_bisenet.pth`, or a safetensors file with the same keys.
        device: Device of the parameters; the CPU by default.
        dtype: As for `FaceParser`; float32 by default, whatever the file's type.
        operations: As for `FaceParser`.

    Returns:
        A `FaceParser` in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken or another network.
    """
    path = Path(path)
    refuse_onnx(path, kind="the face parser", source=PARSER.reference)
    state = unwrap(read_state_dict(path), "cp.resnet.")
    if "cp.resnet.conv1.weight" not in state:
        raise BadFile(f"{path.name} is {describe(state)}, not the face parser BiSeNet. Expected {PARSER.reference}.")
    state = {key: tensor for key, tensor in state.items() if not key.startswith(TRAINING_HEADS)}
    network = FaceParser(device="meta", dtype=dtype, operations=operations)
    like = FaceParser(device="meta", dtype=dtype)
    return load_strictly(
        network, state, file=path.name, kind="the face parser", source=PARSER.reference, device=device, like=like
    )


def _mean(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
    """Average over the image."""
    return x.mean(dim=(2, 3), keepdim=True)
