"""Safe loading of FLAME's files, and heads as JSON, tables of numbers, motion and meshes."""

from .heads_json import heads_from_json, heads_to_json, read_heads
from .load import convert_flame, load_flame
from .meshes import HeadMesh, head_mesh, to_glb, to_obj
from .motion import to_bvh
from .tables import arkit_csv, heads_from_csv, read_table, vectors_csv

__all__ = [
    "HeadMesh",
    "arkit_csv",
    "convert_flame",
    "head_mesh",
    "heads_from_csv",
    "heads_from_json",
    "heads_to_json",
    "load_flame",
    "read_heads",
    "read_table",
    "to_bvh",
    "to_glb",
    "to_obj",
    "vectors_csv",
]
