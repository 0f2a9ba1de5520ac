"""The networks of the Face Landmarker and ComfyUI's own, from the same file."""

import pytest
import torch
from safetensors.torch import save_file

from capface.models.faces import BLENDSHAPE_POINTS, BLENDSHAPES, load_face_landmarker
from capface.tests.models.landmarker_files import comfyui_state
from capface.tests.synthetic import noise, relative_error


@pytest.fixture(scope="module")
def theirs(in_host):
    """ComfyUI's module of the networks, which came in 2026."""
    return pytest.importorskip("comfy_extras.mediapipe.face_landmarker")


@torch.no_grad()
def test_the_networks_compute_what_comfyuis_compute(theirs, tmp_path):
    torch.manual_seed(7)
    network = theirs.FaceLandmarker()
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # some begin equal in all channels, which would hide a wrong order
    own = {key.replace("detector.", "detector_short.", 1): tensor.contiguous() for key, tensor in network.state_dict().items()}
    beside = {key: tensor for key, tensor in comfyui_state().items() if key not in own}
    assert beside.keys() == {
        "canonical_vertices",
        "detector_full.stem.weight",
        "procrustes_indices",
        "procrustes_weights",
        "topology.lips",
    }
    save_file(own | beside, tmp_path / "x.safetensors")
    ours = load_face_landmarker(tmp_path / "x.safetensors")

    view, crop, points = noise(650, (2, 3, 128, 128)), noise(651, (2, 3, 192, 192)).sigmoid(), noise(652, (2, 478, 3))
    values, scores = network.detector(view)
    for got, expected in zip(ours.detector(view), (values, scores[..., 0]), strict=True):
        assert relative_error(got, expected) < 1e-6
    mesh, presence = network.mesh(crop)
    for got, expected in zip(ours.mesh(crop), (mesh, presence.sigmoid()), strict=True):
        assert relative_error(got, expected) < 1e-6
    expected = network.blendshapes(points[:, network._bs_idx, :2])
    assert relative_error(ours.blendshapes(points), expected) < 1e-6


def test_the_names_and_points_are_comfyuis(theirs):
    assert theirs.BLENDSHAPE_NAMES == BLENDSHAPES
    assert theirs._BS_INPUT_INDICES == BLENDSHAPE_POINTS
