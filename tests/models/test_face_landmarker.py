"""MediaPipe's Face Landmarker: its files, and its numbers beside those of Google's own runtime."""

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from capface.errors import BadFile, BadInput, MissingFile
from capface.files.catalogue import COMFYUI_FACE_LANDMARKER, FACE_LANDMARKER
from capface.files.identify import describe, is_face_landmarker
from capface.files.scan import SearchPaths, scan
from capface.models.faces import BLENDSHAPE_POINTS, BLENDSHAPES, load_face_landmarker, transform_points
from capface.models.faces.face_landmarker.blazeface import anchors, decode, merge
from capface.models.faces.face_landmarker.layers import pad_same
from capface.models.faces.face_landmarker.mesh import FaceMesh, FaceMesh192
from capface.models.faces.face_landmarker.weights import MESH, MESH_GRAPH, mesh_layers
from capface.tests.files.tflite_writer import write_tflite
from capface.tests.golden.make_face_landmarker import astronaut, compute
from capface.tests.models.landmarker_files import CANONICAL, comfyui_state, synthetic_state, task_members, write_task
from capface.tests.synthetic import noise
from capface.tools.face_landmarker_file import find

PIXELS, WEIGHTS, RAW = 1e-3, 1e-5, 2e-4
"""Largest difference to Google's runtime: of the mesh in pixels, of blendshapes, and of the detector's values of up to 200."""


@pytest.fixture(scope="module")
def members():
    return task_members(synthetic_state())


@pytest.fixture(scope="module")
def task(members, tmp_path_factory):
    """A `.task` with synthetic weights."""
    return write_task(tmp_path_factory.mktemp("task") / "face_landmarker.task", members)


@pytest.fixture(scope="module")
def comfyui_file(tmp_path_factory):
    """The same in ComfyUI's layout, with its smaller mesh."""
    path = tmp_path_factory.mktemp("comfyui") / "mediapipe_face_fp32.safetensors"
    save_file(comfyui_state(), path)
    return path


@pytest.fixture(scope="module")
def published():
    """Google's own file."""
    path, reason = find()
    if path is None:
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def landmarker(published):
    return load_face_landmarker(published)


@pytest.fixture(scope="module")
def photo():
    return torch.from_numpy(pytest.importorskip("skimage.data").astronaut()).permute(2, 0, 1).float() / 255


# Files


def test_a_task_is_read_completely(task):
    network = load_face_landmarker(task)
    assert isinstance(network.mesh, FaceMesh)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for key, tensor in synthetic_state().items():
        assert torch.equal(network.state_dict()[key], tensor), key


def test_comfyuis_file_is_read_completely(comfyui_file):
    network = load_face_landmarker(comfyui_file)
    assert isinstance(network.mesh, FaceMesh192)
    for key, tensor in synthetic_state(FaceMesh192).items():
        assert torch.equal(network.state_dict()[key], tensor), key


def test_half_precision_leaves_the_canonical_face_as_it_is(task):
    network = load_face_landmarker(task, dtype=torch.float16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float16}
    assert torch.equal(network.canonical, CANONICAL)


def test_the_files_are_recognised(task, comfyui_file, tmp_path):
    assert is_face_landmarker(task)
    assert is_face_landmarker(comfyui_file)
    save_file({"mesh.stem.weight": torch.zeros(1)}, tmp_path / "x")
    assert not is_face_landmarker(tmp_path / "x")
    assert "Face Landmarker" in describe(comfyui_state())


def test_the_scan_finds_both_files_and_names_a_broken_one(task, comfyui_file, tmp_path):
    folder = tmp_path / "detection"
    folder.mkdir()
    assets = (FACE_LANDMARKER, COMFYUI_FACE_LANDMARKER)
    places = [
        Path(shutil.copy(source, folder / asset.file)) for source, asset in zip((task, comfyui_file), assets, strict=True)
    ]
    (folder / "another detector.safetensors").write_bytes(comfyui_file.read_bytes())
    paths = SearchPaths({"detection": [folder]}, {"detection": sorted(folder.iterdir())}, [tmp_path])
    reports = scan(paths, assets=assets, verify=True)
    assert [[found.path for found in report.found if found.good] for report in reports] == [[place] for place in places]
    digest = hashlib.sha256(task.read_bytes()).hexdigest()
    assert reports[0].found[0].checksum.startswith(f"SHA-256 {digest}, published is {FACE_LANDMARKER.sha256}")
    places[0].write_bytes(task.read_bytes()[:-500])
    (report,) = scan(paths, assets=assets[:1])
    assert not report.usable
    assert "broken" in report.found[0].description


