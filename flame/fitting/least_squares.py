"""Damped Gauss-Newton (Levenberg-Marquardt) for batches of small problems."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...shapes import Float

Residuals = Callable[[Float[Tensor, "S B P"]], Float[Tensor, "S B R"]]
"""Computes the residuals of states."""

# Forward differences in double precision. The damping is relative to the diagonal of the normal matrix.
_DELTA = 1e-5
_DAMPING_START, _DAMPING_LEAST, _DAMPING_MOST = 1e-3, 1e-9, 1e6
_LESS, _MORE = 0.2, 8.0
# The iteration ends when each step lowers its cost by less than this fraction.
_ENOUGH = 1e-6


def minimise(
    around: Callable[[Float[Tensor, "B P"]], Residuals], state: Float[Tensor, "B P"], free: int, steps: int
) -> Float[Tensor, "B P"]:
    """Minimise the sum of squared residuals of each state in a batch independently.

    Args:
        around: Returns the residual function near states `[B, P]`, which maps `[S, B, P]` to `[S, B, R]`. It is called again
            before every step. Discrete choices (here: the visible contour points) thus stay fixed within a step.
        state: The initial states `[B, P]`, in double precision.
        free: How many of the P columns may change, counted from the first.
        steps: Maximum number of steps.

    Returns:
        The best states of all steps, `[B, P]`. They are never worse than the initial ones.
    """
    B = len(state)
    identity = torch.eye(free, dtype=state.dtype, device=state.device)
    nudges = torch.nn.functional.pad(_DELTA * torch.cat([0 * identity[:1], identity]), (0, state.shape[1] - free))
    damping = state.new_full((B,), _DAMPING_START)
    best, least = state, state.new_full((B,), torch.inf)
    for _ in range(steps):
        residuals = around(state)
        values = residuals(state + nudges[:, None])
        r, J = values[0], ((values[1:] - values[0]) / _DELTA).permute(1, 2, 0)
        cost = r.square().sum(1)
        best, least = torch.where((cost < least)[:, None], state, best), torch.minimum(cost, least)
        # (J^T J + mu diag(J^T J)) delta = -J^T r
        normal, gradient = J.mT @ J, J.mT @ r[..., None]
        diagonal = normal.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
        step = torch.linalg.solve(normal + torch.diag_embed(damping[:, None] * diagonal), gradient)[..., 0]
        trial = state - torch.nn.functional.pad(step, (0, state.shape[1] - free))
        tried = residuals(trial[None])[0].square().sum(1)
        better = tried < cost
        state = torch.where(better[:, None], trial, state)
        damping = torch.where(better, damping * _LESS, damping * _MORE).clamp(_DAMPING_LEAST, _DAMPING_MOST)
        if (better & (cost - tried < _ENOUGH * cost) | (damping == _DAMPING_MOST)).all():
            break
    final = around(state)(state[None])[0].square().sum(1)
    return torch.where((final < least)[:, None], state, best)
