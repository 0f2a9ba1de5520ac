"""CapFace: CapHuman (CVPR 2024) for ComfyUI.

ComfyUI imports this file by path, under the folder's name. It imports nothing at load time; `comfy_entrypoint` loads the nodes.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the extension object that lists the nodes (ComfyUI's V3 entry point)."""
    import logging

    try:
        from .nodes import CapFaceExtension

        return CapFaceExtension()
    except Exception:
        # ComfyUI reports a failing entry point in one line without its cause.
        logging.getLogger("capface").exception("CapFace could not be loaded")
        raise
