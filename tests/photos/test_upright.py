"""Faces at any angle, found by MTCNN in a real photo."""

import pytest
import torch

from capface.models.faces import FaceDetection, MtcnnDetector, transform_points
from capface.photos.upright import UprightDetector, turned_back


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_is_found_upright_in_a_turned_photo(quarters):
    pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed")
    astronaut = pytest.importorskip("skimage", reason="scikit-image is not installed").data.astronaut()
    photo = torch.from_numpy(astronaut).movedim(-1, 0).float() / 255
    detector = UprightDetector(MtcnnDetector())
    (known,) = MtcnnDetector().detect(photo)
    (upright,) = detector.detect(photo)
    assert torch.equal(upright.points5, known.points5) and torch.equal(upright.box, known.box)
    (turned,) = detector.detect(torch.rot90(photo, quarters, (1, 2)))
    back = turned_back(quarters, *photo.shape[-2:])
    assert (transform_points(back, turned.points5) - known.points5).norm(dim=1).max() < 2.5


def test_a_face_moves_with_all_its_points():
    points = torch.rand(5, 2) * 50
    face = FaceDetection(torch.tensor([0.0, 0, 40, 50]), 1.0, points, mesh=torch.rand(478, 3), blendshapes=torch.rand(52))
    transform = torch.tensor([[0.0, -2, 5], [2, 0, 7], [0, 0, 1]])
    moved = face.moved(transform)
    assert moved.mesh is not None and face.mesh is not None
    assert torch.allclose(moved.mesh[:, 2], 2 * face.mesh[:, 2])
    assert abs((moved.tilt - face.tilt - 90 + 180) % 360 - 180) < 1e-2
    assert torch.equal(moved.points5, transform_points(transform, points))
