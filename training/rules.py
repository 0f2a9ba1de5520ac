"""Rules that photos of a training set must meet, and the reasons why photos are rejected."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from ..flame.model import HeadParams, axis_angle_to_matrix
from ..models.faces import ALIGNED_SIZE, FACE, FaceDetection, transform_points

REASONS = {
    "unreadable": "not an image, or a damaged one",
    "caption": "its caption file is not UTF-8 text",
    "duplicate": "same contents as another photo",
    "no face": "no face was found",
    "doubtful": "the detector is not sure that it is a face",
    "several faces": "a second face is nearly as large",
    "small": "the portrait would be enlarged too much",
    "cut off": "too much of the portrait lies outside the photo",
    "turned": "the head is turned too far",
    "bad fit": "the head does not fit the landmarks",
    "badly exposed": "too few pixels of the face are well exposed",
    "hidden": "the face parser found too little of the face",
}
"""Reasons for which a photo is rejected: name and description."""
OUTSIDE_GRID = 64
"""Side of the grid of points that measures the fraction of a portrait outside its photo."""


class Rejected(Exception):
    """A photo is rejected."""

    def __init__(self, reason: str, detail: str = ""):
        """Create the exception.

        Args:
            reason: One of `REASONS`.
            detail: Measured value and limit; by default the description of the reason.
        """
        super().__init__(detail or REASONS[reason])
        self.reason = reason


@dataclass(frozen=True)
class Rules:
    """Limits beyond which photos are rejected."""

    min_score: float = 0.9
    """Lowest score of the face detector."""
    max_rival: float = 0.5
    """Largest area of the second largest face, as a fraction of the largest one's."""
    min_side: int = 256
    """Smallest side of the portrait's square in the photo, in pixels; the portrait has 512."""
    max_outside: float = 0.15
    """Largest fraction of the portrait that lies outside the photo, where its border pixels are repeated."""
    max_turn: float = 60.0
    """Largest angle between the direction of the face and the viewer, in degrees."""
    max_error: float = 0.06
    """Largest root mean square distance of the head's landmarks from the detector's, as a fraction of the face's height."""
    min_face: float = 0.1
    """Smallest fraction of the portrait that is face, if there is a face parser."""

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise BadInput(f"Expected limits from 0, got {self}.")

    def choose(self, faces: list[FaceDetection]) -> FaceDetection:
        """Choose the largest face of a photo.

        Args:
            faces: All faces of the photo.

        Raises:
            Rejected: There is no face, its score is too low, or another face is nearly as large.
        """
        if not faces:
            raise Rejected("no face")
        face, *others = sorted(faces, key=lambda one: -one.area)
        if face.score < self.min_score:
            raise Rejected("doubtful", f"score {face.score:.2f}, expected at least {self.min_score}")
        sure = [other.area / face.area for other in others if other.score >= self.min_score]
        if sure and sure[0] > self.max_rival:
            raise Rejected("several faces", f"{len(others) + 1} faces, the second has {sure[0]:.2f} of the largest one's area")
        return face

    def check_frame(self, transform: Tensor, height: int, width: int) -> float:
        """Check size and position of the portrait in its photo.

        Args:
            transform: Affine matrix `[3, 3]` from photo pixels to portrait pixels.
            height: Height of the photo in pixels.
            width: Width of the photo in pixels.

        Returns:
            The fraction of the portrait that lies outside the photo.

        Raises:
            Rejected: The portrait is too small, or too much of it lies outside.
        """
        side = ALIGNED_SIZE / transform[:2, 0].norm().item()
        if side < self.min_side:
            raise Rejected("small", f"a square of {side:.0f} pixels, expected at least {self.min_side}")
        outside = outside_fraction(transform, height, width)
        if outside > self.max_outside:
            raise Rejected("cut off", f"{outside:.0%} outside, expected at most {self.max_outside:.0%}")
        return outside

    def check_head(self, head: HeadParams, error: float) -> float:
        """Check a fitted head.

        Args:
            head: One head.
            error: Error of its landmarks, as a fraction of the face's height; NaN if it is unknown.

        Returns:
            The angle by which the head is turned away from the viewer, in degrees.

        Raises:
            Rejected: The head is turned too far, or does not fit.
        """
        turn = turned_away(head)
        if turn > self.max_turn:
            raise Rejected("turned", f"by {turn:.0f}°, expected at most {self.max_turn:.0f}°")
        if error > self.max_error:
            raise Rejected("bad fit", f"{error:.1%} of the face's height off, expected at most {self.max_error:.1%}")
        return turn

    def check_labels(self, labels: Tensor) -> None:
        """Check the visible face.

        Args:
            labels: Labels `[H, W]` of the face parser for the portrait.

        Raises:
            Rejected: Too little of the portrait is face.
        """
        fraction = torch.isin(labels, torch.tensor(FACE, device=labels.device)).float().mean().item()
        if fraction < self.min_face:
            raise Rejected("hidden", f"{fraction:.0%} of the portrait, expected at least {self.min_face:.0%}")


def outside_fraction(transform: Tensor, height: int, width: int) -> float:
    """Measure the fraction of an aligned portrait that lies outside its photo.

    Args:
        transform: Affine matrix `[3, 3]` from photo pixels to portrait pixels.
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.
    """
    steps = (torch.arange(OUTSIDE_GRID) + 0.5) * (ALIGNED_SIZE / OUTSIDE_GRID) - 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = transform_points(torch.linalg.inv(transform.double()).float(), torch.stack([x, y], dim=-1).flatten(0, 1))
    inside = (points > -0.5).all(1) & (points < points.new_tensor([width, height]) - 0.5).all(1)
    return 1 - inside.float().mean().item()


def turned_away(head: HeadParams) -> float:
    """Return the angle between the direction of one face and the viewer, in degrees; roll does not count."""
    turn = axis_angle_to_matrix(head.rotation) @ axis_angle_to_matrix(head.neck)
    return torch.rad2deg(turn[0, 2, 2].clamp(-1, 1).acos()).item()
