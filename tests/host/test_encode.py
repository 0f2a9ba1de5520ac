"""Encode Identity: from photos through detection, alignment and parsing to the inputs of FaceNet and CLIP."""

import logging
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from capface.errors import BadFile, BadInput, MissingFile, NoFaceFound
from capface.models.faces.crops import facenet_face, ffhq_crop, transform_points, warp
from capface.models.faces.detection import FaceDetection
from capface.models.faces.parsing import LABELS
from capface.tests.synthetic import fill
from capface.tools.standins import write_safetensors

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
FACENET = "20180402-114759-vggface2.pt"


@pytest.fixture(scope="module", autouse=True)
def host(in_host):
    """The host's modules, and the pack's folders in it."""
    from capface.host.model_folders import register_folders

    register_folders()


@pytest.fixture(scope="module")
def photo():
    """[3,512,512]; the face is about 90 pixels wide, around (222, 115)."""
    import skimage.data

    return torch.from_numpy(skimage.data.astronaut().astype(np.float32) / 255).movedim(-1, 0).contiguous()


@pytest.fixture(scope="module")
def group():
    from insightface.data import get_image

    picture = get_image("t1")
    assert picture is not None
    return torch.from_numpy(picture[..., ::-1].astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def reader():
    """Real detector, stand-in networks."""
    from capface.nodes.load_models import LoadFaceAnalyzer

    return LoadFaceAnalyzer.execute("mtcnn", FACENET).result[0]


class Clip:
    """A CLIP_VISION whose tokens are the patches' mean colours; it stores its inputs."""

    def __init__(self):
        self.seen = []

    def encode_image(self, image):
        self.seen += list(image.movedim(-1, 1))
        patches = F.adaptive_avg_pool2d(image.movedim(-1, 1), 16).flatten(2).mT
        tokens = torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
        return {"last_hidden_state": F.pad(tokens, (0, 1021))}


def read(reader, images, clip=None, **options):
    """Encode images `[B, 3, H, W]`; return the result and the faces."""
    from capface.photos.encoding import EncodeOptions, find_person

    options = EncodeOptions(**options)
    images, faces = find_person(reader, images, options)
    return reader.encoder(clip or Clip()).encode_faces(images, faces, options), faces


def panels(preview):
    """Split a preview into portrait, CLIP's input and FaceNet's input: [B,3,512,512] each."""
    return preview.split(512, dim=3)


# Alignment


def tilted(photo, degrees):
    """Rotate the photo about the face, with its border repeated; return it and the transform."""
    angle = math.radians(degrees)
    linear = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    transform = torch.eye(3)
    transform[:2, :2] = linear
    transform[:2, 2] = torch.tensor([256.0, 256.0]) - linear @ torch.tensor([222.0, 115.0])
    return warp(photo, transform, 512, 512), transform


def difference(a, b):
    """Return the mean difference in the middle of pictures, where the face is."""
    return (a - b)[..., 128:384, 128:384].abs().mean().item()


def moved(face, transform):
    """Return the face after a rotation or shift."""
    centre = transform_points(transform, face.centre[None])[0]
    half = (face.box[2:] - face.box[:2]) / 2
    points = transform_points(transform, face.points5)
    return FaceDetection(torch.cat([centre - half, centre + half]), face.score, points)


def read_at(reader, image, face, **options):
    """Return the panels of the preview of one image [3,H,W] whose face is known."""
    from capface.photos.encoding import EncodeOptions

    options = EncodeOptions(parse="off", **options)
    return panels(reader.encoder(Clip()).encode_faces(image[None], [face], options).preview)


@pytest.mark.parametrize("degrees", [-75, 20])
def test_a_tilted_face_is_encoded_like_an_upright_one(photo, reader, degrees):
    (face,) = reader.find_faces(photo[None], "largest", 0)
    upright = read_at(reader, photo, face)
    image, transform = tilted(photo, degrees)
    for aligned, not_aligned, wanted in zip(
        read_at(reader, image, moved(face, transform)),
        read_at(reader, image, moved(face, transform), align=False),
        upright,
        strict=True,
    ):
        assert difference(aligned, wanted) < 0.02
        assert difference(not_aligned, wanted) > 0.1


@pytest.mark.parametrize(("rows", "columns"), [((100, 512), (0, 512)), ((0, 512), (200, 512)), ((0, 140), (0, 240))])
def test_a_face_at_the_border_is_padded_and_not_squashed(photo, reader, rows, columns):
    """What remains of a photo cut through the face has the same position in the portrait as in the whole photo's portrait."""
    (face,) = reader.find_faces(photo[None], "largest", 0)
    whole = read_at(reader, photo, face)[0][0]
    cut = photo[:, slice(*rows), slice(*columns)]
    shift = torch.eye(3)
    shift[:2, 2] = -torch.tensor([columns[0], rows[0]])
    portrait = read_at(reader, cut, moved(face, shift))[0][0]
    there = torch.zeros(1, 512, 512)
    there[:, rows[0] + 1 : rows[1] - 1, columns[0] + 1 : columns[1] - 1] = 1
    shown = ffhq_crop(there, face.points5, outside="black")[0][0] == 1
    assert 0.2 < shown.float().mean() < 0.95
    assert (portrait - whole)[:, shown].abs().max() < 1e-3


def test_a_small_face_is_encoded_and_its_size_reported(photo, reader, caplog):
    from capface.nodes.encode_identity import EncodeIdentity

    small = F.interpolate(photo[None], (224, 224), mode="bilinear", antialias=True)
    with caplog.at_level(logging.WARNING, "capface"):
        encoded, (face,) = read(reader, small, parse="off")
    assert face is not None
    width, height = (face.box[2:] - face.box[:2]).tolist()
    assert width < 64
    (note,) = encoded.notes
    assert note == caplog.messages[0]
    assert f"image 1 has {width:.0f} × {height:.0f} pixels" in note
    large, _ = read(reader, photo[None], parse="off")
    assert large.notes == []
    options = {"clip_vision": Clip(), "parse": "off"}
    assert EncodeIdentity.execute(small.movedim(1, -1), reader, "largest", 0, True, **options).ui["text"] == (note,)


def test_without_alignment_the_whole_photo_is_encoded_as_in_the_released_script(photo, reader):
    clip = Clip()
    wide = photo[:, :400]
    encoded, (face,) = read(reader, wide[None], clip, parse="off", align=False)
    assert torch.equal(clip.seen[0], wide)
    assert face is not None
    assert torch.equal(encoded.global_, reader.embed(facenet_face(wide, face.box)[None]))


# Parsing


@pytest.fixture
def half_face(reader, monkeypatch):
    """Use a parser that finds skin in the upper half, and hair, ears and cloth in the lower half."""

    def parse(self, portraits):
        labels = torch.full((len(portraits), *portraits.shape[-2:]), LABELS.index("skin"))
        height, width = labels.shape[1:]
        for i, name in enumerate(("hair", "left ear", "earring", "cloth")):
            labels[:, height // 2 :, i * width // 4 : (i + 1) * width // 4] = LABELS.index(name)
        return labels

    monkeypatch.setattr(type(reader), "parse", parse)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, []), ({"hair": True}, [0]), ({"ears": True}, [1, 2]), ({"hair": True, "ears": True}, [0, 1, 2])],
)
def test_clip_gets_the_face_on_white_and_facenet_the_portrait(photo, reader, half_face, options, kept):
    clip = Clip()
    encoded, _ = read(reader, photo[None], clip, parse="on", **options)
    portrait, painted, _ = panels(encoded.preview)
    assert torch.equal(painted[0], clip.seen[0])
    assert torch.equal(painted[..., :256, :], portrait[..., :256, :])
    for i in range(4):
        quarter = (..., slice(256, 512), slice(i * 128, i * 128 + 128))
        assert torch.equal(painted[quarter], portrait[quarter] if i in kept else torch.ones(1, 3, 256, 128))
    assert torch.equal(encoded.global_, read(reader, photo[None], parse="off")[0].global_)


