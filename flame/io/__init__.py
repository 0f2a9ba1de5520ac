"""Safe loading of FLAME's files, and heads as JSON."""

from .heads_json import heads_from_json, heads_to_json, read_heads
from .load import convert_flame, load_flame

__all__ = ["convert_flame", "heads_from_json", "heads_to_json", "load_flame", "read_heads"]
