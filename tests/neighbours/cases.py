"""The cases for each pack. The host and the packs are needed only when a case runs.

A case's `run(bench, positive, negative)` samples with the pack and returns an image or latents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

NOT_LOADED = "does not load there"
"""State of a pack that this ComfyUI could not load, for reasons unrelated to CapFace."""
H, W = 96, 128
"""Size of the frame: not square, so that a cut to another aspect ratio is detected."""


@dataclass(frozen=True)
class Case:
    """One way of using a pack.

    Attributes:
        pack: Its name, a key of `packs.FOLDERS`.
        method: Node and settings, as named in the table.
        group: Cases of one group share a process with these packs (`GROUPS`).
        run: See above; for cases with a `check`, unused.
        tolerance: Largest relative error of a part's head; None if it is not checked, with the reason in `note`.
        frames: Heads in the sequence.
        located: Whether the positions of the parts are measured, by a ControlNet before CapFace.
        alone: Whether CapFace also runs without that ControlNet.
        cut: Whether no part is as large as the frame.
        check: Instead of `run`: `check(bench)` returns a row.
        stock: Whether a stock ControlNet is expected to run there.
        needs: Further packs that it needs.
        note: Note in the table.
    """

    pack: str
    method: str
    group: str
    run: Callable[..., Any] | None = None
    tolerance: float | None = 0.02
    frames: int = 1
    height: int = H
    width: int = W
    located: bool = True
    alone: bool = False
    cut: bool = False
    check: Callable[..., dict[str, Any]] | None = None
    stock: bool = True
    needs: tuple[str, ...] = ()
    note: str = ""

    @property
    def name(self):
        """The name in the test's id."""
        return f"{self.group}: {self.pack}, {self.method}"


def picture(height=H, width=W, count=1):
    """Return noise in the range of a picture, `[count, height, width, 3]`: all parts differ."""
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(7))


def latents(height=H, width=W, count=1):
    """Return random latents of a frame with these pixels."""
    return torch.randn(count, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(8))


# Ultimate SD Upscale


