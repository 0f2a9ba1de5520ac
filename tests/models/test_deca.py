import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from capface.errors import BadFile, BadInput
from capface.models.faces.deca import CODE_SIZE, DecaEncoder, load_deca, split_code
from capface.tests.synthetic import noise, relative_error, state_dict


@pytest.fixture(scope="module")
def weights():
    return state_dict("deca_encoder.shapes.json", "E_flame.")


@pytest.fixture(scope="module")
def expected(golden):
    with np.load(golden / "encoders.npz") as file:
        return torch.from_numpy(file["deca"])


@pytest.fixture(scope="module")
def published(weights, tmp_path_factory):
    """A file in DECA's layout: several networks and an optimizer, each a separate dictionary."""
    path = tmp_path_factory.mktemp("deca") / "deca_model.tar"
    other = {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save({"E_detail": other, "E_flame": weights, "D_detail": {"l1.0.weight": torch.ones(2)}, "opt": {"state": {}}}, path)
    return path


def crop():
    return noise(610, (1, 3, 224, 224)).clamp(-2, 2) * 0.25 + 0.5


def test_keys_and_shapes_are_the_published_ones(golden):
    shapes = json.loads((golden / "deca_encoder.shapes.json").read_text())
    assert {key: list(tensor.shape) for key, tensor in DecaEncoder(device="meta").state_dict().items()} == shapes


def test_loaded_file_gives_the_released_codes_parameters(published, expected):
    assert relative_error(load_deca(published)(crop()), expected) < 1e-5


def test_safetensors_loads_alike(weights, tmp_path, expected):
    save_file({f"E_flame.{key}": tensor for key, tensor in weights.items()}, tmp_path / "deca.safetensors")
    assert relative_error(load_deca(tmp_path / "deca.safetensors")(crop()), expected) < 1e-5


def test_code_is_split_in_the_published_order():
    code = torch.arange(2 * CODE_SIZE).reshape(2, CODE_SIZE)
    parts = split_code(code)
    starts = {"shape": 0, "texture": 100, "expression": 150, "rotation": 200, "jaw": 203, "camera": 206, "light": 209}
    for name, start in starts.items():
        assert getattr(parts, name)[0].flatten()[0] == start, name
    assert parts.light.shape == (2, 9, 3)
    assert parts.light[0, 1].tolist() == [212, 213, 214]  # colours vary fastest
    assert parts.jaw.shape == parts.camera.shape == (2, 3)


@pytest.mark.parametrize("shape", [(236,), (1, 159)])
@pytest.mark.usefixtures("without_type_checks")
def test_code_of_another_shape_is_refused(shape):
    with pytest.raises(BadInput, match=r"\[B, 236\]"):
        split_code(torch.zeros(shape))


@pytest.mark.usefixtures("without_type_checks")
def test_crops_of_another_shape_are_refused():
    with pytest.raises(BadInput, match=r"\[B, 3, 224, 224\], got \[1, 3, 256, 256\]"):
        DecaEncoder(device="meta")(torch.zeros(1, 3, 256, 256, device="meta"))


def test_file_without_the_coarse_encoder_is_named(tmp_path):
    torch.save({"conv2d_1a.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "deca_model.tar")
    with pytest.raises(BadFile, match=r"FaceNet.*without DECA's E_flame.*deca_model\.tar"):
        load_deca(tmp_path / "deca_model.tar")


def test_encoder_of_another_size_is_refused(weights, tmp_path):
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in weights.items()} | {
        "layers.2.weight": torch.zeros(159, 1024)
    }
    torch.save({"E_flame": state}, tmp_path / "deca_model.tar")
    with pytest.raises(BadFile, match=r"layers\.2\.weight has shape \[159, 1024\] instead of \[236, 1024\]"):
        load_deca(tmp_path / "deca_model.tar")
