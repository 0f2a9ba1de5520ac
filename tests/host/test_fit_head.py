"""Fit Head: photos to heads, with detectors and networks controlled by the tests, and with real photos."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from capface.errors import BadFile, BadInput, MissingFile, NoFaceFound
from capface.flame import HeadParams, load_flame
from capface.flame.builtin import builtin_head
from capface.flame.model.camera import frame_to_pixels, project
from capface.flame.model.landmarks import five_point_weights
from capface.flame.render.maps import landmark_pixels
from capface.models.faces.crops import deca_crop, deca_square, deca_transform
from capface.models.faces.deca import CODE_SIZE, DecaEncoder, split_code
from capface.models.faces.detection import FaceDetection
from capface.tests.flame.flame_files import write_flame
from capface.tests.flame.heads import golden_model
from capface.tests.flame.test_landmark_fit import degrees_between, turned
from capface.tests.photos.test_landmarks import SIDE, meshes
from capface.tests.synthetic import state_dict

HEIGHT, WIDTH = 192, 160


@pytest.fixture(scope="module", autouse=True)
def host(in_host):
    """The host's modules, which the functions under test import, and the pack's folders."""
    from capface.host.model_folders import register_folders

    register_folders()


@pytest.fixture(scope="module")
def flame(tmp_path_factory):
    """The golden numbers' synthetic head in FLAME's layout."""
    return load_flame(write_flame(tmp_path_factory.mktemp("flame")))


@pytest.fixture(scope="module")
def face():
    """A face-like model that DECA accepts."""
    return dataclasses.replace(builtin_head(), kind="flame2020")


@pytest.fixture(scope="module")
def weights():
    """DECA's encoder with random weights that nearly always estimate the same plausible head."""
    state = state_dict("deca_encoder.shapes.json", "E_flame.")
    state["layers.2.weight"] *= 0.02
    state["layers.2.bias"][split_code(torch.arange(CODE_SIZE)[None]).camera[0]] = torch.tensor([1.0, 0.02, -0.03])
    return state


@pytest.fixture
def deca_file(in_host, weights, tmp_path):
    """That encoder as models/deca/deca_model.tar."""
    in_host.folder_paths.add_model_folder_path("deca", str(tmp_path), is_default=True)
    torch.save({"E_flame": weights, "E_detail": {}}, tmp_path / "deca_model.tar")
    yield tmp_path / "deca_model.tar"
    in_host.folder_paths.folder_names_and_paths["deca"][0].remove(str(tmp_path))


class Detector:
    """Returns prescribed faces for images that are identified by their first pixel."""

    def __init__(self, faces):
        self.faces = faces

    def detect(self, image):
        return self.faces[round(image[0, 0, 0].item() * 100)]


def photos(count, height=HEIGHT, width=WIDTH):
    """Make photos that `Detector` can identify."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    images[:, 0, 0, 0] = torch.arange(count) / 100
    return images


def detection(points, dense=True):
    """Return a face with 68 landmarks in the detector's pixels."""
    box = torch.cat([points.amin(0), points.amax(0)])
    return FaceDetection(box, 0.99, five_point_weights() @ points, points if dense else None)


def reader_of(faces):
    """Return a face analyzer that finds these faces: a list of detections per photo."""
    from capface.host.face_analyzer import open_face_analyzer

    analyzer = open_face_analyzer("auto", "nothing.pt")
    analyzer.networks.__dict__["detect"] = Detector(faces).detect  # without the search for turned faces
    return analyzer


def known_heads(yaws=(-40.0, 0.0, 55.0)):
    """Heads that fill about half of a frame."""
    B = len(yaws)
    rotation = turned(torch.tensor(yaws), torch.linspace(-10, 10, B), torch.linspace(20, -20, B))
    return HeadParams.neutral(B).replace(
        rotation=rotation,
        shape=0.5 * torch.randn(B, 100),
        expression=0.5 * torch.randn(B, 50),
        camera=torch.tensor([[4.0, 0.1, -0.05]]).repeat(B, 1),
    )


def seen(model, heads, dense=True, height=HEIGHT, width=WIDTH):
    """Return the result of a perfect 3D detector for each head, one list per photo; pixels are counted from their centres."""
    fixed = model.fixed_landmarks(model.vertices(heads))
    found = frame_to_pixels(project(fixed, heads.camera)[..., :2], height, width)
    return [[detection(points - 0.5, dense)] for points in found]


def fit(images, reader, model, **settings):
    from capface.host.fitting import fit_heads

    return fit_heads(images, reader, model, **settings)[0]


