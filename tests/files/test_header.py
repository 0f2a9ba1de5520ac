"""Recognition of files by the names and shapes in their headers."""

import pytest
import torch
from safetensors.torch import save_file

from capface.files.header import tensor_shapes
from capface.files.identify import is_clip_vit_l, is_sd15

DENOISER = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def write(path, **shapes):
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({DENOISER: (320, 768), "cond_stage_model.x": (1,), "first_stage_model.x": (1,)}, True),
        ({DENOISER: (320, 1024), "cond_stage_model.x": (1,), "first_stage_model.x": (1,)}, False),
        ({DENOISER: (320, 768)}, False),
        ({DENOISER.replace("model.", "control_model.", 1): (320, 768), "cond_stage_model.x": (1,)}, False),
    ],
    ids=["SD 1.5", "SD 2", "the denoiser alone", "a ControlNet"],
)
def test_a_base_model_is_a_whole_sd15_checkpoint(tmp_path, shapes, expected):
    assert is_sd15(write(tmp_path / "x.safetensors", **shapes)) is expected


@pytest.mark.parametrize(("tokens", "expected"), [(257, True), (577, False)])
def test_clip_is_vit_l_at_224_pixels(tmp_path, tokens, expected):
    file = write(tmp_path / "x.safetensors", **{"vision_model.embeddings.position_embedding.weight": (tokens, 1024)})
    assert is_clip_vit_l(file) is expected


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40, b"PK\x03\x04broken"])
def test_other_files_have_no_shapes(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert tensor_shapes(tmp_path / "x") == {}
    assert not is_sd15(tmp_path / "x")