@pytest.mark.parametrize("member", ["face_blendshapes.tflite", "geometry_pipeline_metadata_landmarks.binarypb"])
def test_a_missing_member_is_named(members, member, tmp_path):
    held = {name: content for name, content in members.items() if name != member}
    with pytest.raises(BadFile, match=f"lacks {member}"):
        load_face_landmarker(write_task(tmp_path / "x.task", held))


def test_a_missing_tensor_is_named(members, tmp_path):
    lacking = dict(members) | {MESH: write_tflite({"another": np.zeros(3, np.float32)})}
    with pytest.raises(BadFile, match="no tensor model_5/model_4/model_3/conv2d_81/Conv2D"):
        load_face_landmarker(write_task(tmp_path / "x.task", lacking))


def test_a_tensor_of_another_shape_is_named(members, tmp_path):
    state = synthetic_state()
    state["mesh.blocks.3.expand.weight"] = torch.zeros(8, 16, 3, 3)
    with pytest.raises(BadFile, match=r"mesh\.blocks\.3\.expand\.weight has shape \[8, 16, 3, 3\] instead of"):
        load_face_landmarker(write_task(tmp_path / "x.task", dict(members) | task_members(state)))


def test_a_tensor_with_other_axes_is_named(members, tmp_path):
    constants = {layer.name: np.zeros((1,) * len(layer.axes or (1,)), np.float16) for layer in mesh_layers()}
    name = f"{MESH_GRAPH}conv2d_88/Conv2D"
    flat = dict(members) | {MESH: write_tflite(constants | {name: np.zeros((8, 16), np.float16)})}
    with pytest.raises(BadFile, match=rf"{name} has shape \[8, 16\]"):
        load_face_landmarker(write_task(tmp_path / "x.task", flat))


def test_a_key_missing_in_comfyuis_file_is_named(tmp_path):
    state = comfyui_state()
    del state["mesh.head_landmarks.bias"]
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(BadFile, match=r"mesh\.head_landmarks\.bias is missing"):
        load_face_landmarker(tmp_path / "x.safetensors")


def test_other_files_are_named_for_what_they_are(tmp_path, members, task):
    path = tmp_path / "x.safetensors"
    with pytest.raises(MissingFile):
        load_face_landmarker(path)
    save_file({"lora_unet.lora_up.weight": torch.zeros(1)}, path)
    with pytest.raises(BadFile, match=r"is a LoRA .* not the Face Landmarker"):
        load_face_landmarker(path)
    path.write_bytes(members[MESH])
    with pytest.raises(BadFile, match="single network of TensorFlow Lite"):
        load_face_landmarker(path)
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(BadFile, match="ONNX"):
        load_face_landmarker(path)
    torch.save({"conv2d_1a.conv.weight": torch.zeros(1)}, path)
    with pytest.raises(BadFile, match="is a FaceNet checkpoint"):
        load_face_landmarker(path)
    cut = tmp_path / "face_landmarker.task"
    cut.write_bytes(task.read_bytes()[:-1000])
    with pytest.raises(BadFile, match=r"truncated.*Download the file again"):
        load_face_landmarker(cut)


# Parts


def test_same_padding_is_tensorflows():
    x = torch.ones(1, 1, 4, 5)
    assert pad_same(x, 3).shape == (1, 1, 5, 7 - 1 + 1)
    assert pad_same(x, 3)[0, 0, -1].sum() == 0  # the odd row is below
    assert pad_same(x, 3)[0, 0, 0].sum() > 0
    assert pad_same(x, 3, 1).shape == (1, 1, 6, 7)