# The choice of the method


def analyzer_with(deca):
    """Return a face analyzer with or without DECA's file."""
    from capface.host.face_analyzer import FolderNetworks, HostFaceAnalyzer

    class Networks(FolderNetworks):
        def deca_problem(self):
            return None if deca else super().deca_problem()

    return HostFaceAnalyzer(Networks("auto", "nothing.pt", "deca_model.tar"))


@pytest.mark.parametrize(
    ("method", "kind", "landmarks", "deca", "expected"),
    [
        ("auto", "flame2020", True, True, "DECA refined by landmarks"),
        ("auto", "flame", True, True, "DECA refined by landmarks"),
        ("auto", "flame2020", True, False, "landmarks"),
        ("auto", "flame2020", False, True, "DECA"),
        ("auto", "builtin", True, True, "landmarks"),
        ("auto", "flame2023", True, True, "landmarks"),
        ("auto", "flame2020", False, False, "without landmarks.*landmark_embedding.npy"),
        ("DECA", "flame2020", False, True, "DECA"),
        ("DECA", "builtin", True, True, "do not apply to the head model 'a head'.*landmarks.*generic_model.pkl of FLAME 2020"),
        ("DECA", "flame2023", True, True, "do not apply"),
        ("DECA", "flame2020", True, False, "deca_model.tar is not in .*fetch_data.sh.*b182e51c26e5a73b1f7a5c53cf8cc038"),
        ("DECA refined by landmarks", "flame2020", False, True, "without landmarks.*github.com/yfeng95/DECA"),
        ("DECA refined by landmarks", "builtin", True, True, "do not apply"),
        ("landmarks", "flame2020", False, True, "without landmarks"),
        ("landmarks", "custom", True, False, "landmarks"),
        ("magic", "custom", True, True, "Methods are auto"),
    ],
)
def test_the_method_depends_on_the_available_parts(method, kind, landmarks, deca, expected):
    from capface.photos.heads import METHODS, choose_method

    none = dict.fromkeys(
        f"{part}_lmk_{what}" for part in ("static", "dynamic", "full") for what in ("faces_idx", "bary_coords")
    )
    model = golden_model(kind=kind, name="a head", **({} if landmarks else none))
    if expected in METHODS:
        assert choose_method(method, model, analyzer_with(deca)) == expected
    else:
        with pytest.raises((BadInput, MissingFile), match=expected):
            choose_method(method, model, analyzer_with(deca))


# DECA


def test_deca_gets_the_crop_around_the_landmarks(flame, weights, deca_file):
    heads = known_heads()
    images, faces = photos(3), seen(flame, heads)
    fitted = fit(images, reader_of(faces), flame, method="DECA")
    network = DecaEncoder().eval()
    network.load_state_dict(weights)
    for i in range(3):
        points = faces[i][0].points68
        assert points is not None
        transform = deca_transform(*deca_square(points))
        with torch.inference_mode():
            code = split_code(network(deca_crop(images[i], transform)[None]))
        for name in ("shape", "texture", "expression", "rotation", "jaw", "light"):
            torch.testing.assert_close(getattr(fitted.params, name)[i], getattr(code, name)[0], atol=1e-5, rtol=1e-4)
        # DECA's own projection: crop pixel = 112 (s (x + tx, -(y + ty)) + 1), then back through the crop
        s, tx, ty = code.camera[0]
        x, y, _ = flame.vertices(fitted.params[i])[0].T
        crop = 112 * (torch.stack([s * (x + tx), -s * (y + ty)], dim=1) + 1)
        expected = (crop - transform[:2, 2]) / transform[0, 0]
        ours = project(flame.vertices(fitted.params[i]), fitted.params.camera[i : i + 1])[0, :, :2]
        torch.testing.assert_close(frame_to_pixels(ours, HEIGHT, WIDTH), expected, atol=1e-2, rtol=1e-4)
    assert fitted.params.neck.count_nonzero() == 0 and fitted.method == "DECA"


def test_long_sequences_give_the_same_as_single_photos(flame, deca_file):
    heads = known_heads()[0].expand(20)
    images, faces = photos(20), seen(flame, heads)
    together = fit(images, reader_of(faces), flame, method="DECA")
    alone = fit(images[18:19], reader_of({18: faces[18]}), flame, method="DECA")
    torch.testing.assert_close(together.params.shape[18:19], alone.params.shape, atol=1e-5, rtol=1e-4)


