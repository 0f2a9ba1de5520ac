"""The table of files in docs/files.md, generated from the catalogue.

python -m capface.tools.file_table           prints it
python -m capface.tools.file_table --write   writes it into the page
"""

import sys

from ..files.catalogue import ASSETS, HOST_FILES, Asset
from .words import PACK

PAGE = PACK / "docs" / "files.md"
BEGIN, END = "<!-- table: python -m capface.tools.file_table --write -->", "<!-- end -->"


def row(asset: Asset) -> str:
    """Return an asset's row in Markdown."""
    checksum = ""
    if asset.checksum:
        kind, _, digits = asset.checksum.partition(" ")
        checksum = f" ({kind} `{digits}`)"
    cells = f"`{asset.file}`{checksum}", f"`{asset.folder}/`", asset.purpose, asset.need, asset.source, asset.licence
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Return the table in Markdown: the pack's own files, then those of ComfyUI's loaders that the workflows name."""
    head = "| file | in `ComfyUI/models/` | for | a portrait needs it | from | licence |\n| --- | --- | --- | --- | --- | --- |"
    return "\n".join([head, *map(row, (*ASSETS, *HOST_FILES))])


def filled(page: str) -> str:
    """Return a page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Print the table, or write it."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