def test_the_anchors_are_those_of_both_grids():
    places = anchors()
    assert places.shape == (896, 2)
    assert places[0].tolist() == [4, 4]
    assert places[2].tolist() == [12, 4]  # two in each cell of 8 pixels, row by row
    assert places[512].tolist() == places[517].tolist() == [8, 8]
    assert places[-1].tolist() == [120, 120]


def test_boxes_and_points_are_offsets_from_the_anchors():
    values = torch.zeros(1, 896, 16)
    values[0, 512] = torch.tensor([2.0, 3, 10, 20, *range(12)])
    points, scores = decode(values, torch.zeros(1, 896))
    assert points[0, 512, :2].tolist() == [[5, 1], [15, 21]]
    assert points[0, 512, 2:].tolist() == [[8 + 2 * i, 9 + 2 * i] for i in range(6)]
    assert scores.unique().tolist() == [0.5]


def test_overlapping_detections_are_averaged_by_their_scores():
    boxes = torch.tensor([[[0.0, 0], [10, 10]], [[1.0, 0], [11, 10]], [[40.0, 0], [50, 10]]])
    points = torch.cat([boxes, torch.zeros(3, 6, 2)], dim=1)
    merged, scores = merge(points, torch.tensor([0.9, 0.3, 0.95]))
    assert scores.tolist() == pytest.approx([0.95, 0.9])
    assert merged[0, 0].tolist() == [40, 0]
    assert merged[1, 0].tolist() == [0.25, 0]


def test_nothing_merges_to_nothing():
    points, scores = merge(torch.zeros(0, 8, 2), torch.zeros(0))
    assert (len(points), len(scores)) == (0, 0)


def test_blendshapes_do_not_depend_on_place_and_scale(task):
    network = load_face_landmarker(task).blendshapes
    points = noise(641, (2, 478, 3)) * 50
    expected = network(points)
    assert expected.shape == (2, len(BLENDSHAPES)) == (2, 52)
    assert torch.allclose(network(points[:, BLENDSHAPE_POINTS, :2]), expected)
    assert torch.allclose(network(points * 3 + 100), expected, atol=1e-5)


@pytest.mark.parametrize("file", ["task", "comfyui_file"])
def test_the_mesh_lies_where_its_crop_says(file, request):
    network = load_face_landmarker(request.getfixturevalue(file))
    boxes = torch.tensor([[30.0, 20, 90, 100], [10.0, 40, 60, 80]])
    eyes = torch.tensor([[[40.0, 50], [70.0, 60]], [[20.0, 50], [45.0, 50]]])
    image = noise(642, (3, 120, 160)).sigmoid()
    one, two = network.landmarks(image, boxes, eyes, passes=1)
    size = network.mesh.SIZE
    # the crop's middle is the box's, and the line through the eyes is level in it
    middle, *pair = transform_points(one.transform, torch.tensor([[60.0, 60], [40, 50], [70, 60]]))
    assert middle.tolist() == pytest.approx([(size - 1) / 2] * 2, abs=1e-3)
    assert pair[0][1].item() == pytest.approx(pair[1][1].item(), abs=1e-3)
    assert one.transform[:2, :2].det().sqrt().item() == pytest.approx(size / (1.5 * 80))
    (alone,) = network.landmarks(image, boxes[1:], eyes[1:], passes=1)
    assert torch.allclose(alone.points, two.points, atol=1e-3)
    assert torch.allclose(alone.blendshapes, two.blendshapes, atol=1e-5)


def test_wrong_inputs_are_refused(task):
    network = load_face_landmarker(task)
    image, box, eyes = torch.zeros(3, 64, 64), torch.tensor([[1.0, 2, 30, 40]]), torch.tensor([[[10.0, 10], [20, 10]]])
    assert network.landmarks(image, torch.zeros(0, 4)) == []
    assert network.detect(torch.zeros(3, 4, 64)) == []
    wrong: list[dict[str, Any]] = [
        {},
        {"boxes": box.flip(1)},
        {"boxes": box * torch.nan},
        {"eyes": eyes[:, :1].expand(1, 2, 2)},
        {"boxes": box, "passes": 0},
    ]
    for arguments in wrong:
        with pytest.raises(BadInput):
            network.landmarks(image, **arguments)
    for threshold in (0.0, 1.0, math.nan):
        with pytest.raises(BadInput, match="threshold"):
            network.detect(image, threshold)


