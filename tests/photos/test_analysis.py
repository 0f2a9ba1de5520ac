import pytest
import torch

from capface.errors import BadInput, NoFaceFound
from capface.photos.analysis import FaceAnalyzer, PlainNetworks
from capface.tests.photos.face_networks import Networks, face

IMAGES = torch.rand(3, 3, 100, 120, generator=torch.Generator().manual_seed(0))


def test_the_image_without_the_face_is_named():
    with pytest.raises(NoFaceFound, match="Image 2 of 3: There is no face"):
        FaceAnalyzer(Networks([face()], [], [face()])).find_faces(IMAGES)
    found = FaceAnalyzer(Networks([face()], [], [face(20), face()])).find_faces_or_none(IMAGES, "left to right", 0)
    assert found[1] is None and found[2] is not None and found[2].box[0] == 30
    with pytest.raises(NoFaceFound, match=r"None of 3 images shows the face\. The last one: There is no face"):
        FaceAnalyzer(Networks([], [], [])).find_faces_or_none(IMAGES)


def test_work_can_be_interrupted_before_each_image_and_each_batch():
    calls = []

    def checkpoint():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt

    networks = Networks([face()], [face()], [face()])
    with pytest.raises(KeyboardInterrupt):
        FaceAnalyzer(networks, checkpoint).find_faces(IMAGES)
    assert len(networks.faces) == 1
    networks = Networks()
    codes, crops = FaceAnalyzer(networks, lambda: calls.append(None)).deca_codes([IMAGES[0]] * 20, [face()] * 20)
    assert networks.batches == [16, 4] and len(calls) == 5
    assert codes.shape == (20, 236) and crops.shape == (20, 3, 3)


def test_missing_networks_are_named():
    networks = PlainNetworks(Networks())
    assert not networks.has_parser() and isinstance(networks.deca_problem(), BadInput)
    with pytest.raises(BadInput, match="FaceNet is needed"):
        FaceAnalyzer(networks).embed(torch.zeros(1, 3, 160, 160))
