"""Stand-ins for face networks, whose results are easy to compute by hand."""

import torch
from torch.nn import functional as F

from capface.models.faces.deca import CODE_SIZE
from capface.models.faces.detection import FaceDetection
from capface.models.faces.parsing import LABELS

FIVE = torch.tensor([[40.0, 50.0], [60.0, 50.0], [50.0, 62.0], [42.0, 72.0], [58.0, 72.0]])


def face(x=0.0, score=0.9):
    """Return a face of 40 × 50 pixels whose box starts at x + 30."""
    shift = torch.tensor([x, 0.0])
    return FaceDetection(torch.tensor([30.0 + x, 30.0, 70.0 + x, 80.0]), score, FIVE + shift)


class Networks:
    """`FaceNetworks` that return prescribed faces, one list per image, in order."""

    def __init__(self, *faces, has_parser=True, deca_problem=None):
        self.faces, self.with_parser, self.problem = list(faces), has_parser, deca_problem
        self.batches = []

    def has_parser(self):
        return self.with_parser

    def deca_problem(self):
        return self.problem

    def detect(self, image):
        return self.faces.pop(0)

    def faces_in(self, image, boxes):
        return [FaceDetection(box, 1.0, FIVE) for box in boxes]

    def facenet(self, faces):
        return F.normalize(F.adaptive_avg_pool2d(faces, 16).flatten(1)[:, :512], dim=1)

    def parser(self, portraits):
        labels = torch.full((len(portraits), *portraits.shape[-2:]), LABELS.index("skin"))
        labels[:, portraits.shape[-2] // 2 :] = LABELS.index("hair")
        return labels

    def deca(self, crops):
        self.batches.append(len(crops))
        return torch.full((len(crops), CODE_SIZE), 0.01) + crops.mean((1, 2, 3))[:, None]


def tokens(portraits):
    """Return tokens that start with the mean of each portrait."""
    return torch.stack([F.pad(picture.mean()[None, None], (0, 1023, 0, 256)) for picture in portraits])
