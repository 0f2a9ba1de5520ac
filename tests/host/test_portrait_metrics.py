"""Measuring real photos through the node, with stand-ins for the networks."""

import importlib.metadata
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from capface.tests.models.test_open_clip_model import EMBEDDING, TEXT, VISION
from capface.tests.synthetic import fill

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
PARTS = ("ID similarity", "ArcFace", "landmark error", "shape, pose, expression and light", "CLIP score")


def smaller(pixels):
    """Halve an IMAGE, which makes detection four times as fast."""
    image = torch.from_numpy(pixels.astype(np.float32) / 255)[None].movedim(-1, 1)
    return torch.nn.functional.avg_pool2d(image, 2).movedim(1, -1).contiguous()


@pytest.fixture(scope="module")
def photo():
    import skimage.data

    return smaller(skimage.data.astronaut())


@pytest.fixture(scope="module")
def other():
    """Another person's photo, as large as the astronaut's."""
    from insightface.data import get_image

    picture = get_image("t1")
    assert picture is not None
    return smaller(picture[:512, :512, ::-1])


@pytest.fixture(scope="module")
def reader(in_host):
    from capface.host.model_folders import register_folders
    from capface.nodes.load_models import LoadFaceAnalyzer

    register_folders()
    return LoadFaceAnalyzer.execute("mtcnn", "20180402-114759-vggface2.pt").result[0]


@pytest.fixture(scope="module")
def head(photo, reader):
    """The built-in head, and the photo's head in it."""
    from capface.flame.builtin import builtin_head
    from capface.host.images import from_image
    from capface.photos.heads import fit_heads

    return {"head_model": builtin_head(), "head": fit_heads(from_image(photo), reader, builtin_head()).params}


@pytest.fixture
def clip_file(in_host, tmp_path):
    """A tiny CLIP in a separate models/open_clip."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    with torch.random.fork_rng():
        network = open_clip.CLIP(EMBEDDING, vision_cfg=VISION, text_cfg=TEXT)
    save_file({k: fill(f"clip.{k}", tuple(v.shape)) for k, v in network.state_dict().items()}, tmp_path / "tiny.safetensors")
    in_host.folder_paths.add_model_folder_path("open_clip", str(tmp_path), is_default=True)
    yield "tiny.safetensors"
    in_host.folder_paths.folder_names_and_paths["open_clip"][0].remove(str(tmp_path))


def run(image, reader, **wanted):
    from capface.nodes.measure_portrait import MeasurePortrait

    return MeasurePortrait.execute(image, reader, "largest", 0, **wanted).result


@pytest.fixture(autouse=True)
def no_preview(monkeypatch, in_host):
    """Disable the preview, which needs a running prompt."""
    from comfy_api.latest import ui

    monkeypatch.setattr(ui.PreviewImage, "__init__", lambda self, *a, **k: setattr(self, "values", []))
    monkeypatch.setattr(ui.PreviewImage, "as_dict", lambda self: {"images": []})


def rows(table):
    """Return the table's rows as lists of cells, up to the blank line."""
    return [line.split() for line in table.split("\n\n")[0].splitlines()]


def test_the_same_photo_is_the_same_person_and_another_is_less(photo, other, reader):
    table, _, similarity, *_ = run(photo, reader, reference=photo)
    assert similarity == pytest.approx(1, abs=1e-5)
    assert rows(table)[1] == ["1", "1.0000"]
    table, _, similarity, *_ = run(torch.cat([photo, other]), reader, reference=photo)
    assert rows(table)[1] == ["1", "1.0000"]
    assert float(rows(table)[2][1]) < 0.9999
    assert similarity == pytest.approx((1 + float(rows(table)[2][1])) / 2, abs=1e-4)
    assert rows(table)[3] == ["mean", f"{similarity:.4f}"]


def test_an_identity_gives_the_same_result_as_its_photo(photo, other, reader):
    from capface.host.identity.identity import RELEASED, Identity, null_identity
    from capface.host.images import from_image
    from capface.photos.portrait import cut_portrait

    images = from_image(photo)
    crop = cut_portrait(images[0], reader.find_faces(images, "largest", 0)[0], True)[1]
    identity = Identity(reader.embed(crop[None]), torch.zeros(1, RELEASED.local_tokens, RELEASED.local_width))
    for image in (photo, other):
        assert run(image, reader, identity=identity)[2] == pytest.approx(run(image, reader, reference=photo)[2], abs=1e-6)
    table = run(photo, reader, identity=null_identity(1))[0]
    assert rows(table)[1] == ["1", "-"]


def test_references_pair_with_images(photo, other, reader):
    both = torch.cat([photo, other])
    table = run(both, reader, reference=both)[0]
    assert [row[1] for row in rows(table)[1:]] == ["1.0000"] * 3
    crossed = run(both, reader, reference=both.flip(0))[0]
    assert all(float(row[1]) < 0.9999 for row in rows(crossed)[1:])


def test_a_head_is_near_its_own_photo_and_far_when_it_is_turned_or_moved(photo, reader, head):
    _, picture, _, error, *_ = run(photo, reader, **head)
    assert error < 6
    assert picture.shape == photo.shape
    assert (picture - photo).abs().amax(-1).gt(0.01).float().mean() > 0.02
    moved = head["head"].replace(camera=head["head"].camera + torch.tensor([[0.0, 0.2, 0.0]]))
    table, _, _, far, *_ = run(photo, reader, head=moved, head_model=head["head_model"])
    assert far > error + 10
    heading, row = table.splitlines()[:2]
    assert all(name in heading for name in ("landmarks %", "turn °", "position %", "size %"))
    assert len(row.split()) == 5
    assert float(row.split()[1]) == pytest.approx(far, abs=0.01)


