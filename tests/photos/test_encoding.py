from contextlib import contextmanager

import pytest
import torch

from capface.errors import BadInput, NoFaceFound
from capface.models.faces.parsing import keep_face
from capface.photos.analysis import FaceAnalyzer
from capface.photos.encoding import WITHOUT_PARSER, EncodeOptions, PhotoEncoder
from capface.photos.portrait import cut_portrait
from capface.tests.photos.face_networks import Networks, face, tokens

IMAGES = torch.rand(2, 3, 100, 120, generator=torch.Generator().manual_seed(0))


def encoder(*faces, **networks):
    return PhotoEncoder(FaceAnalyzer(Networks(*faces, **networks)), tokens)


@pytest.mark.parametrize("align", [True, False])
def test_photos_are_aligned_painted_and_encoded(align):
    one = encoder([face()], [face(20)])
    encoded = one.encode(IMAGES, EncodeOptions(align=align))
    for i, found in enumerate((face(), face(20))):
        portrait, crop = cut_portrait(IMAGES[i], found, align)
        painted = keep_face(portrait[None], one.analyzer.parse(portrait[None]))[0]
        assert torch.equal(encoded.global_[i], one.analyzer.embed(crop[None])[0])
        assert torch.equal(encoded.local[i], tokens([painted])[0])
    assert encoded.present.all() and encoded.scores == pytest.approx([0.9, 0.9]) and encoded.areas == [2000, 2000]
    assert encoded.preview.shape == (2, 3, 512, 1536)
    assert ["image 1 has 40 × 50 pixels" in encoded.notes[0], "image 2" in encoded.notes[1]] == [True, True]


def test_photos_without_a_face_become_zeros_with_passthrough():
    encoded = encoder([], [face()]).encode(IMAGES, EncodeOptions(on_no_face="passthrough"))
    assert encoded.present.tolist() == [False, True]
    assert not encoded.global_[0].any() and not encoded.local[0].any() and (encoded.preview[0] == 1).all()
    assert encoded.scores[0] == encoded.areas[0] == 0
    skipped = encoder([], [face()]).encode(IMAGES, EncodeOptions(on_no_face="skip"))
    assert torch.equal(skipped.local, encoded.local[1:])
    assert not encoder([], []).encode(IMAGES, EncodeOptions(on_no_face="passthrough")).present.any()
    for way in ("error", "skip"):
        with pytest.raises(NoFaceFound):
            encoder([], []).encode(IMAGES, EncodeOptions(on_no_face=way))


def test_without_a_parser_the_whole_portrait_is_encoded():
    encoded = encoder([face()], has_parser=False).encode(IMAGES[:1], EncodeOptions())
    assert encoded.notes[0] == WITHOUT_PARSER
    unpainted = encoder([face()]).encode(IMAGES[:1], EncodeOptions(parse="off"))
    assert torch.equal(encoded.local, unpainted.local) and WITHOUT_PARSER not in unpainted.notes


def test_stages_can_be_timed():
    stages = []

    @contextmanager
    def stage(name, portraits):
        stages.append((name, portraits))
        yield

    encoder().encode_portraits(list(IMAGES), [face(), face()], [None, None], stage=stage)
    assert stages == [("FaceNet", 2), ("CLIP", 2)]


@pytest.mark.parametrize("options", [{"on_no_face": "crop"}, {"parse": "yes"}])
def test_unknown_choices_are_refused(options):
    with pytest.raises(BadInput, match="must be one of"):
        EncodeOptions(**options)
