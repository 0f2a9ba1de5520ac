"""Training samples hold the features that inference computes from the photo."""

import io
import json

import numpy as np
import pytest
import torch

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
pytest.importorskip("insightface", reason="insightface brings the picture of six people")
pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

from capface.flame.builtin import builtin_head
from capface.flame.io.heads_json import heads_from_json
from capface.models.clip import load_clip_tokens
from capface.models.faces import MtcnnDetector, load_facenet, load_parser
from capface.photos.analysis import FaceAnalyzer, PlainNetworks
from capface.photos.encoding import EncodeOptions, Features, PhotoEncoder
from capface.photos.heads import fit_heads
from capface.photos.portrait import align
from capface.tests.training import photo_sets
from capface.tests.training.photo_sets import RULES, TOKENS, WIDTH, astronaut, save
from capface.training.photo_files import find_photos
from capface.training.samples import SampleMaker, load_photo


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return photo_sets.networks(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("one photo") / "astronaut.png"
    save(path, astronaut())
    return path


@pytest.fixture(scope="module")
def sample(files, path):
    photos = list(enumerate(find_photos(path.parent)))
    return SampleMaker(path.parent, files, RULES, "a face").read(photos).samples[0]


@pytest.fixture(scope="module")
def encoder(files):
    """The encoder of inference, with its own networks from the same files."""
    networks = PlainNetworks(MtcnnDetector(), load_facenet(files.facenet), load_parser(files.parser))
    clip = load_clip_tokens(files.clip)
    features = Features("FaceNet", "a small CLIP", 512, TOKENS, WIDTH)
    return PhotoEncoder(FaceAnalyzer(networks), lambda portraits: clip(torch.stack(portraits)), features)


@torch.inference_mode()
def test_training_features_equal_inference_features(path, sample, encoder):
    encoded = encoder.encode(load_photo(path)[None], EncodeOptions(parse="on"))
    stored = {name: torch.from_numpy(np.load(io.BytesIO(sample.members[f"{name}.npy"]))) for name in ("global", "local")}
    assert torch.equal(stored["global"], encoded.global_[0])
    assert torch.equal(stored["local"], encoded.local[0].half())


@torch.inference_mode()
def test_the_head_equals_fit_heads_on_the_portrait(path, sample, encoder):
    """Fit Head would detect the face in the portrait again, so it gets the face that training found in the photo."""
    image = load_photo(path)
    portrait, face, _ = align(image, encoder.analyzer.find_faces(image[None])[0])

    class Found(PlainNetworks):
        def detect(self, image):
            return [face]

    fitted = fit_heads(portrait[None], FaceAnalyzer(Found(MtcnnDetector())), builtin_head())
    stored = heads_from_json(json.dumps(json.loads(sample.members["json"])["head"]), "head").params
    for name in ("camera", "rotation", "shape", "expression", "jaw"):
        torch.testing.assert_close(getattr(stored, name), getattr(fitted.params, name), atol=1e-5, rtol=1e-5)
