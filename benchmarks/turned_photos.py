"""Prints how far fitted heads differ when photos are turned, mirrored or halved: the astronaut and the six faces of `t1`.

    python tasks.py bench turned_photos [--sheet SHEET.png]

Each row is one face, numbered from left to right. Each cell gives the differences of yaw, pitch and roll in degrees from the
head that was fitted to the photo as it is; "not found" if the face was not found there.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from capface.flame.builtin import builtin_head
from capface.flame.editing import angles_of
from capface.flame.model import HeadModel, HeadParams, axis_angle_to_matrix, matrix_to_axis_angle
from capface.flame.render import overlay, render_head
from capface.models.faces import FaceDetection, MtcnnDetector, load_face_landmarker, transform_points, warp
from capface.photos.landmarks import landmarks_of
from capface.photos.upright import UprightDetector
from capface.tools.face_landmarker_file import find
from capface.tools.sheet import to_picture

TILE = 192
SAME = 0.5
"""A face is the same if its centre is nearer than this share of its size."""


@dataclass(frozen=True)
class Version:
    """A changed photo."""

    name: str
    degrees: float = 0.0
    """By how much the photo is turned clockwise."""
    scale: float = 1.0
    mirrored: bool = False

    def transform(self, height: int, width: int) -> tuple[Tensor, int, int]:
        """Return the transform `[3, 3]` from pixels of the photo to those of this version, and its height and width."""
        angle = math.radians(self.degrees)
        across = abs(math.cos(angle)) * width + abs(math.sin(angle)) * height
        down = abs(math.sin(angle)) * width + abs(math.cos(angle)) * height
        w, h = round(self.scale * across), round(self.scale * down)
        c, s = self.scale * math.cos(angle), self.scale * math.sin(angle)
        to_centre = torch.tensor([[1.0, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
        mirror = torch.diag(torch.tensor([-1.0 if self.mirrored else 1.0, 1, 1]))
        turn = torch.tensor([[c, -s, (w - 1) / 2], [s, c, (h - 1) / 2], [0, 0, 1]])
        return turn @ mirror @ to_centre, h, w

    def picture(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Return this version of a photo, and the transform of its pixels."""
        transform, height, width = self.transform(*photo.shape[1:])
        if self.degrees or self.mirrored:
            return warp(photo, transform, height, width), transform
        return F.interpolate(photo[None], (height, width), mode="bilinear", antialias=True)[0], transform

    def undone(self, head: HeadParams) -> Tensor:
        """Return yaw, pitch and roll `[3]` of a head of this version, in degrees, as they are in the photo."""
        angle = math.radians(self.degrees)
        back = axis_angle_to_matrix(torch.tensor([[0.0, 0.0, angle]]))
        angles = angles_of(matrix_to_axis_angle(back @ axis_angle_to_matrix(head.rotation)))[0]
        return angles * torch.tensor([-1.0, 1, -1]) if self.mirrored else angles


AS_IT_IS = Version("as it is")
VERSIONS = (
    Version("mirrored", mirrored=True), Version("half size", scale=0.5), Version("20°", 20.0), Version("-35°", -35.0),
    Version("90°", 90.0), Version("135°", 135.0), Version("180°", 180.0), Version("270°", 270.0),
)  # fmt: skip
ON_THE_SHEET = (AS_IT_IS, *(v for v in VERSIONS if v.name in ("90°", "135°", "180°")))


def photos() -> dict[str, Tensor]:
    """Return the photos, RGB `[3, H, W]` in 0..1."""
    import skimage.data
    from insightface.data import get_image

    group = get_image("t1")
    assert group is not None
    pixels = {"astronaut": skimage.data.astronaut(), "t1": group[..., ::-1]}
    return {name: torch.from_numpy(image.astype(np.float32) / 255).movedim(-1, 0) for name, image in pixels.items()}


def same_face(faces: list[FaceDetection], wanted: FaceDetection, transform: Tensor) -> FaceDetection | None:
    """Return the face among those of a changed photo that is at the wanted one's place, or None."""
    centre = transform_points(transform, wanted.points5).mean(0)
    size = (wanted.box[2:] - wanted.box[:2]).max() * torch.linalg.det(transform[:2, :2]).abs().sqrt()
    near = [face for face in faces if (face.points5.mean(0) - centre).norm() < SAME * size]
    return min(near, key=lambda face: (face.points5.mean(0) - centre).norm().item(), default=None)


