"""Face parsing: which pixels of a portrait are skin, eyes, hair, … and painting all but the face white.

Images are [B,3,H,W], RGB in 0..1; the network was trained on aligned portraits of 512 × 512, and finds less in others. Labels
are those of CelebAMask-HQ as the published weights number them (`LABELS`).

Source: Yu et al., *BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation* (ECCV 2018), figures 2 and 3,
on ResNet-18 (He et al., CVPR 2016), whose second stage stands in for the spatial path, as in the published weights.
"""

from pathlib import Path

import torch
from torch.nn import functional as F

from ...errors import BadFile, BadInput
from ...files.checkpoint import read_state_dict
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx
from .batchnorm import ConvUnit, FrozenBatchNorm
from .resnet import BasicBlock, ResNet

LABELS = (
    *("background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear", "earring"),
    *("nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat"),
)
FACE = tuple(LABELS.index(name) for name in LABELS[1:7] + LABELS[10:14])
EARS = tuple(LABELS.index(name) for name in ("left ear", "right ear", "earring"))
HAIR = (LABELS.index("hair"),)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING_HEADS = ("conv_out16.", "conv_out32.")  # outputs at coarser scales that only training uses
SOURCE = "79999_iter.pth (github.com/zllrunning/face-parsing.PyTorch) or parsing_bisenet.pth (github.com/xinntao/facexlib)"


class AttentionRefinement(torch.nn.Module):
    """A convolution whose channels are weighted by what the whole image shows (BiSeNet, figure 2b)."""

    def __init__(self, inputs, outputs, *, device, dtype, operations):
        super().__init__()
        self.conv = ConvUnit(inputs, outputs, 3, 1, 1, device=device, dtype=dtype, operations=operations)
        self.conv_atten = operations.Conv2d(outputs, outputs, 1, bias=False, device=device, dtype=dtype)
        self.bn_atten = FrozenBatchNorm(outputs, device=device)

    def forward(self, x):
        """[B,inputs,H,W] to [B,outputs,H,W]."""
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(x))))


class ContextPath(torch.nn.Module):
    """ResNet-18 with its coarse features refined and carried up to 1/8 of the image."""

    def __init__(self, **build):
        super().__init__()
        self.resnet = ResNet(BasicBlock, (2, 2, 2, 2), **build)
        self.arm16 = AttentionRefinement(256, 128, **build)
        self.arm32 = AttentionRefinement(512, 128, **build)
        self.conv_head32 = ConvUnit(128, 128, 3, 1, 1, **build)
        self.conv_head16 = ConvUnit(128, 128, 3, 1, 1, **build)
        self.conv_avg = ConvUnit(512, 128, 1, 1, 0, **build)

    def forward(self, x):
        """The trunk's and the refined features at 1/8, 128 channels each."""
        eighth, sixteenth, thirtysecond = self.resnet(x)
        x = self.arm32(thirtysecond) + self.conv_avg(_mean(thirtysecond))
        x = self.conv_head32(F.interpolate(x, sixteenth.shape[-2:]))
        x = self.conv_head16(F.interpolate(self.arm16(sixteenth) + x, eighth.shape[-2:]))
        return eighth, x


