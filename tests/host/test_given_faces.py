"""Faces from ComfyUI's FACE_LANDMARKS and BOUNDING_BOX sockets, and what is refused."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from capface.errors import BadInput, NoFaceFound
from capface.models.faces import BLENDSHAPES, FaceDetection
from capface.photos.analysis import FaceAnalyzer
from capface.photos.given import GivenBoxes
from capface.tests.photos.face_networks import Networks

IMAGES = torch.zeros(3, 3, 100, 120)


@pytest.fixture(scope="module", autouse=True)
def host(in_host):
    """The host's modules, which the functions under test import."""


def read(landmarks=None, boxes=None, images=IMAGES):
    from capface.host.given_faces import read_given_faces

    given = read_given_faces(landmarks, boxes, images)
    assert given is not None
    return given


def face(x=0.0, **changes):
    """Return a face as Detect Face Landmarks gives it, 40 × 40 pixels from (x, 10)."""
    level = np.random.default_rng(3).uniform(0, 192, (478, 3)).astype(np.float32)
    points = level[:, :2] * 40 / 192 + np.array([x, 10], np.float32)
    return {
        "landmarks_xy": points, "landmarks_3d": level, "bbox_xyxy": np.concatenate([points.min(0), points.max(0)]),
        "blendshapes": {name: i / 60 for i, name in enumerate(BLENDSHAPES)}, "presence": 3.0, "score": 0.8, **changes,
    }  # fmt: skip


def landmarks(*frames, size=(100, 120)):
    return {"frames": list(frames), "image_size": size, "connection_sets": {}}


def box(x: Any = 30, y: Any = 20, width: Any = 40, height: Any = 50, **more: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "width": width, "height": height, **more}


def meshed(value: Any, image: int) -> Sequence[FaceDetection]:
    """The faces of an image from FACE_LANDMARKS."""
    faces = read(value).of(image)
    assert not isinstance(faces, GivenBoxes)
    return faces


def test_landmarks_become_the_mesh():
    (found,) = meshed(landmarks([face(5.0)], [], [face()]), 0)
    assert found.mesh is not None and found.blendshapes is not None
    expected = torch.from_numpy(face(5.0)["landmarks_xy"]) - 0.5
    torch.testing.assert_close(found.mesh[:, :2], expected)
    torch.testing.assert_close(found.mesh[:, 2], torch.from_numpy(face()["landmarks_3d"][:, 2]) * 40 / 192)
    assert found.score == 0.8 and found.blendshapes.tolist() == pytest.approx([i / 60 for i in range(52)])
    low, high = expected.amin(0), expected.amax(0)
    assert (found.box[:2] < low + 10).all() and (found.box[2:] > high - 10).all()


def test_depth_and_blendshapes_may_be_missing():
    (found,) = meshed(landmarks([face(landmarks_3d=None, blendshapes=None, score=None)]), 2)
    assert found.mesh is not None and not found.mesh[:, 2].any() and found.blendshapes is None and found.score == 1


def test_the_landmarks_of_comfyuis_own_network_are_accepted(monkeypatch):
    theirs = pytest.importorskip("comfy_extras.mediapipe.face_landmarker", reason="this ComfyUI has no Face Landmarker")
    torch.manual_seed(7)
    network = theirs.FaceLandmarker().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False).add_(0.02 * torch.randn_like(parameter))
    detections = torch.tensor([[0.3, 0.3, 0.6, 0.6, 0.4, 0.4, 0.5, 0.4, *[0.45] * 8, 0.9]]).numpy()
    picture = np.zeros((100, 120, 3), dtype=np.uint8)

    def detected(pictures, **_):
        return (
            [torch.zeros(3, 100, 120) for _ in pictures],
            [(60.0, 50.0, 120.0)] * 3,
            [(100, 120)] * 3,
            [detections.copy()] * 3,
        )

    monkeypatch.setattr(network, "run_detector_batch", detected)
    with torch.no_grad():
        frames = network.detect_batch([picture] * 3)
    (found,) = meshed(landmarks(*frames), 1)
    assert found.mesh is not None and found.mesh.shape == (478, 3) and found.mesh.isfinite().all()
    assert found.score == pytest.approx(0.9) and found.blendshapes is not None


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        (box(), [1, 1, 1]),
        ([box(), box(50)], [2, 2, 2]),
        ([[box(), box(50)]], [2, 2, 2]),
        ([[box()], [box(), box(50)], []], [1, 2, 0]),
        ((box(x=30.5, score=0.4, label="face"),), [1, 1, 1]),
        ([box(x=np.float32(30), width=torch.tensor(40))], [1, 1, 1]),
    ],
    ids=["one", "for all images", "one frame", "a frame each", "tuple", "foreign numbers"],
)
def test_boxes_come_in_several_forms(value, boxes):
    given = read(boxes=value)
    for i, count in enumerate(boxes):
        if not count:
            with pytest.raises(NoFaceFound, match="bboxes has no face for this image"):
                given.of(i)
            continue
        found = given.of(i)
        assert isinstance(found, GivenBoxes) and found.boxes.shape == (count, 4)
        left = 30.0 if isinstance(value, tuple) else 29.5
        assert found.boxes[0].tolist() == [left, 19.5, left + 40, 69.5]
        assert found.scores[0] == (0.4 if isinstance(value, tuple) else 1.0)


