"""Files that a prompt needs and that are missing. The browser lists them, and the nodes refuse to run without them.

If a prompt lacks files and its client listens on a websocket, the client gets an event in addition to ComfyUI's response:

    capface.missing   {"missing": [the fields of `Missing`, in the prompt's order], "runs": [ids of outputs that lack no file]}

ComfyUI's own loaders are checked only in prompts that contain a node of this pack.
"""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import folder_paths

from ..files import catalogue
from . import head_models, model_folders

Prompt = dict[str, dict[str, Any]]
"""A prompt's API form: id -> {"class_type", "inputs"}."""

EVENT = "capface.missing"
OURS = "CapFace"
READER, IDENTITY = "CapFaceLoadFaceReader", "CapFaceEncodeIdentity"
LOADERS = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("ControlNetLoader", "control_net_name"): "controlnet",
    ("LoraLoader", "lora_name"): "loras",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
}
"""ComfyUI's own loaders: (node, input) -> model folder."""

_need_facenet: ContextVar[frozenset[str]] = ContextVar("capface_need_facenet", default=frozenset())
"""Ids of the Face Readers whose FaceNet is needed by the prompt that is being validated."""


@dataclass(frozen=True)
class Missing:
    """A missing file of a node."""

    node: str
    input: str
    file: str
    folders: tuple[str, ...]
    """The folders that were searched."""
    text: str
    """The error message."""
    purpose: str | None = None
    source: str | None = None
    licence: str | None = None
    md5: str | None = None


def find_missing(prompt: Prompt, ends: list[str]) -> list[Missing]:
    """List the files that a prompt needs and that are missing.

    Args:
        prompt: The prompt's API form: id -> {"class_type", "inputs"}.
        ends: Ids of the outputs that will run.

    Returns:
        The missing files in the prompt's order. Empty for a prompt without nodes of this pack.
    """
    if not any(_class(node).startswith(OURS) for node in prompt.values()):
        return []
    runs = _upstream(prompt, ends)
    readers = _readers_with_facenet(prompt, runs)
    return [lost for id in prompt if id in runs for lost in _missing_of_node(id, prompt[id], id in readers)]


def _missing_of_node(id: str, node: dict[str, Any], facenet: bool) -> Iterator[Missing]:
    """Yield the missing files of one node. `facenet` says whether FaceNet is needed."""
    kind, values = _class(node), node.get("inputs", {})

    def own(name: str, asset: catalogue.Asset) -> Iterator[Missing]:
        file = values.get(name)
        if isinstance(file, str) and model_folders.found(asset, file) is None:
            yield _missing(id, name, file, asset)

    if kind in ("CapFaceLoad", "CapFaceConvert"):
        yield from own("checkpoint", catalogue.CAPHUMAN)
    elif kind == READER and facenet:
        yield from own("facenet", catalogue.FACENET)
    elif kind in ("CapFaceLoadHeadModel", "CapFaceConvertHead") and values.get("model") != head_models.BUILT_IN_HEAD:
        yield from own("model", catalogue.FLAME)
    elif kind in ("LoadImage", "LoadImageMask"):
        image = values.get("image")
        if isinstance(image, str) and not folder_paths.exists_annotated_filepath(image):
            folder = folder_paths.get_input_directory()
            text = f"{image} is not in {folder}. Drop a picture on the node."
            yield Missing(id, "image", image, (folder,), text, "your own picture")
    for (loader, name), folder in LOADERS.items():
        file = values.get(name)
        if kind == loader and isinstance(file, str) and file not in folder_paths.get_filename_list(folder):
            known = next((asset for asset in catalogue.HOST_FILES if (asset.folder, asset.file) == (folder, file)), None)
            yield _missing(id, name, file, known or folder)


