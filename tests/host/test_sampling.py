"""The DDIM loop without ComfyUI, compared with ComfyUI's KSampler with Apply CapFace."""

import pytest
import torch

from capface.models.diffusion.capface_checkpoint import load_capface
from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig
from capface.tests.host import pipeline
from capface.tests.synthetic import fill, noise, relative_error, state_dict
from capface.training.sampling import capface_control, ddim, ddim_timesteps, noise_prediction
from capface.training.schedule import NoiseSchedule

STEPS, GUIDANCE, TAU, SEED = 5, 3.0, 500.0, 300


@pytest.fixture(scope="module")
def denoiser():
    state = state_dict("unet_small.shapes.json", "model.diffusion_model.")
    network = Denoiser(DenoiserConfig.from_state_dict(state))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def capface():
    state = {f"control_model.{k}": v for k, v in state_dict("capface_small.shapes.json", "control_model.").items()}
    for key, shape in {"img_linear": (768, 1024), "id_linear": (768, 512)}.items():
        state |= {f"{key}.weight": fill(f"{key}.weight", shape), f"{key}.bias": fill(f"{key}.bias", shape[:1])}
    return load_capface(state)


@pytest.mark.parametrize("controlled", [False, True], ids=["plain", "CapFace"])
def test_equals_the_hosts_sampler(in_host, denoiser, capface, controlled):
    import comfy.sample

    condition, identity, text = pipeline.person(SEED)
    null = noise(SEED + 9, [1, 77, 768])
    positive, negative = [[text, {}]], [[null, {}]]
    controls = []
    if controlled:
        previous = (positive, negative)
        positive, negative = pipeline.apply(
            text, pipeline.small_capface(), condition, identity, previous=previous, tau=TAU, strength=0.7
        )
        network, tokens = capface
        projected = tokens(identity.local, identity.global_[:, None])
        controls = [capface_control(network, condition.hint(64, 64), projected, strength=0.7, tau=TAU)]
    z = noise(SEED, [1, 4, 8, 8])
    host = comfy.sample.sample(
        pipeline.small_denoiser(), z, STEPS, GUIDANCE, "ddim", "ddim_uniform", positive, negative, torch.zeros_like(z),
        disable_pbar=True, seed=0,
    )  # fmt: skip
    # the host starts at the first timestep's own noise level, at which the latents still contain some signal
    first = NoiseSchedule().alphas_bar[ddim_timesteps(STEPS)[0]].item()
    predict = noise_prediction(denoiser, text, null, controls, guidance=GUIDANCE)
    ours = ddim(predict, (1 - first) ** 0.5 * z, steps=STEPS)
    # the host returns latents at its autoencoder's scale
    assert relative_error(ours / 0.18215, host) < 1e-4
