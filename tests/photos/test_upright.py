"""Faces at any angle, found by MTCNN in a real photo."""

import pytest
import torch

from capface.benchmarks.turned_photos import Version
from capface.models.faces import FaceDetection, MeshFace, MtcnnDetector, five_points, transform_points
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


def test_no_face_of_a_tilted_group_is_missed():
    """At this angle one orientation shows five of the six people, and another one the sixth."""
    pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed")
    group = pytest.importorskip("insightface.data", reason="insightface is not installed").get_image("t1")
    photo = torch.from_numpy(group[..., ::-1].copy()).movedim(-1, 0).float() / 255
    turned, transform = Version("-35°", -35.0).picture(photo)
    known = transform_points(transform, torch.stack([face.points5.mean(0) for face in MtcnnDetector().detect(photo)]))
    found = torch.stack([face.points5.mean(0) for face in UprightDetector(MtcnnDetector()).detect(turned)])
    assert len(known) == len(found) == 6
    assert torch.cdist(known, found).amin(1).max() < 15


def test_a_face_moves_with_all_its_points():
    points = torch.rand(5, 2) * 50
    face = FaceDetection(torch.tensor([0.0, 0, 40, 50]), 1.0, points, mesh=torch.rand(478, 3), blendshapes=torch.rand(52))
    transform = torch.tensor([[0.0, -2, 5], [2, 0, 7], [0, 0, 1]])
    moved = face.moved(transform)
    assert moved.mesh is not None and face.mesh is not None
    assert torch.allclose(moved.mesh[:, 2], 2 * face.mesh[:, 2])
    assert abs((moved.tilt - face.tilt - 90 + 180) % 360 - 180) < 1e-2
    assert torch.equal(moved.points5, transform_points(transform, points))


class Landmarker:
    """Reads a mesh in every box; `presences` tell whether each shows a face."""

    def __init__(self, *presences):
        self.presences = presences

    def __call__(self, image, threshold=0.5):
        raise AssertionError("faces were searched")

    def landmarks(self, image, boxes=None, eyes=None):
        assert boxes is not None and eyes is None
        shares = torch.rand(478, 3, generator=torch.Generator().manual_seed(2))
        return [
            MeshFace(shares * (box[2] - box[0]) + torch.cat([box[:2], torch.zeros(1)]), sure, torch.rand(52), torch.eye(3))
            for box, sure in zip(boxes, self.presences, strict=True)
        ]


BOXES = torch.tensor([[10.0, 20.0, 50.0, 70.0], [60.0, 20.0, 100.0, 60.0]])


def test_the_mesh_is_read_in_given_boxes():
    seen, unseen = UprightDetector(None, Landmarker(0.9, 0.1)).in_boxes(torch.zeros(3, 100, 120), BOXES)
    assert torch.equal(seen.box, BOXES[0]) and seen.score == 1 and seen.mesh is not None and seen.blendshapes is not None
    assert torch.equal(seen.points5, five_points(seen.mesh))
    assert torch.equal(unseen.box, BOXES[1]) and unseen.mesh is None and unseen.blendshapes is None


def test_without_a_landmarker_a_box_is_an_upright_face():
    for face, box in zip(UprightDetector(None).in_boxes(torch.zeros(3, 100, 120), BOXES), BOXES, strict=True):
        assert face.mesh is None and abs(face.tilt) < 1e-3
        assert ((face.points5 > box[:2]) & (face.points5 < box[2:])).all()
        left, right, nose, *mouth = face.points5
        assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth[0][1]