def test_the_parsers_file_is_used(photo, reader):
    """Each pixel is painted according to the stand-in's label."""
    encoded, _ = read(reader, photo[None], parse="auto")
    portrait, painted, _ = panels(encoded.preview)
    white = (painted == 1).all(1) & (portrait < 1).any(1)
    labels = reader.parse(portrait)
    assert torch.equal(white, ~torch.isin(labels, torch.tensor([1, 2, 3, 4, 5, 6, 10, 11, 12, 13])) & (portrait < 1).any(1))
    assert 0.05 < white.float().mean() < 0.95


def test_a_missing_parser_is_logged_once(photo, caplog):
    from capface.nodes.load_models import LoadFaceAnalyzer

    (reader,) = LoadFaceAnalyzer.execute("mtcnn", FACENET, parser="missing.pth").result
    clip = Clip()
    encoded = None
    with caplog.at_level(logging.WARNING, "capface"):
        for _ in range(2):
            encoded, _ = read(reader, photo[None], clip)
            assert encoded.notes == caplog.messages
    assert encoded is not None
    (message,) = caplog.messages
    for part in (
        "79999_iter.pth",
        "models/face_parsing",
        "zllrunning/face-parsing",
        "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
    ):
        assert part in message
    assert torch.equal(clip.seen[0], panels(encoded.preview)[0][0])
    assert read(reader, photo[None], parse="off")[0].notes == []
    with pytest.raises(MissingFile) as error:
        read(reader, photo[None], parse="on")
    for part in (
        "missing.pth is not in",
        "face_parsing",
        "zllrunning/face-parsing",
        "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
    ):
        assert part in str(error.value)


