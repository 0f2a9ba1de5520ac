"""The deterministic inputs and weights of tests/golden (see its README)."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent / "golden"


def noise(seed, shape):
    """Standard normal float32 numbers of one seed."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32))


def fill(name, shape):
    """Return one synthetic parameter, from its full name and shape."""
    n = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_mean"):
        n = 0.05 * n
    elif name.endswith("running_var"):
        n = np.abs(1 + 0.1 * n) + 0.5
    elif len(shape) >= 2:
        n = n / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("bias"):
        n = 0.02 * n
    else:
        n = 1 + 0.1 * n
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


def state_dict(shapes_file, prefix):
    """Return the synthetic weights of one network: `{key: tensor}`, keys without the prefix."""
    shapes = json.loads((FOLDER / shapes_file).read_text())
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            state[key] = fill(prefix + key, shape)
    if "mask_predict.0.weight" in state:
        state["mask_predict.0.weight"] *= 40
    return state


def relative_error(a, b):
    """|a - b| / |b| over all elements."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return ((a - b).norm() / b.norm()).item()
