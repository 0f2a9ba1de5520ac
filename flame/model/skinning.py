"""Blend shapes and linear blend skinning.

Conventions: metres; joint 0 is the root, each other joint's parent has a smaller number. Vertices are column vectors.
Source: Li et al., "Learning a model of facial shape and expression from 4D scans" (2017), section 3.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .rotation import axis_angle_to_matrix


@dataclass(frozen=True, eq=False)
class Rig:
    """What moves vertices: K blend shapes and J joints over V vertices."""

    template: Tensor
    """`[V, 3]`"""
    basis: Tensor
    """`[K, V, 3]` offset of one unit of each coefficient."""
    pose_basis: Tensor | None
    """`[9 (J - 1), V, 3]` offset of one unit of each element of `R_j - I`, or None where poses need no correction."""
    joints: Tensor
    """`[J, 3]` joints of the template."""
    joint_basis: Tensor
    """`[K, J, 3]` how coefficients move the joints."""
    weights: Tensor
    """`[V, J]` how much of each joint's motion a vertex takes; rows sum to 1."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Rig":
        """The same rig on another device or in another precision."""
        return self._each(lambda name, value: value.to(device=device, dtype=dtype))

    def select(self, vertices: Tensor) -> "Rig":
        """The rig of some vertices alone, `[N]` int64; joints stay what they are."""
        axis = {"template": 0, "basis": 1, "pose_basis": 1, "weights": 0}
        return self._each(lambda name, value: value.index_select(axis[name], vertices) if name in axis else value)

    def _each(self, change) -> "Rig":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: change(name, value) for name, value in tensors.items()})

    def pose(self, coefficients: Tensor, rotations: Tensor) -> Tensor:
        """Posed vertices.

        Args:
            coefficients: `[B, K]`.
            rotations: `[B, J, 3]` axis-angle of each joint relative to its parent.

        Returns:
            `[B, V, 3]`.
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

        # G_j = G_parent · [R_j | J_j - J_parent], and G'_j takes the rest pose away: t'_j = t_j - G_j^R J_j
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
