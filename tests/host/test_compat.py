"""CapFace together with other features of ComfyUI: sampling works, and CapFace has an effect.

Every case samples with and without CapFace through the host's own nodes, on a small SD1.5 with a matching CapFace.
"""

from types import SimpleNamespace

import pytest
import torch

from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.tests.host.pipeline import Calls, apply
from capface.tests.synthetic import noise, relative_error

TEXT, OTHER_TEXT = noise(1, [1, 77, 768]), noise(2, [1, 77, 768])


@pytest.fixture(scope="module")
def world(in_host, standins):
    """A base model, a matching CapFace, a VAE, a person and a head."""
    import comfy.sd

    from capface.host.capface_model import load_model
    from capface.host.identity.identity import Identity

    path = str(next((standins / "checkpoints").iterdir()))
    model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(path, output_clip=False)
    capface_path = next((standins / "capface").iterdir())
    capface = load_model(capface_path, "stand-in", torch.float32)
    identity = Identity(torch.nn.functional.normalize(noise(3, [1, 512])), noise(4, [1, 257, 1024]))
    head = HeadCondition(builtin_head(), HeadParams.neutral(1))
    parts = {"model": model, "vae": vae, "capface": capface, "identity": identity, "head": head, "nodes": in_host.nodes}
    return SimpleNamespace(path=path, capface_path=capface_path, **parts)


def conds(world, **settings):
    return apply(TEXT, world.capface, world.head, world.identity, previous=plain(), **settings)


def plain():
    return [[TEXT, {}]], [[OTHER_TEXT, {}]]


def latent(*shape):
    return {"samples": torch.zeros(shape or (1, 4, 16, 16))}


def ksampler(world, positive, negative, model=None, latents=None, sampler="euler", steps=3, denoise=1.0):
    arguments = (model or world.model, 5, steps, 4.0, sampler, "normal", positive, negative, latents or latent())
    return world.nodes.common_ksampler(*arguments, denoise=denoise)[0]["samples"]


def check_that_it_acts(world, sample):
    """Check that `sample(positive, negative)` is finite and differs with and without CapFace; return the result with it."""
    with Calls(world.capface.network) as calls:
        with_capface = sample(*conds(world))
    assert calls.rows
    assert torch.isfinite(with_capface).all()
    assert relative_error(with_capface, sample(*plain())) > 1e-2
    return with_capface


@pytest.mark.filterwarnings("ignore:Should have t:UserWarning")  # torchsde, at the ends of the schedule
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddim", "uni_pc", "lcm"])
def test_samplers(world, name):
    one = check_that_it_acts(world, lambda p, n: ksampler(world, p, n, sampler=name))
    assert torch.equal(one, ksampler(world, *conds(world), sampler=name))  # a second run gives the same result


def test_a_second_pass_at_twice_the_size(world):
    def sample(positive, negative):
        first = {"samples": ksampler(world, positive, negative)}
        (larger,) = world.nodes.LatentUpscaleBy().upscale(first, "nearest-exact", 2.0)
        return ksampler(world, positive, negative, latents=larger, denoise=0.6)

    assert check_that_it_acts(world, sample).shape[-2:] == (32, 32)
    with Calls(world.capface.network) as calls:
        sample(*conds(world))
    assert {hint[-1] for hint in calls.hints} == {128, 256}


def test_img2img(world):
    start = {"samples": noise(8, [1, 4, 16, 16])}
    check_that_it_acts(world, lambda p, n: ksampler(world, p, n, latents=start, denoise=0.5))


def test_inpainting_with_an_ordinary_checkpoint(world):
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1
    start = {"samples": noise(8, [1, 4, 16, 16]), "noise_mask": mask}
    out = check_that_it_acts(world, lambda p, n: ksampler(world, p, n, latents=start))
    assert torch.allclose(out[..., :7], start["samples"][..., :7], atol=1e-5)


def test_several_samplers_in_a_row(world):
    def sample(positive, negative):
        run = world.nodes.KSamplerAdvanced().sample
        fixed = (4, 4.0, "euler", "normal", positive, negative)
        (first,) = run(world.model, "enable", 5, *fixed, latent(), 0, 2, "enable")
        return run(world.model, "disable", 5, *fixed, first, 2, 1000, "disable")[0]["samples"]

    check_that_it_acts(world, sample)


def lora():
    """A LoRA on the small denoiser's first transformer."""
    name = "lora_unet_input_blocks_1_1_proj_in."
    return {f"{name}lora_up.weight": noise(5, [320, 8]), f"{name}lora_down.weight": noise(6, [8, 320])}


def test_lora(world):
    import comfy.sd

    model, _ = comfy.sd.load_lora_for_models(world.model, None, lora(), 0.5, 0)
    out = check_that_it_acts(world, lambda p, n: ksampler(world, p, n, model=model))
    assert relative_error(out, ksampler(world, *conds(world))) > 1e-3


