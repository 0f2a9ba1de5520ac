import dataclasses

import pytest
import torch

from capface.errors import BadInput, MissingFile
from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.photos.analysis import FaceAnalyzer
from capface.photos.heads import choose_method, deca_refusal, fit_heads, fit_one_by_one
from capface.photos.landmarks import landmarks_of
from capface.tests.photos.face_networks import Networks, face

IMAGES = torch.zeros(2, 3, 100, 120)


def test_progress_is_reported_before_each_head_and_at_the_end():
    seen = []
    analyzer = FaceAnalyzer(Networks([face()], [face(20)]))
    fitted = fit_heads(IMAGES, analyzer, builtin_head(), progress=lambda *numbers: seen.append(numbers))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert fitted.method == "landmarks" and fitted.frames == [0, 1]
    alone = landmarks_of(builtin_head(), [face(20)], 100, 120).fit()
    assert torch.equal(fitted.params[1].camera, alone.camera)
    assert fitted.summary().endswith("(5 points: pose only)")


def test_the_fit_can_be_interrupted():
    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_one_by_one(landmarks_of(builtin_head(), [face(), face(20)], 100, 120), None, stop)


def test_the_fit_starts_from_given_heads():
    landmarks = landmarks_of(builtin_head(), [face()], 100, 120)
    start = HeadParams.neutral().replace(shape=torch.full((1, 100), 0.5))
    assert torch.equal(fit_one_by_one(landmarks, start).shape, start.shape)


def test_decas_refusal_ends_with_a_remedy():
    refusal = deca_refusal(builtin_head(), "Do this.")
    assert isinstance(refusal, BadInput)
    assert "do not apply to the head model" in str(refusal) and str(refusal).endswith("Do this.")
    assert deca_refusal(dataclasses.replace(builtin_head(), kind="flame2020"), "Do this.") is None


def test_a_problem_with_deca_is_raised_when_deca_is_needed():
    model = dataclasses.replace(builtin_head(), kind="flame2020")
    analyzer = FaceAnalyzer(Networks(deca_problem=MissingFile("no file")))
    assert choose_method("auto", model, analyzer) == "landmarks"
    with pytest.raises(MissingFile, match="no file"):
        choose_method("DECA", model, analyzer)
    assert choose_method("auto", model, FaceAnalyzer(Networks())) == "DECA refined by landmarks"
