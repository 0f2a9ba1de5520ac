"""What is trained for a person: low-rank factors (LoRA), a word (textual inversion), or the whole denoiser (DreamBooth)."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tunable import Tunable

METHODS = ("lora", "word", "whole")


class Adaptation(nn.Module):
    """The trained parameters of a person. The loop trains, averages and saves them."""

    @property
    def learned(self) -> Tensor | None:
        """A learned word's vectors `[V, W]`."""
        return None

    @abstractmethod
    def file(self, base: Tunable) -> dict[str, Tensor]:
        """Return the tensors of the file that ComfyUI loads, on the CPU."""


class Word(Adaptation):
    """The vectors of a new word (Gal et al. 2022)."""

    def __init__(self, start: Tensor):
        """Begin with the vectors `[V, W]`."""
        super().__init__()
        self.vectors = nn.Parameter(start)

    @property
    def learned(self) -> Tensor:
        """The vectors."""
        return self.vectors

    def file(self, base: Tunable) -> dict[str, Tensor]:
        """See `Adaptation`. Other programs than ComfyUI look for this key as well."""
        return {"emb_params": self.vectors.detach().cpu()}


class Factors(Adaptation):
    """Low-rank factors beside linear layers (Hu et al. 2022): W x + alpha / r · up down x."""

    def __init__(self, layers: Mapping[str, nn.Linear], rank: int, alpha: float):
        """Create factors that do not change the layers' outputs; `down` is drawn from torch's generator.

        Args:
            layers: The layers by their keys in a LoRA file.
            rank: r.
            alpha: Its ratio to the rank is the factor of what is added.
        """
        super().__init__()
        self.keys, self.alpha, self.scale = tuple(layers), alpha, alpha / rank
        self.down = nn.ParameterList(torch.empty(rank, layer.in_features) for layer in layers.values())
        self.up = nn.ParameterList(torch.zeros(layer.out_features, rank) for layer in layers.values())
        for factor in self.down:
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    @contextmanager
    def attached(self, layers: Mapping[str, nn.Linear]) -> Iterator[None]:
        """Add the factors' outputs to those of the layers.

        Args:
            layers: As given to `__init__`, or those of an equal network.
        """
        handles = [layer.register_forward_hook(self._hook(i)) for i, layer in enumerate(layers.values())]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, i: int):
        def add(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return out + (self.scale * F.linear(F.linear(inputs[0], self.down[i]), self.up[i])).to(out.dtype)

        return add

    def file(self, base: Tunable) -> dict[str, Tensor]:
        """See `Adaptation`."""
        tensors = {}
        for key, down, up in zip(self.keys, self.down, self.up, strict=True):
            tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = down.detach().cpu(), up.detach().cpu()
            tensors[f"{key}.alpha"] = torch.tensor(self.alpha)
        return tensors


class Whole(Adaptation):
    """All weights of the denoiser, and of the text encoder if it is given (DreamBooth, Ruiz et al. 2023)."""

    def __init__(self, denoiser: nn.Module, text_encoder: nn.Module | None = None):
        super().__init__()
        self.denoiser, self.text_encoder = denoiser, text_encoder
        self.requires_grad_()

    def file(self, base: Tunable) -> dict[str, Tensor]:
        """See `Adaptation`."""
        text = None if self.text_encoder is None else self.text_encoder.state_dict()
        return base.whole_file(self.denoiser.state_dict(), text)