class FeatureFusion(torch.nn.Module):
    """Both paths in one, with weighted channels added once more (BiSeNet, figure 2c)."""

    def __init__(self, channels, *, device, dtype, operations):
        super().__init__()
        self.convblk = ConvUnit(channels, channels, 1, 1, 0, device=device, dtype=dtype, operations=operations)
        self.conv1 = operations.Conv2d(channels, channels // 4, 1, bias=False, device=device, dtype=dtype)
        self.conv2 = operations.Conv2d(channels // 4, channels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, spatial, context):
        """Two of [B,channels/2,H,W] to [B,channels,H,W]."""
        x = self.convblk(torch.cat([spatial, context], dim=1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(_mean(x)))))


class Head(torch.nn.Module):
    """Features to one score a label."""

    def __init__(self, channels, labels, *, device, dtype, operations):
        super().__init__()
        self.conv = ConvUnit(channels, channels, 3, 1, 1, device=device, dtype=dtype, operations=operations)
        self.conv_out = operations.Conv2d(channels, labels, 1, bias=False, device=device, dtype=dtype)

    def forward(self, x):
        """[B,channels,H,W] to [B,labels,H,W]."""
        return self.conv_out(self.conv(x))


class FaceParser(torch.nn.Module):
    """BiSeNet with 19 labels.

    Args:
        device: Where the parameters are made.
        dtype: Of the convolutions; batch norms stay in float32.
        operations: A namespace with `Conv2d`, such as `torch.nn` or a host's casting layers.
    """

    def __init__(self, *, device=None, dtype=None, operations=torch.nn):
        super().__init__()
        build = {"device": device, "dtype": dtype, "operations": operations}
        self.cp = ContextPath(**build)
        self.ffm = FeatureFusion(256, **build)
        self.conv_out = Head(256, len(LABELS), **build)

    def forward(self, images):
        """Scores of each label.

        Args:
            images: Shape [B,3,H,W], RGB in 0..1.

        Returns:
            Shape [B,19,H,W]; the largest score is the label.

        Raises:
            BadInput: For another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise BadInput(f"The face parser takes images of shape [B,3,H,W], got {list(images.shape)}.")
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        scores = self.conv_out(self.ffm(*self.cp((images - mean) / std)))
        return F.interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=True)

    def parse(self, images):
        """The label of each pixel: [B,3,H,W] in 0..1 to [B,H,W], int64."""
        return self(images).argmax(dim=1)


def keep_face(images, labels, *, hair=False, ears=False):
    """Paint all but the face white, as the local identity features want it.

    Kept are skin, brows, eyes, glasses, nose, mouth and lips.

    Args:
        images: Shape [B,3,H,W] in 0..1.
        labels: Shape [B,H,W], from `FaceParser.parse`.
        hair: Keep the hair too.
        ears: Keep ears and earrings too.

    Returns:
        Shape [B,3,H,W].

    Raises:
        BadInput: When images and labels differ in size.
    """
    if images.ndim != 4 or labels.shape != (len(images), *images.shape[-2:]):
        raise BadInput(f"Labels [B,H,W] belong to images [B,3,H,W], got {list(labels.shape)} and {list(images.shape)}.")
    kept = torch.tensor(FACE + (HAIR if hair else ()) + (EARS if ears else ()), device=labels.device)
    return torch.where(torch.isin(labels, kept)[:, None], images, images.new_ones(()))


def load_parser(path, *, device=None, dtype=None, operations=torch.nn):
    """Read the face parser's published weights.

    Args:
        path: `79999_iter.pth`, facexlib's `parsing_bisenet.pth`, or a safetensors file with the same keys.
        device: Where the parameters shall live; the CPU by default.
        dtype: As for `FaceParser`; float32 by default, whatever the file holds.
        operations: As for `FaceParser`.

    Returns:
        A `FaceParser` in evaluation mode and without gradients.

    Raises:
        MissingFile: When there is no such file.
        BadFile: When it is broken or another network.
    """
    path = Path(path)
    refuse_onnx(path, kind="the face parser", source=SOURCE)
    state = read_state_dict(path)
    if "cp.resnet.conv1.weight" not in state:
        raise BadFile(f"{path.name} is {describe(state)}, not the face parser BiSeNet. Expected {SOURCE}.")
    state = {key: tensor for key, tensor in state.items() if not key.startswith(TRAINING_HEADS)}
    network = FaceParser(device="meta", dtype=dtype, operations=operations)
    like = FaceParser(device="meta", dtype=dtype)
    return load_strictly(network, state, file=path.name, kind="the face parser", source=SOURCE, device=device, like=like)


def _mean(x):
    """Over the whole image: [B,C,H,W] to [B,C,1,1]."""
    return x.mean(dim=(2, 3), keepdim=True)
