"""Draws portraits.jpg: `python -m capface.experiments.person_baselines.sheet FOLDER`, with the folder of `run.py`.

Each row is one of the table's people: the photo, what is asked for, and the first portrait of the table by each method.
"""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...training.persons.plain import with_person
from .choice import choose
from .run import PARTS, RATES, ROWS, SUBJECTS, UNTRAINED, open_study, train

SHEET = ROWS.with_name("portraits.jpg")
PEOPLE = 4
COLUMNS = ("photo", "asked for", "ControlNet", "text. inversion", "LoRA", "DreamBooth", "CapFace", "CapFace + pi*")
TITLE = 16
"""Height of the titles, in pixels."""


def main(arguments: list[str]) -> int:
    """Draw the sheet and return the exit status."""
    study = open_study(Path(arguments[0]))
    rows: list[Tensor] = []
    for person in PARTS["people"][:PEOPLE]:
        trial = study.portraits(person)
        made = [trial.references / 2 + 0.5, trial.truth]
        made.append(study.make(trial, person, UNTRAINED["ControlNet"], study.landmarks))
        for method in RATES:
            rate, steps = choose(study.rows.lines, method)
            file = train(trial.references[:1], person, method, rate, (steps,))[steps]
            network = with_person(study.landmarks, file)
            made.append(study.make(trial, person, UNTRAINED["ControlNet"], network, SUBJECTS.get(method, "")))
        made += [study.make(trial, person, UNTRAINED[name], study.miniature) for name in ("CapFace", "CapFace + pi*")]
        rows.append(torch.cat([pictures[0] for pictures in made], dim=2))
    pixels = (torch.cat(rows, dim=1).clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy()
    sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + TITLE), "white")
    sheet.paste(Image.fromarray(pixels), (0, TITLE))
    for i, title in enumerate(COLUMNS):
        ImageDraw.Draw(sheet).text((i * sheet.width // len(COLUMNS) + 4, 2), title, "black")
    sheet.save(SHEET, quality=90)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
