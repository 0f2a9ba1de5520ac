"""A training set holds the features that the nodes compute."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from capface.flame.builtin import builtin_head
from capface.flame.io.heads_json import heads_from_json
from capface.flame.render.maps import landmark_pixels
from capface.models.faces.crops import transform_points
from capface.photos.portrait import align
from capface.training.photo_files import find_photos
from capface.training.rules import Rules
from capface.training.samples import Networks, SampleMaker, load_photo

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
FILES = {"facenet": "facenet/20180402-114759-vggface2.pt", "clip": "clip_vision/clip-vit-large-patch14.safetensors"}
FILES["parser"] = "face_parsing/79999_iter.pth"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    import skimage.data

    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(skimage.data.astronaut()[:400]).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.fixture(scope="module")
def sample(photo, standins):
    networks = Networks(**{name: str(standins / file) for name, file in FILES.items()}, detector="mtcnn")
    reader = SampleMaker(photo.parent, networks, Rules(min_side=100, min_face=0.0), "a face")
    return reader.read(list(enumerate(find_photos(photo.parent)))).samples[0]


@pytest.fixture(scope="module")
def reader(in_host):
    from capface.host.model_folders import register_folders
    from capface.nodes.load_models import LoadFaceAnalyzer

    register_folders()
    return LoadFaceAnalyzer.execute("mtcnn", FILES["facenet"].split("/")[1], parser=FILES["parser"].split("/")[1]).result[0]


@torch.no_grad()
def test_features_are_those_of_encode_identity(photo, sample, standins, reader):
    """FaceNet's embedding of the face, and the tokens of a CLIP of ViT-L/14's size of the face on white."""
    import comfy.clip_vision

    from capface.nodes.encode_identity import EncodeIdentity

    clip_vision = comfy.clip_vision.load(str(standins / FILES["clip"]))
    image = load_photo(photo).movedim(0, -1)[None]
    identity = EncodeIdentity.execute(image, reader, "largest", 0, True, clip_vision=clip_vision, parse="on").result[0]
    for ending, wanted in (("global.npy", identity.global_[0]), ("local.npy", identity.local[0])):
        found = torch.from_numpy(np.load(io.BytesIO(sample.members[ending]))).float()
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < (1e-6 if ending == "global.npy" else 1e-3) * wanted.abs().max()


def test_the_head_is_fit_heads_in_the_portraits_frame(photo, sample, reader):
    from capface.nodes.fit_head import FitHead

    image, model = load_photo(photo), builtin_head()
    inputs = {"image": image.movedim(0, -1)[None], "reader": reader, "head_model": model, "face": "largest", "face_index": 0}
    head = FitHead.execute(**inputs).result[0]
    transform = align(image, reader.find_faces(image[None], "largest", 0)[0])[2]
    wanted = transform_points(transform, landmark_pixels(model, head, *image.shape[-2:])[0] - 0.5)
    ours = heads_from_json(json.dumps(json.loads(sample.members["json"])["head"]), "head").params
    found = landmark_pixels(model, ours, 512, 512)[0] - 0.5
    height = (found.amax(0) - found.amin(0))[1]
    assert (found - wanted).norm(dim=1).max() < 0.02 * height
