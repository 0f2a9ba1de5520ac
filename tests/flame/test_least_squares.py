import torch

from capface.flame.fitting.least_squares import minimise


def rosenbrock(states):
    x, y = states.unbind(-1)
    return torch.stack([10 * (y - x * x), 1 - x], dim=-1)


def test_a_curved_valley_is_followed_to_its_end():
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0], [1.0, 1.0]], dtype=torch.float64)
    found = minimise(lambda _: rosenbrock, start, 2, 100)
    torch.testing.assert_close(found, torch.ones(3, 2, dtype=torch.float64), atol=1e-4, rtol=0)


def test_problems_of_a_batch_are_solved_independently():
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0]], dtype=torch.float64)
    together = minimise(lambda _: rosenbrock, start, 2, 7)
    alone = torch.cat([minimise(lambda _: rosenbrock, start[i : i + 1], 2, 7) for i in range(2)])
    torch.testing.assert_close(together, alone)


def test_only_free_columns_change():
    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    found = minimise(lambda _: rosenbrock, start, 1, 50)
    assert found[0, 1] == 1.0 and abs(found[0, 0]) > 0.9


def test_residuals_that_jump_never_make_it_worse():
    def around(state):
        # Away from the start, the residuals are much larger.
        offset = 100.0 * (state.abs().amax(1) > 1e-3)
        return lambda states: torch.cat([states - 1, offset[:, None].expand(len(states), -1, 1)], dim=-1)

    start = torch.zeros(1, 2, dtype=torch.float64)
    assert torch.equal(minimise(around, start, 2, 10), start)
