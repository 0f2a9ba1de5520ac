"""The table in docs/files.md agrees with the catalogue."""

from capface.files.catalogue import ASSETS, HOST_FILES
from capface.tools.file_table import PAGE, filled


def test_the_page_is_current():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page, "run: python -m capface.tools.file_table --write"


def test_every_file_has_its_folder_need_source_licence_and_checksum():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for asset in (*ASSETS, *HOST_FILES):
        (row,) = (row for row in rows if row.startswith(f"| `{asset.file}`"))
        assert all(
            fact in row
            for fact in (
                f"`{asset.folder}/`",
                asset.need,
                asset.source,
                asset.licence,
                (asset.checksum or "").partition(" ")[2],
            )
        )
