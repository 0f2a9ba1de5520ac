"""The paper's tables in miniature: portraits of people kept from training, evaluated, beside the paper's own numbers.

Every row makes one portrait of each held-out person: the reference is one picture of them, the head has the pose, expression,
position and light of another one, the prompt tells another setting. Identity is the cosine of a recogniser's embeddings: E is
the conditioning one, as the paper's FaceNet is; R is the evaluator's, which was not used in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...flame.editing import angles_of
from ...flame.model import HeadParams
from ...miniature.networks import PICTURE, Miniature
from ...miniature.people import draw_people
from ..objective import TrainedCapFace
from .portrait_sampler import Recipe, head_hint, make_portraits
from .scenes import Scene, sample_scene
from .train_capface import Conditions, People
from .train_evaluator import Attributes

COLUMNS = ("ID E", "ID R", "pose", "pull", "position", "light", "face L1", "prompt")
"""`pull` is how far heads are turned from where they should look to where the reference looks: 0 not at all, 1 all the way."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Trial:
    """Held-out people: what is given, and what would be right."""

    references: Tensor
    """`[N, 3, 128, 128]` in -1..1"""
    targets: list[Scene]
    """The same people in other pictures."""
    truth: Tensor
    """The targets drawn, `[N, 3, 128, 128]` in 0..1."""
    seen: Tensor
    """How the references hold their heads, yaw, pitch and roll in degrees `[N, 3]`."""
    swapped: list[int]
    """For each person another one, whose reference is given in their place."""

    @classmethod
    def of(cls, people: range) -> "Trial":
        """A trial with these people's numbers."""
        seen = [sample_scene(person, 0) for person in people]
        targets = [sample_scene(person, 1) for person in people]
        drawn = [_draw(scenes) for scenes in (seen, targets)]
        order = list(range(len(people)))
        held = angles_of(torch.cat([scene.head.rotation for scene in seen]))
        return cls(drawn[0] * 2 - 1, targets, drawn[1], held, order[1:] + order[:1])

    def whose(self, swapped: bool) -> list[int]:
        """Whose reference each portrait is given: everybody's own, or another person's."""
        return self.swapped if swapped else list(range(len(self.targets)))

    @property
    def heads(self) -> HeadParams:
        """The targets' heads."""
        return HeadParams.cat([scene.head for scene in self.targets])

    @property
    def prompts(self) -> list[str]:
        """The targets' settings in words; nothing of the person or the light."""
        return [", ".join(scene.setting.words()) for scene in self.targets]


def _draw(scenes: Sequence[Scene]) -> Tensor:
    heads = HeadParams.cat([scene.head for scene in scenes])
    return draw_people([s.person for s in scenes], heads, [s.setting for s in scenes], PICTURE)


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    table: str
    name: str
    recipe: Recipe | None
    """None judges the drawn targets themselves: what is attainable."""
    model: str = "capface"
    """Which trained network makes it."""
    swapped: bool = False
    """Whether another person's reference is given."""
    apart: bool = False
    """Whether the row is left out where its network was not trained; else the miniature stands in."""


ABLATIONS = {
    "neither": Conditions(identity="none"),
    "global": Conditions(identity="global"),
    "local": Conditions(identity="local"),
    "both": Conditions(),
    "few": Conditions(local_tokens=4),
    "landmarks": Conditions(identity="none", landmarks=True),
    "posed": Conditions(own_reference=True, posed=True),
    "inexact": Conditions(own_reference=True, inexact=20.0),
    "posed-inexact": Conditions(own_reference=True, posed=True, inexact=20.0),
}
"""Networks that are trained apart for rows of their own, and what with; all from the same network on, for the same time."""
LEARNED = (
    ("learned from another picture", "both"),
    ("learned from itself, tokens that tell its pose", "posed"),
    ("learned from itself, heads 20° off", "inexact"),
    ("learned from itself, tokens that tell its pose, heads 20° off", "posed-inexact"),
)
"""What could make identity cost pose (table 5), and the network that learned so: what its references were, and its heads."""
ROWS = (
    Row("–", "drawn target (attainable)", None),
    Row("–", "no CapFace", Recipe(strength=0.0)),
    Row("2", "neither", Recipe(parts=(0, 0)), "neither"),
    Row("2", "global only", Recipe(parts=(0, 1)), "global"),
    Row("2", "local only", Recipe(parts=(1, 0)), "local"),
    Row("2", "both", Recipe(), "both"),
    Row("3", "4 local tokens", Recipe(local_tokens=4), "few", apart=True),
    Row("3", "16 local tokens", Recipe(), "both"),
    Row("4", "landmarks", Recipe(parts=(0, 0), landmarks=True), "landmarks", apart=True),
    Row("4", "3D maps", Recipe(parts=(0, 0)), "neither"),
    *(Row("5", f"tau = {tau}", Recipe(tau=tau)) for tau in (0, 300, 500, 700, 1000)),
    *(Row("5", f"{how}: tau = {tau}", Recipe(tau=tau), model, apart=True) for how, model in LEARNED for tau in (0, 500, 1000)),
    Row("6", "no head control", Recipe()),
    Row("6", "+ pi*, alpha = 0.3", Recipe(alpha=0.3)),
    Row("6", "+ pi*, alpha = 0.5", Recipe(alpha=0.5)),
    Row("8", "head alone for the first 30 %", Recipe(head_until=0.3)),
    Row("–", "another person's reference", Recipe(), swapped=True),
)
"""The rows; where a network was trained without something, it makes its row, else the whole one with it left out."""
CONTRASTS = (
    ("global only", "neither"),
    ("local only", "global only"),
    ("both", "local only"),
    ("16 local tokens", "4 local tokens"),
    ("3D maps", "landmarks"),
    ("tau = 1000", "tau = 0"),
    *((f"{how}: tau = 1000", f"{how}: tau = 0") for how, _ in LEARNED),
    (f"{LEARNED[-1][0]}: tau = 1000", f"{LEARNED[-2][0]}: tau = 1000"),
    ("+ pi*, alpha = 0.3", "no head control"),
    ("+ pi*, alpha = 0.5", "no head control"),
    ("head alone for the first 30 %", "no head control"),
)
"""Names of rows that are compared person by person."""


