"""The table's ControlNet: a control that sees the 68 landmarks of a head and nothing else of it."""

from pathlib import Path

import torch

from ...miniature.networks import Miniature
from ...models.diffusion import CapFace, load_capface
from ...training.export import write_capface
from ...training.miniature.scenes import SceneSet, processes
from ...training.miniature.train_capface import Conditions, People, train_capface
from ...training.miniature.train_denoiser import MiniatureBase, Prompts, latents_of
from ...training.objective import TrainedCapFace

PEOPLE, VIEWS = 300, 8
"""People of the miniature's own training, numbered from 0, and pictures of each."""
STEPS, RATE, SEED = 500, 1e-3, 31


def train_landmark_control(miniature: Miniature, folder: Path) -> CapFace:
    """Train the control, resume its training, or load it.

    It continues the miniature's CapFace without identity, with the landmarks in place of the head maps, as the network
    "landmarks" of experiments/miniature_tables does.

    Args:
        miniature: The networks.
        folder: Folder for the pictures and the states of the training.
    """
    file = folder / "landmarks.safetensors"
    if file.is_file():
        return load_capface(file, dtype=torch.float32)[0]
    base = MiniatureBase()
    base.denoiser.load_state_dict(miniature.denoiser.state_dict())
    base.words.load_state_dict(miniature.text_encoder.state_dict())
    scenes = SceneSet(folder / "pictures", range(PEOPLE), VIEWS, processes())
    with torch.no_grad():
        latents = latents_of(scenes, miniature.autoencoder)
        people = People.encode(scenes, latents, Prompts(scenes), miniature.recognizer)
    start = TrainedCapFace(miniature.capface, miniature.tokens)
    conditions = Conditions(identity="none", landmarks=True)
    length = {"steps": STEPS, "seed": SEED, "rate": RATE}
    trained = train_capface(people, base, folder, "landmarks", conditions, **length, start=start)
    write_capface(file, trained, about={"steps": str(STEPS), "people": str(PEOPLE), "views": str(VIEWS)})
    return trained.capface
