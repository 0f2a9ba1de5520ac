import io
import logging
import os
import pickle
import sys
import time

import numpy as np
import pytest
import torch
import torch._utils
from safetensors.torch import load_file, save_file

from capface.errors import BadFile, BadInput, MissingFile
from capface.flame import HeadParams, load_flame, render_head
from capface.flame.io.flame_files import LANDMARKS_FILE, MODEL_FILE, TEMPLATE_FILE, TEXTURE_FILE, read_texture
from capface.flame.io.load import NEUTRAL_SKIN, convert_flame
from capface.tests.flame import flame_files
from capface.tests.flame.heads import forward_numbers, golden_heads, golden_model
from capface.tests.synthetic import relative_error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """FLAME's files, all of them."""
    folder = tmp_path_factory.mktemp("flame")
    flame_files.write_flame(folder, skin=True)
    return folder


@pytest.fixture(scope="module")
def flame(folder):
    return load_flame(folder / MODEL_FILE)


def test_the_published_layout_gives_the_published_codes_values(flame):
    golden, heads = forward_numbers(), golden_heads()
    vertices = flame.vertices(heads)
    assert (flame.n_shape, flame.n_expression) == (100, 50)
    assert relative_error(vertices, golden["out_vertices"]) < 1e-5
    assert relative_error(flame.landmarks(heads, vertices), golden["out_landmarks2d"]) < 1e-5
    assert relative_error(flame.fixed_landmarks(vertices), golden["out_landmarks3d"]) < 1e-5


