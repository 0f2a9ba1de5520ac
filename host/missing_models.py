"""Which files a prompt asks for that are not there: for the browser, which shows them, and for the nodes, which refuse them.

Who sends a prompt that lacks files and listens on a websocket hears of it, beside ComfyUI's answer:

    capface.missing   {"missing": [the fields of `Missing`, in the prompt's order], "runs": [ids of the outputs that lack none]}

Loaders of ComfyUI are looked at where the prompt has a node of this pack; other prompts have nothing to do with it.
"""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass

import folder_paths

from ..files import catalogue
from . import head_models, model_folders

EVENT = "capface.missing"
OURS = "CapFace"
READER, IDENTITY, FIT = "CapFaceLoadFaceReader", "CapFaceEncodeIdentity", "CapFaceFitHead"
LOADERS = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("ControlNetLoader", "control_net_name"): "controlnet",
    ("LoraLoader", "lora_name"): "loras",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
}
"""ComfyUI's own loaders: node and input -> kind of file."""

_asked: ContextVar[frozenset[str]] = ContextVar("capface_asked", default=frozenset())
"""Ids of the Face Readers whose FaceNet is asked for by the prompt that is being validated."""


@dataclass(frozen=True)
class Missing:
    """A file that a node asks for."""

    node: str
    input: str
    file: str
    folders: tuple[str, ...]
    """Where it was looked for."""
    text: str
    """All of it in words."""
    purpose: str | None = None
    source: str | None = None
    licence: str | None = None
    md5: str | None = None


def find(prompt: dict, ends: list[str]) -> list[Missing]:
    """List the files that a prompt asks for and that are not there.

    Args:
        prompt: The API form: id -> {"class_type", "inputs"}.
        ends: Ids of the outputs that are to run.

    Returns:
        In the prompt's order; nothing for a prompt without nodes of this pack.
    """
    if not any(_class(node).startswith(OURS) for node in prompt.values()):
        return []
    runs = _upstream(prompt, ends)
    wanted = _wanted(prompt, runs)
    return [lost for id in prompt if id in runs for lost in _of_node(id, prompt[id], id in wanted)]


def _of_node(id: str, node: dict, facenet: bool) -> Iterator[Missing]:
    """What one node asks for."""
    kind, values = _class(node), node.get("inputs", {})

    def own(name: str, asset: catalogue.Asset) -> Iterator[Missing]:
        file = values.get(name)
        if isinstance(file, str) and model_folders.found(asset, file) is None:
            yield _missing(id, name, file, asset)

    if kind in ("CapFaceLoad", "CapFaceConvert"):
        yield from own("checkpoint", catalogue.CAPHUMAN)
    elif kind == READER and facenet:
        yield from own("facenet", catalogue.FACENET)
    elif kind in ("CapFaceLoadHeadModel", "CapFaceConvertHead") and values.get("model") != head_models.BUILT_IN:
        yield from own("model", catalogue.FLAME)
    elif kind in ("LoadImage", "LoadImageMask"):
        image = values.get("image")
        if isinstance(image, str) and not folder_paths.exists_annotated_filepath(image):
            folder = folder_paths.get_input_directory()
            text = f"{image} is not in {folder}. Drop a picture on the node."
            yield Missing(id, "image", image, (folder,), text, "a picture of yours")
    for (loader, name), folder in LOADERS.items():
        file = values.get(name)
        if kind == loader and isinstance(file, str) and file not in folder_paths.get_filename_list(folder):
            known = next((asset for asset in catalogue.HOST_FILES if (asset.folder, asset.file) == (folder, file)), None)
            yield _missing(id, name, file, known or folder)


def _missing(id: str, name: str, file: str, what: catalogue.Asset | str) -> Missing:
    """Describe a file by what is known of it, which may be its folder alone."""
    searched = tuple(folder_paths.get_folder_paths(what.folder if isinstance(what, catalogue.Asset) else what))
    if isinstance(what, catalogue.Asset):
        known = {key: getattr(what, key) for key in ("purpose", "source", "licence", "md5")}
        return Missing(id, name, file, searched, model_folders.missing_text(what, file), **known)
    text = f"{file} is not in {' or '.join(searched)}. Put it there and press R to refresh the lists, or choose another file."
    return Missing(id, name, file, searched, text)


def _wanted(prompt: dict, runs: set[str]) -> set[str]:
    """Return ids of the Face Readers that read an identity, and so need FaceNet."""
    ends = [link for id in runs if _class(prompt[id]) == IDENTITY for link in _links(prompt[id], "reader")]
    return {id for id in _upstream(prompt, ends) if _class(prompt[id]) == READER}


def _upstream(prompt: dict, ends: list[str]) -> set[str]:
    """Return the ids of nodes and of all that feeds them."""
    seen, waiting = set(), list(ends)
    while waiting:
        id = waiting.pop()
        if id in prompt and id not in seen:
            seen.add(id)
            waiting += _links(prompt[id])
    return seen


def _links(node: dict, name: str | None = None) -> list[str]:
    """Return the ids of nodes that feed one, or one input of it."""
    values = node.get("inputs", {})
    values = values.values() if name is None else [values.get(name)]
    return [value[0] for value in values if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)]


def _class(node: dict) -> str:
    return str(node.get("class_type"))


def spared(reader: str | None) -> bool:
    """Whether the prompt that is being validated needs no FaceNet of a Face Reader, or nothing is known of that."""
    return reader not in _asked.get()


def look(body: dict, send: Callable[[str, dict, str], None]) -> dict:
    """Look at a prompt before ComfyUI validates it, in the same task; leaves it as it is.

    Args:
        body: What was posted to /prompt.
        send: Sends an event with its data to a client.
    """
    _asked.set(frozenset())
    prompt, targets, client = body.get("prompt"), body.get("partial_execution_targets"), body.get("client_id")
    if not _is_prompt(prompt) or not (targets is None or isinstance(targets, list)):
        return body
    ends = [id for id, node in prompt.items() if _is_output(_class(node)) and (targets is None or id in targets)]
    _asked.set(frozenset(_wanted(prompt, _upstream(prompt, ends))))
    # What is no prompt to ComfyUI has other troubles.
    if client and isinstance(client, str) and ends and all(_known(_class(node)) for node in prompt.values()):
        missing = find(prompt, ends)
        if missing:
            nodes = {lost.node for lost in missing}
            runs = [id for id in ends if not nodes & _upstream(prompt, [id])]
            send(EVENT, {"missing": [asdict(lost) for lost in missing], "runs": runs}, client)
    return body


def _is_prompt(prompt: object) -> bool:
    """Whether it has a prompt's form."""
    return isinstance(prompt, dict) and all(
        isinstance(node, dict) and isinstance(node.get("inputs", {}), dict) for node in prompt.values()
    )


def _known(kind: str) -> type | None:
    """ComfyUI's class of nodes by a name, or None."""
    import nodes

    return nodes.NODE_CLASS_MAPPINGS.get(kind)


def _is_output(kind: str) -> bool:
    """Whether ComfyUI takes a class of nodes for an output."""
    return getattr(_known(kind), "OUTPUT_NODE", False) is True


def register(server) -> None:
    """Have ComfyUI's server show each prompt to `look`.

    Args:
        server: ComfyUI's `PromptServer`.
    """
    server.add_on_prompt_handler(lambda body: look(body, server.send_sync))
