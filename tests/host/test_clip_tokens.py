"""CLIP without the host gives what the host's CLIP gives."""

import torch


@torch.no_grad()
def test_the_tokens_of_training_are_those_of_encode_identity(in_host, standins):
    """Both read the same file of ViT-L/14's size, from portraits that are not square and not of CLIP's size."""
    import comfy.clip_vision

    from capface.host.image_tokens import clip_tokens
    from capface.models.clip_tokens import VIT_L, load_clip_tokens

    file = standins / "clip_vision" / "clip-vit-large-patch14.safetensors"
    portraits = torch.rand(1, 3, 300, 260)
    theirs = clip_tokens(comfy.clip_vision.load(str(file)), list(portraits))
    ours = load_clip_tokens(file)
    assert ours.shape == VIT_L
    assert (ours(portraits) - theirs).abs().max() < 1e-3 * theirs.abs().max()
