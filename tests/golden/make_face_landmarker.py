"""Makes `face_landmarker.npz`: what Google's own runtime computes with the networks of `face_landmarker.task`.

python -m capface.tests.golden.make_face_landmarker   needs the packages ai-edge-litert and scikit-image
"""

import sys
from pathlib import Path

import numpy as np

from capface.files.bundle import read_bundle
from capface.models.faces.face_landmarker.blendshapes import BLENDSHAPE_POINTS
from capface.tools.face_landmarker_file import find

HERE = Path(__file__).resolve().parent
FACE = slice(10, 210), slice(122, 322)
"""Rows and columns of the astronaut's face, with the margin that the mesh expects."""


def astronaut(size):
    """The astronaut's face, `[size, size, 3]` in 0..1, resampled bilinearly by arithmetic that every machine does alike."""
    from skimage.data import astronaut as photo

    face = photo()[FACE].astype(np.float64) / 255
    place = np.clip((np.arange(size) + 0.5) * len(face) / size - 0.5, 0, len(face) - 1)
    low = np.minimum(place.astype(int), len(face) - 2)
    part = place - low
    rows = face[low] * (1 - part)[:, None, None] + face[low + 1] * part[:, None, None]
    return (rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]).astype(np.float32)


class Reference:
    """One network in Google's runtime."""

    def __init__(self, content):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_content=content, num_threads=1)
        self.interpreter.allocate_tensors()

    def __call__(self, values):
        """Compute all results by name."""
        (given,) = self.interpreter.get_input_details()
        self.interpreter.set_tensor(given["index"], np.ascontiguousarray(values, np.float32))
        self.interpreter.invoke()
        return {one["name"]: self.interpreter.get_tensor(one["index"]) for one in self.interpreter.get_output_details()}


def references(path):
    """The three networks of a `.task`: detector, mesh, blendshapes."""
    members = read_bundle(path)
    return [Reference(members[f"{name}.tflite"]) for name in ("face_detector", "face_landmarks_detector", "face_blendshapes")]


def compute(path):
    """Compute the golden numbers."""
    detector, mesh, blendshapes = references(path)
    found = detector(astronaut(128)[None] * 2 - 1)
    read = mesh(astronaut(256)[None])
    points = read["Identity"].reshape(478, 3)
    (weights,) = blendshapes(points[None, BLENDSHAPE_POINTS, :2]).values()
    best = np.argsort(-found["classificators"][0, :, 0])[:64]
    return {
        "anchors": best.astype(np.int16),
        "scores": found["classificators"][0, best, 0],
        "values": found["regressors"][0, best],
        "points": points,
        "presence": read["Identity_1"].reshape(()),
        "blendshapes": weights.reshape(52),
    }


if __name__ == "__main__":
    file, reason = find()
    if file is None:
        sys.exit(reason)
    np.savez_compressed(HERE / "face_landmarker.npz", **compute(file))
