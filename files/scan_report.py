"""The report of CapFace Check as text: capabilities, packages and files."""

from collections.abc import Callable, Sequence

from .capabilities import PACKAGES, PORTRAIT, Capability, Inventory, capabilities
from .scan import AssetReport
from .sizes import size_text


def report(machine: Sequence[str], inventory: Inventory, fetch: Callable[..., str] | None = None) -> str:
    """Write the report.

    Args:
        machine: Lines about versions and devices.
        inventory: The files and packages that were found.
        fetch: Returns the line for a terminal that fetches the files with the given names. Without it, no line is shown.
    """
    works = capabilities(inventory)
    parts = [list(machine), ["What works", *(_capability(one) for one in works)], ["Packages", *_packages(inventory)]]
    parts.append(["Files", *(line for one in inventory.reports for line in _asset(one))])
    if fetch is not None and (lines := _fetching(works, inventory, fetch)):
        parts.append(["To fetch what is missing, run in a terminal (it asks before it fetches anything)", *lines])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _capability(one: Capability) -> str:
    return f"  no   {one.name}: needs {'; '.join(one.missing)}" if one.missing else f"  yes  {one.name}"


def _packages(inventory: Inventory) -> list[str]:
    return [
        f"  yes  {one.module} {one.version or 'of unknown version'}: {one.purpose}"
        if inventory.has(one)
        else f"  no   {one.module}: {one.purpose} ({one.install})"
        for one in PACKAGES
    ]


def _fetching(works: Sequence[Capability], inventory: Inventory, fetch: Callable[..., str]) -> list[str]:
    """Say by which commands the missing files come, for a first portrait and for the rest."""
    lines = []
    if any(one.name == PORTRAIT and one.missing for one in works):
        lines.append(f"  for a first portrait: {fetch('portrait')}")
    missing = [one.asset for one in inventory.reports if not one.found]
    if optional := [asset.name for asset in missing if asset.download and not asset.need.startswith(("needed", "recommended"))]:
        lines.append(f"  for the rest: {fetch(*optional)}")
    if by_hand := [asset.name for asset in missing if not asset.download]:
        lines.append(f"  after you downloaded {', '.join(by_hand)} in a browser: {fetch(*by_hand)}")
        lines.append("      It finds them in ~/Downloads, in their archives or not.")
    return lines


def _asset(one: AssetReport) -> list[str]:
    asset = one.asset
    state = "yes " if one.usable else "BAD " if one.found else "no  "
    lines = [f"  {state} {asset.folder}/{asset.file}: {asset.purpose}"]
    for found in one.found:
        lines.append(
            f"         {'' if found.good else 'NOT USABLE: '}{found.path} ({size_text(found.size)}): {found.description}"
        )
        if found.checksum:
            lines.append(f"         {found.checksum}")
    lines += [f"         {sentence}" for sentence in one.elsewhere]
    if not one.usable:
        searched = " or ".join(map(str, one.searched)) or f"the folder models/{asset.folder} of a ComfyUI"
        lines.append(f"         belongs into {searched}")
    checksum = f"; {asset.checksum}" if asset.checksum else ""
    return [*lines, f"         from {asset.source}; licence {asset.licence}{checksum}"]
