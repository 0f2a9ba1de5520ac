"""A small SD1.5, CapFace, a stock ControlNet and asymmetric heads in the host, and comparisons of a case with each of them."""

import traceback
from types import SimpleNamespace
from typing import Any

import torch

from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.tests.neighbours.spies import Frame, Spy
from capface.tests.synthetic import noise
from capface.tools.comfy import import_host
from capface.tools.standins import make_standins

TEXT, OTHER_TEXT = noise(1, [1, 77, 768]), noise(2, [1, 77, 768])
CHECKPOINT = "checkpoints/realisticVisionV60B1_v51VAE.safetensors"
CONTROLNET = "controlnet/control_v11f1p_sd15_depth_fp16.safetensors"


def lopsided(frames=1):
    """Return heads off the centre, turned and tilted, in coloured light from one side, at another position in each frame."""
    params = HeadParams.neutral(frames)
    i = torch.arange(frames) - (frames - 1) / 2
    rotation = torch.stack([0.1 + 0 * i, 0.5 - 0.25 * i, 0.3 + 0 * i], dim=1)
    camera = torch.stack([4.4 + 0.2 * i, 0.28 + 0.1 * i, -0.12 - 0.06 * i], dim=1)
    light = params.light.clone()
    light[:, 0] *= torch.tensor([1.2, 0.8, 0.6])
    light[:, 1:4] += noise(11, [3, 3]) * 0.4
    texture = noise(12, [1, 50]).expand(frames, -1).clone()
    return HeadCondition(builtin_head(), params.replace(rotation=rotation, camera=camera, light=light, texture=texture))


def start_host(comfyui, base):
    """Import the host, with the stand-ins in its model folders."""
    nodes, folder_paths = import_host(comfyui, base)
    standins = make_standins(say=lambda _: None)
    for folder in standins.iterdir():
        if folder.is_dir():
            folder_paths.add_model_folder_path(folder.name, str(folder))
    return nodes, standins


class Bench:
    """The objects that cases sample with. `node(name)` returns a node of the host or of a pack."""

    def __init__(self, nodes, standins):
        import comfy.controlnet
        import comfy.sd
        import comfy.utils

        from capface.host.capface_model import load_model
        from capface.host.identity.identity import Identity

        self.before: torch.Tensor | None = None
        comfy.utils.PROGRESS_BAR_ENABLED = False
        self.nodes, self.standins = nodes, standins
        full = {"dtype": torch.float32}  # so that weights are not cast at each call
        load = comfy.sd.load_checkpoint_guess_config
        self.model, _, self.vae, _ = load(str(standins / CHECKPOINT), output_clip=False, model_options=full)
        self.capface = load_model(standins / "capface/caphuman.ckpt", "stand-in", torch.float32)
        self.stock = comfy.controlnet.load_controlnet(str(standins / CONTROLNET), model_options=full)
        self.identity = Identity(torch.nn.functional.normalize(noise(3, [1, 512])), noise(4, [1, 257, 1024]))

    def node(self, name):
        """Create a node by its class name."""
        return self.nodes.NODE_CLASS_MAPPINGS[name]()

    def plain(self):
        """Return positive and negative conditioning without a control."""
        return [[TEXT, {}]], [[OTHER_TEXT, {}]]

    def with_stock(self, conds, frame):
        """Add the stock ControlNet, with the frame's map as its control image."""
        apply = self.nodes.ControlNetApplyAdvanced().apply_controlnet
        return apply(*conds, self.stock, frame.map(), 0.5, 0.0, 1.0)[:2]

    def with_capface(self, conds, head):
        """Add CapFace through its node. With a soft edge it acts on every latent, so that no part is left out."""
        from capface.nodes.apply_capface import ApplyCapFace

        positive, negative = conds
        settings: dict[str, Any] = {"strength": 1.0, "tau": 1000.0, "start_percent": 0.0, "end_percent": 1.0}
        settings["mask_edge"] = "soft"
        return ApplyCapFace.execute(positive, negative, self.capface, head, identity=self.identity, **settings).result[:2]

    def sample(self, positive, negative, latents, model=None, steps=1, denoise=1.0, sampler="euler"):
        """Run the host's KSampler."""
        arguments = (model or self.model, 5, steps, 4.0, sampler, "normal", positive, negative, {"samples": latents})
        return self.nodes.common_ksampler(*arguments, denoise=denoise)[0]["samples"]


def attempt(run):
    """Run, and return "ok", or the error and its location."""
    try:
        with torch.inference_mode():
            value = run()
    except Exception as e:
        text = f"{type(e).__name__}: {e}".splitlines()[0]
        return SimpleNamespace(state=text[:200], trace=traceback.format_exc(), value=None)
    return SimpleNamespace(state="ok", trace="", value=value)


def compare(bench, case):
    """Run a case with a stock ControlNet, with CapFace, and with both; then the ControlNet shows the position of each part.

    Returns:
        A row of the table: `stock`, `capface` ("ok" or an error), `error` (the worst relative error of a part's head, or None),
        `parts`, `note`, `trace`.
    """
    with torch.inference_mode():
        frame = Frame(lopsided(case.frames), case.height, case.width)
    run, head = case.run, frame.head
    errors, trace, state, stock = [], "", "ok", None
    if case.alone or not case.located:
        alone = attempt(lambda: acting(run(bench, *bench.with_capface(bench.plain(), head))))
        state, trace = alone.state, alone.trace
    if case.located and state == "ok":
        both = attempt(lambda: located(bench, run, frame, case.cut))
        state, trace, errors = both.state, both.trace, both.value or []
        stock = both.state if case.stock and both.state == "ok" and not case.alone else None
    if stock is None:
        stock = attempt(lambda: run(bench, *bench.with_stock(bench.plain(), frame))).state
    row = {"stock": stock, "capface": state, "trace": trace, "error": max(errors) if errors else None}
    return row | {"parts": len(errors), "errors": [round(e, 4) for e in errors]}


def acting(out):
    """Check that a node's result is finite."""
    tensor = out["samples"] if isinstance(out, dict) else out
    if not torch.isfinite(tensor).all():
        raise AssertionError("numbers that are not finite")
    return tensor


def located(bench, run, frame, cut):
    """Run with both controls; return the error of each part's head. If the pack cuts it, the ControlNet must get parts."""
    conds = bench.with_stock(bench.plain(), frame)
    for conditioning in conds:
        conditioning[0][1]["control"].device = torch.device("cpu")  # TiledKSampler needs it; ControlNets no longer have it
    with Spy(bench.stock, bench.capface.network) as spy:
        run(bench, *bench.with_capface(conds, frame.head))
    if not spy.maps:
        raise AssertionError("the ControlNet before CapFace was never asked")
    if cut and any(covers(part) for _, part in spy.maps):
        raise AssertionError("the ControlNet before CapFace got the whole frame for a part of it")
    return spy.errors(frame)


def covers(part):
    """Return whether a piece of the frame's map is as wide or as high as the frame; tiles may wrap around its edge."""
    return any(float(line.diff().median()) * len(line) > 0.95 for line in (part[0].mean(0), part[1].mean(1)) if len(line) > 1)
