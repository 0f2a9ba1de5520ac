"""Heads fitted to the frames of a video in which the head does not move."""

import numpy as np
import pytest
import torch

from capface.flame.builtin import builtin_head
from capface.flame.editing import angles_of
from capface.models.faces import MtcnnDetector, load_face_landmarker
from capface.photos.analysis import FaceAnalyzer, PlainNetworks
from capface.photos.landmarks import landmarks_of
from capface.tools.face_landmarker_file import find

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")


def test_sensor_noise_and_a_moving_camera_hardly_turn_the_head():
    import skimage.data

    path, reason = find()
    if path is None:
        pytest.skip(reason)
    photo = torch.from_numpy(skimage.data.astronaut().astype(np.float32) / 255).movedim(-1, 0)
    analyzer = FaceAnalyzer(PlainNetworks(MtcnnDetector(), landmarker=load_face_landmarker(path)))
    noise = torch.Generator().manual_seed(0)
    angles = []
    for frame in range(6):
        seen = photo[:, frame : frame + 320, 2 * frame : 2 * frame + 400]
        seen = (seen + 0.02 * torch.randn(seen.shape, generator=noise)).clamp(0, 1)
        face = analyzer.find_faces(seen[None])
        angles.append(angles_of(landmarks_of(builtin_head(), face, *seen.shape[1:]).fit().rotation)[0])
    assert (torch.stack(angles).std(0) < 0.3).all()
