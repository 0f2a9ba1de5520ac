"""Damped Gauss-Newton (Levenberg-Marquardt) for batches of small problems."""

from collections.abc import Callable

import torch
from torch import Tensor

Residuals = Callable[[Tensor], Tensor]

# Forward differences in double precision; damping relative to the normal matrix's diagonal.
_DELTA = 1e-5
_DAMPING_START, _DAMPING_LEAST, _DAMPING_MOST = 1e-3, 1e-9, 1e6
_LESS, _MORE = 0.2, 8.0
# A step that lowers a cost by less than this share ends the work on it.
_ENOUGH = 1e-6


def minimise(around: Callable[[Tensor], Residuals], state: Tensor, free: int, steps: int) -> Tensor:
    """States that make the sums of squared residuals small, each of the batch on its own.

    Args:
        around: gives the residuals near states `[B, P]`: a function from `[S, B, P]` to `[S, B, R]`. It is asked anew before
            every step, so that whatever jumps (here: which contour points are seen) stays put within one.
        state: `[B, P]` double precision, where to start.
        free: how many of the P columns, from the first on, may change.
        steps: at most so many steps.

    Returns:
        `[B, P]`, of all states on the way the best, so never worse than the start.
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