def test_refining_brings_decas_head_to_the_landmarks(face, deca_file):
    heads = known_heads()
    images, reader = photos(3), reader_of(seen(face, heads))
    deca, refined = (fit(images, reader, face, method=method) for method in ("DECA", "auto"))
    assert refined.method == "DECA refined by landmarks"
    assert refined.error < 0.5 < 4 < deca.error
    for name in ("texture", "light"):
        assert torch.equal(getattr(refined.params, name), getattr(deca.params, name))


def test_deca_alone_needs_no_landmarks_of_the_model(tmp_path, flame, deca_file):
    bare = load_flame(write_flame(tmp_path, landmarks=False))
    fitted = fit(photos(1), reader_of(seen(flame, known_heads((0.0,)))), bare)
    assert fitted.method == "DECA" and math.isnan(fitted.error)
    assert "not known" in fitted.summary()


def test_weights_of_another_network_are_refused(flame, deca_file, weights):
    for wrong, words in ((-1, "scales above 0"), (math.nan, r"NaN or infinite: layers\.2\.bias")):
        torch.save({"E_flame": {**weights, "layers.2.bias": wrong * weights["layers.2.bias"]}}, deca_file)
        with pytest.raises(BadFile, match=words + r".*deca_model\.tar.*b182e51c"):
            fit(photos(1), reader_of(seen(flame, known_heads((0.0,)))), flame, method="DECA")


# Landmarks


@pytest.mark.parametrize("dense", [True, False])
def test_known_heads_are_found_in_pixels(dense):
    model, heads = builtin_head(), known_heads()
    if not dense:
        heads = heads.replace(shape=torch.zeros(3, 100), expression=torch.zeros(3, 50))
    fitted = fit(photos(3), reader_of(seen(model, heads, dense)), model)
    assert fitted.method == "landmarks" and fitted.frames == [0, 1, 2]
    assert degrees_between(fitted.params.rotation, heads.rotation).max() < (1 if dense else 8)
    assert fitted.error < (0.3 if dense else 1.5)


def test_the_error_is_in_pixels_of_the_photo():
    model, heads = builtin_head(), known_heads((0.0,))
    (faces,) = seen(model, heads)
    points = faces[0].points68
    assert points is not None
    shaken = points + 3 * torch.randn(68, 2)
    fitted = fit(photos(1), reader_of([[detection(shaken)]]), model)
    left = landmark_pixels(model, fitted.params, HEIGHT, WIDTH)[0] - (shaken + 0.5)
    assert fitted.error == pytest.approx(left.square().sum(1).mean().sqrt().item(), rel=1e-3)
    assert f"{fitted.error:.1f} pixels" in fitted.summary()


def test_a_head_at_the_border_reaches_beyond_the_frame():
    model = builtin_head()
    heads = known_heads((20.0,))
    heads.camera[:, 1] = 1.2
    fitted = fit(photos(1), reader_of(seen(model, heads)), model)
    assert degrees_between(fitted.params.rotation, heads.rotation).item() < 1
    points = landmark_pixels(model, fitted.params, HEIGHT, WIDTH)
    assert (points[..., 0] > WIDTH).sum() > 10


# Photos without the face


def with_gaps():
    """Seven photos of a turning head; photos 0, 3, 4 and 6 show no head."""
    model, heads = builtin_head(), known_heads((0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0))
    faces = seen(model, heads)
    return photos(7), reader_of([[] if i in (0, 3, 4, 6) else faces[i] for i in range(7)]), model


def test_a_photo_without_a_face_is_an_error_by_default():
    images, reader, model = with_gaps()
    with pytest.raises(NoFaceFound, match="Image 1 of 7: There is no face"):
        fit(images, reader, model)