def test_reading_needs_neither_chumpy_nor_scipy(folder, monkeypatch):
    for name in ("chumpy", "scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    load_flame(folder / MODEL_FILE)


def test_uvs_follow_the_models_faces(flame):
    ours = flame.uv[flame.uv_faces]
    theirs = torch.from_numpy(forward_numbers()["uv"])[flame.faces]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_texture_is_half_size_rgb_and_its_first_components(tmp_path, order):
    mean, basis = flame_files.write_texture(tmp_path / TEXTURE_FILE, order=order)
    read = read_texture(tmp_path / TEXTURE_FILE)
    expected = mean[::2, ::2, ::-1].astype(np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(read["texture_mean"], expected, atol=1e-7)
    expected = basis[::2, ::2, ::-1, :50].astype(np.float32).transpose(3, 2, 0, 1) / 255
    np.testing.assert_allclose(read["texture_basis"], expected, atol=1e-7)


def test_without_a_texture_the_head_has_one_colour(tmp_path):
    model = load_flame(flame_files.write_flame(tmp_path, landmarks=False))
    maps = render_head(model, HeadParams.neutral(), 32, 32)
    inside = maps.alpha.expand(-1, 3, -1, -1) > 0
    expected = torch.tensor(NEUTRAL_SKIN).view(1, 3, 1, 1).expand_as(maps.albedo)
    torch.testing.assert_close(maps.albedo[inside], expected[inside])
    with pytest.raises(BadInput, match="landmark embedding"):
        model.landmarks(HeadParams.neutral())


def test_a_texture_without_the_template_names_the_template(folder, tmp_path):
    (tmp_path / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes())
    with pytest.raises(MissingFile, match=r"head_template\.obj"):
        load_flame(tmp_path / MODEL_FILE, texture=folder / TEXTURE_FILE)
    model = load_flame(tmp_path / MODEL_FILE, texture=folder / TEXTURE_FILE, template=folder / TEMPLATE_FILE)
    assert model.texture_basis is not None
    assert model.texture_basis.shape == (50, 3, 256, 256) and model.table is None


def test_one_safetensors_file_gives_the_same_head(folder, flame, tmp_path):
    target = convert_flame(folder / MODEL_FILE, tmp_path / "flame.safetensors")
    again = load_flame(target)
    heads = golden_heads()
    assert torch.equal(again.vertices(heads), flame.vertices(heads))
    assert torch.equal(again.landmarks(heads), flame.landmarks(heads))
    assert torch.equal(again.albedo(heads), flame.albedo(heads))
    assert again.uv_faces is not None and torch.equal(again.uv_faces, flame.uv_faces)
    assert (again.kind, again.name) == (flame.kind, flame.name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flame.safetensors"]


def test_a_full_size_safetensors_file_loads_in_half_a_second(folder, tmp_path):
    rng = np.random.default_rng(3)
    full = {
        **forward_numbers(),
        "v_template": rng.normal(size=(5023, 3)),
        "faces": rng.integers(1600, size=(9976, 3)) + np.array([0, 1700, 3400]),
        "shapedirs": rng.normal(size=(5023, 3, 150)),
        "posedirs": rng.normal(size=(5023, 3, 36)),
        "J_regressor": np.full((5, 5023), 1 / 5023),
        "weights": np.full((5023, 5), 0.2),
    }
    flame_files.write_flame(tmp_path, content=flame_files.model_content(full))
    flame_files.write_template(tmp_path / TEMPLATE_FILE, full["faces"], rng.random((5118, 2)))
    target = convert_flame(tmp_path / MODEL_FILE, tmp_path / "flame.safetensors", texture=folder / TEXTURE_FILE)
    seconds, model = [], None
    for _ in range(3):
        start = time.perf_counter()
        model = load_flame(target)
        seconds.append(time.perf_counter() - start)
    print(f"{target.stat().st_size / 1e6:.0f} MB in {min(seconds):.3f} s")
    assert model is not None and model.texture_basis is not None
    assert model.vertices(HeadParams.neutral()).shape == (1, 5023, 3) and model.texture_basis.shape == (50, 3, 256, 256)
    assert min(seconds) < 0.5


def test_flame_2020_is_recognized_by_its_checksum(folder, monkeypatch, caplog):
    from hashlib import md5

    monkeypatch.setattr("capface.flame.io.flame_files.FLAME_2020_MD5", md5((folder / MODEL_FILE).read_bytes()).hexdigest())
    with caplog.at_level(logging.WARNING, "capface"):
        assert load_flame(folder / MODEL_FILE).kind == "flame2020"
    assert not caplog.messages


@pytest.mark.parametrize("named", ["generic_model.pkl", "flame2023_no_jaw.pkl"])
def test_flame_2023_is_recognized_with_a_warning_about_its_meaning(tmp_path, caplog, named):
    content = flame_files.model_content() if "2023" in named else flame_files.flame_2023_content()
    (tmp_path / named).write_bytes(flame_files.python2_pickle(content))
    converted = convert_flame(tmp_path / named, tmp_path / "head.safetensors")
    for file in (tmp_path / named, converted):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "capface"):
            model = load_flame(file)
        assert (model.kind, model.name) == ("flame2023", "FLAME 2023")
        assert (
            "expression basis" in caplog.text
            and "not those that CapFace was trained with" in caplog.text
            and file.name in caplog.text
        )


def test_a_file_of_neither_version_is_treated_as_2020_with_a_warning(folder, caplog):
    with caplog.at_level(logging.WARNING, "capface"):
        assert load_flame(folder / MODEL_FILE).kind == "flame"
    assert "not the published file of FLAME 2020" in caplog.text


# Hostile files


class Runs:
    """Runs code when it is unpickled."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def hostile(marker):
    """Pickles that would create a folder, with the code in every place where a pickle can hold some."""
    attack = Runs(os.mkdir, str(marker))
    content = flame_files.model_content
    yield "os.mkdir", pickle.dumps(attack)
    yield "system", pickle.dumps(Runs(os.system, f"mkdir {marker}"), 2)
    yield "eval", pickle.dumps(Runs(eval, f"__import__('os').mkdir({str(marker)!r})"), 4)
    yield "getattr", pickle.dumps(Runs(getattr, 1, "real"))
    yield "nested", pickle.dumps({**content_arrays(content()), "shapedirs": [[{"deep": (attack,)}]]})
    yield "in a state", pickle.dumps({"f": Hides(attack)})
    yield "dotted name", b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93."
    yield "torch.load", pickle.dumps(Runs(torch.load, "nothing"))
    yield "numpy's own loader", pickle.dumps(Runs(np.load, "nothing"))


class Hides:
    """Holds an object in its state."""

    def __init__(self, state):
        self.hidden = state


def content_arrays(content):
    """The content without the missing classes."""
    return {key: value for key, value in content.items() if isinstance(value, np.ndarray | str)}


def test_a_files_code_does_not_run(tmp_path):
    marker = tmp_path / "code-ran"
    for number, (what, data) in enumerate(hostile(marker)):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(data)
        with pytest.raises(BadFile, match="never run"):
            load_flame(path)
        assert not marker.exists(), what


def test_these_attacks_would_succeed_elsewhere(tmp_path):
    """Tests the test: with an unrestricted unpickler, the pickles do run their code."""
    marker = tmp_path / "code-ran"
    for what, data in list(hostile(marker))[:3]:
        pickle.loads(data)
        assert marker.is_dir(), what
        marker.rmdir()


def test_code_in_the_landmarks_is_not_run_either(folder, tmp_path):
    marker = tmp_path / "code ran"
    content = flame_files.landmark_content()
    inner = io.BytesIO()
    torch.save(Runs(os.mkdir, str(marker)), inner, _use_new_zipfile_serialization=False)
    storage = Runs(torch.storage._load_from_bytes, inner.getvalue())
    tensor = Runs(torch._utils._rebuild_tensor_v2, storage, 0, (79, 17), (17, 1), False, {})
    for changes, words in (
        ({"static_lmk_faces_idx": Runs(os.mkdir, str(marker))}, "never run"),
        ({"dynamic_lmk_faces_idx": tensor}, "dynamic_lmk_faces_idx"),
    ):
        np.save(tmp_path / LANDMARKS_FILE, np.array({**content, **changes}), allow_pickle=True)
        with pytest.raises(BadFile, match=words):
            load_flame(folder / MODEL_FILE, landmarks=tmp_path / LANDMARKS_FILE)
        assert not marker.exists()


def test_setting_the_state_of_a_class_changes_nothing_for_the_next_file(folder, tmp_path):
    (tmp_path / "state.pkl").write_bytes(b"\x80\x02cnumpy\nndarray\n}X\x03\x00\x00\x00fooK\x01sb.")
    with pytest.raises(BadFile):
        load_flame(tmp_path / "state.pkl")
    load_flame(folder / MODEL_FILE)


# Other files


def nan_content():
    content = flame_files.model_content()
    content["v_template"].x[7, 1] = np.nan
    return content


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda: b"", "empty"),
        (lambda: b"\n<!DOCTYPE html><html>", "web page"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (lambda: b"PK\x03\x04" + bytes(100), "zip file.*unpack"),
        (lambda: b"\x80\x02}q\x01(U\x01f", "truncated"),
        (lambda: b"just some text", "not a pickle"),
        (lambda: pickle.dumps({"face": np.zeros(3), "ears": 1}), "a dictionary of ears, face.*FLAME 2020.*cfc3b951"),
        (lambda: pickle.dumps([1, 2]), "a list"),
        (
            lambda: flame_files.python2_pickle({**flame_files.model_content(), "shapedirs": np.zeros((4, 3, 10))}),
            r"\[4, 3, 10\]",
        ),
        (lambda: flame_files.python2_pickle({**flame_files.model_content(), "weights": "none"}), "weights: expected an array"),
        (lambda: flame_files.python2_pickle({**flame_files.model_content(), "weights": np.zeros((3, 5))}), r"\[642, 5\]"),
        (lambda: flame_files.python2_pickle(nan_content()), "v_template: holds NaN"),
    ],
)
def test_the_message_says_what_another_file_is(tmp_path, write, words):
    (tmp_path / "file.pkl").write_bytes(write())
    with pytest.raises(BadFile, match=words) as error:
        load_flame(tmp_path / "file.pkl")
    assert "file.pkl" in str(error.value)


def test_a_missing_file_is_named(folder, tmp_path):
    with pytest.raises(MissingFile, match=r"generic_model\.pkl"):
        load_flame(tmp_path / MODEL_FILE)
    for name, file in (("landmarks", LANDMARKS_FILE), ("texture", TEXTURE_FILE)):
        with pytest.raises(MissingFile, match=file):
            load_flame(folder / MODEL_FILE, **{name: tmp_path / file})


def test_other_landmark_files_are_refused(folder, tmp_path):
    for content, words in (
        ({"lmk_face_idx": np.arange(51)}, "a dictionary of lmk_face_idx"),
        (
            {**flame_files.landmark_content(), "full_lmk_bary_coords": np.full((68, 3), np.nan)},
            "full_lmk_bary_coords: holds NaN",
        ),
        ({**flame_files.landmark_content(), "static_lmk_faces_idx": np.full(51, 9975)}, "1280 faces"),
    ):
        np.save(tmp_path / LANDMARKS_FILE, np.array(content), allow_pickle=True)
        with pytest.raises(BadFile, match=words):
            load_flame(folder / MODEL_FILE, landmarks=tmp_path / LANDMARKS_FILE)
    for data in (b"no array", (folder / LANDMARKS_FILE).read_bytes()[:300]):
        (tmp_path / LANDMARKS_FILE).write_bytes(data)
        with pytest.raises(BadFile, match="cannot be read as landmarks"):
            load_flame(folder / MODEL_FILE, landmarks=tmp_path / LANDMARKS_FILE)


def test_other_templates_are_refused(folder, tmp_path):
    numbers = forward_numbers()
    flame_files.write_template(tmp_path / TEMPLATE_FILE, numbers["faces"][:-2], numbers["uv"])
    with pytest.raises(BadFile, match="2 of the model's 1280 faces"):
        load_flame(folder / MODEL_FILE, template=tmp_path / TEMPLATE_FILE)
    for text in ("v 0 0 0\nf 1 2 3\n", "f a/b c/d e/f\n", "", "f 1/1 2/2 3/3 4/4\n"):
        (tmp_path / TEMPLATE_FILE).write_text("# a mesh\n" + text)
        with pytest.raises(BadFile, match="not an OBJ file of triangles"):
            load_flame(folder / MODEL_FILE, template=tmp_path / TEMPLATE_FILE)


def test_other_textures_are_refused(tmp_path):
    flame_files.write_texture(tmp_path / TEXTURE_FILE)
    whole = (tmp_path / TEXTURE_FILE).read_bytes()
    small = {"mean": np.zeros((64, 64, 3)), "tex_dir": np.zeros((64, 64, 3, 60))}
    for write, words in (
        (lambda path: path.write_bytes(whole[: 10**6]), "broken"),
        (lambda path: np.savez(path, MU=np.zeros(3)), "it holds MU"),
        (lambda path: np.savez(path, **small), r"\[32, 32, 3\]"),
        (lambda path: np.savez(path, mean=np.zeros(3), tex_dir=np.zeros(3)), r"mean has shape \[3\]"),
    ):
        write(tmp_path / TEXTURE_FILE)
        with pytest.raises(BadFile, match=words):
            read_texture(tmp_path / TEXTURE_FILE)


def test_other_safetensors_files_are_refused(folder, tmp_path):
    save_file({"lora_up.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(BadFile, match=r"not a head model: it holds lora_up\.weight"):
        load_flame(tmp_path / "a.safetensors")
    whole = convert_flame(folder / MODEL_FILE, tmp_path / "b.safetensors")
    tensors = load_file(whole)
    tensors["shapedirs"][0, 0, 0] = float("nan")
    metadata = {"format": "CapFace head", "kind": "flame2020"}
    save_file(tensors, tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(BadFile, match=r"c\.safetensors.*shapedirs: holds NaN"):
        load_flame(tmp_path / "c.safetensors")
    tensors["shapedirs"][0, 0, 0] = 0
    del tensors["faces"]
    save_file(tensors, tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(BadFile, match="faces"):
        load_flame(tmp_path / "c.safetensors")
    (tmp_path / "b.safetensors").write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(BadFile, match="broken safetensors"):
        load_flame(tmp_path / "b.safetensors")


def test_a_texture_of_its_own_model_equals_the_golden_albedo(folder, tmp_path):
    """The golden texture, enlarged to FLAME's size and in its channel order, renders like the golden model."""
    golden = golden_model()
    assert golden.texture_mean is not None
    mean = golden.texture_mean.repeat_interleave(8, 1).repeat_interleave(8, 2).flip(0).permute(1, 2, 0).numpy() * 255
    np.savez(tmp_path / TEXTURE_FILE, mean=mean.astype(np.float32), tex_dir=np.zeros((512, 512, 3, 50), np.int8))
    model = load_flame(folder / MODEL_FILE, texture=tmp_path / TEXTURE_FILE)
    ours = render_head(model, golden_heads()[0], 48, 48).albedo
    theirs = render_head(golden, golden_heads()[0], 48, 48).albedo
    assert (ours - theirs).abs().mean() < 0.02
    assert (ours.flip(1) - theirs).abs().mean() > (ours - theirs).abs().mean() * 2  # reversed channels differ
