"""Load Head Model and Convert Head Model, with files in FLAME's layout in models/flame."""

import logging

import pytest
import torch

from capface.errors import BadFile, BadInput, MissingFile
from capface.flame import HeadParams, render_head
from capface.flame.io.flame_files import LANDMARKS_FILE, MODEL_FILE, TEMPLATE_FILE, TEXTURE_FILE
from capface.tests.flame import flame_files
from capface.tests.flame.heads import forward_numbers, golden_heads


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flame")
    flame_files.write_flame(folder, skin=True)
    return folder


@pytest.fixture
def folder(in_host, tmp_path, written):
    """A separate models/flame with all of FLAME's files."""
    from capface.host import model_folders

    model_folders.register_folders()
    in_host.folder_paths.add_model_folder_path("flame", str(tmp_path), is_default=True)
    for name in (MODEL_FILE, LANDMARKS_FILE, TEMPLATE_FILE, TEXTURE_FILE):
        (tmp_path / name).symlink_to(written / name)
    yield tmp_path
    in_host.folder_paths.folder_names_and_paths["flame"][0].remove(str(tmp_path))


def load(name):
    from capface.nodes.load_head_model import LoadHeadModel

    return LoadHeadModel.execute(name).result[0]


def offered(node):
    options = node.INPUT_TYPES()["required"]["model"]
    return options[0] if isinstance(options[0], list) else options[1]["options"]


def test_models_are_listed_without_their_companion_files(folder):
    from capface.nodes.load_head_model import ConvertHeadModel, LoadHeadModel

    assert offered(LoadHeadModel)[0] == "built-in"
    assert MODEL_FILE in offered(LoadHeadModel) and MODEL_FILE in offered(ConvertHeadModel)
    assert not {LANDMARKS_FILE, TEMPLATE_FILE, TEXTURE_FILE} & set(offered(LoadHeadModel))


def test_without_flame_its_file_is_listed_and_choosing_it_gives_a_remedy(in_host):
    from capface.host import model_folders
    from capface.nodes.load_head_model import LoadHeadModel

    model_folders.register_folders()
    assert offered(LoadHeadModel) == ["built-in", MODEL_FILE]
    with pytest.raises(MissingFile) as error:
        load(MODEL_FILE)
    for part in (MODEL_FILE, "models/flame", "flame.is.tue.mpg.de", "non-commercial", "cfc3b95159b2a8981ebc347170202ba5"):
        assert part in str(error.value)


def test_the_built_in_head_needs_no_file(in_host):
    assert load("built-in").kind == "builtin"


def test_flame_loads_with_its_companion_files(folder):
    model = load(MODEL_FILE)
    assert model.texture_basis.shape == (50, 3, 256, 256)
    expected = torch.from_numpy(forward_numbers()["out_landmarks2d"])
    torch.testing.assert_close(model.landmarks(golden_heads()), expected, atol=1e-5, rtol=1e-4)


def test_files_in_another_model_folder_are_found(folder, in_host, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    in_host.folder_paths.add_model_folder_path("flame", str(other))
    (folder / LANDMARKS_FILE).rename(other / LANDMARKS_FILE)
    assert load(MODEL_FILE).has_landmarks
    in_host.folder_paths.folder_names_and_paths["flame"][0].remove(str(other))


def test_a_missing_file_is_named_with_its_source(folder, caplog):
    (folder / LANDMARKS_FILE).unlink()
    (folder / TEXTURE_FILE).unlink()
    with caplog.at_level(logging.WARNING, "capface"):
        model = load(MODEL_FILE)
    assert not model.has_landmarks
    assert "landmark_embedding.npy" in caplog.text and "yfeng95/DECA" in caplog.text
    assert "FLAME_texture.npz" in caplog.text and "2a3982db7667c32d0dd13351aa6758f7" in caplog.text
    assert render_head(model, HeadParams.neutral(), 32, 32).alpha.sum() > 50


def test_a_texture_without_the_template_is_an_error_with_the_templates_source(folder):
    (folder / TEMPLATE_FILE).unlink()
    with pytest.raises(MissingFile, match=r"head_template\.obj is not in .*yfeng95/DECA"):
        load(MODEL_FILE)


def test_a_replaced_file_beside_the_model_is_loaded_again(folder):
    from capface.nodes.load_head_model import LoadHeadModel

    before = LoadHeadModel.fingerprint_inputs(MODEL_FILE)
    assert LoadHeadModel.fingerprint_inputs(MODEL_FILE) == before
    (folder / LANDMARKS_FILE).unlink()
    assert LoadHeadModel.fingerprint_inputs(MODEL_FILE) != before


def test_the_converted_file_replaces_all_files(folder):
    from capface.nodes.load_head_model import ConvertHeadModel

    before = load(MODEL_FILE)
    (path,) = ConvertHeadModel.execute(MODEL_FILE, "flame", False).result
    assert path == str(folder / "flame.safetensors")
    for name in (MODEL_FILE, LANDMARKS_FILE, TEMPLATE_FILE, TEXTURE_FILE):
        (folder / name).unlink()
    model, heads = load("flame.safetensors"), golden_heads()
    assert torch.equal(model.landmarks(heads), before.landmarks(heads))
    assert torch.equal(model.albedo(heads), before.albedo(heads))
    with pytest.raises(BadInput, match="exists already"):
        ConvertHeadModel.execute("flame.safetensors", "flame", False)


def test_another_file_is_refused_with_its_name(folder):
    (folder / "masks.pkl").write_bytes(flame_files.python2_pickle({"face": 1, "neck": 2}))
    with pytest.raises(BadFile, match=r"masks\.pkl is not FLAME: it holds a dictionary of face, neck"):
        load("masks.pkl")
