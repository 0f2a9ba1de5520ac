"""The denoiser, compared with ComfyUI's own UNet with the same weights."""

import pytest
import torch

from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig
from capface.tests.synthetic import relative_error


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (DenoiserConfig((1, 2), 1, (1, 2), 64, context_width=48), (8, 8)),
        (DenoiserConfig((1, 2, 4, 4), 2, (1, 2, 4), 32, context_width=40), (20, 12)),
        (DenoiserConfig((1, 2, 2), 1, (2, 4), 32, context_width=16, num_heads=4, in_channels=9), (7, 9)),
    ],
    ids=["small", "SD1.x in narrow", "odd size"],
)
def test_equals_the_hosts_network(in_host, config, size):
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    network = Denoiser(config).eval().requires_grad_(False)
    depths = [int(2**level in config.attention_downsamplings) for level in range(len(config.channel_mult))]
    host = UNetModel(
        image_size=32,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        model_channels=config.model_channels,
        num_res_blocks=[config.num_res_blocks] * len(config.channel_mult),
        channel_mult=list(config.channel_mult),
        num_heads=config.num_heads,
        use_spatial_transformer=True,
        transformer_depth=[d for d in depths for _ in range(config.num_res_blocks)],
        transformer_depth_output=[d for d in depths for _ in range(config.num_res_blocks + 1)],
        transformer_depth_middle=1,
        context_dim=config.context_width,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    assert host.load_state_dict(network.state_dict(), strict=True)
    x, text = torch.randn(2, config.in_channels, *size), torch.randn(2, 7, config.context_width)
    t = torch.tensor([17.0, 803.5])
    with torch.no_grad():
        plain = host(x, t, context=text)
    assert relative_error(network(x, t, text), plain) < 1e-5
    residuals = network_outputs(network, x, t, text)
    control = {"output": [r.clone() for r in residuals[:-1]], "middle": [residuals[-1].clone()]}
    with torch.no_grad():
        steered = host(x, t, context=text, control=control)
    assert relative_error(network(x, t, text, residuals), steered) < 1e-5
    assert relative_error(steered, plain) > 1e-2


def network_outputs(network, x, t, text):
    """Tensors of the residuals' shapes that are not constant: the encoder's own outputs, mirrored."""
    outputs = []
    blocks = (*network.input_blocks, network.middle_block)
    handles = [block.register_forward_hook(lambda _m, _i, out: outputs.append(out.flip(-1))) for block in blocks]
    network(x, t, text)
    for handle in handles:
        handle.remove()
    return outputs
