"""The socket types of the nodes, and helpers for their schemas."""

import dataclasses
from collections.abc import Collection
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..errors import BadInput

CAPFACE = io.Custom("CAPFACE")
"""host.capface_model.CapFaceModel"""
IDENTITY = io.Custom("CAPFACE_IDENTITY")
"""host.identity.identity.Identity"""
READER = io.Custom("CAPFACE_READER")
"""host.encode.EncoderProvider: host.face_analyzer.HostFaceAnalyzer or host.miniature_models.MiniatureEncoder"""
HEAD_MODEL = io.Custom("HEAD_MODEL")
"""flame.model.head.HeadModel"""
HEAD = io.Custom("HEAD")
"""flame.model.params.HeadParams"""
HEAD_CONDITION = io.Custom("HEAD_CONDITION")
"""flame.render.condition.HeadCondition"""

CATEGORY = "CapFace"
DEFAULT_TOOLTIPS = {
    CAPFACE.io_type: "The CapFace network.",
    IDENTITY.io_type: "A person's identity: the features of their photos.",
    READER.io_type: "The networks that analyze faces, from Load Face Reader.",
    HEAD_MODEL.io_type: "The parametric head, from Load Head Model.",
    HEAD.io_type: "A head, or a sequence of heads: position, pose, expression, shape, skin and light.",
    HEAD_CONDITION.io_type: "The head that Apply CapFace renders at the size of the latent.",
    io.Conditioning.io_type: "The prompt, encoded.",
    "path": "Where the file was written.",
    "preview": "The picture that the node shows.",
}
"""Tooltips of sockets by type, or by name for outputs of plain types. A node's own tooltips take precedence."""
_FIELDS = {f.name for f in dataclasses.fields(io.Schema)}


ALIASES: dict[str, list[str]] = {}
"""The words by which search finds a node, by its id. Older versions of ComfyUI do not take them from the schema."""


def schema(node_id: str, display_name: str, *, advanced: Collection[str] = (), **kw: Any) -> io.Schema:
    """Build the schema of a node in the pack's category, without flags that this version of ComfyUI does not know.

    Args:
        node_id: The id in workflows.
        display_name: The title.
        advanced: Ids of the inputs that are shown only on demand, if this version of ComfyUI can hide them.
        **kw: Further fields of `io.Schema`.
    """
    kw = {"category": CATEGORY, **kw}
    ALIASES[node_id] = kw.get("search_aliases", [])
    for entry in kw.get("inputs", ()):
        if entry.id in advanced and hasattr(entry, "advanced"):
            entry.advanced = True
    for socket in (*kw.get("inputs", ()), *kw.get("outputs", ())):
        kind = socket.get_io_type().partition(",")[0]
        socket.tooltip = socket.tooltip or DEFAULT_TOOLTIPS.get(kind) or DEFAULT_TOOLTIPS.get(socket.display_name)
    return io.Schema(node_id=node_id, display_name=display_name, **{k: v for k, v in kw.items() if k in _FIELDS})


def by_hand(kind: type, name: str, **kw: Any) -> io.Input:
    """Make an optional input that accepts a type, but is only connected by hand.

    Packs that connect inputs by type (Use Everywhere) compare the names of types. They would connect a value that is broadcast
    for another input here too, and change the result unnoticed. This input therefore has a type of its own beside `kind`.

    Args:
        kind: The type that the input accepts.
        name: The name of the input.
        **kw: Further arguments of the input.
    """
    return io.MultiType.Input(name, [kind, io.Custom(own_type(name))], optional=True, **kw)


def not_connected(name: str) -> ExecutionBlocker:
    """Return what an output gives if the input that it passes on is not connected: the nodes that use it say so, and stop.

    Args:
        name: The name of Apply CapFace's input and output.
    """
    return ExecutionBlocker(
        f"Apply CapFace: nothing is connected to its input {name}, so its output {name} is empty. Connect it."
    )


def given_faces() -> list[io.Input]:
    """Return the two inputs for faces that other nodes found. ComfyUI has their types since 2026."""
    return [
        by_hand(
            io.Custom("FACE_LANDMARKS"),
            "face_landmarks",
            tooltip="Faces whose landmarks were detected by ComfyUI's Detect Face Landmarks (MediaPipe). They are used instead "
            "of the reader's detection; face and face_index choose among them.",
        ),
        by_hand(
            io.Custom("BOUNDING_BOX"),
            "bboxes",
            tooltip="Boxes of faces, for drawings and other faces that the reader does not find: one, several, or a list for "
            "each image. face and face_index choose among them. Not used if face_landmarks is connected.",
        ),
    ]


def as_list(value: Any, listed: bool) -> list[Any]:
    """Return the values of an optional input of a node that takes lists.

    Args:
        value: The input's value: a list of values as ComfyUI passes it, or a single value; None if nothing is connected.
        listed: Whether it is a list of values. A single value may be a list itself.
    """
    values = value if listed and isinstance(value, list) else [value]
    return [one for one in values if one is not None]


def only(name: str, value: Any, listed: bool) -> Any:
    """Return the single value of an input of a node that takes lists, or None if nothing is connected.

    Raises:
        BadInput: There are several.
    """
    values = as_list(value, listed)
    if any(one is not values[0] and one != values[0] for one in values[1:]):
        raise BadInput(f"{name}: expected one value for all images, got a list of {len(values)}. Connect a single value.")
    return values[0] if values else None


def own_type(name: str) -> str:
    """Return the name of the type that belongs to a single input."""
    return f"CAPFACE_{name.upper()}"


def which_face() -> list[io.Input]:
    """Return the two inputs that choose one of the faces in a photo."""
    return [
        io.Combo.Input(
            "face",
            options=["largest", "left to right", "center"],
            default="largest",
            tooltip="How faces are counted: the largest first, from left to right, or from the middle of the picture.",
        ),
        io.Int.Input("face_index", default=0, min=0, max=99, tooltip="Which face in that order; 0 is the first."),
    ]
