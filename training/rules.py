"""Which photos make a training set: the rules, and why a photo was left out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from ..flame.model import HeadParams, axis_angle_to_matrix
from ..models.faces import ALIGNED_SIZE, FACE, FaceDetection, transform_points

REASONS = {
    "unreadable": "no picture, or a broken one",
    "caption": "its text file is no UTF-8 text",
    "duplicate": "the same file as another photo",
    "no face": "no face was found",
    "doubtful": "the detector is not sure that it is a face",
    "several faces": "a second face is nearly as large",
    "small": "the portrait would be enlarged too much",
    "cut off": "too much of the portrait lies outside the photo",
    "turned": "the head is turned too far",
    "bad fit": "the head does not fit the landmarks",
    "badly exposed": "too few pixels of the face show its light",
    "hidden": "the face parser sees too little of the face",
}
"""Why a photo is left out, in a word and in a sentence."""
SHARE_GRID = 64
"""Side of the grid of points that tell how much of a portrait lies outside its photo."""


class Rejected(Exception):
    """A photo that is left out."""

    def __init__(self, reason: str, detail: str = ""):
        """One of REASONS, and what was found."""
        super().__init__(detail or REASONS[reason])
        self.reason = reason


@dataclass(frozen=True)
class Rules:
    """Limits; what lies beyond them is left out."""

    min_score: float = 0.9
    """Of the detector."""
    max_rival: float = 0.5
    """Area of the second largest face, as a share of the largest one's."""
    min_side: int = 256
    """Side of the portrait's square in the photo, in pixels; the portrait has 512."""
    max_outside: float = 0.15
    """Share of the portrait that lies outside the photo, where its border is repeated."""
    max_turn: float = 60.0
    """Angle between where the face looks and the viewer, in degrees."""
    max_error: float = 0.06
    """Root mean square distance of the head's landmarks from the detector's, as a share of the face's height."""
    min_face: float = 0.1
    """Share of the portrait that is face, where there is a parser."""

    def __post_init__(self):
        if min(vars(self).values()) < 0:
            raise BadInput(f"Expected limits from 0, got {self}.")

    def choose(self, faces: list[FaceDetection]) -> FaceDetection:
        """The face of a photo: the largest one.

        Raises:
            Rejected: There is none, it is doubtful, or there is another as large.
        """
        if not faces:
            raise Rejected("no face")
        face, *others = sorted(faces, key=lambda one: -one.area)
        if face.score < self.min_score:
            raise Rejected("doubtful", f"score {face.score:.2f}, at least {self.min_score} is asked for")
        sure = [other.area / face.area for other in others if other.score >= self.min_score]
        if sure and sure[0] > self.max_rival:
            raise Rejected("several faces", f"{len(others) + 1} faces, the second has {sure[0]:.2f} of the largest one's area")
        return face

    def check_frame(self, transform: Tensor, height: int, width: int) -> float:
        """Check where the portrait was cut from.

        Args:
            transform: `[3, 3]`, photo pixel to portrait pixel.
            height: Of the photo.
            width: Of the photo.

        Returns:
            Which share of the portrait lies outside the photo.

        Raises:
            Rejected: It is too small, or too much of it lies outside.
        """
        side = ALIGNED_SIZE / transform[:2, 0].norm().item()
        if side < self.min_side:
            raise Rejected("small", f"a square of {side:.0f} pixels, at least {self.min_side} are asked for")
        outside = outside_share(transform, height, width)
        if outside > self.max_outside:
            raise Rejected("cut off", f"{outside:.0%} outside, at most {self.max_outside:.0%} are allowed")
        return outside

    def check_head(self, head: HeadParams, error: float) -> float:
        """Check a fitted head.

        Args:
            head: One head.
            error: Of its landmarks, as a share of the face's height; NaN where it is not known.

        Returns:
            How far it is turned away, in degrees.

        Raises:
            Rejected: It is turned too far, or does not fit.
        """
        turn = turned_away(head)
        if turn > self.max_turn:
            raise Rejected("turned", f"by {turn:.0f}°, at most {self.max_turn:.0f}° are allowed")
        if error > self.max_error:
            raise Rejected("bad fit", f"{error:.1%} of the face's height off, at most {self.max_error:.1%} are allowed")
        return turn

    def check_labels(self, labels: Tensor) -> None:
        """Check what the face parser found: labels `[H, W]`.

        Raises:
            Rejected: Too little of it is face.
        """
        share = torch.isin(labels, torch.tensor(FACE, device=labels.device)).float().mean().item()
        if share < self.min_face:
            raise Rejected("hidden", f"{share:.0%} of the portrait, at least {self.min_face:.0%} are asked for")


def outside_share(transform: Tensor, height: int, width: int) -> float:
    """Share of an aligned portrait that lies outside its photo; `transform` `[3, 3]` is from photo pixel to portrait pixel."""
    steps = (torch.arange(SHARE_GRID) + 0.5) * (ALIGNED_SIZE / SHARE_GRID) - 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = transform_points(torch.linalg.inv(transform.double()).float(), torch.stack([x, y], dim=-1).flatten(0, 1))
    inside = (points > -0.5).all(1) & (points < points.new_tensor([width, height]) - 0.5).all(1)
    return 1 - inside.float().mean().item()


def turned_away(head: HeadParams) -> float:
    """Angle between the direction of one head's face and the viewer, in degrees; tilt within the picture does not count."""
    turn = axis_angle_to_matrix(head.rotation) @ axis_angle_to_matrix(head.neck)
    return torch.rad2deg(turn[0, 2, 2].clamp(-1, 1).acos()).item()
