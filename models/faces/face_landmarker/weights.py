"""MediaPipe's weights under the keys of the pack's networks.

In Google's `face_landmarker.task` each network is a TensorFlow Lite file whose tensors bear the names of the original graph.
ComfyUI's file has the keys of the networks already.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import BadFile
from ....files.protobuf import read_fields
from ....files.tflite import read_tflite
from .blazeface import WIDTHS as DETECTOR_BLOCKS
from .blendshapes import LAYERS as MIXER_BLOCKS
from .mesh import SKIN_POINTS, FaceMesh

DETECTOR, MESH = "face_detector.tflite", "face_landmarks_detector.tflite"
BLENDSHAPES, GEOMETRY = "face_blendshapes.tflite", "geometry_pipeline_metadata_landmarks.binarypb"
MEMBERS = (DETECTOR, MESH, BLENDSHAPES, GEOMETRY)
"""Members of the `.task`."""
MESH_GRAPH = "model_5/model_4/model_3/"
MIXER_GRAPH = "model_1/GhumMarkerPoserMlpMixerGeneral/"
FIRST_CONVOLUTION, FIRST_DEPTHWISE, FIRST_NORM, FIRST_PRELU = 81, 60, 132, 126
"""The numbers that the mesh's layers have in its graph."""
SHARED_BIAS = {8: 63, 16: 68, 32: 73, 64: 93}
"""The depthwise convolutions of the mesh share one bias for each number of channels, named after the last of them."""
MESH_3D, VERTICES, VERTEX_FLOATS = 1, 3, 5
"""Fields of the geometry: the canonical face; its vertices, each x, y, z and two texture coordinates."""
COMFYUI_DETECTOR = "detector_short."
COMFYUI_UNUSED = ("detector_full.", "topology.", "procrustes_")


@dataclass(frozen=True)
class Layer:
    """One tensor of a network: its key, the name in the graph, and how its axes are ordered there."""

    key: str
    name: str
    axes: tuple[int, ...] | None = None
    """Order of the file's axes; None if they are the network's, apart from axes of length 1."""


CONVOLUTION, DEPTHWISE = (0, 3, 1, 2), (3, 0, 1, 2)


def state_from_task(members: Mapping[str, bytes], file: str) -> dict[str, Tensor]:
    """Read the members of a `.task`.

    Args:
        members: Contents by name.
        file: Name of the file, for messages.

    Returns:
        Tensors by the keys of `FaceLandmarker`, whose mesh is `FaceMesh`.

    Raises:
        BadFile: A member or a tensor is missing or malformed; the message names it.
    """
    if missing := [name for name in MEMBERS if name not in members]:
        held = ", ".join(list(members)[:4]) or "nothing"
        raise BadFile(f"{file} lacks {', '.join(missing)}: it holds {held}. Expected MediaPipe's face_landmarker.task.")
    state = {"canonical": read_canonical(members[GEOMETRY], f"{file} ({GEOMETRY})")}
    for prefix, member, layers in (
        ("detector.", DETECTOR, detector_layers()),
        ("mesh.", MESH, mesh_layers()),
        ("blendshapes.", BLENDSHAPES, blendshape_layers()),
    ):
        place = f"{file} ({member})"
        tensors = read_tflite(members[member], place)
        # a fused tensor bears the names of all its operators
        names = {part: tensor for name, tensor in tensors.items() for part in name.split(";")} | tensors
        state |= {prefix + layer.key: _arranged(layer, names, place) for layer in layers}
    return state