# The choice of the face, and photos without a face


def test_photos_without_a_face_stop_are_left_out_or_passed_through(photo, reader):
    from capface.nodes.encode_identity import EncodeIdentity

    images = torch.stack([torch.full_like(photo, 0.5), photo]).movedim(1, -1)

    def encode(images, on_no_face, combine="each"):
        options = {"clip_vision": Clip(), "on_no_face": on_no_face, "combine": combine, "parse": "off"}
        return EncodeIdentity.execute(images, reader, "largest", 0, True, **options).result

    alone, seen = encode(images[1:], "error")
    with pytest.raises(NoFaceFound, match="Image 1 of 2"):
        encode(images, "error")
    with pytest.raises(NoFaceFound, match="None of 1 images"):
        encode(images[:1], "skip")
    skipped, preview = encode(images, "skip")
    assert torch.equal(skipped.local, alone.local)
    assert torch.equal(preview, seen)
    passed, preview = encode(images, "passthrough")
    assert passed.present.tolist() == [False, True]
    assert torch.equal(passed[[1]].local, alone.local)
    assert (preview[0] == 1).all()
    assert torch.equal(preview[1:], seen)
    assert encode(images, "passthrough", "mean")[0].present.tolist() == [True]
    assert encode(images[:1], "passthrough")[0].present.tolist() == [False]
    assert encode(images[:1], "passthrough", "median")[0].present.tolist() == [False]


def test_other_choices_are_refused(photo, reader):
    with pytest.raises(BadInput, match="error, skip, passthrough"):
        read(reader, photo[None], on_no_face="crop")
    with pytest.raises(BadInput, match="auto, on, off"):
        read(reader, photo[None], parse="yes")


def test_identity_and_head_belong_to_the_same_face(group, reader):
    """In a group photo, the fitted head is on the person whose own photo gives the same identity."""
    from capface.flame.builtin import builtin_head
    from capface.flame.render.maps import landmark_pixels
    from capface.nodes.encode_identity import EncodeIdentity
    from capface.nodes.fit_head import FitHead

    def encode(image, face, index):
        options = {"clip_vision": Clip(), "parse": "off"}
        return EncodeIdentity.execute(image, reader, face, index, True, **options).result[0]

    height, width = group.shape[1:3]
    people = torch.cat([encode(group, "left to right", i).local for i in range(6)])
    for face, index in (("largest", 1), ("left to right", 4), ("center", 0)):
        person = encode(group, face, index)
        head = FitHead.execute(image=group, reader=reader, head_model=builtin_head(), face=face, face_index=index).result[0]
        points = landmark_pixels(builtin_head(), head, height, width)[0]
        low, high = points.amin(0), points.amax(0)
        left, top = (low - (high - low)).clamp(min=0).int().tolist()
        right, bottom = (high + (high - low)).int().tolist()
        alone = torch.full_like(group, 0.5)
        alone[:, top:bottom, left:right] = group[:, top:bottom, left:right]
        again = encode(alone, "largest", 0)
        nearest = [(people - p.local).flatten(1).norm(dim=1).argmin().item() for p in (again, person)]
        assert nearest[0] == nearest[1]


