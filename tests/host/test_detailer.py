"""A small face sampled again in a crop by the miniature: it follows person and head only with the head of the crop.

The steps of a detailer, with core nodes: crop, enlarge, encode, sample, decode, reduce, paste back. CAPFACE_KEEP names a
folder for the pictures.
"""

import asyncio
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from capface.flame.builtin import builtin_head
from capface.flame.editing.cropping import crop_head
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.miniature.networks import HELD_OUT, PICTURE_SIDE, load_miniature
from capface.miniature.people import Person, Setting, draw_people
from capface.training.miniature.train_evaluator import Attributes

PEOPLE, STEPS, DENOISE, WHOLE, BOX = 4, 8, 0.85, 192, (84, 16, 88, 88)
"""Number of pictures, side of the whole picture, and region of the face in it."""
COARSE = 4
"""Factor of reduction of the picture whose faces are sampled again."""
SETTING = Setting("green", "beach")
PROMPT = ", ".join(SETTING.words())


def sampled(nodes, loaded, condition, identity, latent, denoise):
    """Run one pass: Apply CapFace, KSampler, VAE Decode."""
    from capface.nodes.apply_capface import ApplyCapFace

    positive, negative = (loaded.clip.encode_from_tokens_scheduled(loaded.clip.tokenize(text)) for text in (PROMPT, ""))
    settings: dict[str, Any] = {"strength": 1.0, "tau": 1000.0, "start_percent": 0.0, "end_percent": 1.0}
    applied = ApplyCapFace.execute(positive, negative, loaded.capface, condition, identity=identity, **settings).result[:2]
    given = "ddim", "ddim_uniform", *applied, {"samples": latent}, denoise
    return nodes.VAEDecode().decode(loaded.vae, nodes.KSampler().sample(loaded.model, 3, STEPS, 2.0, *given)[0])[0]


@pytest.fixture(scope="module")
def passes(in_host):
    """Pictures `[N, H, W, 3]` before and after, and the requested photos and heads."""
    from capface.host.miniature_models import register_miniature
    from capface.nodes.crop_head import CropHead
    from capface.nodes.encode_identity import EncodeIdentity

    nodes, miniature = in_host.nodes, load_miniature()
    loaded, model = register_miniature(miniature), builtin_head()
    people = [Person.sample(HELD_OUT + 700 + i) for i in range(PEOPLE)]
    photos = draw_people(
        people, HeadParams.cat([who.head() for who in people]), [Setting("blue", "white studio")] * PEOPLE, PICTURE_SIDE
    )
    photos = photos.movedim(1, -1)
    identity = EncodeIdentity.execute(photos, loaded.reader, "largest", 0, True).result[0]
    close = HeadParams.cat([who.head(yaw=14.0 * (-1) ** i, pitch=4.0) for i, who in enumerate(people)])
    # The crop is like the miniature's training pictures. In the whole picture, the face is small, off-centre and coarse, and
    # belongs to another person.
    x, y, w, h = BOX
    whole = crop_head(close, torch.tensor([[-x, -y, WHOLE, WHOLE]]), h, w)
    first = F.avg_pool2d(draw_people([*people[1:], people[0]], whole, [SETTING] * PEOPLE, WHOLE), COARSE)
    first = F.interpolate(first, (WHOLE, WHOLE), mode="bicubic").clamp(0, 1).movedim(1, -1)
    cropped, *_, enlarged = CropHead.execute(whole, *BOX, WHOLE, WHOLE, 1.0, 0, True, 0, PICTURE_SIDE, image=first).result
    latent = nodes.VAEEncode().encode(loaded.vae, enlarged)[0]["samples"]
    heads = {"with the crop's head": cropped, "with the whole picture's head": whole}
    conditions = {name: HeadCondition(model, head) for name, head in heads.items()}
    again = {name: sampled(nodes, loaded, each, identity, latent, DENOISE) for name, each in conditions.items()}
    return {
        "loaded": loaded,
        "evaluator": miniature.evaluator,
        "photos": photos,
        "identity": identity,
        "close": close,
        "whole": whole,
        "cropped": cropped,
        "first": first,
        "before": enlarged,
        "again": again,
    }


@torch.inference_mode()
def evaluated(passes, pictures):
    """Return the similarity of pictures `[N, 128, 128, 3]` to the photos, and the evaluator's errors of the requested heads."""
    embedding, numbers = passes["evaluator"](pictures.movedim(-1, 1) * 2 - 1)
    person = F.cosine_similarity(embedding, passes["evaluator"](passes["photos"].movedim(-1, 1) * 2 - 1)[0])
    errors = Attributes.predicted(numbers).errors(Attributes.of(passes["close"], [SETTING] * PEOPLE))
    return person.mean().item(), errors["pose"].mean().item(), errors["position"].mean().item()


def test_the_face_gets_better_in_place(in_host, passes):
    torch.testing.assert_close(passes["cropped"].camera, passes["close"].camera, rtol=1e-4, atol=1e-4)
    found = {"before": evaluated(passes, passes["before"])} | {k: evaluated(passes, v) for k, v in passes["again"].items()}
    for name, (likeness, pose, position) in found.items():
        print(f"{name}: likeness {likeness:.2f}, pose {pose:.1f}, position {position:.3f}")
    keep(in_host.nodes, passes)
    before, right, wrong = found.values()
    assert right[0] > before[0] + 0.2 and right[0] > wrong[0] + 0.1
    assert right[1] < 0.7 * wrong[1]


