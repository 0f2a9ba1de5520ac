"""Print how much loading CapFace raises a process's peak memory: bytes before, after, and of the parameters. Linux only.

python -m capface.tools.loading_memory <checkpoint> <small checkpoint to warm up with>
"""

import re
import sys
from pathlib import Path

import safetensors  # noqa: F401  imported before anything is measured
import torch.serialization  # noqa: F401

from ..models.diffusion import load_capface


def peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None, "Linux gives the peak of every process"
    return int(found[1]) * 1024


def main() -> None:
    """Load the small file, then the large one, and use every parameter."""
    path, warm_up = sys.argv[1:]
    load_capface(warm_up)  # the first use of every import and allocator
    before = peak()
    modules = load_capface(path)
    sum(float(parameter.sum()) for module in modules for parameter in module.parameters())
    own = sum(parameter.numel() * parameter.element_size() for module in modules for parameter in module.parameters())
    print(before, peak(), own)


if __name__ == "__main__":
    main()
