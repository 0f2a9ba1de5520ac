"""Files in the layouts of MediaPipe's Face Landmarker, with synthetic weights."""

import struct
import zipfile

import numpy as np
import torch

from capface.models.faces.face_landmarker.landmarker import FaceLandmarker
from capface.models.faces.face_landmarker.mesh import FaceMesh192
from capface.models.faces.face_landmarker.weights import (
    BLENDSHAPES,
    DETECTOR,
    GEOMETRY,
    MESH,
    blendshape_layers,
    detector_layers,
    mesh_layers,
)
from capface.tests.files.tflite_writer import write_tflite
from capface.tests.synthetic import fill, noise

CANONICAL = noise(640, (468, 3)) * 3


def synthetic_state(mesh=None):
    """Weights of a `FaceLandmarker` by key; the mesh's depthwise convolutions of one width share their bias, as in the file."""
    network = FaceLandmarker(mesh, device="meta") if mesh else FaceLandmarker(device="meta")
    state = {}
    for key, tensor in network.state_dict().items():
        name = key
        if mesh is None and key.startswith("mesh.") and key.endswith("depthwise.bias"):
            name = f"mesh.shared.{len(tensor)}.bias"
        value = fill(name, tensor.shape)
        if "prelu" in key:
            value = value - 0.75
        state[key] = value.half().float()  # the file has half precision
    return state | {"canonical": CANONICAL}


def task_members(state):
    """Write the members of a `.task`."""
    members = {}
    for prefix, member, layers in (
        ("detector.", DETECTOR, detector_layers()),
        ("mesh.", MESH, mesh_layers()),
        ("blendshapes.", BLENDSHAPES, blendshape_layers()),
    ):
        constants = {}
        for layer in layers:
            array = state[prefix + layer.key].numpy().astype(np.float16)
            if layer.axes:
                array = np.transpose(array, np.argsort(layer.axes))
            elif layer.key == "cls_token":
                array = array[None]
            elif array.ndim == 2:
                array = array[:, None, None, :]
            elif "prelu" in layer.key:
                array = array[None, None]
            constants[layer.name] = array
        members[member] = write_tflite(constants)
    members[GEOMETRY] = geometry(state["canonical"])
    return members


def geometry(vertices):
    """Write the canonical face as MediaPipe's geometry does: beside it, texture coordinates and other fields."""
    rows = torch.cat([vertices, torch.zeros(len(vertices), 2)], dim=1).flatten().tolist()
    mesh = b"\x08\x00\x10\x00" + b"".join(b"\x1d" + struct.pack("<f", value) for value in rows) + b"\x20\x07"
    length, sizes = len(mesh), bytearray()
    while length > 127:
        sizes.append(length & 127 | 128)
        length >>= 7
    return b"\x0a" + bytes([*sizes, length]) + mesh + b"\x12\x07\x08\x04\x15\x00\x00\x80\x3f" + b"\x18\x02"


def write_task(path, members):
    """Write a `.task`; it begins with two zeros, as Google's does."""
    with path.open("wb") as file:
        file.write(b"\0\0")
        with zipfile.ZipFile(file, "a") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    return path


def comfyui_state():
    """Tensors in the layout of ComfyUI's file."""
    state = synthetic_state(FaceMesh192)
    renamed = {"canonical": "canonical_vertices"}
    file = {renamed.get(key, key.replace("detector.", "detector_short.", 1)): value for key, value in state.items()}
    return file | {
        "detector_full.stem.weight": torch.zeros(32, 3, 3, 3),
        "procrustes_indices": torch.arange(33),
        "procrustes_weights": torch.ones(33),
        "topology.lips": torch.zeros(4, 2, dtype=torch.int32),
    }
