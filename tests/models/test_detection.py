import logging
import socket
import sys

import numpy as np
import pytest
import torch

from capface.errors import BadFile, BadInput, MissingFile, MissingPackage, NoFaceFound
from capface.models.faces.detection import (
    FaceDetection,
    InsightFaceDetector,
    MtcnnDetector,
    choose_face,
    detector_problems,
    find_pack,
    open_detector,
)


def face(left, top, right, bottom):
    return FaceDetection(torch.tensor([left, top, right, bottom], dtype=torch.float32), 0.9, torch.zeros(5, 2))


# Choosing

SMALL_LEFT, LARGE_RIGHT, MIDDLE = face(0, 0, 20, 20), face(70, 0, 110, 40), face(40, 30, 65, 55)
FACES = [SMALL_LEFT, LARGE_RIGHT, MIDDLE]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("largest", [LARGE_RIGHT, MIDDLE, SMALL_LEFT]),
        ("left to right", [SMALL_LEFT, MIDDLE, LARGE_RIGHT]),
        ("center", [MIDDLE, LARGE_RIGHT, SMALL_LEFT]),
    ],
)
def test_faces_are_counted_in_the_order_asked_for(which, expected):
    assert [choose_face(FACES, which, i, image_size=(90, 110)) for i in range(3)] == expected


def test_no_face_and_too_few_faces_give_different_messages():
    with pytest.raises(NoFaceFound, match="no face in the image"):
        choose_face([])
    with pytest.raises(NoFaceFound, match="no face number 3: the image shows 3"):
        choose_face(FACES, index=3)


def test_invalid_choices_are_refused():
    with pytest.raises(BadInput, match=r"largest, left to right, center, got 'smallest'"):
        choose_face(FACES, "smallest")
    with pytest.raises(BadInput, match="counted from 0, got -1"):
        choose_face(FACES, index=-1)
    with pytest.raises(BadInput, match=r"\(height, width\)"):
        choose_face(FACES, "center")


# MTCNN


def tensor(pixels):
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed")
    return MtcnnDetector()


@pytest.fixture(scope="module")
def astronaut():
    return pytest.importorskip("skimage", reason="scikit-image is not installed").data.astronaut()


def test_mtcnn_finds_the_astronauts_face_as_the_package_itself_does(mtcnn, astronaut):
    from facenet_pytorch import MTCNN
    from PIL import Image

    (found,) = mtcnn.detect(tensor(astronaut))
    boxes, scores, *rest = MTCNN(keep_all=True).detect(Image.fromarray(astronaut), landmarks=True)
    (points,) = rest
    assert found.box.numpy() == pytest.approx(boxes[0].astype(np.float32))
    assert found.points5.numpy() == pytest.approx(points[0].astype(np.float32))
    assert found.score == pytest.approx(scores[0])
    left, top, right, bottom = found.box.tolist()
    assert 170 < left < 190 and 55 < top < 75 and 260 < right < 280 and 160 < bottom < 190
    left_eye, right_eye, nose, left_mouth, right_mouth = found.points5
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_mtcnn_finds_the_same_face_in_a_photo_five_times_as_large(mtcnn, astronaut):
    image = tensor(astronaut)
    (small,) = mtcnn.detect(image)
    (large,) = mtcnn.detect(torch.nn.functional.interpolate(image[None], scale_factor=5, mode="bilinear")[0])
    assert (large.box / 5 - small.box).abs().max() < 3
    assert (large.points5 / 5 - small.points5).abs().max() < 3


def test_mtcnn_finds_six_people_largest_first(mtcnn):
    data = pytest.importorskip("insightface.data", reason="insightface, which ships the photo, is not installed")
    found = mtcnn.detect(tensor(data.get_image("t1", to_rgb=True)))
    assert len(found) == 6
    areas = [one.area for one in found]
    assert areas == sorted(areas, reverse=True)
    order = [choose_face(found, "left to right", i).box[0].item() for i in range(6)]
    assert order == sorted(order)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 20, 20), (3, 30, 64), (3, 5, 4000), (3, 200, 200)])
def test_mtcnn_finds_nothing_in_noise_of_any_size(mtcnn, shape):
    assert mtcnn.detect(torch.rand(shape)) == []


@pytest.mark.usefixtures("without_type_checks")
def test_mtcnn_refuses_a_batch(mtcnn):
    with pytest.raises(BadInput, match=r"\[3, H, W\], got \[1, 3, 64, 64\]"):
        mtcnn.detect(torch.zeros(1, 3, 64, 64))


def test_missing_facenet_pytorch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(MissingPackage, match="pip install --no-deps facenet-pytorch"):
        MtcnnDetector()


# insightface, on tiny networks with the interface of the real ones

STRIDES = (8, 16, 32)
POINTS5 = np.array([0.25, 0.3, 0.75, 0.3, 0.5, 0.5, 0.3, 0.75, 0.7, 0.75], dtype=np.float32)  # in cells
POINTS68 = np.random.default_rng(3).uniform(-0.6, 0.6, (68, 3)).astype(np.float32)  # in half crops