def test_wrong_shapes_are_refused(task, without_type_checks):
    network = load_face_landmarker(task)
    with pytest.raises(BadInput, match="as many boxes as pairs of eyes"):
        network.landmarks(torch.zeros(3, 64, 64), torch.tensor([[1.0, 2, 30, 40]]), torch.ones(2, 2, 2))
    for image in (torch.zeros(1, 3, 64, 64), torch.zeros(4, 64, 64)):
        with pytest.raises(BadInput, match=r"\[3, H, W\]"):
            network.detect(image)


# Google's numbers


@pytest.fixture(scope="module")
def expected(golden):
    with np.load(golden / "face_landmarker.npz") as file:
        return {name: torch.from_numpy(np.asarray(array)) for name, array in file.items()}


def inputs(size):
    pytest.importorskip("skimage")
    return torch.from_numpy(astronaut(size)).permute(2, 0, 1)[None]


def difference(a, b):
    return (a - b).abs().max().item()


@torch.no_grad()
def test_the_networks_compute_googles_numbers(landmarker, expected):
    points, presence = landmarker.mesh(inputs(256))
    assert difference(points[0], expected["points"]) < PIXELS
    assert difference(presence[0], expected["presence"].sigmoid()) < WEIGHTS
    assert difference(landmarker.blendshapes(expected["points"][None])[0], expected["blendshapes"]) < WEIGHTS
    values, logits = landmarker.detector(inputs(128) * 2 - 1)
    best = expected["anchors"].long()
    assert difference(values[0, best], expected["values"]) < RAW
    assert difference(logits[0, best], expected["scores"]) < RAW
    assert logits[0].argmax() == best[0]


@torch.no_grad()
def test_the_networks_compute_the_numbers_of_googles_runtime(landmarker, published, expected):
    pytest.importorskip("ai_edge_litert")
    from capface.tests.golden.make_face_landmarker import references

    for name, value in compute(published).items():
        assert np.abs(value - expected[name].numpy()).max() < RAW, name  # the golden numbers are of today's runtime, too
    detector, mesh, blendshapes = references(published)
    for seed in (643, 644):
        crop = noise(seed, (1, 3, 256, 256)).sigmoid()
        points, presence = landmarker.mesh(crop)
        found = mesh(crop.permute(0, 2, 3, 1).numpy())
        assert difference(points.flatten(), torch.from_numpy(found["Identity"]).flatten()) < PIXELS
        assert difference(presence, torch.from_numpy(found["Identity_1"]).sigmoid().flatten()) < WEIGHTS
        (weights,) = blendshapes(points[:, BLENDSHAPE_POINTS, :2].numpy()).values()
        assert difference(landmarker.blendshapes(points)[0], torch.from_numpy(weights)) < WEIGHTS
        view = noise(seed, (1, 3, 128, 128)).clamp(-1, 1)
        values, logits = landmarker.detector(view)
        found = detector(view.permute(0, 2, 3, 1).numpy())
        assert difference(values, torch.from_numpy(found["regressors"])) < RAW
        assert difference(logits, torch.from_numpy(found["classificators"])[..., 0]) < RAW


def test_the_canonical_face_is_mediapipes(landmarker):
    assert landmarker.canonical.shape == (468, 3)
    # centimetres: x to the image's right, y up, z towards the camera; symmetric
    left, right, nose = landmarker.canonical[[33, 263, 1]]
    assert left.tolist() == pytest.approx([-right[0].item(), right[1].item(), right[2].item()], abs=1e-3)
    assert 8 < (right - left).norm().item() < 10
    assert nose[2] > right[2] + 3
    assert nose[1] < right[1]


# Photos


def turned(points, degrees, size):
    """Points of a picture of `size` pixels after it is turned against the clock about its middle."""
    angle, middle = math.radians(degrees), (size - 1) / 2
    rotation = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (points - middle) @ rotation.T + middle