def _missing(id: str, name: str, file: str, what: catalogue.Asset | str) -> Missing:
    """Describe a missing file by its asset, or by its folder if there is no asset."""
    searched = tuple(folder_paths.get_folder_paths(what.folder if isinstance(what, catalogue.Asset) else what))
    if isinstance(what, catalogue.Asset):
        known = {key: getattr(what, key) for key in ("purpose", "source", "licence", "md5")}
        return Missing(id, name, file, searched, model_folders.missing_text(what, file), **known)
    text = f"{file} is not in {' or '.join(searched)}. Put it there and press R to refresh the lists, or choose another file."
    return Missing(id, name, file, searched, text)


def _readers_with_facenet(prompt: Prompt, runs: set[str]) -> set[str]:
    """Return the ids of the Face Readers that encode an identity and therefore need FaceNet."""
    ends = [link for id in runs if _class(prompt[id]) == IDENTITY for link in _links(prompt[id], "reader")]
    return {id for id in _upstream(prompt, ends) if _class(prompt[id]) == READER}


def _upstream(prompt: Prompt, ends: list[str]) -> set[str]:
    """Return the ids of nodes and of all nodes that feed them."""
    seen, waiting = set(), list(ends)
    while waiting:
        id = waiting.pop()
        if id in prompt and id not in seen:
            seen.add(id)
            waiting += _links(prompt[id])
    return seen


def _links(node: dict[str, Any], name: str | None = None) -> list[str]:
    """Return the ids of the nodes that feed a node, or only its input `name`."""
    values = node.get("inputs", {})
    values = values.values() if name is None else [values.get(name)]
    return [value[0] for value in values if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)]


def _class(node: dict[str, Any]) -> str:
    return str(node.get("class_type"))


def needs_facenet(reader: str | None) -> bool:
    """Return whether the prompt that is being validated is known to need the FaceNet of a Face Reader, given by its id."""
    return reader in _need_facenet.get()


def check_prompt(body: dict[str, Any], send: Callable[[str, dict[str, Any], str], None]) -> dict[str, Any]:
    """Check a prompt before ComfyUI validates it, in the same task.

    Args:
        body: The body that was posted to /prompt.
        send: Sends an event with its data to a client.

    Returns:
        The body, unchanged.
    """
    _need_facenet.set(frozenset())
    prompt, targets, client = body.get("prompt"), body.get("partial_execution_targets"), body.get("client_id")
    if not _is_prompt(prompt) or not (targets is None or isinstance(targets, list)):
        return body
    ends = [id for id, node in prompt.items() if _is_output(_class(node)) and (targets is None or id in targets)]
    _need_facenet.set(frozenset(_readers_with_facenet(prompt, _upstream(prompt, ends))))
    # ComfyUI itself rejects a prompt with unknown nodes.
    if client and isinstance(client, str) and ends and all(_known(_class(node)) for node in prompt.values()):
        missing = find_missing(prompt, ends)
        if missing:
            nodes = {lost.node for lost in missing}
            runs = [id for id in ends if not nodes & _upstream(prompt, [id])]
            send(EVENT, {"missing": [asdict(lost) for lost in missing], "runs": runs}, client)
    return body


def _is_prompt(prompt: object) -> TypeGuard[Prompt]:
    """Return whether an object has the form of a prompt."""
    return isinstance(prompt, dict) and all(
        isinstance(node, dict) and isinstance(node.get("inputs", {}), dict) for node in prompt.values()
    )


def _known(kind: str) -> type | None:
    """Return ComfyUI's node class with this name, or None."""
    import nodes

    mappings: dict[str, type] = nodes.NODE_CLASS_MAPPINGS  # pyright: ignore[reportAttributeAccessIssue]  ComfyUI's `nodes`
    return mappings.get(kind)


def _is_output(kind: str) -> bool:
    """Return whether ComfyUI treats a node class as an output."""
    return getattr(_known(kind), "OUTPUT_NODE", False) is True


def register(server: Any) -> None:
    """Let ComfyUI's server pass each prompt to `check_prompt`.

    Args:
        server: ComfyUI's `PromptServer`.
    """
    server.add_on_prompt_handler(lambda body: check_prompt(body, server.send_sync))