def onnx_file(path, inputs, outputs, nodes, constants):
    """Save one ONNX graph; `inputs` and `outputs` are `(name, shape)`."""
    import onnx
    from onnx import helper, numpy_helper

    def values(pairs):
        return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in pairs]

    made = [helper.make_node(op, list(args), [out], name=f"n_{out}", **attributes) for op, args, out, attributes in nodes]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(made, "tiny", values(inputs), values(outputs), weights)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)


def write_scrfd(path, size=("height", "width"), gives=("scores", "boxes", "points")):
    """Write a detector that detects single red cells of 32 × 32 pixels on its grid."""
    nodes, outputs = [], {"scores": [], "boxes": [], "points": []}
    constants = {
        "red": np.array([0], dtype=np.int64),
        "one_column": np.array([-1, 1], dtype=np.int64),
        "box": np.array([[0, 0, 1, 1]], dtype=np.float32),
        "five": POINTS5[None],
        "bias": np.array(-1.2, dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
    }
    for s in STRIDES:
        constants[f"on_{s}"] = np.array(float(s == 32), dtype=np.float32)
        nodes += [
            ("Gather", ["image", "red"], f"red_{s}", {"axis": 1}),
            ("AveragePool", [f"red_{s}"], f"cell_{s}", {"kernel_shape": [s, s], "strides": [s, s]}),
            ("AveragePool", [f"cell_{s}"], f"around_{s}", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
            ("Sub", [f"cell_{s}", f"around_{s}"], f"contrast_{s}", {}),
            ("Add", [f"contrast_{s}", "bias"], f"biased_{s}", {}),
            ("Mul", [f"biased_{s}", f"on_{s}"], f"active_{s}", {}),
            ("Concat", [f"active_{s}", f"active_{s}"], f"anchors_{s}", {"axis": 1}),
            ("Transpose", [f"anchors_{s}"], f"last_{s}", {"perm": [0, 2, 3, 1]}),
            ("Reshape", [f"last_{s}", "one_column"], f"scores_{s}", {}),
            ("Mul", [f"scores_{s}", "zero"], f"blank_{s}", {}),
            ("Add", [f"blank_{s}", "box"], f"boxes_{s}", {}),
            ("Add", [f"blank_{s}", "five"], f"points_{s}", {}),
        ]
        for name, width in (("scores", 1), ("boxes", 4), ("points", 10)):
            outputs[name].append((f"{name}_{s}", [f"rows_{s}", width]))
    onnx_file(path, [("image", [1, 3, *size])], [out for name in gives for out in outputs[name]], nodes, constants)


def write_landmarks(path):
    """Write a landmark network that returns the same 68 points, relative to its crop, for every face."""
    points = np.zeros((1103, 3), dtype=np.float32)
    points[-68:] = POINTS68
    nodes = [
        ("ReduceMean", ["image"], "mean", {"axes": [1, 2, 3], "keepdims": 0}),
        ("Mul", ["mean", "zero"], "blank", {}),
        ("Add", ["blank", "all"], "points", {}),
    ]
    constants = {"zero": np.array(0, dtype=np.float32), "all": points.reshape(1, -1)}
    onnx_file(path, [("image", [1, 3, 192, 192])], [("points", [1, 3309])], nodes, constants)


@pytest.fixture(scope="module")
def insightface():
    pytest.importorskip("onnx", reason="onnx, which writes the tiny networks, is not installed")
    return pytest.importorskip("insightface", reason="insightface is not installed")


@pytest.fixture(scope="module")
def root(insightface, tmp_path_factory):
    folder = tmp_path_factory.mktemp("insightface")
    pack = folder / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    write_scrfd(pack / "det_10g.onnx")
    write_landmarks(pack / "1k3d68.onnx")
    (pack / "w600k_r50.onnx").write_bytes(b"never opened")
    return folder


def detector(root, name="buffalo_l"):
    return InsightFaceDetector(root, name)


def blocks(height, width, *squares):
    """A black image with red squares `(left, top, side)`."""
    image = torch.zeros(3, height, width)
    for left, top, side in squares:
        image[0, top : top + side, left : left + side] = 1
    return image


@pytest.mark.parametrize(
    ("height", "width", "square"),
    [
        (640, 640, (320, 192, 32)),  # the usual grid
        (320, 320, (160, 96, 16)),  # the usual grid, the image enlarged
        (480, 640, (320, 192, 32)),  # the usual grid, padded
        (640, 640, (256, 128, 64)),  # only on the grid of 320
        (960, 1280, (640, 512, 32)),  # only on the grid of 1280
    ],
)
def test_insightface_gives_box_and_points_in_the_images_pixels(root, height, width, square):
    (found,) = detector(root).detect(blocks(height, width, square))
    left, top, side = square
    corner = torch.tensor([left, top], dtype=torch.float32)
    assert torch.allclose(found.box, torch.cat([corner, corner + side]))
    assert torch.allclose(found.points5, corner + side * torch.from_numpy(POINTS5.reshape(5, 2)))
    # the landmark crop is 1.5 boxes wide, so half of it is 0.75 of the box
    expected = corner + side / 2 + 0.75 * side * torch.from_numpy(POINTS68[:, :2])
    assert found.points68 is not None
    assert torch.allclose(found.points68, expected, atol=1e-2)
    assert 0.5 < found.score < 1


def test_insightface_finds_every_face_once(root):
    found = detector(root).detect(blocks(640, 640, (96, 96, 32), (480, 320, 32)))
    assert [choose_face(found, "left to right", i).box.tolist() for i in range(len(found))] == [
        [96, 96, 128, 128],
        [480, 320, 512, 352],
    ]


@pytest.mark.parametrize("shape", [(3, 640, 640), (3, 8, 8), (3, 20, 9000)])
def test_insightface_finds_nothing_in_a_black_image(root, shape):
    assert detector(root).detect(torch.zeros(shape)) == []


def test_insightface_detector_of_one_fixed_size_is_used_at_that_size(insightface, tmp_path):
    pack = tmp_path / "models" / "fixed"
    pack.mkdir(parents=True)
    write_scrfd(pack / "scrfd_10g_bnkps.onnx", size=(320, 320))
    (found,) = detector(tmp_path, "fixed").detect(blocks(640, 640, (256, 128, 64)))
    assert found.box.tolist() == [256, 128, 320, 192]
    assert found.points68 is None


def test_missing_pack_is_named_and_nothing_is_downloaded(insightface, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    with pytest.raises(MissingFile) as caught:
        InsightFaceDetector(tmp_path, "buffalo_l")
    message = str(caught.value)
    for part in (str(tmp_path / "models" / "buffalo_l"), "det_*.onnx", "1k3d68.onnx", "buffalo_l.zip", "non-commercial"):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_pack_without_its_detector_is_named_with_the_files_in_its_folder(tmp_path):
    pack = tmp_path / "models" / "antelopev2"
    pack.mkdir(parents=True)
    (pack / "glintr100.onnx").write_bytes(b"")
    with pytest.raises(MissingFile, match=r"That folder holds glintr100\.onnx"):
        find_pack(tmp_path, "antelopev2")


@pytest.mark.parametrize("nested", ["models/antelopev2/antelopev2", "antelopev2"])
def test_pack_in_a_nested_folder_or_beside_models_is_found(tmp_path, caplog, nested):
    (tmp_path / nested).mkdir(parents=True)
    (tmp_path / nested / "scrfd_10g_bnkps.onnx").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "capface"):
        assert find_pack(tmp_path, "antelopev2") == tmp_path / nested
    assert "its usual place" in caplog.text


def test_broken_onnx_file_is_named(insightface, tmp_path):
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    (pack / "det_10g.onnx").write_bytes(b"<html>")
    with pytest.raises(BadFile, match=r"det_10g\.onnx cannot be read"):
        detector(tmp_path)


def test_another_network_under_the_detectors_name_is_named(insightface, tmp_path):
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    write_landmarks(pack / "det_10g.onnx")
    with pytest.raises(BadFile, match=r"does landmark_3d_68, expected detection"):
        detector(tmp_path)


def test_detector_without_points_is_named(insightface, tmp_path):
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    write_scrfd(pack / "det_10g.onnx", gives=("scores", "boxes"))
    with pytest.raises(BadFile, match="without the five points"):
        detector(tmp_path)


def test_missing_insightface_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", None)
    with pytest.raises(MissingPackage, match="pip install insightface onnxruntime"):
        InsightFaceDetector(root)


def test_detector_problems_say_what_is_missing(root, tmp_path, monkeypatch, mtcnn):
    assert detector_problems(root) == {"insightface": None, "mtcnn": None}
    assert "buffalo_l is not in" in str(detector_problems(tmp_path)["insightface"])
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    monkeypatch.setitem(sys.modules, "insightface", None)
    problems = detector_problems(root)
    assert "pip install" in str(problems["mtcnn"])
    assert "pip install" in str(problems["insightface"])


def test_the_first_detector_that_can_be_used_is_opened(root, tmp_path, monkeypatch, mtcnn):
    assert isinstance(open_detector("auto", root), InsightFaceDetector)
    assert isinstance(open_detector("auto", tmp_path), MtcnnDetector)
    assert isinstance(open_detector("mtcnn", root), MtcnnDetector)
    with pytest.raises(MissingFile, match="antelopev2 is not in"):
        open_detector("insightface", tmp_path)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(MissingPackage, match=r"No face detector is available.*buffalo_l is not in.*Or: .*pip install"):
        open_detector("auto", tmp_path)