def test_landmarks_take_precedence_and_nothing_is_nothing():
    from capface.host.given_faces import read_given_faces

    assert read_given_faces(None, None, IMAGES) is None
    assert not isinstance(read(landmarks([face()]), box()).of(0), GivenBoxes)


def test_faces_are_chosen_among_the_given_ones_without_a_detector():
    analyzer = FaceAnalyzer(Networks())  # detects nothing, and fails if it is asked
    given = read(boxes=[[box(0, score=0.7), box(60, width=20, score=0.6)], [box(60)], []])
    assert analyzer.find_faces_or_none(IMAGES, "left to right", 1, given)[1:] == [None, None]
    found = analyzer.find_faces(IMAGES[:2], "largest", 0, given)
    assert [one.box[0].item() for one in found] == [-0.5, 59.5] and found[0].score == 0.7
    with pytest.raises(NoFaceFound, match="Image 3 of 3: The connected bboxes has no face"):
        analyzer.find_faces(IMAGES, "largest", 0, given)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("face", "expected FACE_LANDMARKS with a list of frames, got str"),
        ({}, "expected FACE_LANDMARKS with a list of frames"),
        ({"frames": "no"}, "expected FACE_LANDMARKS"),
        ({"frames": [[face()]]}, r"image_size: expected numbers of shape \[2\], got nothing"),
        (landmarks([face()], size=(100, 120, 3)), r"image_size: expected numbers of shape \[2\], got \[3\]"),
        (landmarks([face()], size=(120, 100)), "landmarks of a picture of 120 × 100 pixels, got those of 100 × 120"),
        (landmarks([face()], [face()]), "face_landmarks: expected faces of 1 or 3 images, got those of 2"),
        (landmarks(), "expected faces of 1 or 3 images, got those of 0"),
        (landmarks(7), "image 1: expected a list of faces, got int"),
        (landmarks([7]), "image 1, face 0: expected a dictionary, got int"),
        (landmarks([face(), face(landmarks_xy=np.zeros((468, 2)))]), r"face 1: landmarks_xy: .* \[478, 2\], got \[468, 2\]"),
        (landmarks([face(landmarks_xy=None)]), "landmarks_xy: expected numbers .*, got nothing"),
        (landmarks([face(landmarks_xy="text")]), "landmarks_xy: expected numbers .*, got str"),
        (landmarks([face(landmarks_xy=np.full((478, 2), np.nan))]), "expected finite numbers"),
        (landmarks([face(landmarks_xy=np.zeros((478, 2)))]), "expected landmarks that cover an area"),
        (landmarks([face(landmarks_3d=np.zeros((478, 2)))]), r"landmarks_3d: .* \[478, 3\], got \[478, 2\]"),
        (landmarks([face(blendshapes=[0.0] * 52)]), "expected blendshapes by name, got list"),
        (landmarks([face(blendshapes={"jawOpen": 1.0})]), "52 blendshapes, but 51 are missing, such as _neutral"),
        (landmarks([face(blendshapes=dict.fromkeys(BLENDSHAPES, "x"))]), "blendshapes: expected numbers"),
        (landmarks([face(score=math.nan)]), "expected a score in 0..1, got nan"),
        (landmarks([face(score="high")]), "expected a score in 0..1, got str"),
    ],
)  # fmt: skip
def test_other_landmarks_are_refused(value, message):
    with pytest.raises(BadInput, match=message):
        read(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("face", "expected a BOUNDING_BOX or a list of them, got str"),
        (torch.zeros(1, 4), "expected a BOUNDING_BOX or a list of them, got Tensor"),
        ({"x": 1}, "image 1, face 0: expected x, y, width and height, got dict"),
        ([[box()], [box()]], "bboxes: expected faces of 1 or 3 images, got those of 2"),
        ([[box(), [1, 2, 3, 4]]], "face 1: expected x, y, width and height, got list"),
        (box(width=0), "expected a width and height above 0, got 0 × 50"),
        (box(x=math.inf), "expected finite numbers"),
        (box(x="left"), r"expected numbers of shape \[4\], got list"),
        (box(x=200), r"the centre of the box 40 × 50 at \(200, 20\) lies outside the picture of 120 × 100 pixels"),
    ],
)
def test_other_boxes_are_refused(value, message):
    with pytest.raises(BadInput, match=message):
        read(boxes=value)


def test_the_message_for_one_image_is_in_the_singular():
    with pytest.raises(BadInput, match="expected faces of 1 image, got those of 2"):
        read(boxes=[[box()], [box()]], images=IMAGES[:1])
