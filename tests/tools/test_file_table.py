"""The page of files says what the catalogue says."""

from capface.files.catalogue import ASSETS
from capface.tools.file_table import PAGE, filled


def test_the_page_is_current():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page, "run: python -m capface.tools.file_table --write"


def test_every_file_has_its_folder_source_licence_and_checksum():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for asset in ASSETS:
        (row,) = (row for row in rows if row.startswith(f"| `{asset.file}`"))
        assert all(fact in row for fact in (f"`{asset.folder}/`", asset.source, asset.licence, asset.md5 or ""))
