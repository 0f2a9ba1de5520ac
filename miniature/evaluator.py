"""The evaluator of the miniature's portraits: a small network that was not used to make them, trained on rendered pictures.

It embeds the person in a picture and predicts values for the head's pose and light and for what the prompt asked for.
`training.miniature.train_evaluator.Attributes` names these values. Tensors are `[B, C, H, W]`.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..shapes import Float
from .recognizer import Recognizer, RecognizerConfig

CONFIG = RecognizerConfig(widths=(16, 24, 40, 48))


class Evaluator(nn.Module):
    """Embeds the person and predicts attribute values, from pictures `[B, 3, H, W]` in -1..1."""

    def __init__(self, values: int, config: RecognizerConfig = CONFIG):
        """Build the network.

        Args:
            values: How many attribute values it predicts.
            config: Sizes of the recognizer in it.
        """
        super().__init__()
        # The names of the layers are keys in the miniature's file.
        self.eye = Recognizer(config)
        self.tell = nn.Linear(16 * config.widths[-1], values)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "Evaluator":
        """Build an evaluator with the sizes of parameter shapes `{key: shape}`."""
        recognizer = {key.removeprefix("eye."): shape for key, shape in shapes.items()}
        return cls(shapes["tell.weight"][0], RecognizerConfig.from_shapes(recognizer))

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B N"]]:
        """Evaluate pictures.

        Args:
            pictures: `[B, 3, H, W]` in -1..1, square.

        Returns:
            Embeddings `[B, 128]`, each of length 1, and attribute values `[B, N]`.
        """
        embedding, tokens = self.eye(pictures)
        return embedding, self.tell(tokens.flatten(1))
