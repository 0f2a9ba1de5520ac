"""The scan for the catalogue's files: which exist, what they are, and which are in the wrong folder."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadFile, CapFaceError, MissingFile
from . import catalogue
from .boundary import reading
from .catalogue import Asset
from .checkpoint import read_state_dict
from .header import tensor_names
from .identify import describe, is_face_landmarker
from .insightface_packs import LANDMARK_FILE, PACKS, RECOGNITION_FILES, find_pack

BY_NAME = (
    catalogue.FLAME_LANDMARKS,
    catalogue.FLAME_TEMPLATE,
    catalogue.FLAME_TEXTURE,
    catalogue.FACE_LANDMARKER,
    catalogue.COMFYUI_FACE_LANDMARKER,
)
"""Assets found only under their own name; other files are chosen from a list."""
NEIGHBOURS = ("checkpoints", "controlnet")
"""Folders that a CapFace checkpoint is put into by mistake, under any name."""
CHECKPOINTS = (".ckpt", ".safetensors", ".pt", ".pth")
BLOCK = 1 << 24
LARGEST_OLD_PICKLE = 1_000_000_000
"""Bytes. A pickle of the format before torch 1.6 must be read completely to inspect it, so larger ones are not."""


Inspector = Callable[[Path, Asset], str]
"""Returns a short description of a file, or raises a BadFile that states what it is instead."""


@dataclass(frozen=True)
class SearchPaths:
    """A ComfyUI's model folders."""

    folders: dict[str, list[Path]]
    """By kind, in search order."""
    listed: dict[str, list[Path]]
    """By kind, the files that ComfyUI lists for it."""
    roots: list[Path]
    """Folders in which misplaced files are searched: all model folders and their parents."""


@dataclass(frozen=True)
class FoundFile:
    """A file that was found for an asset."""

    path: Path
    size: int
    description: str
    """Its kind, or its problem."""
    good: bool
    checksum: str = ""
    """The result of its verification, if requested."""


@dataclass(frozen=True)
class AssetReport:
    """The files found for an asset."""

    asset: Asset
    searched: list[Path]
    found: list[FoundFile]
    elsewhere: list[str]
    """Sentences about files that appear to be the asset but cannot be used in their present location."""

    @property
    def usable(self) -> bool:
        """Whether a file of the right kind is in the right folder."""
        return any(one.good for one in self.found)


def scan(
    search_paths: SearchPaths,
    *,
    inspectors: Mapping[Asset, Inspector] | None = None,
    verify: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    assets: Iterable[Asset] = catalogue.ASSETS,
) -> list[AssetReport]:
    """Search for all files.

    Args:
        search_paths: The folders to search.
        inspectors: Inspectors of files that are not torch checkpoints, by asset.
        verify: Whether to compute the checksum of each file that is found, which reads it completely.
        progress: Called during verification with the number of bytes read and their total. Its errors end the scan.
        assets: Assets to search for.
    """
    every = _files_below(search_paths.roots)
    reports = [_look_for(asset, search_paths, every, inspectors or {}) for asset in assets]
    if not verify:
        return reports
    total = sum(one.size for report in reports for one in report.found if one.path.is_file())
    done, verified = 0, []
    for report in reports:
        found = []
        for one in report.found:
            if not one.path.is_file():
                found.append(one)
                continue
            verdict = _verify(one.path, report.asset, lambda read, before=done: progress(before + read, total))
            found.append(FoundFile(one.path, one.size, one.description, one.good, verdict))
            done += one.size
        verified.append(AssetReport(report.asset, report.searched, found, report.elsewhere))
    return verified


# One asset


def _look_for(asset: Asset, search_paths: SearchPaths, every: list[Path], inspectors: Mapping[Asset, Inspector]) -> AssetReport:
    folders = search_paths.folders.get(asset.folder, [])
    if asset is catalogue.INSIGHTFACE:
        return AssetReport(asset, folders, _packs(folders), [])
    candidates = [path for path in search_paths.listed.get(asset.folder, []) if _may_be(asset, path, folders)]
    found = [_look_into(asset, path, inspectors.get(asset, _network)) for path in candidates]
    if any(one.good for one in found):
        return AssetReport(asset, folders, found, [])
    return AssetReport(asset, folders, found, _elsewhere(asset, folders, search_paths, every, set(candidates)))


def _may_be(asset: Asset, path: Path, folders: list[Path]) -> bool:
    """Whether a file in an asset's folder may be that asset: the folder's other assets have their own names."""
    if asset in BY_NAME:
        return path.name == asset.file and path.parent in folders
    others = {other.file for other in catalogue.ASSETS if other.folder == asset.folder}
    return path.name not in others - {asset.file}


