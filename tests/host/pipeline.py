"""A small denoiser and CapFace inside the host, and helpers that sample with them.

The host's modules can be imported only after a test has requested the fixture `in_host`.
"""

from typing import Any

import torch

from capface.tests.host.hint_images import HintImages
from capface.tests.synthetic import fill, noise, state_dict

SIGMAS = torch.tensor([5.0, 2.0, 1.0])


def small_denoiser():
    """The golden cases' denoiser as the host's MODEL, float32."""
    import comfy.sd

    state = state_dict("unet_small.shapes.json", "model.diffusion_model.")
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})


def small_capface(dtype=torch.float32):
    """The golden cases' CapFace as the pack's CAPFACE."""
    from capface.host.capface_model import load_model

    state = {f"control_model.{k}": v for k, v in state_dict("capface_small.shapes.json", "control_model.").items()}
    for key, shape in {"img_linear": (768, 1024), "id_linear": (768, 512)}.items():
        state |= {f"{key}.weight": fill(f"{key}.weight", shape), f"{key}.bias": fill(f"{key}.bias", shape[:1])}
    return load_model(state, "small", dtype)


def stock_control(hint, strength=0.5):
    """The golden cases' pi* as a stock ControlNet with its control image `[B,3,H,W]`."""
    import comfy.controlnet

    net = comfy.controlnet.load_controlnet_state_dict(state_dict("pose_small.shapes.json", "pose_control_model."))
    return net.set_cond_hint(hint, strength, (0.0, 1.0))


def person(seed, batch=1, h=8, w=8):
    """A golden person: head condition, identity and text of a seed."""
    from capface.host.identity.identity import Identity

    hint = noise(seed + 1, [batch, 9, 8 * h, 8 * w]).clamp(-1, 1)
    identity = Identity(noise(seed + 2, [batch, 1, 512])[:, 0], noise(seed + 3, [batch, 257, 1024]))
    return HintImages(hint), identity, noise(seed + 4, [batch, 77, 768])


def apply(text, capface, condition, identity, *, previous=None, **settings) -> tuple[list, list]:
    """The node Apply CapFace on positive and negative conditioning."""
    from capface.nodes.apply_capface import ApplyCapFace

    widgets: dict[str, Any] = {"strength": 1.0, "tau": 1000.0, "start_percent": 0.0, "end_percent": 1.0} | settings
    positive, negative = previous or ([[text, {}]], [[text, {}]])
    positive, negative, *_ = ApplyCapFace.execute(positive, negative, capface, condition, identity=identity, **widgets).result
    return positive, negative


def sample(model, positive, negative, steps, *, shape=(1, 4, 8, 8), cfg=1.0, schedule=(1.0, 0.0)):
    """Run `steps(denoise)` inside the host's own sampling: `denoise(x, sigmas)` is the guided model.

    `schedule` holds the sigmas that the host believes the sampler to take.

    Returns what `steps` returned.
    """
    import comfy.sample
    import comfy.samplers

    returned = []

    def sampler(denoise, x, sigmas, extra_args=None, callback=None, disable=None):
        returned.append(steps(lambda x, s: denoise(x, s, **(extra_args or {}))))
        return x

    zeros = torch.zeros(shape)
    sigmas = torch.tensor(schedule)
    sampler = comfy.samplers.KSAMPLER(sampler)
    comfy.sample.sample_custom(model, zeros, cfg, sampler, sigmas, positive, negative, zeros, disable_pbar=True)
    return returned[0]


def predict_noise(model, positive, negative, x, timesteps, **settings):
    """The noise prediction eps of the host's denoiser at the released code's own input."""
    sigma = model.model.model_sampling.sigmas[torch.as_tensor(timesteps)]
    x = x * (sigma**2 + 1).sqrt()[:, None, None, None]

    def once(denoise):
        return (x - denoise(x, sigma)) / sigma[:, None, None, None]

    return sample(model, positive, negative, once, shape=x.shape, **settings)


def small_sampling():
    """The schedule of SD1.x."""
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.EPS, comfy.model_sampling.ModelSamplingDiscrete):
        pass

    return Sampling()


class Calls:
    """Records the calls of a network: rows, presence of a context, sizes of hints."""

    def __init__(self, network):
        self.rows, self.contexts, self.hints = [], [], []
        self.forward, self.encode_hint = network.forward, network.encode_hint
        self.network = network

    def __enter__(self):
        def forward(x, timesteps, guided, context):
            self.rows.append(len(x))
            self.contexts.append(context is not None)
            return self.forward(x, timesteps, guided, context)

        def encode_hint(hint):
            self.hints.append(tuple(hint.shape))
            return self.encode_hint(hint)

        self.network.forward, self.network.encode_hint = forward, encode_hint
        return self

    def __exit__(self, *_):
        del self.network.forward, self.network.encode_hint


def x_at(sigma, shape=(1, 4, 8, 8), seed=7):
    """Noisy latents as they are at a sigma."""
    return noise(seed, shape) * (sigma**2 + 1) ** 0.5


def walk(sigmas=SIGMAS, shape=(1, 4, 8, 8)):
    """Sampler steps that only observe: one guided prediction at each sigma, of latents that differ by step."""
    return lambda denoise: torch.stack([denoise(x_at(s, shape, i), s.expand(shape[0])) for i, s in enumerate(sigmas)])


def area(conditioning, h, w, y, x):
    """The same conditioning, restricted to an area of the latents."""
    return [[embedding, {**options, "area": (h, w, y, x)}] for embedding, options in conditioning]