def test_skip_leaves_out_photos_without_a_face():
    from capface.photos.heads import fit_preview

    images, reader, model = with_gaps()
    fitted = fit(images, reader, model, on_no_face="skip")
    assert fitted.frames == [1, 2, 5] and fitted.params.batch == 3
    preview = fit_preview(images, fitted, model)
    assert preview.shape == (3, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(preview[2, :, -1, :8], images[5, :, -1, :8])


def test_hold_last_repeats_the_previous_head():
    images, reader, model = with_gaps()
    skipped, held = (fit(images, reader, model, on_no_face=way) for way in ("skip", "hold last"))
    assert held.frames == list(range(7))
    assert torch.equal(held.params.rotation, skipped.params.rotation[[0, 0, 1, 1, 1, 2, 2]])
    assert held.errors.shape == (7,)


@pytest.mark.parametrize("way", ["error", "skip", "hold last"])
def test_no_face_in_any_photo_is_always_an_error(way):
    with pytest.raises(NoFaceFound, match="There is no face"):
        fit(photos(3), reader_of([[], [], []]), builtin_head(), on_no_face=way)


def test_another_choice_is_refused():
    with pytest.raises(BadInput, match=r"error, skip, hold last.*'ignore'"):
        fit(photos(1), reader_of([[]]), builtin_head(), on_no_face="ignore")


def test_smoothing_steadies_a_sequence():
    model = builtin_head()
    heads = known_heads((0.0,)).expand(12)
    shaken = heads.replace(camera=heads.camera + 0.02 * torch.randn(12, 3))
    images, reader = photos(12), reader_of(seen(model, shaken))
    raw, calm = (fit(images, reader, model, smoothing=amount) for amount in (0.0, 0.6))
    assert calm.params.camera.std(0).max() < 0.6 * raw.params.camera.std(0).max()
    assert calm.error > raw.error  # only of the returned heads


# Faces given by other nodes


class NoDetector:
    """Fails if it is asked."""

    def detect(self, image):
        raise AssertionError("the detector ran")


def reader_without_detector():
    reader = reader_of([])
    reader.networks.__dict__.update(detector=NoDetector(), landmarker=None)
    return reader


def comfyui_landmarks(model, heads, side):
    """Return the value of a FACE_LANDMARKS socket with the face mesh of known heads, one per image."""
    frames = [
        [{"landmarks_xy": (mesh[:, :2] + 0.5).numpy(), "blendshapes": None, "score": 0.9}] for mesh in meshes(model, heads)
    ]
    return {"frames": frames, "image_size": (side, side), "connection_sets": {}}


def test_landmarks_of_another_node_are_fitted_without_a_detector():
    model = builtin_head()
    heads = known_heads((-30.0, 25.0)).replace(shape=torch.zeros(2, 100), expression=torch.zeros(2, 50))
    given = comfyui_landmarks(model, heads, SIDE)
    image = photos(2, SIDE, SIDE).movedim(1, -1)
    output = run_node(image, reader_without_detector(), face_landmarks=given)
    head, preview, error = output.result
    assert degrees_between(head.rotation, heads.rotation).max() < 2 and error < 1
    assert preview.shape == image.shape and "478 points" in output.ui["text"][0]
    one = {**given, "frames": given["frames"][:1]}
    (both, _, _) = run_node(image, reader_without_detector(), face_landmarks=one).result
    assert torch.equal(both.rotation[0], both.rotation[1])
    with pytest.raises(BadInput, match="picture of 399 × 400 pixels, got those of 400 × 400"):
        run_node(image[:, :, 1:], reader_without_detector(), face_landmarks=given)
    with pytest.raises(BadInput, match="faces of 1 or 3 images, got those of 2"):
        run_node(torch.cat([image, image[:1]]), reader_without_detector(), face_landmarks=given)


def test_a_box_places_the_head_on_a_drawing():
    """Without the Face Landmarker, the head fills the box as a face does."""
    drawing = torch.ones(1, 300, 400, 3)
    boxes = [{"x": 40, "y": 60, "width": 90, "height": 110}, {"x": 220, "y": 100, "width": 90, "height": 110}]
    for index, box in enumerate(boxes):
        output = run_node(drawing, reader_without_detector(), bboxes=boxes, face="left to right", face_index=index)
        head, _, error = output.result
        points = landmark_pixels(builtin_head(), head, 300, 400)[0]
        middle = torch.tensor([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        assert ((points.amin(0) + points.amax(0)) / 2 - middle).abs().max() < 20 and error < 5
        assert "5 points: pose only" in output.ui["text"][0]
        assert (head.rotation.rad2deg().abs() < 15).all()


def test_images_without_given_faces_are_treated_like_images_without_a_face():
    images = torch.ones(3, 300, 400, 3)
    box = {"x": 40, "y": 60, "width": 90, "height": 110}
    given = [[box], [], [box]]
    with pytest.raises(NoFaceFound, match="Image 2 of 3: The connected bboxes has no face"):
        run_node(images, reader_without_detector(), bboxes=given)
    (head, preview, _) = run_node(images, reader_without_detector(), bboxes=given, on_no_face="skip").result
    assert head.batch == len(preview) == 2


def test_a_detection_without_any_face_is_no_reason_to_search():
    with pytest.raises(NoFaceFound, match="The connected bboxes has no face"):
        run_node(torch.ones(1, 300, 400, 3), reader_without_detector(), bboxes=[])


# The choice of the face, and unusual photos


def test_one_of_forty_faces_is_chosen():
    model = builtin_head()
    heads = HeadParams.neutral(40)
    heads.camera[:] = torch.stack([torch.full((40,), 0.5), torch.linspace(-0.9, 0.9, 40), torch.zeros(40)], dim=1)
    faces = [face for (face,) in seen(model, heads)]
    for index in (0, 17, 39):
        fitted = fit(photos(1), reader_of([faces[::-1]]), model, face="left to right", face_index=index)
        torch.testing.assert_close(fitted.params.camera, heads.camera[index : index + 1], atol=0.02, rtol=0)


def test_a_huge_photo_gets_a_small_preview():
    from capface.photos.heads import fit_preview

    model, heads = builtin_head(), known_heads((30.0,))
    images = torch.full((1, 3, 4000, 6000), 0.0)
    fitted = fit(images, reader_of(seen(model, heads, height=4000, width=6000)), model)
    assert degrees_between(fitted.params.rotation, heads.rotation).item() < 1
    preview = fit_preview(images, fitted, model)
    assert preview.shape == (1, 3, 683, 1024) and preview.mean() > 0.02


@pytest.fixture(scope="module")
def photo():
    skimage = pytest.importorskip("skimage.data")
    return torch.from_numpy(skimage.astronaut().astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("facenet_pytorch", reason="MTCNN comes with facenet-pytorch")
    from capface.host.face_analyzer import open_face_analyzer

    return open_face_analyzer("mtcnn", "nothing.pt")


def run_node(image, reader, model=None, **settings):
    from capface.nodes.fit_head import FitHead

    settings = {"face": "largest", "face_index": 0, **settings}
    return FitHead.execute(image, reader, model or builtin_head(), **settings)


def yaw_degrees(head):
    return head.rotation[0, 1].rad2deg().item()


def test_the_node_gives_head_preview_and_error(photo, mtcnn):
    output = run_node(photo, mtcnn)
    head, preview, error = output.result
    assert preview.shape == photo.shape and 0.005 < (preview - photo).abs().mean() < 0.2
    assert 0 < error < 15
    assert output.ui["text"] == (f"1 head by landmarks: landmarks {error:.1f} pixels off (5 points: pose only)",)
    assert len(output.ui["images"]) == 1
    assert abs(yaw_degrees(head)) < 45


def test_grey_rgba_and_small_photos_give_about_the_same_head(photo, mtcnn):
    (whole, _, _) = run_node(photo, mtcnn).result
    rgba = torch.cat([photo, torch.ones_like(photo[..., :1])], dim=-1)
    grey = photo.mean(dim=-1, keepdim=True)
    for image in (rgba, grey):
        (head, preview, _) = run_node(image, mtcnn).result
        assert degrees_between(head.rotation, whole.rotation).item() < 10
        assert preview.shape == photo.shape
    face = photo[:, 0:240, 110:350]
    small = torch.nn.functional.interpolate(face.movedim(-1, 1), (64, 64), mode="bilinear", antialias=True).movedim(1, -1)
    (head, preview, error) = run_node(small, mtcnn).result
    assert preview.shape == (1, 64, 64, 3) and error < 4
    assert degrees_between(head.rotation, whole.rotation).item() < 25


def test_half_a_face_at_the_border_is_fitted_or_not_found(photo, mtcnn):
    """A face cut through its middle: either the head reaches beyond the photo, or there is a clear error."""
    half = photo[:, :, :225]
    try:
        (head, preview, _) = run_node(half, mtcnn).result
    except NoFaceFound as error:
        assert "no face" in str(error)
    else:
        assert preview.shape == half.shape
        points = landmark_pixels(builtin_head(), head, *half.shape[1:3])
        assert points[..., 0].max() > 215 and points[..., 0].min() > 120


def test_a_batch_of_different_people_gives_one_head_each(photo, mtcnn):
    pair = torch.cat([photo, photo.flip(2)])
    (both, preview, _) = run_node(pair, mtcnn).result
    (alone, _, _) = run_node(photo, mtcnn).result
    assert both.batch == 2 and preview.shape == pair.shape
    torch.testing.assert_close(both.rotation[:1], alone.rotation, atol=1e-4, rtol=0)
    assert yaw_degrees(both[1]) == pytest.approx(-yaw_degrees(both[0]), abs=8)