def _look_into(asset: Asset, path: Path, inspect: Inspector) -> FoundFile:
    size = 0
    try:
        with reading(path, asset.purpose):
            size = path.stat().st_size
            return FoundFile(path, size, inspect(path, asset), True)
    except CapFaceError as error:
        return FoundFile(path, size, str(error), False)


def _network(path: Path, asset: Asset) -> str:
    """Inspect a torch checkpoint."""
    if path.suffix == catalogue.FACE_LANDMARKER.ending:
        if not is_face_landmarker(path):
            raise BadFile(f"{path.name} is broken or another bundle of MediaPipe, not {asset.purpose}.")
        return "of the right kind, three networks"
    with path.open("rb") as file:
        old = file.read(1) == b"\x80"
    if old and path.stat().st_size > LARGEST_OLD_PICKLE:
        state = None
        right = (asset.sign or "").encode() in tensor_names(path)
    else:
        state = read_state_dict(path)
        right = asset.sign is None or any(asset.sign in key for key in state)
    if right:
        return f"of the right kind, {len(state)} tensors" if state else "of the right kind, by its tensors' names"
    what = describe(state) if state else "without the tensors that were expected"
    raise BadFile(f"{path.name} is {what}, not {asset.purpose}.")


def _packs(folders: list[Path]) -> list[FoundFile]:
    """Find the insightface packs in the folders."""
    found = []
    for root in folders:
        for name in PACKS:
            try:
                pack = find_pack(root, name)
            except MissingFile:
                continue
            lacking = [] if (pack / LANDMARK_FILE).is_file() else [f"the 68 landmarks ({LANDMARK_FILE})"]
            if not any(any(pack.glob(pattern)) for pattern in RECOGNITION_FILES):
                lacking.append(f"recognition ({' or '.join(RECOGNITION_FILES[:2])})")
            size = sum(file.stat().st_size for file in pack.glob("*.onnx") if file.is_file())
            found.append(FoundFile(pack, size, f"detection; without {' and '.join(lacking)}" if lacking else "complete", True))
    return found


# Usual mistakes


def _elsewhere(asset: Asset, folders: list[Path], search_paths: SearchPaths, every: list[Path], known: set[Path]) -> list[str]:
    target = folders[0] if folders else Path(asset.folder)
    stem = Path(asset.file).name.partition(".")[0].lower()
    wanted = Path(asset.file).name.lower()
    sentences: list[str] = []
    for path in every:
        if path in known:
            continue
        name, inside = path.name.lower(), any(path.is_relative_to(folder) for folder in folders)
        if name == wanted:
            where = "a subfolder that is not searched" if inside else "another folder"
            sentences.append(f"{path} is in {where}: move it to {target}.")
        elif inside and name.startswith(stem):
            sentences.append(f"{path} has another ending than {asset.file}: finish the download, unpack it, or rename it.")
    if asset.sign:
        sign = asset.sign.removesuffix(".").encode()
        neighbours = {path for kind in NEIGHBOURS for path in search_paths.listed.get(kind, [])}
        neighbours |= {path for path in every if path.parent in search_paths.roots and path.suffix in CHECKPOINTS}
        for path in sorted(neighbours - known):
            if path.name.lower() != wanted and sign in tensor_names(path):
                sentences.append(f"{path} looks like it, under another name and in another folder: move it to {target}.")
    return sentences


def _files_below(roots: list[Path]) -> list[Path]:
    """List all files below some folders, each once."""
    files = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            files.update(dict.fromkeys(Path(folder) / name for name in names))
    return sorted(files)


def _verify(path: Path, asset: Asset, progress: Callable[[int], None]) -> str:
    kind, expected = ("SHA-256", asset.sha256) if asset.sha256 and not asset.md5 else ("MD5", asset.md5)
    digest, read = hashlib.sha256() if kind == "SHA-256" else hashlib.md5(usedforsecurity=False), 0
    try:
        with reading(path, asset.purpose):
            file = path.open("rb")
    except CapFaceError as error:
        return str(error)
    with file:
        while True:
            try:
                with reading(path, asset.purpose):
                    block = file.read(BLOCK)
            except CapFaceError as error:
                return str(error)
            if not block:
                break
            digest.update(block)
            read += len(block)
            progress(read)
    got = digest.hexdigest()
    if expected is None:
        return f"{kind} {got} (none is known to compare with)"
    if got == expected:
        return f"{kind} {got}, as published"
    return f"{kind} {got}, published is {expected}: another version, a converted file, or a broken download"