def evaluate_row(row: Row, trial: Trial, made: Tensor, miniature: Miniature) -> dict[str, Tensor]:
    """Figures of portraits `[N, 3, 128, 128]` in 0..1, each `[N]`, by the names of COLUMNS, "donor E" and "donor R".

    The donor figures, of swapped rows alone, are the similarity to whom the head is of.
    """
    pictures = made * 2 - 1
    whose = trial.whose(row.swapped)
    given = trial.references[whose]
    figures = {}
    for name, recognizer in (("E", miniature.recognizer), ("R", miniature.evaluator)):
        embedding = recognizer(pictures)[0]
        figures[f"ID {name}"] = F.cosine_similarity(embedding, recognizer(given)[0])
        if row.swapped:
            figures[f"donor {name}"] = F.cosine_similarity(embedding, recognizer(trial.references)[0])
    predicted = Attributes.predicted(miniature.evaluator(pictures)[1])
    truth = Attributes.of(trial.heads, [s.setting for s in trial.targets])
    figures |= predicted.errors(truth)
    way = trial.seen[whose] - truth.angles
    figures["pull"] = ((predicted.angles - truth.angles) * way).sum(1) / way.pow(2).sum(1).mean()
    head = (head_hint(trial.heads)[:, :3] != 0).any(1, keepdim=True).float()
    figures["face L1"] = ((made - trial.truth).abs() * head).sum((1, 2, 3)) / (3 * head.sum((1, 2, 3)))
    return figures


@torch.no_grad()
def make_row(row: Row, trial: Trial, miniature: Miniature, seed: int = 0) -> Tensor:
    """The portraits of a row, `[N, 3, 128, 128]` in 0..1."""
    if row.recipe is None:
        return trial.truth
    hint = head_hint(trial.heads, row.recipe.landmarks)
    whose = trial.whose(row.swapped)
    references, poses = trial.references[whose], trial.seen[whose]
    posed = ABLATIONS.get(row.model, Conditions()).posed
    parts = []
    for i in range(0, len(hint), BATCH):
        rows = slice(i, i + BATCH)
        given = hint[rows], trial.prompts[rows], references[rows]
        parts.append(make_portraits(miniature, *given, row.recipe, seed + i, poses[rows] if posed else None))
    return torch.cat(parts)


PAPER = {
    ("2", "neither"): "ID 0.3915", ("2", "global only"): "ID 0.7725",
    ("2", "local only"): "ID 0.8095", ("2", "both"): "ID 0.8429",
    ("3", "4 local tokens"): "ID 0.8370 (32 of 257)", ("3", "16 local tokens"): "ID 0.8429 (257)",
    ("5", "tau = 0"): "ID 0.3915, pose 0.0262", ("5", "tau = 300"): "ID 0.6600, pose 0.0292",
    ("5", "tau = 500"): "ID 0.7589, pose 0.0343", ("5", "tau = 700"): "ID 0.7986, pose 0.0467",
    ("5", "tau = 1000"): "ID 0.8429, pose 0.0564", ("6", "no head control"): "ID 0.8429, pose 0.0564",
    ("6", "+ pi*, alpha = 0.5"): "ID 0.8338, pose 0.0358 (pi* with 3DMM, its alpha not given)",
}  # fmt: skip
"""The paper's figures for the row of that table and name; its pose is the RMSE of DECA's codes, not degrees."""


