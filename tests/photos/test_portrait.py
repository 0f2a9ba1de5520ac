import math

import torch

from capface.models.faces.crops import (
    deca_crop,
    deca_square_from_box,
    deca_transform,
    facenet_face,
    ffhq_crop,
    transform_points,
)
from capface.models.faces.detection import FaceDetection
from capface.photos.portrait import align, cut_portrait, deca_face

FIVE = torch.tensor([[80.0, 90.0], [120.0, 98.0], [99.0, 118.0], [82.0, 135.0], [115.0, 140.0]])
FACE = FaceDetection(torch.tensor([60.0, 50.0, 140.0, 160.0]), 0.98, FIVE, torch.rand(68, 2) * 80 + 60)


def test_box_and_landmarks_move_with_the_portrait():
    image = torch.rand(3, 200, 220)
    portrait, face, transform = align(image, FACE)
    assert torch.equal(portrait, ffhq_crop(image, FIVE)[0])
    assert torch.allclose(face.points5, transform_points(transform, FIVE), atol=1e-3)
    assert face.points68 is not None and FACE.points68 is not None
    assert torch.allclose(face.points68, transform_points(transform, FACE.points68), atol=1e-3)
    assert torch.allclose(face.centre, transform_points(transform, FACE.centre[None])[0], atol=1e-3)
    assert math.isclose(face.area / FACE.area, torch.linalg.det(transform[:2, :2]).item(), rel_tol=1e-4)
    assert face.score == FACE.score
    across = face.points5[1] - face.points5[0]
    assert abs(math.degrees(math.atan2(across[1], across[0]))) < 10  # upright now, from 11° of tilt and asymmetric mouth
    assert align(image, FaceDetection(FACE.box, 0.9, FIVE))[1].points68 is None


def test_facenet_gets_the_portraits_face_or_the_photos():
    image = torch.rand(3, 200, 220)
    portrait, face, _ = align(image, FACE)
    assert torch.equal(cut_portrait(image, FACE)[1], facenet_face(portrait, face.box))
    whole, crop = cut_portrait(image, FACE, aligned=False)
    assert whole is image
    assert torch.equal(crop, facenet_face(image, FACE.box))


def test_decas_crop_follows_the_landmarks_or_else_the_box():
    image = torch.rand(3, 200, 220)
    by_box = deca_transform(*deca_square_from_box(FACE.box))
    crop, transform = deca_face(image, FaceDetection(FACE.box, 0.9, FIVE))
    assert torch.equal(transform, by_box)
    assert torch.equal(crop, deca_crop(image, by_box))
    assert not torch.allclose(deca_face(image, FACE)[1], by_box)
