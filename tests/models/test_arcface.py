import sys

import numpy as np
import pytest
import torch

from capface.errors import BadFile, MissingFile, MissingPackage
from capface.models.faces.arcface import ArcFace
from capface.tests.models.test_detection import onnx_file, write_landmarks, write_scrfd

POINTS = torch.tensor([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Positions of eyes, nose and mouth corners in ArcFace's crop of 112 × 112 (insightface's values)."""


def write_recogniser(path):
    """Write a recognition network whose vectors are the colours of the crop's sixteen parts, RGB centred at 0."""
    nodes = [
        ("AveragePool", ["image"], "parts", {"kernel_shape": [28, 28], "strides": [28, 28]}),
        ("Reshape", ["parts", "flat"], "vector", {}),
    ]
    constants = {"flat": np.array([1, 48], dtype=np.int64)}
    onnx_file(path, [("image", [1, 3, 112, 112])], [("vector", [1, 48])], nodes, constants)


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("insightface", reason="insightface is not installed")
    pytest.importorskip("onnx", reason="onnx, which writes the tiny networks, is not installed")
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    write_scrfd(pack / "det_10g.onnx")
    write_recogniser(pack / "w600k_r50.onnx")
    return tmp_path


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")  # insightface's alignment, with a new scikit-image
def test_it_gets_the_aligned_face_in_rgb(root):
    face = torch.rand(3, 4, 4).repeat_interleave(28, 1).repeat_interleave(28, 2)
    face = (face * 255).round() / 255
    expected = face.unflatten(1, (4, 28)).unflatten(3, (4, 28)).mean((2, 4)).flatten() * 2 - 1
    vector = ArcFace(root).embed(face, POINTS)
    assert torch.allclose(vector, expected / expected.norm(), atol=1e-3)
    photo = torch.zeros(3, 300, 260)
    photo[:, 100:212, 90:202] = face
    moved = ArcFace(root).embed(photo, POINTS + torch.tensor([90.0, 100.0]))
    assert torch.allclose(moved, vector, atol=1e-3)


def test_a_pack_without_recognition_is_named(root):
    (root / "models" / "buffalo_l" / "w600k_r50.onnx").unlink()
    with pytest.raises(MissingFile, match=r"buffalo_l has no recognition network .*buffalo_l\.zip"):
        ArcFace(root)
    with pytest.raises(MissingFile, match="antelopev2 is not in"):
        ArcFace(root, "antelopev2")


def test_another_network_under_its_name_is_named(root):
    write_landmarks(root / "models" / "buffalo_l" / "w600k_r50.onnx")
    with pytest.raises(BadFile, match=r"does landmark_3d_68, expected recognition"):
        ArcFace(root)


def test_missing_insightface_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", None)
    with pytest.raises(MissingPackage, match="pip install insightface onnxruntime"):
        ArcFace(root)