def keep(nodes, passes):
    """Write the pictures, pasted back, to the folder CAPFACE_KEEP."""
    from comfy_extras.nodes_mask import FeatherMask, ImageCompositeMasked, SolidMask

    x, y, w, h = BOX
    mask = call(FeatherMask, call(SolidMask, 1.0, w, h), 8, 8, 8, 8)
    rows = [passes["first"]]
    for picture in passes["again"].values():
        small = nodes.ImageScale().upscale(picture, "lanczos", w, h, "disabled")[0]
        rows.append(call(ImageCompositeMasked, passes["first"], small, x, y, False, mask))
    write("pasted_back", rows)
    write("crops", [passes["photos"], passes["before"], *passes["again"].values()])


def write(name, rows):
    """Write rows of pictures as one file."""
    folder = os.environ.get("CAPFACE_KEEP")
    if folder:
        sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows]).clamp(0, 1) * 255
        Image.fromarray(sheet.byte().cpu().numpy()).save(Path(folder) / f"{name}.png")


def call(node, *given):
    """Return the first output of a host's node, of the older or newer interface."""
    found = node.execute(*given) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*given)
    return found[0]


@pytest.fixture(scope="module")
def impact(in_host):
    """The Impact Pack's nodes, loaded into the host in this process."""
    roots = [Path(p) for p in os.environ.get("PACKS", "").split(os.pathsep) if p] or [Path.home() / "comfy" / "packs"]
    folder = next((root / "ComfyUI-Impact-Pack" for root in roots if (root / "ComfyUI-Impact-Pack").is_dir()), None)
    if folder is None:
        pytest.skip("no ComfyUI-Impact-Pack: put it into ~/comfy/packs, or name the folder with the packs in PACKS")
    for package in ("piexif", "dill", "segment_anything", "skimage", "cv2", "git"):
        pytest.importorskip(package, reason=f"the Impact Pack needs the package {package}")
    import server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    # Its detectors are a separate pack; its detailers do not use them.
    detectors = sys.modules.setdefault("impact.subpack_nodes", types.ModuleType("impact.subpack_nodes"))
    vars(detectors).update(NODE_CLASS_MAPPINGS={}, NODE_DISPLAY_NAME_MAPPINGS={})
    assert loop.run_until_complete(in_host.nodes.load_custom_node(str(folder), module_parent="custom_nodes"))
    return in_host.nodes.NODE_CLASS_MAPPINGS


def test_the_impact_packs_detailer_samples_the_face_again_in_place(in_host, impact, passes):
    """Crop Head gets the region from its SEGS."""
    from capface.nodes.apply_capface import ApplyCapFace
    from capface.nodes.crop_head import CropHead

    loaded, rows = passes["loaded"], [passes["first"][:1]]
    x, y, w, h = BOX
    mask = torch.zeros(1, WHOLE, WHOLE)
    mask[:, y + h // 4 : y + h - h // 4, x + w // 4 : x + w - w // 4] = 1
    (segs,) = impact["MaskToSEGS"]().doit(mask, True, 2.0, True, 1)
    whole = passes["whole"][0]
    cropped, *box, _ = CropHead.execute(whole, 0, 0, 8, 8, 8, 8, 1.0, 0, True, 0, PICTURE_SIDE, region=segs).result
    assert all(abs(a - b) <= 3 for a, b in zip(box, BOX, strict=True))
    positive, negative = (loaded.clip.encode_from_tokens_scheduled(loaded.clip.tokenize(text)) for text in (PROMPT, ""))
    identity = passes["identity"][:1]
    side, likeness = PICTURE_SIDE, []
    for head in (cropped, whole):
        condition = HeadCondition(builtin_head(), head)
        made = ApplyCapFace.execute(positive, negative, loaded.capface, condition, 1.0, 1000.0, 0.0, 1.0, identity)
        applied = made.result[:2]
        redone = impact["DetailerForEach"]().doit(
            passes["first"][:1], segs, loaded.model, loaded.clip, loaded.vae, side, False, side, 3, STEPS, 2.0, "ddim",
            "ddim_uniform", *applied, DENOISE, 8, False, True, "", 1, noise_mask_feather=0,
        )[0]  # fmt: skip
        rows.append(redone)
        crop = F.interpolate(redone[:, y : y + h, x : x + w].movedim(-1, 1), PICTURE_SIDE, mode="bicubic")
        with torch.inference_mode():
            seen = [passes["evaluator"](p * 2 - 1)[0] for p in (crop, passes["photos"][:1].movedim(-1, 1))]
        likeness.append(F.cosine_similarity(*seen).item())
        outside = torch.ones(WHOLE, WHOLE, dtype=torch.bool)
        outside[y - 3 : y + h + 3, x - 3 : x + w + 3] = False
        assert (redone - passes["first"][:1])[0][outside].abs().max() < 1e-5
    print(f"likeness with the crop's head {likeness[0]:.2f}, with the whole picture's {likeness[1]:.2f}")
    write("impact", [torch.cat(rows)])
    assert likeness[0] > likeness[1]