# Faces given by other nodes


def encode_given(reader, image, **given):
    from capface.nodes.encode_identity import EncodeIdentity

    settings = {"face": "largest", "face_index": 0, "align": True, "clip_vision": Clip(), "parse": "off", **given}
    return EncodeIdentity.execute(image, reader, **settings).result


def test_a_box_around_the_face_gives_about_the_same_identity(photo, reader):
    image = photo[None].movedim(1, -1)
    (face,) = reader.find_faces(photo[None], "largest", 0)
    left, top, right, bottom = (face.box + 0.5).tolist()
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    found, _ = encode_given(reader, image)
    given, _ = encode_given(reader, image, bboxes=[[{"x": 300, "y": 300, "width": 40, "height": 40}, box]])
    away, _ = encode_given(reader, image, bboxes={**box, "x": left + 200, "y": top + 200})
    distances = [(one.local - found.local).norm().item() for one in (given, away)]
    assert distances[0] < 0.7 * distances[1], distances


def test_a_drawing_that_no_detector_finds_is_encoded_at_its_box(reader):
    drawing = torch.ones(1, 256, 256, 3)
    drawing[:, 100:160, 80:130] = torch.tensor([1.0, 0.5, 0.2])
    with pytest.raises(NoFaceFound):
        encode_given(reader, drawing)
    identity, preview = encode_given(reader, drawing, bboxes={"x": 80, "y": 100, "width": 50, "height": 60})
    assert identity.present.tolist() == [True]
    face = panels(preview.movedim(-1, 1))[2]
    torch.testing.assert_close(face[0, :, 256, 256], torch.tensor([1.0, 0.5, 0.2]), atol=0.02, rtol=0)


def test_given_faces_must_belong_to_the_photos(photo, reader):
    image = photo[None].movedim(1, -1)
    box = {"x": 180, "y": 60, "width": 90, "height": 110}
    with pytest.raises(BadInput, match="expected faces of 1 image, got those of 2"):
        encode_given(reader, image, bboxes=[[box], [box]])
    with pytest.raises(BadInput, match="landmarks of a picture of 512 × 512 pixels, got those of 640 × 480"):
        encode_given(reader, image, face_landmarks={"frames": [[]], "image_size": (480, 640)})
    passed, _ = encode_given(reader, image, face_landmarks={"frames": [[]], "image_size": (512, 512)}, on_no_face="passthrough")
    assert passed.present.tolist() == [False]


def test_the_miniature_refuses_given_faces(photo):
    from capface.nodes.load_miniature import LoadMiniature

    reader = LoadMiniature.execute().result[4]
    with pytest.raises(BadInput, match="Disconnect bboxes, or connect Load Face Reader"):
        encode_given(reader, photo[None].movedim(1, -1), clip_vision=None, bboxes={"x": 1, "y": 1, "width": 9, "height": 9})


# open_clip