def state_from_comfyui(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of ComfyUI's `mediapipe_face_fp32.safetensors`.

    Args:
        state: Tensors by the file's keys.

    Returns:
        Tensors by the keys of `FaceLandmarker`, whose mesh is `FaceMesh192`. The detector for long range, the lines between the
        points and the weights of the pose are left out.
    """
    renamed = {"canonical_vertices": "canonical"}
    return {
        renamed.get(key, key.replace(COMFYUI_DETECTOR, "detector.", 1) if key.startswith(COMFYUI_DETECTOR) else key): tensor
        for key, tensor in state.items()
        if not key.startswith(COMFYUI_UNUSED)
    }


def read_canonical(message: bytes, name: str) -> Tensor:
    """Read the canonical face from MediaPipe's geometry.

    Args:
        message: The protobuf message.
        name: Name of the file, for messages.

    Returns:
        `[468, 3]`, float32, in centimetres: x to the image's right, y up, z towards the camera.

    Raises:
        BadFile: The message is malformed, or holds another number of vertices.
    """
    values = bytearray()
    for number, mesh in read_fields(message, name):
        if number == MESH_3D and not isinstance(mesh, int):
            for field, content in read_fields(mesh, name):
                if field == VERTICES and not isinstance(content, int):
                    values += content
    expected = SKIN_POINTS * VERTEX_FLOATS * 4
    if len(values) != expected:
        raise BadFile(f"{name} holds {len(values) // 4:,} numbers of a face mesh, expected {expected // 4:,}.")
    vertices = torch.tensor(struct.unpack(f"<{expected // 4}f", values)).unflatten(0, (SKIN_POINTS, VERTEX_FLOATS))
    return vertices[:, :3].contiguous()


def detector_layers() -> Iterator[Layer]:
    """Go through the tensors of `BlazeFace`."""
    heads = {"cls_16": "classificator_8", "cls_8": "classificator_16", "reg_16": "regressor_8", "reg_8": "regressor_16"}
    yield from _kernel_and_bias("stem", "conv2d", CONVOLUTION)
    for number in range(len(DETECTOR_BLOCKS)):
        suffix = f"_{number}" if number else ""
        yield from _kernel_and_bias(f"blocks.{number}.depthwise", f"depthwise_conv2d{suffix}", DEPTHWISE)
        yield from _kernel_and_bias(f"blocks.{number}.pointwise", f"conv2d_{number + 1}", CONVOLUTION)
    for key, name in heads.items():
        yield from _kernel_and_bias(key, name, CONVOLUTION)


def mesh_layers() -> Iterator[Layer]:
    """Go through the tensors of `FaceMesh`."""

    def convolution(key: str, number: int) -> Layer:
        return Layer(f"{key}.weight", f"{MESH_GRAPH}conv2d_{FIRST_CONVOLUTION + number}/Conv2D", CONVOLUTION)

    def norm(key: str, number: int) -> Layer:
        return Layer(f"{key}.bias", f"{MESH_GRAPH}batch_normalization_{FIRST_NORM + number}/FusedBatchNormV3")

    def prelu(key: str, number: int) -> Layer:
        return Layer(f"{key}.weight", f"{MESH_GRAPH}p_re_lu_{FIRST_PRELU + number}/mul")

    yield from (convolution("stem", 0), norm("stem", 0), prelu("prelu_stem", 0))
    widths = [width // 2 for width, count in FaceMesh.STAGES for _ in range(count)]
    for block, inner in enumerate(widths):
        key, number = f"blocks.{block}", 2 * block + 1
        yield from (convolution(f"{key}.expand", number), norm(f"{key}.expand", number), prelu(f"{key}.prelu_inner", number))
        depthwise, shared = FIRST_DEPTHWISE + block, SHARED_BIAS[inner]
        # the graph gives the bias the plain name of that layer, and its kernel the name with a 1
        kernel = f"{MESH_GRAPH}depthwise_conv2d_{depthwise}/depthwise{'1' if depthwise == shared else ''}"
        yield Layer(f"{key}.depthwise.weight", kernel, DEPTHWISE)
        yield Layer(f"{key}.depthwise.bias", f"{MESH_GRAPH}depthwise_conv2d_{shared}/depthwise")
        yield from (convolution(f"{key}.project", number + 1), norm(f"{key}.project", number + 1))
        yield prelu(f"{key}.prelu_out", number + 1)
    outer = MESH_GRAPH.removesuffix("model_3/")
    for key, name in (("head_landmarks", f"{MESH_GRAPH}conv2d_150"), ("head_presence", f"{outer}conv2d_151")):
        yield Layer(f"{key}.weight", f"{name}/Conv2D", CONVOLUTION)
        yield Layer(f"{key}.bias", f"{name}/BiasAdd/ReadVariableOp/resource")


def blendshape_layers() -> Iterator[Layer]:
    """Go through the tensors of `Blendshapes`."""

    def linear(key: str, name: str) -> Iterator[Layer]:
        yield Layer(f"{key}.weight", f"{MIXER_GRAPH}{name}/Conv2D")
        yield Layer(f"{key}.bias", f"{MIXER_GRAPH}{name}/BiasAdd/ReadVariableOp")

    yield from linear("token_reduce", "conv2d")
    yield from linear("token_embed", "MLPMixer/input_tokens_embedding")
    yield Layer("cls_token", f"{MIXER_GRAPH}MLPMixer/AddExtraTokens/strided_slice_1")
    for number in range(MIXER_BLOCKS):
        key, name = f"blocks.{number}", f"MLPMixer/MixerBlock_{number}"
        for half in (1, 2):
            yield Layer(f"{key}.ln{half}.weight", f"{MIXER_GRAPH}{name}/layer_norm{half}/batchnorm/mul/ReadVariableOp")
            yield from linear(f"{key}.token_mlp{half}", f"{name}/mlp_token_mixing/Mlp_{half}")
            yield from linear(f"{key}.channel_mlp{half}", f"{name}/mlp_channel_mixing/Mlp_{half}")
    yield from linear("head", "output_blendweights")


def _kernel_and_bias(key: str, name: str, axes: tuple[int, ...]) -> Iterator[Layer]:
    yield Layer(f"{key}.weight", f"{name}/Kernel", axes)
    yield Layer(f"{key}.bias", f"{name}/Bias")


def _arranged(layer: Layer, names: Mapping[str, Tensor], place: str) -> Tensor:
    tensor = names.get(layer.name)
    if tensor is None:
        raise BadFile(f"{place} has no tensor {layer.name}. Expected the network of MediaPipe's face_landmarker.task.")
    if layer.axes is not None:
        if tensor.ndim != len(layer.axes):
            raise BadFile(f"{place}: {layer.name} has shape {list(tensor.shape)}, expected {len(layer.axes)} axes.")
        return tensor.permute(layer.axes).contiguous()
    if layer.key == "cls_token":
        return tensor.reshape(1, 1, -1)
    return tensor.reshape([n for n in tensor.shape if n != 1] or [1])
