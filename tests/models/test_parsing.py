import numpy as np
import pytest
import torch

from capface.errors import BadFile, BadInput
from capface.models.faces.parsing import LABELS, FaceParser, keep_face, load_parser
from capface.tests.synthetic import noise, relative_error, state_dict


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file in the layout of the published ones, with the heads that only training uses."""
    path = tmp_path_factory.mktemp("parsing") / "79999_iter.pth"
    torch.save(state_dict("parsing.shapes.json", "parsing."), path)
    return path


@pytest.fixture(scope="module")
def parser(published):
    return load_parser(published)


def image():
    return noise(620, (1, 3, 48, 40)).clamp(-2, 2) * 0.25 + 0.5


def test_scores_equal_facexlibs_network(parser, golden):
    with np.load(golden / "parsing.npz") as file:
        expected = torch.from_numpy(file["scores"])
    assert relative_error(parser(image()), expected) < 1e-5
    assert torch.equal(parser.parse(image()), expected.argmax(dim=1))


@pytest.mark.parametrize("size", [(101, 77), (64, 32)])
def test_labels_have_the_images_size(parser, size):
    assert parser.parse(torch.rand(2, 3, *size)).shape == (2, *size)


@pytest.mark.usefixtures("without_type_checks")
def test_another_shape_is_refused():
    with pytest.raises(BadInput, match=r"\[B, 3, H, W\], got \[64, 64, 3\]"):
        FaceParser(device="meta")(torch.zeros(64, 64, 3, device="meta"))


KEPT = {"skin", "left brow", "right brow", "left eye", "right eye", "glasses", "nose", "mouth", "upper lip", "lower lip"}
EARS = {"left ear", "right ear", "earring"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, KEPT),
        ({"hair": True}, KEPT | {"hair"}),
        ({"ears": True}, KEPT | EARS),
        ({"hair": True, "ears": True}, KEPT | EARS | {"hair"}),
    ],
)
def test_the_pixels_that_each_option_keeps(options, kept):
    labels = torch.arange(len(LABELS)).view(1, 1, -1)
    images = torch.full((1, 3, 1, len(LABELS)), 0.3)
    out = keep_face(images, labels, **options)[0, :, 0]
    assert {LABELS[i] for i in range(len(LABELS)) if (out[:, i] == 0.3).all()} == kept
    assert {LABELS[i] for i in range(len(LABELS)) if (out[:, i] == 1).all()} == set(LABELS) - kept


@pytest.mark.usefixtures("without_type_checks")
def test_labels_of_another_size_are_refused():
    with pytest.raises(BadInput, match=r"\[1, 8, 9\] and \[1, 3, 8, 8\]"):
        keep_face(torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 9))


def test_another_network_is_named(tmp_path):
    torch.save({"conv2d_1a.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "parsing.pth")
    with pytest.raises(BadFile, match=r"FaceNet.*not the face parser BiSeNet.*79999_iter\.pth"):
        load_parser(tmp_path / "parsing.pth")


def test_a_missing_layer_is_named(tmp_path, published):
    state = torch.load(published, weights_only=True)
    del state["cp.arm16.conv_atten.weight"]
    torch.save(state, tmp_path / "parsing.pth")
    with pytest.raises(BadFile, match=r"cp\.arm16\.conv_atten\.weight is missing"):
        load_parser(tmp_path / "parsing.pth")