def test_hooks(world):
    """A LoRA on only the positive prompt: the host evaluates the halves separately, CapFace still only once."""
    import comfy.hooks

    hooks = comfy.hooks.create_hook_lora(lora(), 0.5, 0)

    def sample(positive, negative):
        return ksampler(world, comfy.hooks.set_hooks_for_conditioning(positive, hooks), negative)

    out = check_that_it_acts(world, sample)
    assert relative_error(out, ksampler(world, *conds(world))) > 1e-3
    with Calls(world.capface.network) as calls:
        sample(*conds(world))
    assert calls.rows == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_base_models_of_other_types(world, dtype):
    import comfy.sd

    model, *_ = comfy.sd.load_checkpoint_guess_config(
        world.path, output_clip=False, output_vae=False, model_options={"dtype": dtype}
    )
    assert model.model.get_dtype() == dtype
    check_that_it_acts(world, lambda p, n: ksampler(world, p, n, model=model))


def test_a_partly_loaded_base_and_capface(world):
    from capface.host.capface_model import load_model

    whole = ksampler(world, *conds(world))
    capface = load_model(world.capface_path, "partly", torch.float32)
    capface.patcher.load(torch.device("cpu"), lowvram_model_memory=1_000_000)
    partly = SimpleNamespace(**{**vars(world), "capface": capface})
    assert torch.equal(ksampler(partly, *conds(partly)), whole)


def test_v_prediction(world):
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    model = world.model.clone()
    model.add_object_patch("model_sampling", Sampling(model.model.model_config))
    out = check_that_it_acts(world, lambda p, n: ksampler(world, p, n, model=model))
    assert relative_error(out, ksampler(world, *conds(world))) > 1e-2


def test_an_inpainting_base_with_nine_channels(world):
    """Only the denoiser gets the extra channels; CapFace gets the latents."""
    import comfy.sd
    import comfy.utils

    state = comfy.utils.load_torch_file(world.path)
    prefix = "model.diffusion_model."
    state = {k: v for k, v in state.items() if k.startswith(prefix)}
    first = f"{prefix}input_blocks.0.0.weight"
    state[first] = torch.cat([state[first], 0.05 * noise(9, [320, 5, 3, 3]).to(state[first].dtype)], dim=1)
    model = comfy.sd.load_diffusion_model_state_dict(state)
    assert model.model.concat_keys
    pixels, mask = torch.rand(1, 128, 128, 3), torch.zeros(1, 128, 128)
    mask[..., 64:] = 1

    def sample(positive, negative):
        encode = world.nodes.InpaintModelConditioning().encode
        positive, negative, latents = encode(positive, negative, pixels, world.vae, mask, noise_mask=True)
        return ksampler(world, positive, negative, model=model, latents=latents)

    check_that_it_acts(world, sample)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # ComfyUI 0.3.64's windows
def test_a_sequence_in_sliding_windows_gets_each_frame_its_own_head(world):
    """Without motion layers, windows change nothing if every frame keeps its head.

    5 steps have 6 noise levels. ComfyUI 0.3.64 compares them with the frames' levels one by one, so there must be 6 frames.
    """
    import comfy.context_windows as windows

    frames = HeadParams.neutral(6)
    turned = torch.linspace(-0.8, 0.8, 6)
    rotation = torch.stack([torch.zeros(6), turned, torch.zeros(6)], dim=1)
    sequence = SimpleNamespace(**{**vars(world), "head": HeadCondition(builtin_head(), frames.replace(rotation=rotation))})
    whole = ksampler(sequence, *conds(sequence), latents=latent(6, 4, 16, 16), steps=5)
    schedule = windows.get_matching_context_schedule(windows.ContextSchedules.STATIC_STANDARD)
    fuse = windows.get_matching_fuse_method(windows.ContextFuseMethods.FLAT)
    model = world.model.clone()
    handler = windows.IndexListContextHandler(schedule, fuse, context_length=4, context_overlap=2, dim=0)
    model.model_options["context_handler"] = handler
    windowed = ksampler(sequence, *conds(sequence), model=model, latents=latent(6, 4, 16, 16), steps=5)
    assert relative_error(windowed, whole) < 1e-4
    still = ksampler(world, *conds(world), latents=latent(6, 4, 16, 16), steps=5)
    assert relative_error(whole, still) > 1e-2


def test_prompts_scheduled_over_the_steps(world):
    """Two prompts, each for a part of the schedule, the second with a LoRA whose strength follows keyframes."""
    import comfy.hooks

    hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((0.2, 0.0), (0.8, 0.7)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)

    def sample(positive, negative):
        schedule = world.nodes.ConditioningSetTimestepRange().set_range
        (early,), (late,) = schedule(positive, 0.0, 0.5), schedule(positive, 0.5, 1.0)
        late = comfy.hooks.set_hooks_for_conditioning(late, hooks)
        return ksampler(world, [*early, *late], negative)

    out = check_that_it_acts(world, sample)
    assert relative_error(out, ksampler(world, *conds(world))) > 1e-3
    with Calls(world.capface.network) as calls:
        sample(*conds(world))
    assert calls.rows == [1, 1, 1]
