"""A parametric head model: vertices, landmarks and albedo from head parameters.

Conventions: metres, x to the viewer's right, y up, z towards the viewer; 5 joints (root, neck, jaw, two eyes); faces counter-
clockwise seen from outside; UVs in [0, 1] with v up (v = 1 is the first row of the texture); textures `[3, h, w]`, RGB in 0..1.
Source: Li et al., "Learning a model of facial shape and expression from 4D scans" (2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float, Int
from .landmarks import N_LANDMARKS, LandmarkTable, check_table, contour_yaw, points_on_mesh
from .params import HeadParams
from .skinning import Rig

JOINTS = 5
Array = np.ndarray | Tensor


class FacesAround(NamedTuple):
    """The faces around each vertex of a mesh, one list after the other."""

    face: Int[Tensor, "3*F"]
    """Indices of faces"""
    start: Int[Tensor, " V"]
    """Where each vertex's list starts"""


def faces_around(faces: Int[Tensor, "F 3"], vertices: int) -> FacesAround:
    """List the faces around each of a number of vertices: those that have it as their first corner come first."""
    corners = faces.T.flatten()
    count = torch.bincount(corners, minlength=vertices)
    return FacesAround(corners.argsort(stable=True) % max(len(faces), 1), count.cumsum(0) - count)


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A head with FLAME's interface. Build it with `from_arrays`."""

    rig: Rig
    faces: Int[Tensor, "F 3"]
    """Vertex indices of each triangle, int64."""
    n_shape: int
    """Number of identity coefficients of the rig; the others are expression."""
    table: LandmarkTable | None = None
    full_landmarks: tuple[Int[Tensor, "68"], Float[Tensor, "68 3"]] | None = None
    """Triangles and barycentric weights of landmarks that do not slide with yaw, including the contour."""
    uv: Float[Tensor, "T 2"] | None = None
    uv_faces: Int[Tensor, "F 3"] | None = None
    """Indices into `uv` of each triangle, int64."""
    texture_mean: Float[Tensor, "3 h w"] | None = None
    texture_basis: Float[Tensor, "C 3 h w"] | None = None
    """Offset of one standard deviation of each texture coefficient."""
    name: str = "head"
    kind: str = "custom"
    shape_names: tuple[str, ...] = ()
    expression_names: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        *,
        v_template: Array,
        faces: Array,
        shapedirs: Array,
        J_regressor: Array,  # noqa: N803  FLAME's name
        parents: Array | Sequence[int],
        weights: Array,
        posedirs: Array | None = None,
        uv: Array | None = None,
        uv_faces: Array | None = None,
        static_lmk_faces_idx: Array | None = None,
        static_lmk_bary_coords: Array | None = None,
        dynamic_lmk_faces_idx: Array | None = None,
        dynamic_lmk_bary_coords: Array | None = None,
        full_lmk_faces_idx: Array | None = None,
        full_lmk_bary_coords: Array | None = None,
        n_shape: int = 100,
        albedo_uv: Array | None = None,
        texture_mean: Array | None = None,
        texture_basis: Array | None = None,
        name: str = "head",
        kind: str = "custom",
        shape_names: Sequence[str] = (),
        expression_names: Sequence[str] = (),
    ) -> "HeadModel":
        """Build a head model from arrays under FLAME's names (numpy or torch, any precision).

        Args:
            v_template: Vertices `[V, 3]` in metres.
            faces: Triangles `[F, 3]`, counter-clockwise from outside.
            shapedirs: Offsets `[V, 3, n_shape + n_expression]` of one unit of each coefficient, identity first.
            J_regressor: Joints from vertices, `[5, V]`.
            parents: Parent of each of the 5 joints, -1 for the root.
            weights: Skinning weights `[V, 5]`.
            posedirs: Pose corrections `[V, 3, 36]`, or None.
            uv: UVs `[T, 2]`; required for rendering.
            uv_faces: Triangles `[F, 3]` into `uv`; None if UVs are indexed like vertices.
            static_lmk_faces_idx: Triangles `[51]` of landmarks 17 to 67.
            static_lmk_bary_coords: Barycentric weights `[51, 3]` of the same landmarks.
            dynamic_lmk_faces_idx: Triangles `[79, 17]` of the contour landmarks, by yaw.
            dynamic_lmk_bary_coords: Barycentric weights `[79, 17, 3]` of the same landmarks.
            full_lmk_faces_idx: Triangles `[68]` of landmarks that do not slide with yaw.
            full_lmk_bary_coords: Barycentric weights `[68, 3]` of the same landmarks.
            n_shape: Number of identity components in `shapedirs`.
            albedo_uv: A fixed texture `[3, h, w]`, RGB in 0..1.
            texture_mean: The average texture `[3, h, w]`, RGB in 0..1; use either this or albedo_uv.
            texture_basis: Offsets `[C, 3, h, w]` of one standard deviation of each texture coefficient.
            name: The name of the model in messages.
            kind: "flame2020", "flame2023", "flame" (unknown version), "builtin" or "custom".
            shape_names: Names of all identity components, or empty.
            expression_names: Names of all expression components, or empty.

        Raises:
            BadInput: An array has the wrong shape, refers to something outside the mesh, or is missing its counterpart.
        """
        template = _floats(v_template, "v_template", (None, 3))
        V = template.shape[0]
        directions = _floats(shapedirs, "shapedirs", (V, 3, None))
        regressor = _floats(J_regressor, "J_regressor", (JOINTS, V))
        skin = _floats(weights, "weights", (V, JOINTS))
        mesh = _indices(faces, "faces", (None, 3), V)
        tree = tuple(int(parent) for parent in parents)
        if len(tree) != JOINTS or tree[0] >= 0 or any(not 0 <= p < j for j, p in enumerate(tree) if j):
            raise BadInput(f"parents: expected {JOINTS} joints, -1 first and each after its parent, got {tree}.")
        if not 0 <= n_shape <= directions.shape[2]:
            raise BadInput(f"n_shape: expected at most the {directions.shape[2]} components of shapedirs, got {n_shape}.")
        pose_basis = None
        if posedirs is not None:
            pose_basis = _floats(posedirs, "posedirs", (V, 3, 9 * (JOINTS - 1))).permute(2, 0, 1).contiguous()

        basis = directions.permute(2, 0, 1).contiguous()
        rig = Rig(template, basis, pose_basis, regressor @ template, regressor @ basis, skin, tree)

        table = full = None
        static = _pair("static_lmk", static_lmk_faces_idx, static_lmk_bary_coords)
        contour = _pair("dynamic_lmk", dynamic_lmk_faces_idx, dynamic_lmk_bary_coords)
        if (static is None) != (contour is None):
            raise BadInput("Landmarks: expected both static_lmk_* and dynamic_lmk_* arrays, or neither, got one of them.")
        if static is not None and contour is not None:
            table = check_table(mesh.shape[0], static, contour)
        if (pair := _pair("full_lmk", full_lmk_faces_idx, full_lmk_bary_coords)) is not None:
            full = (
                _indices(pair[0], "full_lmk_faces_idx", (N_LANDMARKS,), mesh.shape[0]),
                _floats(pair[1], "full_lmk_bary_coords", (N_LANDMARKS, 3)),
            )

        if albedo_uv is not None and (texture_mean is not None or texture_basis is not None):
            raise BadInput("Texture: expected albedo_uv, or texture_mean with texture_basis, got both.")
        mean = albedo_uv if albedo_uv is not None else texture_mean
        mean = None if mean is None else _floats(mean, "texture_mean or albedo_uv", (3, None, None))
        skins = None
        if texture_basis is not None:
            if mean is None:
                raise BadInput("Texture: texture_basis needs texture_mean.")
            skins = _floats(texture_basis, "texture_basis", (None, *mean.shape))

        coordinates = triangles = None
        if uv is not None:
            coordinates = _floats(uv, "uv", (None if uv_faces is not None else V, 2))
            triangles = mesh if uv_faces is None else _indices(uv_faces, "uv_faces", tuple(mesh.shape), len(coordinates))

        for label, names, count in (
            ("shape_names", shape_names, n_shape),
            ("expression_names", expression_names, directions.shape[2] - n_shape),
        ):
            if len(names) not in (0, count):
                raise BadInput(f"{label}: expected {count} names or no names, got {len(names)}.")
        return cls(
            rig, mesh, n_shape, table, full, coordinates, triangles, mean, skins,
            name, kind, tuple(shape_names), tuple(expression_names),
        )  # fmt: skip

    @property
    def n_expression(self) -> int:
        """Number of expression components."""
        return self.rig.basis.shape[0] - self.n_shape

    @property
    def has_landmarks(self) -> bool:
        """Whether the model has 68 landmarks."""
        return self.table is not None or self.full_landmarks is not None

    @cached_property
    def faces_around(self) -> FacesAround:
        """The faces around each vertex."""
        return faces_around(self.faces, self.rig.template.shape[0])

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.faces.device

    def to(self, device: torch.device | str) -> "HeadModel":
        """Return the same model on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, tuple):  # full_landmarks, or names
                return tuple(part.to(device) if isinstance(part, Tensor) else part for part in value)
            return value.to(device) if isinstance(value, Tensor | Rig | LandmarkTable) else value

        return replace(self, **{field.name: move(getattr(self, field.name)) for field in fields(self)})

    def coefficients(self, shape: Float[Tensor, "B S"], expression: Float[Tensor, "B E"]) -> Float[Tensor, "B K"]:
        """Join shape and expression into the rig's K = n_shape + n_expression coefficients.

        Coefficients without a component are dropped; components without a coefficient are set to 0.
        """
        columns = []
        for values, count in ((shape, self.n_shape), (expression, self.n_expression)):
            used = values[:, :count]
            columns.append(torch.nn.functional.pad(used, (0, count - used.shape[1])))
        return torch.cat(columns, dim=1)

    def vertices(self, params: HeadParams) -> Float[Tensor, "B V 3"]:
        """Return the posed vertices of each head in head space, in metres, before the camera projects them."""
        rotations = torch.cat([params.rotation, params.neck, params.jaw, params.eyes], dim=1).unflatten(1, (JOINTS, 3))
        return self.rig.pose(self.coefficients(params.shape, params.expression), rotations)

    def landmarks(self, params: HeadParams, vertices: Float[Tensor, "B V 3"] | None = None) -> Float[Tensor, "B 68 3"]:
        """Return the 68 landmarks as seen from the front: the contour follows the head's yaw.

        A model without contour tables returns its 68 fixed landmarks.

        Args:
            params: B heads.
            vertices: The result of `vertices(params)` if it is already known, to save time.

        Returns:
            Points in head space, in metres.

        Raises:
            BadInput: The model has no landmarks.
        """
        vertices = self.vertices(params) if vertices is None else vertices
        degrees = contour_yaw(params.rotation, params.neck).round()
        return points_on_mesh(vertices, self.faces, *self.landmark_places(degrees))

    def landmark_places(self, degrees: Float[Tensor, " B"]) -> tuple[Int[Tensor, "B 68"], Float[Tensor, "B 68 3"]]:
        """Return the positions of the 68 landmarks on the mesh for each yaw.

        Args:
            degrees: Yaw, integers from -39 to 39.

        Returns:
            Triangles and barycentric weights.

        Raises:
            BadInput: The model has no landmarks.
        """
        if self.table is not None:
            return self.table.places(degrees)
        triangles, weights = self._fixed()
        return triangles.expand(len(degrees), -1), weights.expand(len(degrees), -1, -1)

    def fixed_landmarks(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 68 3"]:
        """Return the 68 landmarks that do not slide with yaw.

        Raises:
            BadInput: The model has no such landmarks.
        """
        triangles, weights = self._fixed()
        return points_on_mesh(vertices, self.faces, triangles.expand(len(vertices), -1), weights.expand(len(vertices), -1, -1))

    def _fixed(self) -> tuple[Int[Tensor, "68"], Float[Tensor, "68 3"]]:
        if self.full_landmarks is None:
            raise BadInput(f"The head model '{self.name}' has no such landmarks; load it with its landmark embedding.")
        return self.full_landmarks

    def albedo(self, params: HeadParams) -> Float[Tensor, "B 3 h w"]:
        """Return the texture of each head: albedo, RGB roughly in 0..1, not clamped.

        Raises:
            BadInput: The model has no texture.
        """
        if self.texture_mean is None:
            raise BadInput(f"The head model '{self.name}' has no texture; load it with one (FLAME: FLAME_texture.npz).")
        if self.texture_basis is None or not params.texture.any():
            return self.texture_mean.expand(params.batch, -1, -1, -1)
        count = min(params.texture.shape[1], self.texture_basis.shape[0])
        offset = params.texture[:, :count] @ self.texture_basis[:count].flatten(1)
        return self.texture_mean + offset.view(params.batch, *self.texture_mean.shape)


def _floats(array: Array, name: str, size: tuple[int | None, ...]) -> Tensor:
    value = torch.as_tensor(array).detach().to(torch.float32)
    _check_size(value, name, size)
    # The extremes are NaN if any value is NaN, and aminmax is much faster than isfinite on all values.
    if value.numel() and not torch.isfinite(torch.stack(value.aminmax())).all():
        raise BadInput(f"{name}: holds NaN or infinite numbers.")
    return value.contiguous()


def _indices(array: Array, name: str, size: tuple[int | None, ...], limit: int) -> Tensor:
    if isinstance(array, np.ndarray):
        array = array.astype(np.int64)  # torch cannot convert uint32, the type of FLAME's faces
    value = torch.as_tensor(array).long()
    _check_size(value, name, size)
    if value.numel() and (value.min() < 0 or value.max() >= limit):
        raise BadInput(f"{name}: expected indices from 0 to {limit - 1}, got {value.min()} to {value.max()}.")
    return value.contiguous()


def _check_size(value: Tensor, name: str, size: tuple[int | None, ...]) -> None:
    if value.dim() != len(size) or any(want not in (None, got) for want, got in zip(size, value.shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in size)
        raise BadInput(f"{name}: expected shape [{wanted}], got {list(value.shape)}.")


def _pair(name: str, triangles: Array | None, weights: Array | None) -> tuple[Tensor, Tensor] | None:
    if (triangles is None) != (weights is None):
        raise BadInput(f"Landmarks: expected both {name}_faces_idx and {name}_bary_coords, got one of them.")
    return None if triangles is None else (torch.as_tensor(triangles), torch.as_tensor(weights))
