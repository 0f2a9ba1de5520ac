"""Blend shapes and linear blend skinning.

Conventions: metres; joint 0 is the root, and the parent of every other joint has a smaller index. Vertices are column vectors.
Source: Li et al., "Learning a model of facial shape and expression from 4D scans" (2017), section 3.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...shapes import Float, Int
from .rotation import axis_angle_to_matrix


@dataclass(frozen=True, eq=False)
class Rig:
    """A rig of K blend shapes and J joints for V vertices."""

    template: Float[Tensor, "V 3"]
    """Vertices of the average head at rest."""
    basis: Float[Tensor, "K V 3"]
    """Vertex offsets of one unit of each coefficient."""
    pose_basis: Float[Tensor, "P V 3"] | None
    """Vertex offsets of one unit of each element of `R_j - I`, P = 9 (J - 1); None if poses need no correction."""
    joints: Float[Tensor, "J 3"]
    """Joints of the template."""
    joint_basis: Float[Tensor, "K J 3"]
    """Joint offsets of one unit of each coefficient."""
    weights: Float[Tensor, "V J"]
    """Skinning weights; rows sum to 1."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Rig":
        """Return the same rig on another device or in another precision."""
        return self._each(lambda name, value: value.to(device=device, dtype=dtype))

    def select(self, vertices: Int[Tensor, " N"]) -> "Rig":
        """Return the rig restricted to these vertices (indices); the joints stay the same."""
        axis = {"template": 0, "basis": 1, "pose_basis": 1, "weights": 0}
        return self._each(lambda name, value: value.index_select(axis[name], vertices) if name in axis else value)

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> "Rig":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: change(name, value) for name, value in tensors.items()})

    def pose(self, coefficients: Float[Tensor, "B K"], rotations: Float[Tensor, "B J 3"]) -> Float[Tensor, "B V 3"]:
        """Pose the vertices.

        Args:
            coefficients: Coefficients of the blend shapes.
            rotations: Axis-angle of each joint relative to its parent, in radians.

        Returns:
            Vertices in metres.
        """
        B, V, J = coefficients.shape[0], self.template.shape[0], len(self.parents)
        # T(beta) = T_0 + sum beta_k S_k;  the joints follow the shape
        shaped = self.template + (coefficients @ self.basis.flatten(1)).view(B, V, 3)
        joints = self.joints + (coefficients @ self.joint_basis.flatten(1)).view(B, J, 3)
        R = axis_angle_to_matrix(rotations)
        if self.pose_basis is not None:
            # B_P(theta) = sum (R_j - I) P_j over the joints below the root
            feature = (R[:, 1:] - torch.eye(3, dtype=R.dtype, device=R.device)).flatten(1)
            shaped = shaped + (feature @ self.pose_basis.flatten(1)).view(B, V, 3)

        # G_j = G_parent · [R_j | J_j - J_parent], and G'_j removes the rest pose: t'_j = t_j - G_j^R J_j
        turned, placed = [R[:, 0]], [joints[:, 0]]
        for j in range(1, J):
            parent = self.parents[j]
            turned.append(turned[parent] @ R[:, j])
            step = (joints[:, j] - joints[:, parent])[..., None]
            placed.append(placed[parent] + (turned[parent] @ step).squeeze(-1))
        G = torch.stack(turned, dim=1)
        t = torch.stack(placed, dim=1) - (G @ joints[..., None]).squeeze(-1)

        # v' = sum_j w_j (G_j v + t'_j)
        blended = self.weights @ torch.cat([G.flatten(2), t], dim=-1)
        M, offset = blended[..., :9].unflatten(-1, (3, 3)), blended[..., 9:]
        return (M * shaped[..., None, :]).sum(-1) + offset
