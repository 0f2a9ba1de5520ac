"""The landmarks of faces in photos, and the heads that they give."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.editing import BLENDSHAPE_NAMES, angles_of, change_face, head_from_blendshapes, rotation_of
from capface.flame.fitting.face_mesh import IRISES, N_MESH, face_mesh_points, measured_points
from capface.flame.model import HeadModel, HeadParams, frame_to_pixels, points_on_mesh, project
from capface.models.faces import BLENDSHAPES, FaceDetection
from capface.photos.landmarks import landmarks_of
from capface.tests.photos.face_networks import FIVE, face

SIDE = 400


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def meshes(model, heads):
    """The 478 points `[B, 478, 3]` of known heads in pixels, exactly where the point set places them; others are NaN."""
    points = face_mesh_points(model)
    placed = points_on_mesh(model.vertices(heads), model.faces, *points.places(torch.zeros(len(heads))))
    mesh = torch.full((len(heads), N_MESH, 3), torch.nan)
    mesh[:, points.index, :2] = frame_to_pixels(project(placed, heads.camera)[..., :2], SIDE, SIDE) - 0.5
    return torch.where(mesh.isnan(), mesh.nan_to_num().mean(), mesh)


def detection(mesh, blendshapes=None):
    return replace(face(), mesh=mesh, blendshapes=blendshapes)


def known_head(model, yaw=20.0, pitch=-8.0, roll=12.0, **changes):
    head = HeadParams.neutral().replace(rotation=rotation_of(torch.tensor([[yaw, pitch, roll]])))
    return change_face(model, head, changes.pop("expressions", {}), **changes)


def test_points_count_from_the_edges_of_pixels(model):
    landmarks = landmarks_of(model, [face(), face(10)], 100, 120)
    torch.testing.assert_close(frame_to_pixels(landmarks.points, 100, 120)[0], FIVE + 0.5)
    assert landmarks.summary() == "5 points: pose only"


def test_the_richest_landmarks_that_all_faces_have_are_used(model):
    points68 = torch.rand(68, 2)
    dense = FaceDetection(face().box, 0.9, FIVE, points68)
    meshed = replace(dense, mesh=torch.rand(N_MESH, 3))
    assert landmarks_of(model, [dense, dense], 100, 120).points.shape == (2, 68, 2)
    assert landmarks_of(model, [dense, face()], 100, 120).points.shape == (2, 5, 2)
    assert landmarks_of(model, [meshed, meshed], 100, 120).points.shape == (2, N_MESH, 2)
    assert landmarks_of(model, [meshed, dense], 100, 120).points.shape == (2, 68, 2)


def test_a_mesh_gives_back_pose_expression_and_gaze(model):
    head = known_head(model, expressions={"smile_left": 0.8, "smile_right": 0.8}, jaw_open=9.0, gaze_yaw=18.0, gaze_pitch=-8.0)
    landmarks = landmarks_of(model, [detection(meshes(model, head)[0])], SIDE, SIDE)
    fitted = landmarks.fit()
    assert landmarks.summary() == "478 points: pose, shape, expression and gaze"
    assert (angles_of(fitted.rotation) - angles_of(head.rotation)).abs().max() < 1.5
    assert abs(fitted.jaw[0, 0] - head.jaw[0, 0]) < 0.035
    gaze = angles_of(fitted.eyes.view(2, 3))[:, :2].mean(0)
    torch.testing.assert_close(gaze, torch.tensor([18.0, -8.0]), atol=3.0, rtol=0)
    rest = HeadParams.neutral()
    shown, wanted, still = (
        model.landmarks(rest.replace(expression=one.expression, jaw=one.jaw))[0, 48:] for one in (fitted, head, rest)
    )
    assert (shown - wanted).norm(dim=1).mean() < 0.3 * (wanted - still).norm(dim=1).mean()


def test_a_neutral_face_fits_neutral(model):
    fitted = landmarks_of(model, [detection(meshes(model, known_head(model))[0])], SIDE, SIDE).fit()
    assert fitted.expression.abs().max() < 0.1 and fitted.jaw.abs().max() < 0.01 and fitted.eyes.abs().max() < 0.05


def test_every_point_of_the_mesh_lies_on_the_skin_of_its_own_side(model):
    points = face_mesh_points(model)
    placed = points_on_mesh(model.rig.template[None], model.faces, *points.places(torch.zeros(1)))[0].double()
    measured = measured_points()[points.index]
    assert (placed - measured).norm(dim=1).max() < 0.009
    assert (placed - measured).norm(dim=1).median() < 0.002
    assert torch.equal(placed[-2:, 0] > 0, torch.tensor([True, False]))  # the person's left iris first, as the joints
    assert points.index[-2:].tolist() == list(IRISES)
    assert points.weights[:-2].sum().item() == pytest.approx(68)


def test_the_mesh_moves_to_another_head_as_its_landmarks_do(model):
    """The same head as another model, larger and with a long face: the points keep their places on the skin."""
    stretch = torch.tensor([1.1, 1.25, 1.1])
    rig = model.rig
    taller = replace(
        model, kind="custom", name="taller",
        rig=replace(rig, template=rig.template * stretch, joints=rig.joints * stretch),
    )  # fmt: skip
    here, there = face_mesh_points(model), face_mesh_points(taller)
    common = [i for i in here.index.tolist() if i in set(there.index.tolist())]
    assert len(common) > 150

    def places(points, head: HeadModel):
        rows = [points.index.tolist().index(i) for i in common]
        return points_on_mesh(head.rig.template[None], head.faces, *points.places(torch.zeros(1)))[0, rows]

    distance = (places(there, taller) - places(here, model) * stretch).norm(dim=1)
    assert distance.median() < 0.002 and distance.quantile(0.95) < 0.008


def test_landmarks_of_a_3d_detector_do_not_slide(model):
    """A sliding contour takes the fixed points of a turned head for another yaw."""
    heads = HeadParams.neutral(2).replace(rotation=rotation_of(torch.tensor([[35.0, 0.0, 0.0], [-35.0, 0.0, 0.0]])))
    points = frame_to_pixels(project(model.fixed_landmarks(model.vertices(heads)), heads.camera)[..., :2], SIDE, SIDE) - 0.5
    faces = [replace(face(), points68=one) for one in points]
    fixed = landmarks_of(model, faces, SIDE, SIDE)
    from capface.flame.fitting import fit_landmarks

    sliding = fit_landmarks(model, fixed.points).params

    def error(fitted):
        return (angles_of(fitted.rotation) - angles_of(heads.rotation))[:, 0].abs()

    assert error(fixed.fit()).max() < 1.0
    assert error(sliding).min() > 3.0


def test_blendshapes_set_expression_jaw_and_gaze(model):
    zero = {name: torch.zeros(1) for name in BLENDSHAPE_NAMES}
    rest = head_from_blendshapes(model, zero)
    assert not rest.expression.any() and not rest.jaw.any() and not rest.eyes.any()
    shapes = zero | {"mouthSmileLeft": torch.ones(1), "eyeLookOutLeft": torch.ones(1), "eyeLookInRight": torch.ones(1)}
    head = head_from_blendshapes(model, shapes)
    rise = (model.landmarks(head) - model.landmarks(rest))[0, [54, 48], 1]
    assert rise[0] > 0.003 > 0.001 > rise[1].abs()  # the person's left corner alone, in metres
    assert angles_of(head.eyes.view(2, 3))[:, 0].tolist() == pytest.approx([30.0, 30.0])
    assert set(BLENDSHAPE_NAMES) <= set(BLENDSHAPES)


def test_blendshapes_are_a_prior_for_weak_landmarks(model):
    mesh = meshes(model, known_head(model, yaw=0.0))[0]
    shapes = torch.zeros(52)
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        shapes[BLENDSHAPES.index(name)] = 1.0
    plain = landmarks_of(model, [detection(mesh)], SIDE, SIDE)
    told = landmarks_of(model, [detection(mesh, shapes)], SIDE, SIDE)
    assert plain.expected is None and told.expected is not None

    def rise(landmarks):
        return (model.landmarks(landmarks.fit())[0, 54, 1]).item()

    assert 0 < rise(told) - rise(plain) < 0.004


def test_points_that_are_not_finite_are_refused(model):
    mesh = meshes(model, known_head(model))[0].clone()
    mesh[33] = np.nan
    with pytest.raises(BadInput, match="finite points"):
        landmarks_of(model, [detection(mesh)], SIDE, SIDE).fit()
