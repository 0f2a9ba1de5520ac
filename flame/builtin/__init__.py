"""The built-in head: this project's own procedural head, with FLAME's interface.

Nothing is read from a file. The head is a function of some forty measures (`anthropometry.py`). Each shape component is the
change of that function when its measures grow by one standard deviation; expressions displace the result. Conventions:
metres, x to the viewer's right (the person's left), y up, z towards the viewer, the origin between the eyes and the base of
the nose.
"""

from functools import lru_cache

import numpy as np

from ..model.head import HeadModel
from .anthropometry import SHAPE_NAMES, Measures, component
from .expression_basis import EXPRESSION_NAMES, expression_basis
from .landmark_points import landmark_arrays
from .mesh import half_points, head_mesh
from .rig import PARENTS, jaw_weights, joint_regressor, skinning
from .texture import TEXTURE_NAMES, paint
from .uv import uv_layout

__all__ = ["EXPRESSION_NAMES", "SHAPE_NAMES", "TEXTURE_NAMES", "builtin_head"]


@lru_cache(maxsize=1)
def builtin_head() -> HeadModel:
    """Return the built-in head model, on the CPU; it is built once and then shared.

    Its components are named by SHAPE_NAMES, EXPRESSION_NAMES and TEXTURE_NAMES, in their order. One unit of shape or texture
    is about one standard deviation of adults. One unit of an expression is clearly visible, and two units are its natural
    limit.

    Returns:
        A HeadModel of kind "builtin" with fewer than 6,000 vertices, five joints, landmarks, UVs, a texture and its basis.
    """
    mesh = head_mesh()
    half = half_points(Measures())
    shapes = [mesh.whole(half_points(component(name)) - half) for name in SHAPE_NAMES]
    expressions = expression_basis(mesh, half, jaw_weights(mesh, half))
    uv, uv_faces = uv_layout(mesh)
    mean, basis = paint(mesh, half)
    return HeadModel.from_arrays(
        v_template=mesh.whole(half),
        faces=mesh.faces,
        shapedirs=np.concatenate([np.stack(shapes), expressions]).transpose(1, 2, 0),
        J_regressor=joint_regressor(mesh, half),
        parents=PARENTS,
        weights=skinning(mesh, half),
        uv=uv,
        uv_faces=uv_faces,
        n_shape=len(SHAPE_NAMES),
        texture_mean=mean,
        texture_basis=basis,
        name="built-in head",
        kind="builtin",
        shape_names=SHAPE_NAMES,
        expression_names=EXPRESSION_NAMES,
        **landmark_arrays(mesh, half),
    )
