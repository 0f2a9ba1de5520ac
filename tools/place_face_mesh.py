"""Measures where the points of MediaPipe's face mesh lie on the built-in head, and writes flame/fitting/face_mesh.npz.

    python -m capface.tools.place_face_mesh [--check]

It renders average heads with different skins from known views, runs the mesh on the pictures, and solves the position in space
of each point that explains its positions in the pictures best. `--check` compares with the file instead of writing it.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..files.atomic import write_atomically
from ..flame.builtin import builtin_head
from ..flame.editing import rotation_of
from ..flame.fitting.face_mesh import FILE, measured_points
from ..flame.model import HeadParams, axis_angle_to_matrix, detected_to_frame, frame_to_pixels, project
from ..miniature.people import Person, Setting, draw_people, light_named
from ..models.faces import FaceLandmarker, load_face_landmarker
from .face_landmarker_file import find

SIDE, VIEWS = 384, 72
YAW, PITCH, ROLL = 45.0, 18.0, 10.0
"""The views lie within these angles, in degrees."""
ROUNDS = 12
"""Rounds of reweighting: an outlier counts by the inverse of its distance, offset by 1 mm."""


def measure(landmarker: FaceLandmarker, views: int = VIEWS) -> Tensor:
    """Measure the points on the average head.

    Args:
        landmarker: The networks.
        views: Number of pictures.

    Returns:
        `[478, 3]` in metres, in double precision, symmetric to the plane x = 0.
    """
    model = builtin_head()
    angles = torch.quasirandom.SobolEngine(3, scramble=True, seed=1).draw(views) * 2 - 1
    heads = HeadParams.neutral(views).replace(
        rotation=rotation_of(angles * torch.tensor([YAW, PITCH, ROLL])),
        camera=torch.tensor([[6.0, 0.0, 0.08]]).expand(views, -1),
        light=light_named("front").expand(views, -1, -1),
    )
    seen = []
    for view in range(views):
        person = Person.sample(7000 + view)
        person = replace(person, shape=(0.0,) * len(person.shape), hair="bald", beard="none", glasses="none")
        picture = draw_people([person], heads[view], [Setting.sample(view)], SIDE)[0]
        landmarks = project(model.landmarks(heads[view]), heads[view].camera)[..., :2]
        eyes = frame_to_pixels(landmarks, SIDE, SIDE)[0, 36:48].unflatten(0, (2, 6)).mean(1) - 0.5
        seen.append(landmarker.landmarks(picture, eyes=eyes[None])[0].points[:, :2])
    frame = detected_to_frame(torch.stack(seen), SIDE, SIDE).double()
    # u = (R (x - J) + J) in the picture's plane, with the root joint J; v points down
    root = model.rig.joints[0].double()
    camera, R = heads.camera.double(), axis_angle_to_matrix(heads.rotation.double())[:, :2]
    plane = (frame - camera[:, None, 1:]) / camera[:, :1, None] * frame.new_tensor([1.0, -1.0]) - root[:2]
    weights = torch.ones(plane.shape[:2], dtype=plane.dtype)
    points = torch.zeros(plane.shape[1], 3, dtype=plane.dtype)
    for _ in range(ROUNDS):
        normal = torch.einsum("bn,bij,bik->njk", weights, R, R)
        points = torch.linalg.solve(normal, torch.einsum("bn,bij,bni->nj", weights, R, plane)[..., None])[..., 0]
        weights = 1 / ((torch.einsum("bij,nj->bni", R, points) - plane).norm(dim=2) + 1e-3)
    points = points + root
    mirror = points.new_tensor([-1.0, 1.0, 1.0])
    return (points + points[mirror_of(measured_points())] * mirror) / 2


def mirror_of(points: Tensor) -> Tensor:
    """Return the index of each point's mirror image, `[478]`. The points must be symmetric; those of the file are."""
    mirrored = points * points.new_tensor([-1.0, 1.0, 1.0])
    face = torch.cdist(mirrored[:468], points[:468]).argmin(1)
    irises = torch.cdist(mirrored[468:], points[468:]).argmin(1) + 468
    return torch.cat([face, irises])


def main(arguments: list[str]) -> int:
    """Measure, and write or compare. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="print the distance from the file instead of writing it")
    options = parser.parse_args(arguments)
    path, reason = find()
    if path is None:
        print(reason)
        return 1
    points = measure(load_face_landmarker(path))
    if options.check:
        distance = 1000 * (points - measured_points()).norm(dim=1)
        print(f"distance from {FILE.name}: mean {distance.mean():.2f} mm, largest {distance.max():.2f} mm")
        return 0
    stored = (points.numpy() * 1e5).round().astype(np.int16)

    def write(part):
        with part.open("wb") as file:
            np.savez_compressed(file, points=stored)

    write_atomically(FILE, write)
    print(f"{FILE}: {FILE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
