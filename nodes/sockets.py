"""The types that flow between the nodes, and the schema helper that every node uses."""

import dataclasses

from comfy_api.latest import io

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
WORDS = {
    CAPFACE.io_type: "The CapFace network.",
    IDENTITY.io_type: "Who it is: the features of a person's photos.",
    READER.io_type: "What reads faces, from Load Face Reader.",
    HEAD_MODEL.io_type: "The parametric head, from Load Head Model.",
    HEAD.io_type: "A head, or a sequence of heads: position, pose, expression, shape, skin and light.",
    HEAD_CONDITION.io_type: "The head as Apply CapFace draws it at the latent's size.",
    io.Conditioning.io_type: "The prompt, encoded.",
    "path": "Where the file was written.",
    "preview": "The picture that the node shows.",
}
"""What sockets say of themselves where a node says nothing else; outputs of plain types go by their name."""
_FIELDS = {f.name for f in dataclasses.fields(io.Schema)}


def schema(node_id: str, display_name: str, **kw) -> io.Schema:
    """Build a node's schema in the pack's category, leaving out flags that this ComfyUI does not know yet."""
    kw = {"category": CATEGORY, **kw}
    for socket in (*kw.get("inputs", ()), *kw.get("outputs", ())):
        kind = socket.get_io_type().partition(",")[0]
        socket.tooltip = socket.tooltip or WORDS.get(kind) or WORDS.get(socket.display_name)
    return io.Schema(node_id=node_id, display_name=display_name, **{k: v for k, v in kw.items() if k in _FIELDS})


def by_hand(kind: type, name: str, **kw) -> io.Input:
    """Make an optional input that takes a type, but that nothing fills because of it.

    Packs that connect by type (Use Everywhere) compare the types' names, so that what is broadcast for another input would be
    found here as well, and change the result unseen. This one's type is one of its own beside the one that it takes.
    """
    return io.MultiType.Input(name, [kind, io.Custom(own_type(name))], optional=True, **kw)


def own_type(name: str) -> str:
    """Return the name of the type that belongs to one input alone."""
    return f"CAPFACE_{name.upper()}"


def which_face() -> list[io.Input]:
    """Return the two inputs with which a node chooses one of the faces in a photo."""
    return [
        io.Combo.Input(
            "face",
            options=["largest", "left to right", "center"],
            default="largest",
            tooltip="How faces are counted: the largest first, from left to right, or from the middle of the picture.",
        ),
        io.Int.Input("face_index", default=0, min=0, max=99, tooltip="Which face in that order; 0 is the first."),
    ]
