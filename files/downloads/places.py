"""Where files go: a ComfyUI's own model folders, and those of its extra_model_paths.yaml."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import BadFile, BadInput
from ..catalogue import Asset

PACK = Path(__file__).resolve().parent.parent.parent
EXTRA = "extra_model_paths.yaml"


@dataclass(frozen=True)
class Places:
    """The model folders."""

    models: Path
    """ComfyUI's own folder `models`."""
    preferred: dict[str, list[Path]] = field(default_factory=dict)
    """By kind, further folders that come before ComfyUI's own."""
    further: dict[str, list[Path]] = field(default_factory=dict)
    """By kind, further folders that come after it."""

    def folders(self, kind: str) -> list[Path]:
        """Return a kind's folders in search order."""
        every = [*self.preferred.get(kind, []), self.models / kind, *self.further.get(kind, [])]
        return list(dict.fromkeys(every))

    def target(self, asset: Asset) -> Path:
        """Return where an asset's file goes; for a pattern, the folder for its files."""
        path = self.folders(asset.folder)[0] / asset.file
        return path.parent if "*" in path.name else path


def find_places(comfyui: str | None = None, models: str | None = None, pack: Path = PACK) -> Places:
    """Find the model folders.

    Args:
        comfyui: The ComfyUI's folder. Default: COMFYUI_PATH, else the one in whose `custom_nodes` the pack lies.
        models: The folder of models, if it is not the ComfyUI's own.
        pack: The pack's folder.

    Raises:
        BadInput: There is no ComfyUI.
        BadFile: Its extra_model_paths.yaml cannot be read.
    """
    # The shell's own path, too: the pack in custom_nodes may be a link to a folder elsewhere.
    around = (Path(os.path.abspath(pack)), Path(os.environ.get("PWD", pack)))  # noqa: PTH100  keeps links
    candidates = [place.parent.parent for place in around if place.parent.name == "custom_nodes"]
    host = None
    for named, origin in ((comfyui, "--comfyui"), (os.environ.get("COMFYUI_PATH"), "COMFYUI_PATH")):
        if named and host is None:
            host = Path(named).expanduser().absolute()
            if not (host / "folder_paths.py").is_file():
                raise BadInput(f"{origin} names {host}, but there is no ComfyUI in it (expected its folder_paths.py there).")
    host = host or next((place for place in candidates if (place / "folder_paths.py").is_file()), None)
    if models:
        folder = Path(models).expanduser().absolute()
        if not folder.is_dir():
            raise BadInput(f"--models names {folder}, but there is no such folder.")
    elif host is None:
        raise BadInput(
            "There is no ComfyUI around the pack. Name its folder with --comfyui PATH, or its models with --models PATH."
        )
    else:
        folder = host / "models"
    return Places(folder, *(extra_folders(host / EXTRA) if host else ({}, {})))


def extra_folders(file: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Read the folders of an extra_model_paths.yaml as ComfyUI does.

    Args:
        file: The file; it may be absent.

    Returns:
        Folders by kind: those of sections with `is_default`, and the others.

    Raises:
        BadFile: The file is broken.
        BadInput: PyYAML, which ComfyUI has, is not in this Python.
    """
    preferred: dict[str, list[Path]] = {}
    further: dict[str, list[Path]] = {}
    if not file.is_file():
        return preferred, further
    try:
        import yaml
    except ImportError as error:
        raise BadInput(
            f"{file} cannot be read without PyYAML. Run this with ComfyUI's Python, or name a folder: --models."
        ) from error
    try:
        sections: Any = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for section in sections.values():
            if not isinstance(section, dict):
                continue
            base = file.parent
            if section.get("base_path"):
                base = file.parent / Path(os.path.expandvars(str(section["base_path"]))).expanduser()
            target = preferred if section.get("is_default") else further
            for kind, lines in section.items():
                if kind not in ("base_path", "is_default") and isinstance(lines, str):
                    target.setdefault(kind, []).extend(base / line.strip() for line in lines.splitlines() if line.strip())
    except (yaml.YAMLError, OSError, AttributeError, UnicodeDecodeError) as error:
        raise BadFile(f"{file} cannot be read ({error}). Correct it, or name a folder: --models.") from error
    return preferred, further
