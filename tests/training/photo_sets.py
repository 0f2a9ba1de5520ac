"""Photos with faces, networks that encode them, and a training set of both; each is made once, and as small as possible."""

from functools import cache

import numpy as np
import skimage.data
import torch
from insightface.data import get_image
from open_clip.transformer import VisionTransformer
from PIL import Image
from safetensors.torch import save_file

from capface.models.faces.detection import MtcnnDetector
from capface.tests.synthetic import fill
from capface.tools.standins import write_facenet, write_parser
from capface.training.plan import Settings
from capface.training.prepare import prepare
from capface.training.rules import Rules
from capface.training.samples import Networks

RULES = Rules(min_side=100, min_face=0.0, max_outside=0.2)
"""Limits for these small photos and for a parser with random weights."""
TOKENS, WIDTH = 17, 128
PEOPLE = {"bob.png": 1, "people/carol.png": 4}
"""File, and number of the face from the left in insightface's picture of six people."""


def write_clip(path):
    """The image tower of a CLIP with 3 layers of 128 for 56 pixels, in open_clip's layout."""
    with torch.random.fork_rng():
        tower = VisionTransformer(56, 14, WIDTH, 3, heads=2, mlp_ratio=4.0, output_dim=32)
    save_file({f"visual.{k}": fill(f"visual.{k}", tuple(v.shape)) for k, v in tower.state_dict().items()}, path)


@cache
def networks(base):
    """Files of stand-ins, and MTCNN with its own weights."""
    folder = base / "networks"
    folder.mkdir()
    write_facenet(folder / "facenet.pt")
    write_parser(folder / "parser.pth")
    write_clip(folder / "clip.safetensors")
    files = {name: str(folder / file) for name, file in (("facenet", "facenet.pt"), ("clip", "clip.safetensors"))}
    return Networks(**files, parser=str(folder / "parser.pth"), detector="mtcnn")


@cache
def group():
    """Six people, uint8 [443,640,3]."""
    pixels = get_image("t1")
    assert pixels is not None
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    return np.array(picture.resize((640, 443), Image.Resampling.BOX))


@cache
def astronaut():
    """uint8 [512,512,3]; the portrait's square has 167 pixels."""
    return skimage.data.astronaut()


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)


@cache
def photos(base):
    """A folder: two photos of one person, two of other people, a copy, a damaged photo, and files that are not photos."""
    folder = base / "photos"
    save(folder / "anna" / "1.png", astronaut())
    save(folder / "anna" / "2.jpg", astronaut()[:440, 20:], quality=90)
    picture = get_image("t1")
    assert picture is not None
    picture = picture[..., ::-1]
    faces = MtcnnDetector().detect(torch.from_numpy(picture.astype(np.float32) / 255).movedim(-1, 0))
    faces.sort(key=lambda face: face.centre[0].item())
    for file, number in PEOPLE.items():
        face = faces[number]
        x, y = (int(v) for v in face.centre)
        reach = int(1.6 * (face.box[2] - face.box[0]))
        save(folder / file, picture[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach])
    (folder / "bob.txt").write_text("a man\n before a window", encoding="utf-8")
    (folder / "copy.png").write_bytes((folder / "anna" / "1.png").read_bytes())
    (folder / "broken.jpg").write_bytes((folder / "anna" / "2.jpg").read_bytes()[:2000])
    (folder / "notes.md").write_text("no photo", encoding="utf-8")
    save(folder / ".hidden" / "3.png", astronaut())
    return folder


def settings(base):
    """The settings of the training set."""
    return Settings(networks(base), RULES, per_shard=2, batch=2)


@cache
def prepared(base):
    """The folder of the training set."""
    prepare(photos(base), base / "set", settings(base))
    return base / "set"