def small_towers(tmp_path):
    """open_clip's and the host's image towers, 3 layers of width 128, with the same random weights."""
    import json

    import comfy.clip_vision
    import open_clip.transformer

    torch.manual_seed(3)
    sizes = {"image_size": 56, "patch_size": 14, "width": 128, "layers": 3, "heads": 2, "mlp_ratio": 4.0, "output_dim": 32}
    theirs = open_clip.transformer.VisionTransformer(**sizes, act_layer=open_clip.transformer.QuickGELU).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = {
        "hidden_act": "quick_gelu", "hidden_size": 128, "image_size": 56, "intermediate_size": 512, "num_attention_heads": 2,
        "num_channels": 3, "num_hidden_layers": 3, "patch_size": 14, "projection_dim": 32, "model_type": "clip_vision_model",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = comfy.clip_vision.ClipVisionModel(str(tmp_path / "config.json"))
    ours.model.float()
    state = {f"visual.{key}": tensor.detach().clone() for key, tensor in theirs.state_dict().items()}
    missing, unexpected = ours.load_sd(comfy.clip_vision.convert_to_transformers(state, "visual."))
    assert not missing
    assert not unexpected
    return theirs, ours


@torch.no_grad()
def test_open_clips_tokens_equal_the_hosts(tmp_path, photo):
    """Before the last layer norm, from open_clip's own preprocessing of the same picture."""
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    from open_clip.transform import image_transform
    from PIL import Image

    theirs, ours = small_towers(tmp_path)
    pixels = F.interpolate(photo[None], (56, 56), mode="bilinear", antialias=True).mul(255).round()
    picture = Image.fromarray(pixels[0].byte().movedim(0, -1).numpy())
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    before = []
    theirs.transformer.register_forward_hook(lambda _module, _inputs, output: before.append(output))
    transform = image_transform(56, is_train=False, mean=mean, std=deviation)
    assert not isinstance(transform, tuple)
    transformed = transform(picture)
    assert isinstance(transformed, torch.Tensor)
    theirs(transformed[None])
    tokens = ours.encode_image(pixels.movedim(1, -1) / 255)["last_hidden_state"].cpu()
    assert tokens.shape == before[0].shape == (1, 17, 128)
    assert (tokens - before[0]).norm() / before[0].norm() < 1e-5


def open_clip_file(path, layers=24, width=1024, patch=14, tokens=257, without=""):
    """A file in open_clip's layout, with zeros in all layers except the first, and a tensor of the text tower."""
    real = {
        "class_embedding": (width,), "positional_embedding": (tokens, width), "conv1.weight": (width, 3, patch, patch),
        "proj": (width, 768), **{f"{n}.{p}": (width,) for n in ("ln_pre", "ln_post") for p in ("weight", "bias")},
    }  # fmt: skip
    zeros = {}
    for i in range(layers):
        layer = {
            "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
            **{f"{n}.{p}": (width,) for n in ("ln_1", "ln_2") for p in ("weight", "bias")},
        }  # fmt: skip
        (zeros if i else real).update({f"transformer.resblocks.{i}.{key}": shape for key, shape in layer.items()})
    tensors = {f"visual.{k}": fill(k, s).half() for k, s in real.items() if k != without}
    write_safetensors(
        path, tensors | {"token_embedding.weight": torch.zeros(2, 2)}, {f"visual.{k}": s for k, s in zeros.items()}
    )
    return path


@pytest.fixture
def open_clip_folder(in_host, tmp_path):
    in_host.folder_paths.add_model_folder_path("open_clip", str(tmp_path), is_default=True)
    yield tmp_path
    in_host.folder_paths.folder_names_and_paths["open_clip"][0].remove(str(tmp_path))


@torch.no_grad()
def test_the_open_clip_file_replaces_clip_vision(open_clip_folder, photo):
    from capface.host.encode import encode_identity
    from capface.nodes.load_models import LoadFaceAnalyzer
    from capface.photos.encoding import EncodeOptions

    path = open_clip_file(open_clip_folder / "open_clip_model.safetensors")
    (reader,) = LoadFaceAnalyzer.execute("mtcnn", FACENET, open_clip=path.name).result
    state = reader.networks.clip_vision.get_sd()
    weight = fill("transformer.resblocks.0.attn.in_proj_weight", (3072, 1024)).half()
    for i, name in enumerate("qkv"):
        loaded = state[f"vision_model.encoder.layers.0.self_attn.{name}_proj.weight"]
        assert torch.equal(loaded.half().cpu(), weight[i * 1024 : (i + 1) * 1024])
    encoded, _ = read(reader, photo[None], parse="off")
    assert torch.equal(encoded.local[0, :, 3:], torch.zeros(257, 1021))  # a connected CLIP_VISION has precedence
    reader.networks.__dict__["clip_vision"] = Clip()
    encode_identity(reader, photo[None], None, EncodeOptions(parse="off"))
    assert len(reader.networks.clip_vision.seen) == 1


def test_auto_takes_any_parser_in_the_folder(in_host, monkeypatch):
    from capface.nodes.load_models import LoadFaceAnalyzer

    monkeypatch.setattr(in_host.folder_paths, "get_filename_list", lambda folder: ["parsing_bisenet.pth"])
    (reader,) = LoadFaceAnalyzer.execute("mtcnn", FACENET).result
    assert reader.networks.parser_file == "parsing_bisenet.pth"


def test_without_any_clip_the_message_names_both_remedies(photo, reader):
    from capface.host.encode import encode_identity

    with pytest.raises(BadInput, match=r"clip_vision.*open_clip file in Load Face Reader"):
        encode_identity(reader, photo[None])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"layers": 12, "width": 768, "patch": 32, "tokens": 50}, r"another CLIP: its image tower has 50 tokens of 768"),
        ({"tokens": 577}, r"another CLIP: its image tower has 577 tokens of 1024"),
        ({"layers": 12}, "does not fit CLIP ViT-L/14|another CLIP"),
        ({"without": "class_embedding"}, r"does not fit CLIP ViT-L/14: vision_model.embeddings.class_embedding"),
    ],
    ids=["ViT-B/32", "336 pixels", "12 layers", "incomplete"],
)
def test_other_open_clip_files_are_named(tmp_path, file, message):
    from capface.host.clip_vision import load_open_clip

    with pytest.raises(BadFile, match=message):
        load_open_clip(open_clip_file(tmp_path / "x.safetensors", **file))


