"""The part of the frame and the frames of a request: the control uses that part of the whole hint."""

import logging
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from capface.flame.builtin import builtin_head
from capface.flame.model.camera import WHOLE, Window
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.tests.host import pipeline
from capface.tests.synthetic import noise, relative_error

H, W = 12, 16
"""The frame's latents."""
CENTRES = (0.25, -0.1, -0.3, 0.1)


def head(frames=1):
    """Turned heads, each at another position off the centre."""
    params = HeadParams.neutral(frames)
    x = torch.tensor([CENTRES[i % 4] for i in range(frames)])
    camera = torch.stack([torch.full([frames], 4.5), x, torch.full([frames], -0.1)], dim=1)
    rotation = torch.tensor([[0.1, 0.5, 0.2]]).expand(frames, -1)
    return HeadCondition(builtin_head(), params.replace(camera=camera, rotation=rotation))


@pytest.fixture
def hints(capface):
    """Record every hint that the network gets."""
    given, encode = [], capface.network.encode_hint

    def look(hint):
        given.append(hint)
        return encode(hint)

    capface.network.encode_hint = look
    yield given
    del capface.network.encode_hint


@pytest.fixture
def conds(capface):
    """Make conditionings with CapFace, for one or several heads."""
    _, identity, text = pipeline.person(300)

    def make(frames=1, **settings):
        return pipeline.apply(text, capface, head(frames), identity, **settings)

    return make


def ksampler(in_host, model, positive, negative, latents, steps=1, **options):
    arguments = (model, 5, steps, 3.0, "euler", "normal", positive, negative, latents)
    return in_host.nodes.common_ksampler(*arguments, **options)[0]["samples"]


def same_picture(part, expected):
    """Check that two renderings agree except for single pixels at the edges of faces."""
    return ((part - expected).abs() > 1e-3).float().mean() < 3e-3


def part_of_whole(top, bottom, left, right, frames=1):
    """Return a part of the whole hint; the part is given in latent pixels."""
    hint = head(frames).hint(8 * H, 8 * W)[..., 8 * top : 8 * bottom, 8 * left : 8 * right]
    assert (hint != 0).any()
    return hint


# Coordinate images


def windows(image, frames=1, size=None):
    from capface.host.control.coordinates import read_coordinates

    return read_coordinates(image, frames, size)


def only_window(image, frames=1, size=None):
    (found,) = windows(image, frames, size)
    assert found is not None
    return found


def test_an_untouched_image_is_the_whole_frame(in_host):
    from capface.host.control.coordinates import coordinate_image

    for frames, size in ((1, None), (1, (96, 128)), (3, (64, 64)), (30, None)):
        assert windows(coordinate_image(frames, size), frames, size) == [(WHOLE, i) for i in range(frames)]
    square = F.interpolate(coordinate_image(1), (96, 128), mode="nearest-exact")
    assert windows(square) == [(WHOLE, 0)]


