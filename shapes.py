"""Tensor types with shapes for signatures: `Float[Tensor, "B 3 H W"]`.

The tests check them while they run (jaxtyping and beartype, see `tests/conftest.py`). Users do not need jaxtyping: without it,
each is the plain type. Axis names: B batch, C channels, H and W height and width, V vertices, F faces, N anything counted.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Num
else:
    try:
        from jaxtyping import Bool, Float, Int, Num
    except ImportError:

        class _Plain:
            """Returns the subscripted type without its shape."""

            def __class_getitem__(cls, item):
                return item[0]

        Bool = Float = Int = Num = _Plain

__all__ = ["Bool", "Float", "Int", "Num"]
"""Int covers all integer types, Num integers and floats."""