def test_the_astronaut_is_found_and_smiles(landmarker, photo):
    ((face, mesh),) = landmarker(photo)
    assert face.score > 0.9
    assert torch.allclose(face.box, torch.tensor([177.4, 80.3, 271.6, 174.5]), atol=2)
    left, right = (mesh.points[corners, :2].mean(0) for corners in ([33, 133], [362, 263]))
    assert torch.allclose(face.keypoints[:2], torch.stack([left, right]), atol=5)
    for iris, eye in ((468, left), (473, right)):
        assert (mesh.points[iris, :2] - eye).norm() < 4
    shown = dict(zip(BLENDSHAPES, mesh.blendshapes.tolist(), strict=True))
    assert mesh.presence > 0.99
    assert min(shown["mouthSmileLeft"], shown["mouthSmileRight"]) > 0.82
    assert shown["jawOpen"] < 0.05


@pytest.mark.parametrize("degrees", [30, 75, 90, 135, 180, 210, 270, 315])
def test_the_mesh_is_the_same_at_every_angle(landmarker, photo, degrees):
    from torchvision.transforms.functional import InterpolationMode, rotate

    ((_, expected),) = landmarker(photo)
    ((face, mesh),) = landmarker(rotate(photo, degrees, InterpolationMode.BILINEAR))
    error = (mesh.points[:, :2] - turned(expected.points[:, :2], degrees, 512)).norm(dim=1)
    assert error.mean() < 1.0  # of 41 pixels between the eyes
    assert mesh.presence > 0.99
    assert (mesh.blendshapes - expected.blendshapes).abs().max() < 0.25
    # the box, the crop and the mesh belong together
    in_crop = transform_points(mesh.transform, mesh.points[:, :2])
    assert in_crop.min() > 0
    assert in_crop.max() < landmarker.mesh.SIZE
    centre = mesh.points[:468, :2].mean(0)
    assert ((face.box[:2] < centre) & (centre < face.box[2:])).all()


def _other_side(name):
    """The blendshape that a mirror makes of another: "mouthLeft" of "mouthRight"."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name


def test_a_mirrored_photo_gives_a_mirrored_mesh(landmarker, photo):
    ((_, one),) = landmarker(photo)
    ((_, other),) = landmarker(photo.flip(2))
    swapped = [BLENDSHAPES.index(_other_side(name)) for name in BLENDSHAPES]
    change = (one.blendshapes - other.blendshapes[swapped]).abs()
    assert change.mean() < 0.05  # squinting changes by 0.3, the smile hardly
    assert change[[BLENDSHAPES.index("mouthSmileLeft"), BLENDSHAPES.index("mouthSmileRight")]].max() < 0.1
    tip, mirrored = one.points[1, :2], other.points[1, :2]
    assert (tip - torch.tensor([511 - mirrored[0], mirrored[1]])).norm() < 1.5


def test_eyes_alone_place_the_mesh(landmarker, photo):
    ((face, expected),) = landmarker(photo)
    (mesh,) = landmarker.landmarks(photo, eyes=face.keypoints[None, :2])
    assert (mesh.points[:, :2] - expected.points[:, :2]).norm(dim=1).mean() < 1.0


def test_a_large_photo_is_read_as_a_small_one(landmarker, photo):
    large = torch.nn.functional.interpolate(photo[None], scale_factor=5, mode="bicubic")[0].clamp(0, 1)
    ((_, expected),) = landmarker(photo)
    ((_, mesh),) = landmarker(large)
    small = (mesh.points[:, :2] + 0.5) / 5 - 0.5
    assert (small - expected.points[:, :2]).norm(dim=1).mean() < 0.5


@pytest.mark.parametrize("quarters", [0, 1, 2])
def test_small_faces_are_found_in_tiles(landmarker, quarters):
    insightface = pytest.importorskip("insightface", reason="insightface brings the picture of six people")
    file = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    group = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).float() / 255
    faces = landmarker(torch.rot90(group, quarters, (1, 2)))
    assert len(faces) == 6
    assert all(face.score >= 0.7 and mesh.presence > 0.9 for face, mesh in faces)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_pictures_without_a_person_have_no_face(landmarker, name):
    picture = getattr(pytest.importorskip("skimage.data"), name)()
    assert landmarker(torch.from_numpy(picture).permute(2, 0, 1).float() / 255) == []