def fitted(model: HeadModel, face: FaceDetection, picture: Tensor) -> HeadParams:
    """Return the head of a face."""
    return landmarks_of(model, [face], *picture.shape[1:]).fit()


def tile(model: HeadModel, picture: Tensor, face: FaceDetection) -> Image.Image:
    """Draw a face: its landmarks at the left, the fitted head at the right."""
    left, top, right, bottom = face.box.tolist()
    half = 0.8 * max(right - left, bottom - top)
    x, y = face.centre.tolist()
    zoom = TILE / (2 * half)
    crop = torch.tensor([[zoom, 0, TILE / 2 - zoom * x], [0, zoom, TILE / 2 - zoom * y], [0, 0, 1]])
    seen = warp(picture, crop, TILE, TILE)
    with_points = to_picture(seen)
    draw = ImageDraw.Draw(with_points)
    inside = face.moved(crop)
    if inside.mesh is not None:
        for u, v, _ in inside.mesh.tolist():
            draw.point((u, v), fill=(80, 255, 120))
    for u, v in inside.points5.tolist():
        draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill=(255, 60, 60))
    both = Image.new("RGB", (2 * TILE, TILE))
    both.paste(with_points, (0, 0))
    head = fitted(model, inside, seen)
    both.paste(to_picture(overlay(seen[None], render_head(model, head, TILE, TILE))[0]), (TILE, 0))
    return both


def main(arguments: list[str]) -> int:
    """Print the tables and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", metavar="SHEET.png", help="also draw each face at 0, 90, 135 and 180 degrees")
    options = parser.parse_args(arguments)
    path, reason = find()
    landmarker = None if path is None else load_face_landmarker(path)
    if landmarker is None:
        print(f"without the face mesh: {reason}")
    model, mtcnn, rows = builtin_head(), MtcnnDetector(), []
    for name in ("face mesh", "5 points") if landmarker else ("5 points",):
        detector = UprightDetector(mtcnn, landmarker if name == "face mesh" else None)
        print(f"\n{name}\n\n| face | {' | '.join(v.name for v in VERSIONS)} |\n| {' | '.join(['---'] * (len(VERSIONS) + 1))} |")
        farthest = torch.zeros(3)
        started, pictures = time.perf_counter(), 0
        for photo_name, photo in photos().items():
            seen: dict[str, tuple[Tensor, Tensor, list[FaceDetection]]] = {}
            for version in (AS_IT_IS, *VERSIONS):
                picture, transform = version.picture(photo)
                seen[version.name] = picture, transform, detector.detect(picture)
                pictures += 1
            faces = sorted(seen[AS_IT_IS.name][2], key=lambda face: face.centre[0].item())
            for number, face in enumerate(faces):
                usual = angles_of(fitted(model, face, photo).rotation)[0]
                cells = []
                for version in VERSIONS:
                    picture, transform, found = seen[version.name]
                    other = same_face(found, face, transform)
                    if other is None:
                        cells.append("not found")
                        continue
                    gap = ((version.undone(fitted(model, other, picture)) - usual + 180) % 360 - 180).abs()
                    farthest = torch.maximum(farthest, gap)
                    cells.append(" ".join(f"{value:.1f}" for value in gap.tolist()))
                print(f"| {photo_name} {number} | {' | '.join(cells)} |", flush=True)
                if options.sheet and name == "face mesh":
                    others = [(seen[v.name][0], same_face(seen[v.name][2], face, seen[v.name][1])) for v in ON_THE_SHEET]
                    rows.append([None if other is None else tile(model, picture, other) for picture, other in others])
        seconds = (time.perf_counter() - started) / pictures
        print(f"\nLargest: yaw {farthest[0]:.1f}, pitch {farthest[1]:.1f}, roll {farthest[2]:.1f}; {seconds:.1f} s a picture")
    if options.sheet and rows:
        sheet = Image.new("RGB", (len(ON_THE_SHEET) * 2 * TILE, len(rows) * TILE), "white")
        for y, row in enumerate(rows):
            for x, drawn in enumerate(row):
                if drawn is not None:
                    sheet.paste(drawn, (2 * TILE * x, TILE * y))
        sheet.save(options.sheet)
        print(f"sheet: {options.sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