def test_a_picture_without_a_face_is_named_and_the_others_are_measured(photo, reader, head):
    images = torch.cat([photo, torch.full_like(photo, 0.5)])
    table, picture, similarity, error, *_ = run(images, reader, reference=photo, **head)
    assert rows(table)[2][-2:] == ["no", "face"]
    assert similarity == pytest.approx(1, abs=1e-5)
    assert error < 6
    assert torch.equal(picture[1], images[1])
    table, picture, similarity, *_ = run(images[1:], reader, reference=photo)
    assert rows(table)[1] == ["1", "no", "face"]
    assert "Not measured: ID similarity. None of 1 images shows the face." in table
    assert math.isnan(similarity)
    assert torch.equal(picture, images[1:])


def test_parts_without_inputs_are_named_and_nan(photo, reader):
    table, _, *numbers = run(photo, reader)
    assert all(math.isnan(number) for number in numbers)
    for part in PARTS:
        assert table.count(f"Not measured: {part}. ") == 1


def test_parts_that_cannot_be_measured_give_the_reason(photo, reader, head, in_host):
    from capface.nodes.load_models import LoadFaceAnalyzer

    table = run(photo, reader, reference=photo, prompt="a face", clip="nobody.pt", **head)[0]
    assert "DECA's values are those of FLAME 2020" in table
    assert "nobody.pt is not in" in table
    assert "buffalo_l is not in" in table
    table = run(photo, reader, reference=torch.zeros_like(photo))[0]
    assert "Not measured: ID similarity. The reference: Image 1 of 1: The image is almost entirely black" in table
    (reader,) = LoadFaceAnalyzer.execute("mtcnn", "missing.pt").result
    assert "Not measured: ID similarity. missing.pt is not in" in run(photo, reader, reference=photo)[0]


def test_deca_measures_against_a_flame_condition(photo, reader, head, monkeypatch):
    """With a stand-in for DECA's network: its code, compared with a condition that differs by known values."""
    import dataclasses

    from capface.flame import HeadParams
    from capface.models.faces.deca import CODE_SIZE
    from capface.photos.analysis import FaceAnalyzer

    code = torch.zeros(1, CODE_SIZE)
    code[:, CODE_SIZE - 30] = 5  # the camera's scale, before the light
    crops = torch.diag(torch.tensor([0.5, 0.5, 1.0]))[None]
    monkeypatch.setattr(FaceAnalyzer, "deca_codes", lambda self, images, faces: (code, crops))
    flame = dataclasses.replace(head["head_model"], kind="flame2020")
    wanted = HeadParams.neutral().replace(light=torch.zeros(1, 9, 3), shape=torch.full((1, 100), 0.25))
    table = run(photo, reader, head=wanted, head_model=flame)[0]
    heading, row = (line.split() for line in table.splitlines()[:2])
    values = dict(zip(heading[-4:], row[-4:], strict=True))
    assert values == {"shape": "0.2500", "pose": "0.0000", "expression": "0.0000", "light": "0.0000"}


def test_prompts_are_scored_by_the_chosen_file(photo, reader, clip_file):
    grey = torch.full_like(photo, 0.5)
    words = {"prompt": "an astronaut", "other_prompts": "a horse\n\n an empty wall \n", "clip": clip_file}
    table, _, _, _, score, accuracy = run(torch.cat([photo, grey]), reader, **words)
    assert -1 <= score <= 1
    assert accuracy in (0, 0.5, 1)
    assert "CLIP is a CLIP with 2 layers of 64 with GELU, from tiny.safetensors." in table
    swapped = {"prompt": "a horse", "other_prompts": "an astronaut\nan empty wall", "clip": clip_file}
    others = {"prompt": "an empty wall", "other_prompts": "an astronaut\na horse", "clip": clip_file}
    hits = [run(photo, reader, **prompts)[5] for prompts in (words, swapped, others)]
    assert sorted(hits) == [0, 0, 1], "exactly one of three prompts is the best"
    table, *_, accuracy = run(photo, reader, prompt="an astronaut", clip=clip_file)
    assert math.isnan(accuracy)
    assert "Not measured: prompt accuracy. Write other prompts" in table


def test_arcface_is_measured_if_its_network_exists(photo, other, reader, monkeypatch, tmp_path):
    pytest.importorskip("insightface", reason="insightface is not installed")
    from capface.host import model_folders
    from capface.tests.models.test_arcface import write_recogniser
    from capface.tests.models.test_detection import write_scrfd

    pack = tmp_path / "models" / "antelopev2"
    pack.mkdir(parents=True)
    write_scrfd(pack / "scrfd_10g_bnkps.onnx")
    write_recogniser(pack / "glintr100.onnx")
    monkeypatch.setattr(model_folders, "folder", lambda asset: tmp_path)
    with pytest.warns(FutureWarning) if _estimate_is_deprecated() else _nothing():
        table = run(torch.cat([photo, other]), reader, reference=photo)[0]
    assert rows(table)[0] == ["image", "ID", "similarity", "ArcFace"]
    assert rows(table)[1][2] == "1.0000"
    assert float(rows(table)[2][2]) < 0.999


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def _estimate_is_deprecated():
    """Return whether scikit-image warns about a function that insightface's alignment calls."""
    return tuple(int(n) for n in importlib.metadata.version("scikit-image").split(".")[:2]) >= (0, 26)