def usdu(bench, positive, negative, *, mode="Linear", seams="None", uniform=False, images=1, tiles=1, by=None):
    node = bench.node("UltimateSDUpscale" if by else "UltimateSDUpscaleNoUpscale")
    shrink = by or 1
    image = picture(H // shrink, W // shrink, images)
    sampling = (5, 1, 4.0, "euler", "normal", 0.5)  # seed, steps, cfg, …, denoise
    tiling = (mode, 64, 64, 4, 16, seams, 0.5, 4, 16, 16, uniform, False, tiles)
    if by:
        return node.upscale(image, bench.model, positive, negative, bench.vae, float(by), *sampling, None, *tiling)[0]
    return node.upscale(image, bench.model, positive, negative, bench.vae, *sampling, *tiling)[0]


def _usdu_cases():
    case = partial(Case, "Ultimate SD Upscale", group="tiles", cut=True)
    # enlarged tiles are compared with a finer head that is resampled to their size, so edges differ slightly
    scaled = 0.1
    yield case("no upscale, linear", run=partial(usdu), alone=True)
    yield case("no upscale, chess", run=partial(usdu, mode="Chess"))
    yield case("no upscale, uniform tiles", run=partial(usdu, uniform=True), tolerance=scaled)
    yield case("upscale 2×, uniform tiles", run=partial(usdu, uniform=True, by=2), tolerance=scaled)
    yield case("upscale 2×", run=partial(usdu, by=2))
    for seams in ("Band Pass", "Half Tile", "Half Tile + Intersections"):
        yield case(
            f"seam fix {seams}", run=partial(usdu, seams=seams), cut=seams != "Band Pass"
        )  # bands are as long as the frame
    yield case("seam fix Half Tile, uniform tiles", run=partial(usdu, seams="Half Tile", uniform=True), tolerance=scaled)
    yield case("batch of 2 images", run=partial(usdu, images=2), frames=2)
    yield case("2 tiles at once", run=partial(usdu, uniform=True, tiles=2), tolerance=scaled)


# TiledKSampler, and its copy in Efficiency Nodes


def tiled_ksampler(bench, positive, negative, *, strategy, count=1, copy=False):
    if copy:
        import sys

        modules = [m for name, m in sys.modules.items() if name.endswith("bnk_tiled_samplers")]
        sampler = modules[0].TiledKSampler()
    else:
        sampler = bench.node("BNK_TiledKSampler")
    start = {"samples": latents(count=count)}
    settings = (5, 64, 64, strategy, 1, 4.0, "euler", "normal")
    return sampler.sample(bench.model, *settings, positive, negative, start, 1.0)[0]["samples"]


def _tiled_ksampler_cases():
    for pack, copy in (("TiledKSampler", False), ("Efficiency Nodes", True)):
        note = "" if copy else "A stock ControlNet has not worked with it since ControlNets lost their attribute `device`."
        case = partial(Case, pack, group="tiles", cut=True, stock=copy, note=note)
        for strategy in ("simple", "random") if copy else ("simple", "padded", "random", "random strict"):
            run = partial(tiled_ksampler, strategy=strategy, copy=copy)
            yield case(f"{strategy} tiles", run=run, alone=strategy == "simple")
        if not copy:
            yield case("simple tiles, batch of 2", run=partial(tiled_ksampler, strategy="simple", count=2), frames=2)


def beside_tiled_diffusion(bench):
    """Tiled Diffusion cleans up controls before each run, after TiledKSampler has already set a tile."""
    from capface.tests.neighbours.bench import attempt, lopsided
    from capface.tests.neighbours.spies import Frame, Spy

    with torch.inference_mode():
        frame = Frame(lopsided(), H, W)
    functions = type(bench.node("BNK_TiledKSampler")).sample.__globals__
    cut, tiles = functions["slice_cnet"], []

    def run():
        with Spy(bench.stock, bench.capface.network) as spy:

            def noted(y, height, x, width, *rest):
                tiles.append(((y, y + height, x, x + width), len(spy.heads)))
                return cut(y, height, x, width, *rest)

            functions["slice_cnet"] = noted
            try:
                tiled_ksampler(bench, *bench.with_capface(bench.plain(), frame.head), strategy="simple")
            finally:
                functions["slice_cnet"] = cut
        ends = [start for _, start in tiles[1:]] + [len(spy.heads)]
        errors = []
        for (box, start), end in zip(tiles, ends, strict=True):
            y0, y1, x0, x1 = (8 * side for side in box)
            errors += [frame.error(hint, frame.hint[0][:, y0:y1, x0:x1]) for _, hint in spy.heads[start:end]]
        return errors

    made = attempt(run)
    errors = made.value or []
    stock = attempt(lambda: tiled_ksampler(bench, *bench.with_stock(bench.plain(), frame), strategy="simple")).state
    row = {"stock": stock, "capface": made.state, "error": max(errors, default=None), "errors": errors}
    return row | {"parts": len(errors), "trace": made.trace}


# Tiled Diffusion


def tiled_diffusion(bench, positive, negative, *, method, at_once=4, count=1, steps=1, runs=1, area=False):
    model = bench.node("TiledDiffusion").apply(bench.model, method, 64, 64, 16, at_once)[0]
    if area:
        positive = [*positive, [positive[0][0] * 0.5, {**positive[0][1], "area": (12, 8, 0, 8), "strength": 1.0}]]
    out = None
    for _ in range(runs):
        out = bench.sample(positive, negative, latents(count=count), model=model, steps=steps)
    return out


def _tiled_diffusion_cases():
    for method in ("MultiDiffusion", "Mixture of Diffusers", "SpotDiffusion"):
        case = partial(Case, "Tiled Diffusion", group="tiled diffusion", cut=True)
        yield case(method, run=partial(tiled_diffusion, method=method, steps=2 if method == "SpotDiffusion" else 1), alone=True)
        yield case(f"{method}, batch of 2", run=partial(tiled_diffusion, method=method, count=2), frames=2)
    yield case("MultiDiffusion, one tile at a time", run=partial(tiled_diffusion, method="MultiDiffusion", at_once=1))
    yield case("MultiDiffusion, twice in a row", run=partial(tiled_diffusion, method="MultiDiffusion", runs=2))


# AnimateDiff-Evolved, with and without Advanced-ControlNet

FRAMES = 6


def evolved(bench, options):
    """Return the model with context options of AnimateDiff-Evolved, or without."""
    return bench.node("ADE_UseEvolvedSampling").use_evolved_sampling(bench.model, "autoselect", context_options=options)[0]


def contexts(bench, kind):
    """Return context options of a kind, for windows of 4 of 6 frames."""
    static = {"context_length": 4, "context_overlap": 2}
    uniform = {"context_length": 4, "context_stride": 1 if kind == "uniform" else 2, "context_overlap": 2}
    if kind == "static":
        return bench.node("ADE_StandardStaticContextOptions").create_options(**static, fuse_method="flat")[0]
    if kind == "uniform":
        return bench.node("ADE_StandardUniformContextOptions").create_options(**uniform, fuse_method="flat")[0]
    if kind == "relative":
        return bench.node("ADE_StandardStaticContextOptions").create_options(**static, fuse_method="relative")[0]
    if kind == "looped":
        return bench.node("ADE_LoopedUniformContextOptions").create_options(**uniform, closed_loop=True)[0]
    if kind == "batched":
        return bench.node("ADE_BatchedContextOptions").create_options(context_length=4)[0]
    views = bench.node("ADE_StandardStaticViewOptions").create_options(view_length=2, view_overlap=1)[0]
    if kind == "views only":
        return bench.node("ADE_ViewsOnlyContextOptions").create_options(view_opts_req=views)[0]
    return bench.node("ADE_StandardStaticContextOptions").create_options(**static, fuse_method="flat", view_opts=views)[0]


def windows(bench, *, kind, before=None, behind=None):
    """Sample the same sequence in windows and as a whole: without motion layers, each frame must be equal."""
    from capface.tests.neighbours.bench import attempt, lopsided
    from capface.tests.neighbours.spies import Frame
    from capface.tests.synthetic import relative_error

    with torch.inference_mode():
        frame = Frame(lopsided(FRAMES), 32, 32)

    def conds(head):
        made = before(bench, bench.plain(), frame) if before else bench.plain()
        made = bench.with_capface(made, head)
        return behind(bench, made, frame) if behind else made

    def run(made, options):
        return bench.sample(*made, latents(32, 32, FRAMES), model=evolved(bench, options), steps=1)

    def capface():
        windowed, whole = (run(conds(frame.head), options) for options in (contexts(bench, kind), None))
        if not (before or behind) and relative_error(run(conds(lopsided(1)), None), whole) < 1e-2:
            raise AssertionError("the frames' heads make no difference")
        return relative_error(windowed, whole)

    a = attempt(lambda: run(bench.with_stock(bench.plain(), frame), contexts(bench, kind)))
    b = attempt(capface)
    return {"stock": a.state, "capface": b.state, "error": b.value, "parts": FRAMES, "trace": b.trace or a.trace}


def stock_before(bench, conds, frame):
    return bench.with_stock(conds, frame)


def acn(bench, conds, frame, keyframes=False):
    """Advanced-ControlNet's own control, with a strength for each frame if `keyframes` is set."""
    more = {}
    if keyframes:
        group = bench.nodes.NODE_CLASS_MAPPINGS["LatentKeyframeGroup"]
        strengths = ",".join(f"{i}={0.2 + 0.1 * i:.1f}" for i in range(FRAMES))
        more["latent_kf_override"] = group.execute(strengths).args[0]
    node = bench.nodes.NODE_CLASS_MAPPINGS["ACN_AdvancedControlNetApply_v2"]
    return node.execute(*conds, bench.stock, frame.map(), 0.5, 0.0, 1.0, **more).args[:2]


KINDS = ("static", "uniform", "looped", "relative", "batched", "static with views", "views only")


def _animatediff_cases():
    flat = {"tolerance": 1e-4}
    case = partial(Case, "AnimateDiff-Evolved", **flat)
    alone = "Without Advanced-ControlNet a stock ControlNet is refused in sliding windows."
    for kind in KINDS:
        yield case(f"contexts: {kind}", "animatediff", check=partial(windows, kind=kind), stock=False, note=alone)
    for kind in ("static", "looped"):
        both = {"group": "animatediff+acn", "needs": ("Advanced-ControlNet",)}
        yield case(f"with Advanced-ControlNet, contexts: {kind}", check=partial(windows, kind=kind), **both)
    case = partial(Case, "Advanced-ControlNet", group="animatediff+acn", **flat)
    one = partial(windows, kind="static")
    yield case("windows, a stock ControlNet before", check=partial(one, before=stock_before))
    yield case("windows, a stock ControlNet behind", check=partial(one, behind=stock_before))
    yield case("windows, its control before", check=partial(one, before=acn))
    yield case("windows, its control behind", check=partial(one, behind=acn))
    yield case("windows, its control with keyframes behind", check=partial(one, behind=partial(acn, keyframes=True)))


# Detailers and crops: the sampler gets the part as a separate picture, so the head is cropped too


def face_mask():
    mask = torch.zeros(1, H, W)
    mask[:, 20:60, 60:108] = 1
    return mask


def segments(bench):
    return bench.node("MaskToSEGS").doit(face_mask(), False, 1.5, False, 1, False)[0]


def detailer(bench, positive, negative, segs):
    settings = {"guide_size": 96, "guide_size_for": False, "max_size": 144, "seed": 5, "steps": 1, "cfg": 4.0}
    sampling = {"sampler_name": "euler", "scheduler": "normal", "denoise": 0.5, "feather": 5, "noise_mask": True}
    rest = {"force_inpaint": True, "wildcard": "", "cycle": 1}
    models = (picture(), segs, bench.model, None, bench.vae)
    node = bench.node("DetailerForEach")
    return node.doit(*models, positive=positive, negative=negative, **settings, **sampling, **rest)[0]


def stitcher(bench):
    """Run Inpaint Crop with its defaults except for the size."""
    node = bench.node("InpaintCropImproved")
    wanted = {}
    for section in node.INPUT_TYPES().values():
        for name, (kind, *more) in section.items():
            wanted[name] = more[0]["default"] if more and "default" in more[0] else kind[0]
    wanted |= {"output_resize_to_target_size": True, "output_target_width": 96, "output_target_height": 96}
    wanted |= {"image": picture(), "mask": face_mask(), "optional_context_mask": None, "output_padding": "8"}
    return node.inpaint_crop(**wanted | {"device_mode": "cpu (compatible)"})[:3]


def inpaint_crop(bench, positive, negative, made):
    stitches, crop, crop_mask = made
    encode = bench.nodes.InpaintModelConditioning().encode
    positive, negative, start = encode(positive, negative, crop, bench.vae, crop_mask, noise_mask=True)
    out = bench.nodes.common_ksampler(bench.model, 5, 1, 4.0, "euler", "normal", positive, negative, start, denoise=0.7)[0]
    return bench.node("InpaintStitchImproved").inpaint_stitch(stitches, bench.vae.decode(out["samples"]))[0]


def crop_of_segments(segs):
    x0, y0, x1, y1 = map(int, segs[1][0].crop_region)
    return segs, (x0, y0, x1 - x0, y1 - y0)


def crop_of_stitcher(made):
    """The crop may reach beyond the picture; its position is given in the padded canvas."""
    s = {key: made[0][key][0] for key in made[0] if key.startswith(("cropped_to_canvas", "canvas_to_orig"))}
    x, y = (s[f"cropped_to_canvas_{axis}"] - s[f"canvas_to_orig_{axis}"] for axis in "xy")
    return made[0], (x, y, s["cropped_to_canvas_w"], s["cropped_to_canvas_h"])


def redone(bench, *, make, run, region):
    """Sample a part of the picture again with its head from Crop Head."""
    from capface.flame.render.condition import HeadCondition
    from capface.nodes.crop_head import CropHead
    from capface.tests.neighbours.bench import attempt, lopsided
    from capface.tests.neighbours.spies import Frame, Spy

    with torch.inference_mode():
        frame = Frame(lopsided(), H, W)

    def stock():
        return run(bench, *bench.with_stock(bench.plain(), frame), make(bench))

    def capface():
        made = make(bench)
        value, (x, y, width, height) = region(made)
        numbers = (0, 0, 1, 1, W, H, 1.5, 0, True, 0, 0)  # unused: x … height, the picture's size, the region's growth, …
        cropped = CropHead.execute(frame.head.params, *numbers, region=value).result[0]
        with Spy(bench.stock, bench.capface.network) as spy:
            run(bench, *bench.with_capface(bench.plain(), HeadCondition(frame.head.model, cropped)), made)
        across, down = (x / W, (x + width) / W), (y / H, (y + height) / H)
        return max(frame.error(hint, frame.window(across, down, *hint.shape[:0:-1])) for _, hint in spy.heads)

    a, b = attempt(stock), attempt(capface)
    return {"stock": a.state, "capface": b.state, "error": b.value, "parts": 1, "trace": b.trace or a.trace}


def inspire(bench, positive, negative):
    sampler = bench.node("KSampler //Inspire")
    start = {"samples": latents()}
    settings = {"seed": 5, "steps": 1, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    out = sampler.doit(bench.model, positive=positive, negative=negative, latent_image=start, noise_mode="CPU", **settings)
    return out[0]["samples"]


def ipadapter(bench, positive, negative):
    """A random IPAdapter of 4 tokens, for the small denoiser's only block of attention."""
    import comfy.sd

    generator = torch.Generator().manual_seed(3)

    def weight(*shape):
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    keys = {f"{2 * i + 1}.to_{p}_ip.weight": weight(320, 768) for i in range(16) for p in "kv"}
    project = {"proj.weight": weight(4 * 768, 768), "proj.bias": torch.zeros(4 * 768)}
    project |= {"norm.weight": torch.ones(768), "norm.bias": torch.zeros(768)}
    vision = comfy.clip_vision.load(str(bench.standins / "clip_vision/clip-vit-large-patch14.safetensors"))
    model = bench.node("IPAdapterAdvanced").apply_ipadapter(
        bench.model, {"image_proj": project, "ip_adapter": keys}, image=picture(224, 224), clip_vision=vision
    )[0]
    return bench.sample(positive, negative, latents(), model=model)


def preprocessed(bench, positive, negative):
    """Make a control image with the preprocessors' pack for a ControlNet used together with CapFace."""
    made = bench.node("TilePreprocessor").execute(picture(), 1, resolution=192)[0]
    apply = bench.nodes.ControlNetApplyAdvanced().apply_controlnet
    return bench.sample(*apply(positive, negative, bench.stock, made, 0.5, 0.0, 1.0)[:2], latents())


def deepcache(bench, positive, negative, *, fix):
    if fix:
        model = bench.node("DeepCache_Fix").apply(bench.model, 2, 0, 0, 12, "Yes", "Yes", "Yes")[0]
    else:
        model = bench.node("DeepCache").apply(bench.model, 2, 0, 0, 1000)[0]
    return bench.sample(positive, negative, latents(), model=model, steps=3)


def _other_cases():
    case = partial(Case, group="others")
    whole = "With Crop Head. A ControlNet gets its whole control image for the part."
    check = partial(redone, make=segments, run=detailer, region=crop_of_segments)
    yield case("Impact Pack", "Detailer (SEGS)", check=check, tolerance=0.2, note=whole)  # also cuts to multiples of 8
    check = partial(redone, make=stitcher, run=inpaint_crop, region=crop_of_stitcher)
    yield case("Inpaint Crop and Stitch", "crop, inpaint, stitch", check=check, note=whole)
    yield case("Inspire Pack", "KSampler", run=inspire)
    yield case("IPAdapter plus", "IPAdapter Advanced", run=ipadapter)
    yield case("ControlNet Auxiliary", "Tile, for a ControlNet behind", run=preprocessed, located=False, tolerance=None)
    yield case("DeepCache", "every second step", run=partial(deepcache, fix=False))
    yield case("DeepCache Fix", "every second step", run=partial(deepcache, fix=True))


# All packs in one ComfyUI


def unchanged(bench):
    """Plain sampling with CapFace gives the same result before and after all packs are loaded."""
    from capface.tests.neighbours.bench import attempt
    from capface.tests.synthetic import relative_error

    after = attempt(lambda: plain_sampling(bench))
    error = relative_error(after.value, bench.before) if after.value is not None else None
    return {"stock": "ok", "capface": after.state, "error": error, "parts": 1, "trace": after.trace}


def plain_sampling(bench):
    from capface.tests.neighbours.bench import lopsided

    return bench.sample(*bench.with_capface(bench.plain(), lopsided()), latents(128, 128), steps=2)


def _together_cases():
    for pack in ("KJNodes", "rgthree", "Use Everywhere"):
        yield Case(pack, "loaded", "together", check=unchanged, tolerance=0.0)
    case = partial(Case, group="together")
    note = "All packs are in one ComfyUI."
    yield case("Ultimate SD Upscale", "no upscale, linear", run=usdu, note=note)
    yield case("Tiled Diffusion", "MultiDiffusion", run=partial(tiled_diffusion, method="MultiDiffusion"), note=note)
    check = partial(windows, kind="static")
    yield case("AnimateDiff-Evolved", "contexts: static", check=check, tolerance=1e-4, note=note)
    yield case("TiledKSampler", "simple tiles, beside Tiled Diffusion", check=beside_tiled_diffusion, stock=False)


GROUPS = {
    "tiles": ("Ultimate SD Upscale", "TiledKSampler", "Efficiency Nodes"),
    "tiled diffusion": ("Tiled Diffusion",),
    "animatediff": ("AnimateDiff-Evolved",),
    "animatediff+acn": ("AnimateDiff-Evolved", "Advanced-ControlNet"),
    "others": (
        *("Impact Pack", "Inspire Pack", "Inpaint Crop and Stitch", "IPAdapter plus", "ControlNet Auxiliary"),
        *("DeepCache", "DeepCache Fix"),
    ),
    "together": (
        *(
            "Ultimate SD Upscale",
            "Tiled Diffusion",
            "TiledKSampler",
            "AnimateDiff-Evolved",
            "Advanced-ControlNet",
            "Impact Pack",
        ),
        *("Inspire Pack", "Inpaint Crop and Stitch", "IPAdapter plus", "ControlNet Auxiliary", "DeepCache", "DeepCache Fix"),
        *("KJNodes", "rgthree", "Use Everywhere"),
    ),
}
"""Packs that are loaded together, in this order. Some replace functions of the host, so each group has its own process."""

CASES = [
    *_usdu_cases(),
    *_tiled_ksampler_cases(),
    *_tiled_diffusion_cases(),
    *_animatediff_cases(),
    *_other_cases(),
    *_together_cases(),
]
