"""Faces whose place in the photos is known, so that no detector has to find them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import NoFaceFound
from ..models.faces import FaceDetection


@dataclass(frozen=True, eq=False)
class GivenBoxes:
    """Boxes of the faces in one photo."""

    boxes: Tensor
    """`[N, 4]`: left, top, right, bottom in pixels, counted from the centre of the first pixel."""
    scores: tuple[float, ...]
    """Confidence in each box, 0..1."""


@dataclass(frozen=True, eq=False)
class GivenFaces:
    """The known faces of B photos."""

    frames: Sequence[Sequence[FaceDetection] | GivenBoxes]
    """The faces or boxes of each photo; one entry stands for all photos."""
    source: str
    """Where they come from, for messages."""

    def of(self, index: int) -> Sequence[FaceDetection] | GivenBoxes:
        """Return the faces or boxes of a photo.

        Raises:
            NoFaceFound: There are none for this photo.
        """
        found = self.frames[index if len(self.frames) > 1 else 0]
        if not len(found.scores if isinstance(found, GivenBoxes) else found):
            raise NoFaceFound(
                f"The connected {self.source} has no face for this image. Lower the threshold of the node that it comes from, "
                "or disconnect it, so that the reader looks for faces."
            )
        return found
