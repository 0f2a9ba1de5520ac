import pytest
import torch

from capface.errors import BadInput
from capface.models.clip.similarity import cosine, is_best, prompt_scores


def test_cosines_by_hand():
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    assert cosine(a, torch.tensor([[1.0, 0.0]])) == pytest.approx([0.6, 1, 2**-0.5])
    assert cosine(a, torch.tensor([[6.0, 8.0], [-2.0, 0.0], [1.0, -1.0]])) == pytest.approx([1, -1, 0])


def test_a_vector_has_similarity_1_with_itself():
    a = torch.randn(50, 512)
    assert (cosine(a, a) - 1).abs().max() < 1e-6
    assert cosine(a, a).max() <= 1


@pytest.mark.parametrize("b", [torch.zeros(2, 4), torch.zeros(3, 5), torch.zeros(4)])
@pytest.mark.usefixtures("without_type_checks")
def test_vectors_that_do_not_pair_are_refused(b):
    with pytest.raises(BadInput, match=r"\[B, N\]"):
        cosine(torch.zeros(3, 4), b)


def test_the_right_prompt_has_to_score_highest():
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    scores = prompt_scores(images, texts)
    assert scores.tolist() == [[1, 0], [0, 1], [0, 0]]
    # a tie is not a hit: it does not distinguish the prompts
    assert is_best(scores).tolist() == [True, False, False]


@pytest.mark.usefixtures("without_type_checks")
def test_a_single_prompt_and_wrong_shapes_are_refused():
    with pytest.raises(BadInput, match="two prompts or more"):
        is_best(torch.zeros(3, 1))
    with pytest.raises(BadInput, match=r"\[B, N\] and \[P, N\]"):
        prompt_scores(torch.zeros(3, 4), torch.zeros(2, 5))