def line(row: Row, figures: dict[str, Tensor], apart: bool) -> str:
    """A row of a Markdown table: means with 95 % intervals, and the paper's figures.

    Args:
        row: The row.
        figures: Of its portraits, from `evaluate_row`.
        apart: Whether its network was trained apart.
    """
    cells = {name: "{:.3f} ± {:.3f}".format(*interval(values)) for name, values in figures.items()}
    donor = f"; to whose head it is {cells['donor E']} (E), {cells['donor R']} (R)" if row.swapped else ""
    name = f"{row.name}{' (trained apart)' if apart else ''}{donor}"
    return _columns(row.table, name, *(cells[c] for c in COLUMNS), PAPER.get((row.table, row.name), ""))


def _columns(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def print_tables(miniature: Miniature, ablations: dict[str, TrainedCapFace], people: range) -> None:
    """Make and judge all rows, and print them.

    Args:
        miniature: The networks.
        ablations: Networks trained apart, by their names in ABLATIONS; the one without identity is pi* as well.
        people: Numbers of people kept from training.
    """
    print(_columns("table", "row", *COLUMNS, "the paper"), _columns(*["---"] * (len(COLUMNS) + 3)), sep="\n")
    trial, figures, judged = Trial.of(people), {}, {}
    star = ablations["neither"].capface if "neither" in ablations else None
    for row in ROWS:
        trained = ablations.get(row.model)
        if trained is None and row.apart:
            continue
        network = miniature if trained is None else replace(miniature, capface=trained.capface, tokens=trained.tokens)
        if row.recipe and (row.recipe.alpha or row.recipe.head_until):
            row = replace(row, recipe=replace(row.recipe, star=star))
        key = (trained, row.recipe, row.swapped)
        if key not in judged:  # some rows stand in several tables
            judged[key] = evaluate_row(row, trial, make_row(row, trial, network), miniature)
        figures[row.name] = found = judged[key]
        print(line(row, found, trained is not None), flush=True)
    print_contrasts(figures)


def print_contrasts(figures: dict[str, dict[str, Tensor]]) -> None:
    """Print how much CONTRASTS differ, by the figures of rows' names: people differ more among each other than rows do."""
    print("", _columns("difference", *COLUMNS), _columns(*["---"] * (len(COLUMNS) + 1)), sep="\n")
    for one, other in CONTRASTS:
        if one in figures and other in figures:
            cells = ("{:+.3f} ± {:.3f}".format(*interval(figures[one][c] - figures[other][c])) for c in COLUMNS)
            print(_columns(f"{one} - {other}", *cells), flush=True)


def pose_predicted(features: Tensor, angles: Tensor) -> Tensor:
    """How much of heads' poses features tell: the share of the variance that a ridge regression explains, `[A]`.

    Args:
        features: `[N, C]`.
        angles: `[N, A]`; the first seven eighths are fitted, the rest judged.
    """
    fitted = len(features) * 7 // 8
    x, y = features.double(), angles.double()
    x, y = (x - x[:fitted].mean(0)) / (x[:fitted].std(0) + 1e-6), y - y[:fitted].mean(0)
    gram = x[:fitted].T @ x[:fitted] + 0.05 * fitted * torch.eye(x.shape[1], dtype=x.dtype)
    error = x[fitted:] @ torch.linalg.solve(gram, x[:fitted].T @ y[:fitted]) - y[fitted:]
    return 1 - error.pow(2).sum(0) / y[fitted:].pow(2).sum(0)


def print_pose_predicted(people: People, count: int = 6400) -> None:
    """Print how much of yaw, pitch and roll can be read from what CapFace is given of a person."""
    angles = angles_of(people.scenes.heads.rotation[:count])
    tokens = people.tokens[:count]
    features = {"embedding": people.embeddings[:count], "mean of tokens": tokens.mean(1), "tokens in order": tokens.flatten(1)}
    for name, feature in features.items():
        shares = ", ".join(f"{share:.2f}" for share in pose_predicted(feature, angles))
        print(f"{name}: a linear reading explains {shares} of yaw's, pitch's and roll's variance")


def interval(values: Tensor) -> tuple[float, float]:
    """Mean and half-width of its 95 % confidence interval, by the normal approximation."""
    numbers = values.double().numpy()
    return float(numbers.mean()), float(1.96 * numbers.std(ddof=1) / np.sqrt(len(numbers)))
