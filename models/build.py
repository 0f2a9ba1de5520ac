"""Types of the arguments that networks are built with."""

from typing import Any

import torch

Device = torch.device | str | None
"""Device of the parameters; None for the CPU."""
Dtype = torch.dtype | None
"""Type of the parameters; None for float32, unless a function states otherwise."""
Operations = Any
"""A namespace of layer classes, `torch.nn` by default. A host passes its own, which cast or stream the weights."""
