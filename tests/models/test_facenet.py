import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from capface.errors import BadFile, BadInput, MissingFile
from capface.models.faces.facenet import FaceNet, load_facenet
from capface.tests.synthetic import noise, relative_error, state_dict

CLASSIFIER = {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}


@pytest.fixture(scope="module")
def weights():
    return state_dict("facenet.shapes.json", "facenet.")


@pytest.fixture(scope="module")
def expected(golden):
    with np.load(golden / "encoders.npz") as file:
        return torch.from_numpy(file["facenet"])


@pytest.fixture(scope="module")
def hollow(weights):
    """The right keys and shapes in a file of a few kilobytes: every tensor repeats one value."""
    return {key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for key, tensor in weights.items()}


@pytest.fixture(scope="module")
def published(weights, tmp_path_factory):
    """A file in the layout of the published one."""
    path = tmp_path_factory.mktemp("facenet") / "20180402-114759-vggface2.pt"
    torch.save(weights | CLASSIFIER, path)
    return path


@pytest.fixture(scope="module")
def network(published):
    return load_facenet(published)


def faces():
    return noise(600, (2, 3, 160, 160)).clamp(-1, 1)


class Casting:
    """Layers that cast their weights to the input's type, like a host's."""

    class Linear(torch.nn.Linear):
        def forward(self, input):
            bias = None if self.bias is None else self.bias.to(input)
            return torch.nn.functional.linear(input, self.weight.to(input), bias)

    class Conv2d(torch.nn.Conv2d):
        def forward(self, input):
            return self._conv_forward(input, self.weight.to(input), None if self.bias is None else self.bias.to(input))


def test_keys_and_shapes_are_the_published_ones(golden):
    shapes = json.loads((golden / "facenet.shapes.json").read_text())
    assert {key: list(tensor.shape) for key, tensor in FaceNet(device="meta").state_dict().items()} == shapes


def test_loaded_file_gives_the_released_codes_vectors(network, expected):
    vectors = network(faces())
    assert relative_error(vectors, expected) < 1e-5
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2))
    assert not vectors.requires_grad


def test_training_mode_changes_nothing(network, expected):
    vectors = network.train()(faces()[:1])
    network.eval()
    assert relative_error(vectors, expected[:1]) < 1e-5


def test_safetensors_without_the_classifier_loads_alike(weights, tmp_path, expected):
    save_file(weights, tmp_path / "facenet.safetensors")
    assert relative_error(load_facenet(tmp_path / "facenet.safetensors")(faces()[:1]), expected[:1]) < 1e-5


def test_half_precision_weights_run_on_float32_faces_through_casting_layers(published, expected):
    network = load_facenet(published, dtype=torch.float16, operations=Casting)
    assert network.conv2d_1a.conv.weight.dtype == torch.float16
    assert network.conv2d_1a.bn.get_buffer("running_var").dtype == torch.float32
    vectors = network(faces()[:1])
    assert vectors.dtype == torch.float32
    assert relative_error(vectors, expected[:1]) < 1e-2


def test_every_convolution_and_linear_layer_comes_from_operations(weights):
    network = FaceNet(device="meta", operations=Casting)
    cast = [m for m in network.modules() if isinstance(m, Casting.Conv2d | Casting.Linear)]
    assert len(cast) == sum(tensor.ndim >= 2 for tensor in weights.values())


@pytest.mark.parametrize("shape", [(3, 160, 160), (1, 3, 112, 112), (1, 160, 160, 3)])
@pytest.mark.usefixtures("without_type_checks")
def test_faces_of_another_shape_are_refused(shape):
    with pytest.raises(BadInput, match=r"\[B, 3, 160, 160\], got"):
        FaceNet(device="meta")(torch.zeros(shape, device="meta"))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"facenet\.pt"):
        load_facenet(tmp_path / "facenet.pt")


def test_facenet_of_other_people_is_refused(hollow, tmp_path):
    path = tmp_path / "20180408-102900-casia-webface.pt"
    torch.save(hollow | {"logits.weight": torch.zeros(10575, 1), "logits.bias": torch.zeros(10575)}, path)
    with pytest.raises(BadFile, match=r"10,575 people.*vggface2"):
        load_facenet(path)


def test_arcface_onnx_is_named(tmp_path):
    path = tmp_path / "w600k_r50.onnx"
    path.write_bytes(b"\x08\x06\x12\x07pytorch" + bytes(64))
    with pytest.raises(BadFile, match=r"ONNX network.*ArcFace.*vggface2"):
        load_facenet(path)


@pytest.mark.parametrize(
    ("state", "looks_like"),
    [
        ({"E_flame.layers.0.weight": torch.zeros(4)}, "DECA"),
        ({"lora_unet_mid.lora_up.weight": torch.zeros(4)}, "LoRA"),
        ({"fc.weight": torch.zeros(512, 4), "layer1.0.bn1.weight": torch.zeros(64)}, "not FaceNet"),
    ],
)
def test_another_network_is_named(tmp_path, state, looks_like):
    torch.save(state, tmp_path / "facenet.pt")
    with pytest.raises(BadFile, match=rf"{looks_like}.*vggface2"):
        load_facenet(tmp_path / "facenet.pt")


def test_truncated_file_and_web_page_are_refused(published, tmp_path):
    half = tmp_path / "half.pt"
    half.write_bytes(published.read_bytes()[:100_000])
    with pytest.raises(BadFile, match="truncated"):
        load_facenet(half)
    page = tmp_path / "page.pt"
    page.write_text("<!DOCTYPE html><html>")
    with pytest.raises(BadFile, match="web page"):
        load_facenet(page)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("repeat_2.3.conv2d.bias"), r"repeat_2\.3\.conv2d\.bias is missing"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), r"extra\.weight does not belong"),
        (lambda s: s.update({"last_linear.weight": torch.zeros(128, 1792)}), r"\[128, 1792\] instead of \[512, 1792\]"),
    ],
)
def test_loading_is_strict(hollow, tmp_path, change, message):
    state = dict(hollow)
    change(state)
    torch.save(state, tmp_path / "facenet.pt")
    with pytest.raises(BadFile, match=message):
        load_facenet(tmp_path / "facenet.pt")