def test_files_in_other_layouts_are_refused(in_host, tmp_path):
    from capface.host.clip_vision import load_open_clip

    with zipfile.ZipFile(tmp_path / "ViT-L-14.pt", "w") as file:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"ViT-L-14/{name}", b"")
    with pytest.raises(BadFile, match=r"TorchScript program.*never run"):
        load_open_clip(tmp_path / "ViT-L-14.pt")
    with pytest.raises(BadFile, match=r"a FaceNet checkpoint.*not CLIP in open_clip's layout"):
        load_open_clip(Path(in_host.folder_paths.get_full_path("facenet", FACENET)))


# Lists of photos


def test_a_list_of_photos_of_different_sizes_makes_one_identity(photo, reader):
    photos = [photo.movedim(0, -1)[None], photo[:, :480, :400].movedim(0, -1)[None]]
    alone = [encode_given(reader, one)[0] for one in photos]
    each, preview = encode_given([reader], photos, **{"face_index": [0], "combine": ["each"], "parse": ["off"]})
    assert torch.equal(each.local, torch.cat([one.local for one in alone]))
    assert len(preview) == 2
    assert len(encode_given(reader, photos, combine="mean")[0].local) == 1
    unaligned, _ = encode_given(reader, photos, align=False)
    assert torch.equal(unaligned.local[1:], encode_given(reader, photos[1], align=False)[0].local)


def test_lists_of_other_inputs_are_refused(photo, reader):
    photos = [photo.movedim(0, -1)[None]] * 2
    with pytest.raises(BadInput, match="face_index: expected one value for all images, got a list of 2"):
        encode_given(reader, photos, face_index=[0, 1])
    box = {"x": 180, "y": 50, "width": 90, "height": 120}
    with pytest.raises(BadInput, match="bboxes: expected one value for all images in the list, or 2, one for each; got 3"):
        encode_given(reader, photos, bboxes=[[box]] * 3)


def test_each_photo_of_a_list_has_its_own_box(photo, reader):
    small = F.interpolate(photo[None], (256, 256), mode="bilinear", antialias=True)
    photos = [photo[None].movedim(1, -1), small.movedim(1, -1)]
    boxes = [[{"x": 180 / n, "y": 50 / n, "width": 90 / n, "height": 120 / n}] for n in (1, 2)]
    listed, _ = encode_given(reader, photos, bboxes=boxes)
    second, _ = encode_given(reader, photos[1], bboxes=boxes[1])
    assert torch.equal(listed.local[1:], second.local)


def test_a_lower_confidence_finds_more_faces(photo):
    from capface.nodes.load_models import LoadFaceAnalyzer

    def scores(least):
        found = LoadFaceAnalyzer.execute("mtcnn", FACENET, min_confidence=least).result[0].networks.detector.detect(photo)
        return [face.score for face in found]

    usual, most, surest = scores(0.0), scores(0.3), scores(0.9999)
    assert len(most) > len(usual) >= len(surest)
    assert all(score >= 0.3 for score in most)
