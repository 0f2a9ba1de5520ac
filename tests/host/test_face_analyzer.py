"""Encoding people in real photos through the nodes, with stand-ins for the networks."""

import numpy as np
import pytest
import torch

from capface.errors import BadInput, MissingFile, NoFaceFound

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")


@pytest.fixture(scope="module")
def photo():
    import skimage.data

    return torch.from_numpy(skimage.data.astronaut().astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def group():
    from insightface.data import get_image

    picture = get_image("t1")
    assert picture is not None
    return torch.from_numpy(picture[..., ::-1].astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def reader(in_host):
    from capface.host.model_folders import register_folders
    from capface.nodes.load_models import LoadFaceAnalyzer

    register_folders()
    return LoadFaceAnalyzer.execute("auto", "20180402-114759-vggface2.pt").result[0]


@pytest.fixture(scope="module")
def clip_vision(in_host):
    import comfy.clip_vision

    path = in_host.folder_paths.get_full_path("clip_vision", "clip-vit-large-patch14.safetensors")
    return comfy.clip_vision.load(path)


def encode(image, reader, clip_vision, face="largest", face_index=0, align=True):
    from capface.host.encode import encode_identity
    from capface.host.images import from_image
    from capface.photos.encoding import EncodeOptions

    identity, encoded = encode_identity(reader, from_image(image), clip_vision, EncodeOptions(face, face_index, align=align))
    return identity, encoded.preview


def test_a_photo_becomes_an_identity_with_a_preview(photo, reader, clip_vision):
    identity, preview = encode(photo, reader, clip_vision)
    assert identity.global_.shape == (1, 512)
    assert identity.local.shape == (1, 257, 1024)
    assert identity.global_.norm(dim=1).item() == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(identity.local).all()
    assert preview.shape == (1, 3, 512, 1536)


def test_alignment_brings_the_face_into_the_middle(photo, reader, clip_vision):
    from capface.host.images import to_image

    _, preview = encode(photo, reader, clip_vision)
    (face,) = reader.find_faces(preview[:, :, :, :512], "largest", 0)
    assert (face.centre - 256).abs().max() < 60
    assert face.box[2] - face.box[0] > 180
    off, whole = encode(photo, reader, clip_vision, align=False)
    assert (to_image(whole)[:, :, :512] - photo).abs().max() < 1e-6
    on, _ = encode(photo, reader, clip_vision)
    assert not torch.equal(on.local, off.local)


def test_each_photo_of_a_batch_is_encoded(photo, reader, clip_vision):
    both, _ = encode(torch.cat([photo, photo.flip(2)]), reader, clip_vision)
    alone, _ = encode(photo, reader, clip_vision)
    assert both.global_.shape == (2, 512)
    assert torch.allclose(both.global_[:1], alone.global_, atol=1e-5)


def test_faces_are_chosen_by_size_or_place(group, reader):
    from capface.host.images import from_image

    images = from_image(group)
    people = [reader.find_faces(images, "left to right", i)[0] for i in range(6)]
    centres = [face.centre[0].item() for face in people]
    assert centres == sorted(centres)
    (largest,) = reader.find_faces(images, "largest", 0)
    assert largest.area == max(face.area for face in people)
    with pytest.raises(NoFaceFound, match="Image 1 of 1"):
        reader.find_faces(images, "largest", 40)


def test_the_image_without_a_face_is_named(photo, reader):
    from capface.host.images import from_image

    images = from_image(torch.cat([photo, torch.full_like(photo, 0.5)]))
    with pytest.raises(NoFaceFound, match="Image 2 of 2: There is no face"):
        reader.find_faces(images, "largest", 0)


def test_rgba_and_grey_images_are_read(photo, reader):
    from capface.host.images import from_image

    rgba = torch.cat([photo, torch.ones_like(photo[..., :1])], dim=-1)
    grey = photo.mean(dim=-1, keepdim=True)
    for image in (rgba, grey):
        assert len(reader.find_faces(from_image(image), "largest", 0)) == 1
    with pytest.raises(BadInput, match=r"\[B, H, W, 3\]"):
        from_image(photo[0])


def test_the_head_lies_over_the_photographed_one(photo, reader):
    """The fitted head's landmarks are on the detector's, and its face covers the detector's box."""
    from capface.flame.builtin import builtin_head
    from capface.flame.model.camera import frame_to_pixels
    from capface.flame.render.maps import render_head
    from capface.host.images import from_image
    from capface.photos.landmarks import landmarks_of

    images = from_image(photo)
    faces = reader.find_faces(images, "largest", 0)
    landmarks = landmarks_of(builtin_head(), faces, 512, 512)
    if len(landmarks.points[0]) == 5:
        assert torch.allclose(frame_to_pixels(landmarks.points, 512, 512)[0], faces[0].points5 + 0.5, atol=1e-3)
    head = landmarks.fit()
    size = (faces[0].box[2:] - faces[0].box[:2]).max() / 256  # frame units
    assert landmarks.error(head).item() < 0.06 * size
    alpha = render_head(builtin_head(), head, 512, 512).alpha[0, 0]
    left, top, right, bottom = faces[0].box.round().int().tolist()
    assert alpha[top:bottom, left:right].mean() > 0.85
    assert alpha.mean() < 0.12


def test_another_clip_is_refused_with_a_message(photo, in_host):
    from capface.host.clip_vision import clip_tokens

    class ClipB32:
        def encode_image(self, image):
            return {"last_hidden_state": torch.zeros(len(image), 50, 768)}

    with pytest.raises(BadInput, match=r"ViT-L/14.*50 of 768.*clip-vit-large-patch14"):
        clip_tokens(ClipB32(), list(photo.movedim(-1, 1)))


def test_a_missing_facenet_is_an_error_only_when_it_is_needed(photo, clip_vision, in_host):
    from capface.nodes.load_models import LoadFaceAnalyzer

    (reader,) = LoadFaceAnalyzer.execute("mtcnn", "missing.pt").result
    with pytest.raises(MissingFile, match=r"missing\.pt is not in .*facenet.*timesler"):
        encode(photo, reader, clip_vision)
