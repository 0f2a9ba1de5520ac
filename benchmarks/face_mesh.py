"""Prints how exactly heads are fitted to the face mesh and to five points, on rendered people with known heads.

    python tasks.py bench face_mesh [--heads 48] [--seed 0]

Each person has a random shape and skin, a yaw within 50 degrees, a pitch within 20 and a roll within 25, a random gaze, and
some of: smile, open mouth, closed eyes, raised brows. The five points are MTCNN's; a head that it does not find counts in the
mesh's row only. Correlations are between the true amount of a slider and the amount that the fitted expression shows.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from capface.flame.builtin import builtin_head
from capface.flame.editing import angles_of, change_face, express, rotation_of
from capface.flame.model import HeadModel, HeadParams, frame_to_pixels, project
from capface.miniature.people import Person, Setting, draw_people, light_named
from capface.models.faces import FaceDetection, load_face_landmarker
from capface.photos.landmarks import landmarks_of
from capface.tools.face_landmarker_file import find

SIDE = 384
SLIDERS = ("smile", "mouth_open", "eyes_closed", "brows_up")
FIRST_PERSON = 60000


def known_head(model: HeadModel, number: int, seed: int) -> tuple[Person, HeadParams, dict[str, float], tuple[float, float]]:
    """Sample a person, their head, the amounts of the sliders and the gaze in degrees."""
    random = np.random.default_rng([seed, number])
    person = replace(Person.sample(FIRST_PERSON + 1000 * seed + number), hair="bald", beard="none", glasses="none")
    angles = torch.tensor([[random.uniform(-50, 50), random.uniform(-20, 20), random.uniform(-25, 25)]])
    chances = {"smile": (0.7, 1.5), "mouth_open": (0.5, 1.0), "eyes_closed": (0.5, 1.0), "brows_up": (0.2, 1.0)}
    amounts = {name: random.uniform(0, most) * (random.random() < chance) for name, (chance, most) in chances.items()}
    gaze = random.uniform(-28, 28), random.uniform(-14, 14)
    camera = torch.tensor([[random.uniform(5, 7), random.uniform(-0.15, 0.15), 0.08 + random.uniform(-0.12, 0.12)]])
    head = HeadParams.neutral().replace(
        shape=person.shape_row(),
        rotation=rotation_of(angles).float(),
        camera=camera.float(),
        light=light_named("front")[None],
    )
    head = change_face(model, head, sides(amounts), gaze_yaw=gaze[0], gaze_pitch=gaze[1])
    return person, head, amounts, gaze


def sides(amounts: dict[str, float]) -> dict[str, float]:
    """Return the amounts of the sliders of both sides."""
    both = {"mouth_open"}
    return {
        f"{name}{side}": amount for name, amount in amounts.items() for side in ([""] if name in both else ["_left", "_right"])
    }


def amounts_shown(model: HeadModel, heads: HeadParams) -> Tensor:
    """Return the amounts of SLIDERS that the landmarks of heads show, `[B, 4]`, by least squares."""
    rest = model.landmarks(HeadParams.neutral())

    def moved(shown: HeadParams) -> Tensor:
        at_rest = HeadParams.neutral(len(shown)).replace(expression=shown.expression, jaw=shown.jaw)
        return 1000 * (model.landmarks(at_rest) - rest)[:, 17:].flatten(1)  # millimetres, without the sliding contour

    columns = [moved(express(model, HeadParams.neutral(), sides({name: 0.25})))[0] * 4 for name in SLIDERS]
    A = torch.stack(columns, dim=1)
    normal = A.T @ A + 0.02 * torch.eye(len(SLIDERS))
    return torch.linalg.solve(normal, A.T @ moved(heads).T).T


def row(name: str, model: HeadModel, fitted: HeadParams, heads: HeadParams, amounts: Tensor, gaze: Tensor) -> None:
    """Print one row of the table."""
    turn = (angles_of(fitted.rotation) - angles_of(heads.rotation) + 180) % 360 - 180
    mean = turn.abs().mean(0).tolist()
    far = turn[:, 0].abs().quantile(0.9).item()
    points = [project(model.landmarks(h), h.camera)[:, 17:, :2] for h in (fitted, heads)]
    rest = model.landmarks(HeadParams.neutral())[0]
    eyes = (rest[42:48].mean(0) - rest[36:42].mean(0)).norm() * heads.camera[:, 0]
    position = ((points[0] - points[1]).norm(dim=-1).mean(1) / eyes).mean().item()
    jaw = (fitted.jaw[:, 0] - heads.jaw[:, 0]).abs().mean().item()
    shown = amounts_shown(model, fitted)
    looks = angles_of(fitted.eyes.view(-1, 2, 3))[..., 0].mean(1)
    pairs = [*zip(shown.unbind(1), amounts.unbind(1), strict=True), (looks, gaze[:, 0])]
    correlations = [np.corrcoef(a.numpy(), b.numpy())[0, 1] if a.std() > 0 else float("nan") for a, b in pairs]
    cells = [f"{mean[0]:.1f}", f"{far:.1f}", f"{mean[1]:.1f}", f"{mean[2]:.1f}", f"{100 * position:.1f} %", f"{jaw:.3f}"]
    cells += ["-" if np.isnan(value) else f"{value:.2f}" for value in correlations]
    print(f"| {name} | {len(heads)} | {' | '.join(cells)} |")


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    path, reason = find()
    if path is None:
        print(f"skipped: {reason}")
        return 0
    from capface.models.faces import MtcnnDetector

    model, landmarker, mtcnn = builtin_head(), load_face_landmarker(path), MtcnnDetector()
    meshed: list[HeadParams] = []
    five: list[HeadParams] = []
    heads, amounts, gazes, found_by_mtcnn = [], [], [], []
    seconds = 0.0
    for number in range(options.heads):
        person, head, wanted, gaze = known_head(model, number, options.seed)
        picture = draw_people([person], head, [Setting.sample(number)], SIDE)[0]
        landmarks = frame_to_pixels(project(model.landmarks(head), head.camera)[..., :2], SIDE, SIDE)[0] - 0.5
        eyes = landmarks[36:48].unflatten(0, (2, 6)).mean(1)
        started = time.perf_counter()
        mesh = landmarker.landmarks(picture, eyes=eyes[None])[0]
        box = torch.cat([landmarks.amin(0), landmarks.amax(0)])
        face = FaceDetection(box, 1.0, landmarks[:5], mesh=mesh.points, blendshapes=mesh.blendshapes)
        meshed.append(landmarks_of(model, [face], SIDE, SIDE).fit())
        seconds += time.perf_counter() - started
        if faces := mtcnn.detect(picture):
            five.append(landmarks_of(model, [replace(faces[0], mesh=None)], SIDE, SIDE).fit())
            found_by_mtcnn.append(number)
        heads.append(head)
        amounts.append([wanted[name] for name in SLIDERS])
        gazes.append(gaze)
    known, wanted_amounts, wanted_gaze = HeadParams.cat(heads), torch.tensor(amounts), torch.tensor(gazes)
    columns = "landmarks", "heads", "yaw", "90 %", "pitch", "roll", "position", "jaw", *SLIDERS, "gaze"
    print(f"| {' | '.join(columns)} |")
    print("| " + " | ".join(["---"] * len(columns)) + " |")
    if five:
        index = torch.tensor(found_by_mtcnn)
        row("5 points", model, HeadParams.cat(five), known[index], wanted_amounts[index], wanted_gaze[index])
    row("478 points", model, HeadParams.cat(meshed), known, wanted_amounts, wanted_gaze)
    print("Angles in degrees, position in eye distances, jaw in radians; the last five columns are correlations.")
    print(f"Mesh and fit: {seconds / len(heads):.2f} s a face")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
