"""Which of the catalogue's files are there, and which a portrait lacks. Nothing here needs torch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...errors import BadFile, BadInput, MissingFile
from ..catalogue import ASSETS, CLIP_VISION, HOST_FILES, INSIGHTFACE, Asset
from ..header import read_begin, tensor_names
from ..identify import is_clip_vit_l, is_sd15
from ..insightface_packs import PACKS, find_pack
from .places import Places
from .progress import Progress
from .transfer import mismatch

PRESENT, MISSING, WRONG = "present", "missing", "wrong"
EVERY = (*ASSETS, *HOST_FILES)
CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
NEEDED, RECOMMENDED = "needed", "recommended"
OR, A_PACKAGE, ANOTHER_CHECKPOINT = ", or ", "the package ", "another SD 1.5 checkpoint"
"""How the catalogue says what a portrait needs, and what does instead."""


@dataclass(frozen=True)
class Presence:
    """What was found of an asset."""

    asset: Asset
    state: str
    path: Path
    """The file, or where it would go."""
    detail: str = ""
    """What is wrong with it, or under which other name it is there."""


def find(
    asset: Asset, places: Places, *, verify: bool = False, progress: Callable[[str, int], Progress] = Progress
) -> Presence:
    """Search for an asset.

    Args:
        asset: The asset.
        places: The model folders.
        verify: Whether to compare checksums, which reads the file completely.
        progress: Makes what shows the progress of a name and a size.
    """
    folders, target = places.folders(asset.folder), places.target(asset)
    if asset is INSIGHTFACE:
        for folder in folders:
            for pack in PACKS:
                try:
                    return Presence(asset, PRESENT, find_pack(folder, pack))
                except MissingFile:
                    continue
        return Presence(asset, MISSING, target)
    for folder in folders:
        if (path := folder / asset.file).is_file():
            problem = wrong(asset, path, verify, progress)
            return Presence(asset, WRONG if problem else PRESENT, path, problem)
    if other := _under_another_name(asset, folders):
        return Presence(asset, PRESENT, other, f"as {other.name}")
    return Presence(asset, MISSING, target)


def wrong(asset: Asset, path: Path, verify: bool, progress: Callable[[str, int], Progress] = Progress) -> str:
    """Return what is wrong with a file of an asset's name; empty if nothing is."""
    try:
        read_begin(path)
    except BadFile as error:
        return str(error)
    size = path.stat().st_size
    archived = (asset.download or "").endswith(".zip")
    if asset.size and size != asset.size and not archived:
        return f"expected {asset.size:,} bytes, got {size:,}"
    if asset.sign and asset.sign.encode() not in tensor_names(path):
        return f"expected {asset.purpose} with tensors named {asset.sign}..., got another kind of file"
    if verify and (asset.sha256 or asset.md5):
        bar = progress(f"checking {path.name}", size)
        problem = mismatch(path, asset.sha256, asset.md5, bar.show)
        bar.end()
        return f"{problem}: another version, or a broken download" if problem else ""
    return ""


def _under_another_name(asset: Asset, folders: list[Path]) -> Path | None:
    """Find a file that does the same: a converted checkpoint, or one that the user has renamed."""
    if not asset.sign and asset is not CLIP_VISION:
        return None
    own = {other.file for other in EVERY if other.folder == asset.folder}
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.name in own or path.suffix not in (*CHECKPOINTS, asset.ending):
                continue
            if (asset is CLIP_VISION and is_clip_vit_l(path)) or (asset.sign and asset.sign.encode() in tensor_names(path)):
                return path
    return None


def instead(asset: Asset, places: Places, chosen: Iterable[Asset] = ()) -> str:
    """Return what does for an asset, by its `need`: a package or another file, there or chosen; empty if nothing does."""
    other = asset.need.partition(OR)[2]
    if other.startswith(A_PACKAGE):
        package = other.removeprefix(A_PACKAGE)
        return other if find_spec(package.replace("-", "_")) else ""
    if other == ANOTHER_CHECKPOINT:
        files = [path for folder in places.folders(asset.folder) if folder.is_dir() for path in sorted(folder.rglob("*"))]
        # what a .ckpt holds is not known without torch; CapFace Check takes it for one of the family, too
        return next((path.name for path in files if path.suffix == ".ckpt" or is_sd15(path)), "")
    for one in EVERY:
        if one.file == other and (one in chosen or find(one, places).state == PRESENT):
            return one.file
    return ""


def for_portrait(places: Places) -> list[Asset]:
    """Return the files for a first portrait, needed and recommended ones, by the catalogue's `need`.

    Where one of two files is enough and neither is there, it is the one that the workflows name.
    """
    needed = [asset for asset in EVERY if asset.need.startswith((NEEDED, RECOMMENDED))]
    chosen: list[Asset] = []
    for asset in sorted(needed, key=lambda asset: asset.address is None):
        if find(asset, places).state != MISSING or not instead(asset, places, chosen):
            chosen.append(asset)
    return [asset for asset in needed if asset in chosen]


def select(names: Iterable[str], places: Places) -> list[Asset]:
    """Return the assets that a user asks for.

    Args:
        names: Names of files, with or without their ending; "portrait" and "all".
        places: The model folders.

    Raises:
        BadInput: A name is not in the catalogue, or fits several files.
    """
    chosen: list[Asset] = []
    for wanted in names:
        if wanted == "all":
            chosen += EVERY
        elif wanted == "portrait":
            chosen += for_portrait(places)
        else:
            lower = wanted.lower()
            exact = [a for a in EVERY if lower in (a.name.lower(), a.file.lower(), Path(a.name).stem.lower())]
            found = exact or [a for a in EVERY if a.name.lower().startswith(lower)]
            if len(found) != 1:
                rest = "fits several" if found else "is not in the catalogue"
                listed = ", ".join(a.name for a in found or EVERY)
                raise BadInput(f"{wanted!r} {rest}. Expected portrait, all, or one of: {listed}.")
            chosen += found
    return list(dict.fromkeys(chosen))
