"""What judges the miniature's portraits: a small network that took no part in making them, trained on drawn pictures.

It reads from a picture who is seen, and numbers about how the head is held and lit and what the prompt asked for, which
`training.miniature.train_evaluator.Facts` names. Tensors are `[B, C, H, W]`.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .recognizer import Recognizer, RecognizerConfig

CONFIG = RecognizerConfig(widths=(16, 24, 40, 48))


class Judge(nn.Module):
    """Reads who is seen, and other numbers, from pictures `[B, 3, H, W]` in -1..1."""

    def __init__(self, numbers: int, config: RecognizerConfig = CONFIG, *, device=None, dtype=None, operations=nn):
        """Build the network; `numbers` is how many it reads, `operations` the namespace of its layer classes."""
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.eye = Recognizer(config, **kw, operations=operations)
        self.tell = operations.Linear(16 * config.widths[-1], numbers, **kw)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "Judge":
        """One with the sizes of parameter shapes `{key: shape}`."""
        eye = {k.removeprefix("eye."): v for k, v in shapes.items()}
        return cls(shapes["tell.weight"][0], RecognizerConfig.from_shapes(eye))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Look at pictures: embeddings `[B, 128]`, each of length 1, and the numbers `[B, N]`."""
        embedding, tokens = self.eye(pictures)
        return embedding, self.tell(tokens.flatten(1))
