"""Numbers of bytes as text."""

GIGABYTE, MEGABYTE = 1_000_000_000, 1_000_000


def size_text(size: int) -> str:
    """Format a number of bytes."""
    if size >= GIGABYTE:
        return f"{size / GIGABYTE:.1f} GB"
    return f"{size / MEGABYTE:.1f} MB" if size >= MEGABYTE else f"{size:,} bytes"
