"""The demo's sheet of a person who does not exist: the miniature's portraits, with the evaluator's predictions."""

import copy
import io
import json
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..flame import HeadParams
from ..flame.builtin import builtin_head
from ..flame.editing.edits import edit_head
from ..flame.editing.expressions import SLIDERS
from ..miniature.evaluator import Evaluator
from ..miniature.networks import HELD_OUT, PICTURE_SIDE, Miniature
from ..miniature.people import Person, Setting, draw_people
from ..training.miniature.portrait_sampler import Recipe, head_hint, make_portraits
from ..training.miniature.train_evaluator import Attributes
from .comfy import PACK, ComfyClient
from .sheet import BACKGROUND, GAP, INK, to_picture

WORKFLOW = PACK / "workflows" / "api" / "miniature.json"
PERSON = HELD_OUT + 4
SETTING = Setting("blue", "white studio")
_LEVEL = dict.fromkeys(("yaw", "pitch", "roll", *SLIDERS), 0.0)
"""Takes the workflow's own edits of the head back."""
_LINE = 18
_TILE, _COLUMNS = 192, 6


class Shot(NamedTuple):
    """One portrait."""

    caption: str
    changes: dict[str, Any]
    """Widgets of Edit Head."""
    setting: Setting = SETTING
    """The shot's part of the prompt."""


_LAMP: dict[str, Any] = {"light": "custom", "ambient": 0.25, "key_intensity": 0.85, "key_softness": 0.3, "key_elevation": 15.0}
SHOTS = (
    Shot("turned left", {"yaw": -35.0}),
    Shot("looking up", {"pitch": 14.0}),
    Shot("turned right, tilted", {"yaw": 30.0, "roll": 10.0}),
    Shot("smaller, aside", {"size": 0.85, "position_x": 0.2, "position_y": 0.1}),
    Shot("lit from the left", {**_LAMP, "key_azimuth": -75.0}),
    Shot("smiling", {"smile_left": 1.3, "smile_right": 1.3}),
    Shot("mouth open", {"mouth_open": 1.3, "brows_up_left": 1.0, "brows_up_right": 1.0}),
    Shot("frowning", {"frown": 1.3, "brows_down": 1.3}),
    Shot("lit from the right", {**_LAMP, "key_azimuth": 75.0}),
    Shot("green shirt, beach", {}, Setting("green", "beach")),
    Shot("black shirt, night city", {}, Setting("black", "night city")),
)


def heads() -> HeadParams:
    """The shots' heads."""
    whose = Person.sample(PERSON).head()
    return HeadParams.cat([edit_head(builtin_head(), whose, **shot.changes) for shot in SHOTS])


def reference() -> Tensor:
    """Return the reference picture that all portraits are made from, `[3, 128, 128]` in 0..1."""
    who = Person.sample(PERSON)
    return draw_people([who], who.head(), [SETTING], PICTURE_SIDE)[0]


def _workflow() -> dict[str, Any]:
    return json.loads(WORKFLOW.read_text(encoding="utf-8"))


def portraits_in_plain_torch(miniature: Miniature) -> Tensor:
    """Return the portraits made without ComfyUI, with the workflow's settings of Apply CapFace: `[N, 3, 128, 128]` in 0..1."""
    (applied,) = (node["inputs"] for node in _workflow().values() if node["class_type"] == "CapFaceApply")
    prompts = [", ".join(shot.setting.words()) for shot in SHOTS]
    given = (reference() * 2 - 1).expand(len(SHOTS), -1, -1, -1)
    return make_portraits(
        miniature, head_hint(heads()), prompts, given, Recipe(alpha=applied["alpha"], likeness=applied["likeness"])
    )


def portraits_in_comfyui(client: ComfyClient) -> Tensor:
    """Return the same portraits made by the nodes: workflows/api/miniature.json, queued once per shot with a different seed.

    Raises:
        ComfyError: A run failed.
    """
    workflow = _workflow()
    made = []
    for seed, shot in enumerate(SHOTS):
        prompt = copy.deepcopy(workflow)
        nodes = {node["class_type"]: node["inputs"] for node in reversed(prompt.values())}
        nodes["CapFaceSyntheticPerson"].update(person=PERSON, shirt=SETTING.shirt, background=SETTING.background)
        nodes["CapFaceEditHead"].update(_LEVEL | shot.changes)
        nodes["CLIPTextEncode"]["text"] = ", ".join(shot.setting.words())
        nodes["KSampler"]["seed"] = seed
        _, (image,) = client.make(prompt)
        with Image.open(io.BytesIO(image)) as picture:
            made.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255)
    return torch.stack(made)


@torch.no_grad()
def people_sheet(made: Tensor, evaluator: Evaluator) -> Image.Image:
    """Lay out the portraits `[N, 3, 128, 128]` of the shots, with the evaluator's figures under each.

    The figures are the cosine between the evaluator's embeddings of portrait and reference, and the root mean square error
    of the head's three angles, in degrees.
    """
    given = reference()
    embedding, numbers = evaluator(made * 2 - 1)
    person = F.cosine_similarity(embedding, evaluator(given[None] * 2 - 1)[0])
    pose = Attributes.predicted(numbers).errors(Attributes.of(heads(), [shot.setting for shot in SHOTS]))["pose"]
    lines = [("the person", "who does not exist")]
    lines += [(s.caption, f"identity {i:.2f}, head {p:.1f}°") for s, i, p in zip(SHOTS, person, pose, strict=True)]

    rows = -(-len(lines) // _COLUMNS)
    cell = _TILE + GAP
    sheet = Image.new("RGB", (GAP + _COLUMNS * cell, GAP + rows * (cell + 2 * _LINE)), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (picture, texts) in enumerate(zip([given, *made], lines, strict=True)):
        x, y = GAP + i % _COLUMNS * cell, GAP + i // _COLUMNS * (cell + 2 * _LINE)
        sheet.paste(to_picture(picture).resize((_TILE, _TILE), Image.Resampling.BICUBIC), (x, y))
        for n, text in enumerate(texts):
            draw.text((x, y + _TILE + 2 + n * _LINE), text, INK, font)
    return sheet