@pytest.mark.parametrize("mode", ["nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_cut_of_an_image_is_its_window(in_host, mode, dtype):
    """As in Ultimate SD Upscale: cut in the image's own pixels, then resize."""
    from capface.host.control.coordinates import coordinate_image

    cut = coordinate_image(1)[..., 480:1440, 240:960]
    image = F.interpolate(cut, (512, 384), mode=mode).to(dtype)
    window, frame = only_window(image)
    assert frame == 0
    expected = Window(240 / 1920, 480 / 1920, 960 / 1920, 1440 / 1920)
    for name in ("left", "top", "right", "bottom"):
        assert getattr(window, name) == pytest.approx(getattr(expected, name), abs=3e-4)


def test_a_stretched_cut_is_detected_by_the_frames_size(in_host):
    from capface.host.control.coordinates import coordinate_image

    cut = F.interpolate(coordinate_image(1, (96, 64))[..., :64, :], (72, 64), mode="nearest-exact")
    window, _ = only_window(cut, 1, (96, 64))
    assert isinstance(window, Window)
    assert window.aspect == pytest.approx(64 / 96)
    window, _ = only_window(coordinate_image(1, (96, 64))[..., :64, :], 1, (96, 64))
    assert isinstance(window, Window)
    assert window.aspect is None


def test_rolled_and_padded_images_are_looked_up_pixel_by_pixel(in_host):
    from capface.host.control.coordinates import coordinate_image, render_view

    whole = head().hint(96, 128)
    rolled = coordinate_image(1, (96, 128)).roll(60, -1)[..., 16:80, 0:64]
    view, _ = only_window(rolled, 1, (96, 128))
    expected = whole.roll(60, -1)[..., 16:80, 0:64]
    assert (expected != 0).any()
    assert relative_error(render_view(head(), view, 64, 64), expected) < 1e-5
    padded = F.pad(coordinate_image(1, (96, 128))[..., 8:72, 72:], (0, 8, 0, 0))
    view, _ = only_window(padded, 1, (96, 128))
    assert relative_error(render_view(head(), view, 64, 64), F.pad(whole[..., 8:72, 72:], (0, 8, 0, 0))) < 1e-5


def test_another_picture_is_not_read_as_coordinates(in_host):
    assert windows(torch.rand(2, 3, 64, 64)) == [None, None]
    assert windows(torch.zeros(1, 3, 64, 64)) == [None]
    assert windows(torch.rand(1, 1, 64, 64)) == [None]


# Packs that set the control image


def test_tiles_cut_before_sampling(in_host, denoiser, conds, hints):
    """As in Ultimate SD Upscale: each conditioning has its own copy, whose image is cut and resized."""

    def tile(conditioning):
        control = conditioning[0][1]["control"].copy()
        image = control.cond_hint_original
        assert image.shape == (1, 3, 1920, 1920)
        control.cond_hint_original = F.interpolate(image[..., 320:1280, 480:1440], (8 * 6, 8 * 8), mode="nearest-exact")
        again = control.copy()
        assert again.cond_hint_original is control.cond_hint_original
        return [[conditioning[0][0], {**conditioning[0][1], "control": again}]]

    positive, negative = (tile(c) for c in conds())
    ksampler(in_host, denoiser, positive, negative, {"samples": torch.zeros(1, 4, 6, 8)})
    assert len(hints) == 1  # both halves show the same
    assert same_picture(hints[0], part_of_whole(2, 8, 4, 12))
    hints.clear()
    ksampler(in_host, denoiser, *conds(), latents={"samples": torch.zeros(1, 4, H, W)})
    assert torch.equal(hints[0], head().hint(8 * H, 8 * W))


def test_slices_set_for_each_run(in_host, denoiser, conds, hints):
    """As in tiled samplers: set on the control itself, before each run."""
    import comfy.controlnet

    positive, negative = conds()
    control = positive[0][1]["control"]
    assert isinstance(control, comfy.controlnet.ControlNet)
    image = F.interpolate(control.cond_hint_original, (8 * H, 8 * W), mode="nearest-exact")
    for left in (2, 6):
        cut = image[..., 8:72, 8 * left : 8 * left + 64]
        control.cond_hint = cut.to(control.control_model.dtype).to(control.device)
        control.cleanup()  # Tiled Diffusion, if installed, does this before each run
        ksampler(in_host, denoiser, positive, negative, {"samples": torch.zeros(1, 4, 8, 8)})
        assert same_picture(hints[-1], part_of_whole(1, 9, left, left + 8))
        assert control.cond_hint is None


def test_tiles_cut_inside_an_evaluation(in_host, denoiser, capface, conds, hints):
    """As in Tiled Diffusion: several tiles of both halves at once, ordered by tile."""
    import comfy.utils

    positive, negative = conds(2)
    control = positive[0][1]["control"]
    ask, seen = control.get_control, []
    control.get_control = lambda *_: control
    boxes = ((0, 0), (4, 8), (2, 4))

    def tiled(apply_model, arguments):
        x, sigma, c = arguments["input"], arguments["timestep"], arguments["c"]
        image = comfy.utils.common_upscale(control.cond_hint_original, 8 * W, 8 * H, control.upscale_algorithm, "center")
        image = image.repeat(len(x) // len(image), 1, 1, 1)
        tiles = torch.cat([x[..., top : top + 8, left : left + 8] for top, left in boxes])
        control.cond_hint = torch.cat([image[..., 8 * top : 8 * top + 64, 8 * left : 8 * left + 64] for top, left in boxes])
        got = ask(tiles, sigma.repeat(3), c, len(arguments["cond_or_uncond"]), c["transformer_options"])
        seen.append(list(got["output"]))
        c = {**c, "control": None}
        return apply_model(x, sigma, **{k: v for k, v in c.items() if v is not None})

    model = denoiser.clone()
    model.set_model_unet_function_wrapper(tiled)
    ksampler(in_host, model, positive, negative, {"samples": torch.zeros(2, 4, H, W)})
    assert len(hints) == 3
    for hint, (top, left) in zip(hints, boxes, strict=True):
        assert same_picture(hint, head(2).hint(8 * H, 8 * W)[..., 8 * top : 8 * top + 64, 8 * left : 8 * left + 64])
    # The latents differ only by position here: in each half and frame all tiles differ, and both halves are equal.
    rows = seen[0][0].reshape(3, 2, 2, *seen[0][0].shape[1:])
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert relative_error(rows[:, :, 0], rows[:, :, 1]) > 1e-3


def test_parts_without_a_known_position_give_one_warning(in_host, denoiser, conds, caplog):
    """A sampler that cuts latents but not the control image."""

    def tiled(apply_model, arguments):
        c = {k: v for k, v in arguments["c"].items() if k != "control"}
        x, sigma = arguments["input"], arguments["timestep"]
        for left in (0, 8):
            ask(x[..., :8, left : left + 8], sigma, c, len(arguments["cond_or_uncond"]), c["transformer_options"])
        return apply_model(x, sigma, **c)

    positive, negative = conds()
    control = positive[0][1]["control"]
    ask = control.get_control
    control.get_control = lambda *_: None
    model = denoiser.clone()
    model.set_model_unet_function_wrapper(tiled)
    with caplog.at_level(logging.WARNING, "capface"):
        ksampler(in_host, model, positive, negative, {"samples": torch.zeros(1, 4, H, W)}, steps=2)
    said = [r.getMessage() for r in caplog.records if r.name == "capface" and r.levelno == logging.WARNING]
    assert len(said) == 1
    assert "64 x 64 pixels of a picture of 128 x 96" in said[0]
    assert "Crop Head" in said[0]


# Areas


def test_an_area_shows_the_head_where_it_is_in_the_frame(in_host, denoiser, conds, hints):
    positive, negative = conds()
    area = in_host.nodes.ConditioningSetArea().append(positive, 8 * 8, 8 * 8, 8 * 8, 8 * 2, 1.0)[0]
    ksampler(in_host, denoiser, area, negative, {"samples": torch.zeros(1, 4, H, W)})
    assert sorted(tuple(h.shape[-2:]) for h in hints) == [(64, 64), (96, 128)]
    (hint,) = (h for h in hints if h.shape[-2:] == (64, 64))
    assert same_picture(hint, part_of_whole(2, 10, 8, 16))


def test_a_masks_bounds_are_an_area(in_host, denoiser, conds, hints):
    positive, negative = conds()
    mask = torch.zeros(1, 8 * H, 8 * W)
    mask[:, 16:80, 64:128] = 1
    bound = in_host.nodes.ConditioningSetMask().append(positive, mask, "mask bounds", 1.0)[0]
    ksampler(in_host, denoiser, bound, negative, {"samples": torch.zeros(1, 4, H, W)})
    (hint,) = (h for h in hints if h.shape[-2:] != (96, 128))
    rows, columns = (n // 8 for n in hint.shape[-2:])
    assert same_picture(hint, part_of_whole(2, 2 + rows, 8, 8 + columns))


def test_the_users_mask_is_cut_with_the_area(in_host, denoiser, capface, conds):
    """Where the mask is 0 in the frame, CapFace does not act in the area either."""
    mask = torch.zeros(1, 8 * H, 8 * W)
    mask[:, :, 96:] = 1
    positive, _ = conds(mask=mask, mask_edge="soft")
    control = positive[0][1]["control"]
    control.model_sampling = pipeline.small_sampling()
    from capface.host.control.sampling_context import KEY, SamplingContext

    context_ = SamplingContext(latent=(H, W), areas={"a": (8, 8, 2, 8)})
    out = control.get_control(noise(1, [1, 4, 8, 8]), torch.tensor([2.0]), {}, 1, {KEY: context_, "uuids": ["a"]})
    assert out["output"][0][..., :3].abs().max() == 0
    assert out["output"][0][..., 5:].abs().max() > 0


def test_an_area_of_a_tile(in_host, conds, hints):
    """The tile is a part of the frame, and the area is a part of the tile."""
    from capface.host.control.sampling_context import KEY, SamplingContext

    positive, _ = conds()
    control = positive[0][1]["control"]
    control.model_sampling = pipeline.small_sampling()
    control.cond_hint_original = F.interpolate(control.cond_hint_original, (8 * H, 8 * W), mode="nearest-exact")[..., 64:]
    context_ = SamplingContext(latent=(H, 8), areas={"a": (8, 6, 2, 1)})
    control.get_control(noise(1, [1, 4, 8, 6]), torch.tensor([2.0]), {}, 1, {KEY: context_, "uuids": ["a"]})
    assert same_picture(hints[-1], part_of_whole(2, 10, 9, 15))


# Frames


def test_a_single_frame_sampled_again_keeps_its_head(in_host, denoiser, conds, hints):
    frames = {"samples": torch.zeros(4, 4, 8, 8)}
    all_of_them = ksampler(in_host, denoiser, *conds(4), latents=frames)
    for index, length in ((2, 1), (1, 2)):
        some = in_host.nodes.LatentFromBatch().frombatch(frames, index, length)[0]
        assert relative_error(ksampler(in_host, denoiser, *conds(4), latents=some), all_of_them[index : index + length]) < 1e-4


def test_frames_are_identified_by_their_noise(in_host):
    from capface.host.control.sampling_context import frames_of_noise

    state = torch.get_rng_state()
    import comfy.sample

    known = comfy.sample.prepare_noise(torch.zeros(6, 4, 8, 8), 7)
    torch.set_rng_state(state)
    assert frames_of_noise(known[[4, 1]], 7, 6) == (4, 1)
    assert frames_of_noise(known[:2], 7, 6) == (0, 1)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not used
    for noise_, seed, heads in (
        (known, 7, 6),  # all of them
        (known[[1, 1]], 7, 6),  # some workflows repeat noise to make videos steadier
        (known[:1], 8, 6),
        (known[:1], None, 6),
        (torch.zeros(1, 4, 8, 8), 7, 6),
    ):
        assert frames_of_noise(noise_, seed, heads) is None


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # ComfyUI 0.3.64's windows
@pytest.mark.parametrize(
    ("schedule", "fuse"),
    [
        ("STATIC_STANDARD", "PYRAMID"),
        ("STATIC_STANDARD", "RELATIVE"),
        ("UNIFORM_STANDARD", "FLAT"),
        ("UNIFORM_LOOPED", "FLAT"),
        ("BATCHED", "FLAT"),
    ],
)
def test_sliding_windows_give_each_frame_its_head(in_host, denoiser, conds, schedule, fuse):
    """Without motion layers, windows change nothing if every frame keeps its head."""
    import comfy.context_windows as w

    frames = {"samples": torch.zeros(6, 4, 8, 8)}
    whole = ksampler(in_host, denoiser, *conds(6), latents=frames, steps=5)
    model = denoiser.clone()
    model.model_options["context_handler"] = w.IndexListContextHandler(
        w.get_matching_context_schedule(getattr(w.ContextSchedules, schedule)),
        w.get_matching_fuse_method(getattr(w.ContextFuseMethods, fuse)),
        context_length=4, context_overlap=2, closed_loop=schedule == "UNIFORM_LOOPED", dim=0,
    )  # fmt: skip
    assert relative_error(ksampler(in_host, model, *conds(6), latents=frames, steps=5), whole) < 1e-4


def test_a_frame_before_a_window_and_frames_of_every_window(in_host):
    from capface.host.control.sampling_context import SamplingContext

    window = SimpleNamespace(index_list=[4, 5, 6])
    assert SamplingContext().window_frames({"context_window": window}, 3) == [4, 5, 6]
    window.causal_anchor_index = 3
    assert SamplingContext().window_frames({"context_window": window}, 4) == [3, 4, 5, 6]
    assert SamplingContext(retained=(0,)).window_frames({"context_window": window}, 4) == [0, 4, 5, 6]
    assert SamplingContext().window_frames({"ad_params": {"sub_idxs": [5, 0]}}, 2) == [5, 0]
    assert SamplingContext().window_frames({"ad_params": {"sub_idxs": None}}, 2) is None


# Wrappers, devices and memory


def test_the_wrappers_keep_conditionings_together(in_host, denoiser, capface, conds):
    """Separate hooks would keep the host from batching both halves if only one has CapFace after its ControlNet."""
    positive, negative = conds()
    assert positive[0][1]["control"].extra_hooks is not None
    assert positive[0][1]["control"].get_extra_hooks() == []
    import comfy.samplers

    seen, evaluate = [], comfy.samplers._calc_cond_batch

    def look(model, conds, x, timestep, options):
        seen.append([c.get("hooks") for cond in conds for c in cond])
        return evaluate(model, conds, x, timestep, options)

    comfy.samplers._calc_cond_batch = look
    try:
        ksampler(in_host, denoiser, positive, negative, {"samples": torch.zeros(1, 4, 8, 8)})
    finally:
        comfy.samplers._calc_cond_batch = evaluate
    assert seen == [[None, None]]


def test_another_packs_wrappers_are_not_kept_for_the_next_run(in_host, denoiser, conds):
    from capface.host.control.sampling_context import sampling_hooks

    before = str(sampling_hooks().hooks[0].transformers_dict)
    model = denoiser.clone()
    model.add_wrapper_with_key("sampler_sample", "theirs", lambda executor, *a, **k: executor(*a, **k))
    ksampler(in_host, model, *conds(), latents={"samples": torch.zeros(1, 4, 8, 8)})
    assert str(sampling_hooks().hooks[0].transformers_dict) == before


def test_on_another_device_it_has_its_own_network(in_host, capface, conds):
    positive, _ = conds(2, overlap="nearest")
    control = positive[0][1]["control"]
    there = torch.device("cpu", 0)
    clone = control.deepclone_multigpu(there)
    assert clone.evaluation.model.network is not capface.network
    assert clone.get_models()[0].load_device == there
    assert control.copy().deepclone_multigpu(there).evaluation is clone.evaluation  # both halves also share it there
    x, sigma = noise(1, [2, 4, 8, 8]), torch.full([2], 2.0)
    out = []
    for one in (control, clone):
        one.model_sampling = pipeline.small_sampling()
        out.append(one.get_control(x, sigma, {}, 1, {}))
    assert all(torch.equal(a, b) for a, b in zip(out[0]["output"], out[1]["output"], strict=True))
    control.cleanup()
    clone.cleanup()
    assert clone.evaluation.hints == {}


def test_the_hosts_multi_gpu_sampling(in_host, denoiser, conds):
    """ComfyUI 0.33's MultiGPU CFG Split, with the CPU as the second "device"."""
    import comfy.sampler_helpers

    if not hasattr(comfy.sampler_helpers, "preprocess_multigpu_conds"):
        pytest.skip("this ComfyUI samples on one device")
    positive, negative = conds()
    there = torch.device("cpu", 0)
    other = SimpleNamespace(load_device=there)
    model = SimpleNamespace(get_additional_models_with_key=lambda _: [other])
    lists = {"positive": [positive[0][1]], "negative": [negative[0][1]]}
    comfy.sampler_helpers.preprocess_multigpu_conds(lists, model, {})
    control = positive[0][1]["control"]
    clone = control.get_instance_for_device(there)
    assert clone is not control
    assert control.multigpu_clones == {there: clone}
    assert clone.evaluation.model.patcher in control.get_models()


@pytest.mark.parametrize("load", ["capface", "facenet", "parser"])
def test_layers_without_weights_before_loading(in_host, standins, monkeypatch, load):
    """ComfyUI 0.33's layers are like this with dynamic VRAM, its default on GPUs."""
    management = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no dynamic VRAM")
    import comfy.ops

    monkeypatch.setattr(management, "aimdo_enabled", True)
    assert comfy.ops.manual_cast.Linear(4, 4).weight is None
    if load == "capface":
        network = pipeline.small_capface().tokens
        assert network.img_linear.weight.shape == (768, 1024)
        return
    from capface.models.faces.facenet import load_facenet
    from capface.models.faces.parsing import load_parser

    loaders = {"facenet": load_facenet, "parser": load_parser}
    folder = {"facenet": "facenet", "parser": "face_parsing"}[load]
    path = next(p for p in sorted((standins / folder).iterdir()) if p.is_file())
    network = loaders[load](path, operations=comfy.ops.manual_cast)
    plain = loaders[load](path)
    assert network.state_dict().keys() == plain.state_dict().keys()


def test_without_mapped_files_networks_have_their_own_memory(in_host, monkeypatch):
    import comfy.ops
    import comfy.utils

    from capface.host.memory import managed

    network = comfy.ops.disable_weight_init.Linear(4, 4)
    before = network.weight.data_ptr()
    cpu = torch.device("cpu")
    managed(network, cpu, cpu)
    assert network.weight.data_ptr() == before
    monkeypatch.setattr(comfy.utils, "DISABLE_MMAP", True)
    managed(network, cpu, cpu)
    assert network.weight.data_ptr() != before
