"""The report of CapFace Check as text: capabilities, packages and files."""

from collections.abc import Sequence

from .capabilities import PACKAGES, Capability, Inventory, capabilities
from .scan import AssetReport

GIGABYTE, MEGABYTE = 1_000_000_000, 1_000_000


def report(machine: Sequence[str], inventory: Inventory) -> str:
    """Write the report.

    Args:
        machine: Lines about versions and devices.
        inventory: The files and packages that were found.
    """
    works = capabilities(inventory)
    parts = [list(machine), ["What works", *(_capability(one) for one in works)], ["Packages", *_packages(inventory)]]
    parts.append(["Files", *(line for one in inventory.reports for line in _asset(one))])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def size_text(size: int) -> str:
    """Format a number of bytes."""
    if size >= GIGABYTE:
        return f"{size / GIGABYTE:.1f} GB"
    return f"{size / MEGABYTE:.1f} MB" if size >= MEGABYTE else f"{size:,} bytes"


def _capability(one: Capability) -> str:
    return f"  no   {one.name}: needs {'; '.join(one.missing)}" if one.missing else f"  yes  {one.name}"


def _packages(inventory: Inventory) -> list[str]:
    return [
        f"  yes  {one.module} {one.version or 'of unknown version'}: {one.purpose}"
        if inventory.has(one)
        else f"  no   {one.module}: {one.purpose} ({one.install})"
        for one in PACKAGES
    ]


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
