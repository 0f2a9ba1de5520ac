"""The paper's tables in miniature: metrics of portraits of people held out from training, beside the paper's own values.

Every row makes one portrait of each held-out person. The reference is one picture of the person. The head has the pose,
expression, position and light of another picture, and the prompt names another setting. Identity is the cosine of two
embeddings. For E they come from the recognizer that CapFace is conditioned on, as on FaceNet in the paper. For R they come
from the evaluator, which took no part in training the networks that make portraits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...flame.editing import angles_of
from ...flame.model import HeadParams
from ...miniature.networks import PICTURE_SIDE, Miniature
from ...miniature.people import draw_people
from ...training.miniature.portrait_sampler import Recipe, head_hint, make_portraits
from ...training.miniature.scenes import Scene, sample_scene
from ...training.miniature.train_capface import Conditions, People
from ...training.miniature.train_evaluator import Attributes
from ...training.objective import TrainedCapFace

COLUMNS = ("ID E", "ID R", "pose", "pull", "position", "light", "face L1", "prompt")
"""Metrics. `pull` is how far a head is turned from its target pose towards the reference's: 0 not at all, 1 all the way."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Trial:
    """Held-out people: the inputs for their portraits, and the ground truth."""

    references: Tensor
    """Pictures of the people, `[N, 3, 128, 128]` in -1..1."""
    targets: list[Scene]
    """Other scenes with the same people."""
    truth: Tensor
    """The targets rendered, `[N, 3, 128, 128]` in 0..1."""
    reference_angles: Tensor
    """Yaw, pitch and roll of the heads in the references, in degrees, `[N, 3]`."""
    swapped: list[int]
    """For each person, the index of another one, whose reference replaces theirs."""

    @classmethod
    def of(cls, people: range) -> "Trial":
        """Make a trial of the people with these numbers."""
        return cls.of_scenes([sample_scene(person, 0) for person in people], [sample_scene(person, 1) for person in people])

    @classmethod
    def of_scenes(cls, references: Sequence[Scene], targets: Sequence[Scene]) -> "Trial":
        """Make a trial of portraits.

        Args:
            references: The reference of each portrait.
            targets: Another scene with the same person.
        """
        angles = angles_of(torch.cat([scene.head.rotation for scene in references]))
        order = list(range(len(references)))
        return cls(_render(references) * 2 - 1, list(targets), _render(targets), angles, order[1:] + order[:1])

    def reference_rows(self, swapped: bool) -> list[int]:
        """Return the index of the reference for each portrait: the person's own, or with `swapped` another person's."""
        return self.swapped if swapped else list(range(len(self.targets)))

    @property
    def heads(self) -> HeadParams:
        """The heads of the targets."""
        return HeadParams.cat([scene.head for scene in self.targets])

    @property
    def prompts(self) -> list[str]:
        """The settings of the targets in words, without the person and the light."""
        return [", ".join(scene.setting.words()) for scene in self.targets]


def _render(scenes: Sequence[Scene]) -> Tensor:
    heads = HeadParams.cat([scene.head for scene in scenes])
    return draw_people([s.person for s in scenes], heads, [s.setting for s in scenes], PICTURE_SIDE)


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    table: str
    name: str
    recipe: Recipe | None
    """None evaluates the rendered targets themselves: the attainable metrics."""
    model: str = "capface"
    """Name of the trained network that makes the portraits."""
    swapped: bool = False
    """Whether each portrait gets another person's reference."""
    apart: bool = False
    """Whether to leave the row out if its network was not trained. Otherwise the miniature takes its place."""


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
"""Conditions of the networks that are trained for single rows. All continue the same network, for the same number of steps."""
LEARNED = (
    ("learned from another picture", "both"),
    ("learned from itself, tokens that tell its pose", "posed"),
    ("learned from itself, heads 20° off", "inexact"),
    ("learned from itself, tokens that tell its pose, heads 20° off", "posed-inexact"),
)
"""Possible causes of identity's cost in pose (table 5): the references and heads in training, and the network trained so."""
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
"""The rows. A network trained without a part makes the row without it, or else the full network leaves the part out."""
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
"""Pairs of row names that are compared person by person."""


def evaluate_row(row: Row, trial: Trial, portraits: Tensor, miniature: Miniature) -> dict[str, Tensor]:
    """Compute the metrics of a row's portraits.

    Args:
        row: The row.
        trial: The people.
        portraits: `[N, 3, 128, 128]` in 0..1.
        miniature: The networks that compute the metrics.

    Returns:
        Metrics `[N]` by the names in COLUMNS. Swapped rows also have "donor E" and "donor R", the similarity to the person
        whose head it is.
    """
    pictures = portraits * 2 - 1
    rows = trial.reference_rows(row.swapped)
    references = trial.references[rows]
    metrics = {}
    for name, recognizer in (("E", miniature.recognizer), ("R", miniature.evaluator)):
        embedding = recognizer(pictures)[0]
        metrics[f"ID {name}"] = F.cosine_similarity(embedding, recognizer(references)[0])
        if row.swapped:
            metrics[f"donor {name}"] = F.cosine_similarity(embedding, recognizer(trial.references)[0])
    predicted = Attributes.predicted(miniature.evaluator(pictures)[1])
    truth = Attributes.of(trial.heads, [s.setting for s in trial.targets])
    metrics |= predicted.errors(truth)
    way = trial.reference_angles[rows] - truth.angles
    metrics["pull"] = ((predicted.angles - truth.angles) * way).sum(1) / way.pow(2).sum(1).mean()
    head = (head_hint(trial.heads)[:, :3] != 0).any(1, keepdim=True).float()
    metrics["face L1"] = ((portraits - trial.truth).abs() * head).sum((1, 2, 3)) / (3 * head.sum((1, 2, 3)))
    return metrics


@torch.no_grad()
def make_row(row: Row, trial: Trial, miniature: Miniature, seed: int = 0) -> Tensor:
    """Make the portraits of a row, `[N, 3, 128, 128]` in 0..1."""
    if row.recipe is None:
        return trial.truth
    hint = head_hint(trial.heads, row.recipe.landmarks)
    order = trial.reference_rows(row.swapped)
    references, poses = trial.references[order], trial.reference_angles[order]
    posed = ABLATIONS.get(row.model, Conditions()).posed
    parts = []
    for i in range(0, len(hint), BATCH):
        rows = slice(i, i + BATCH)
        inputs = hint[rows], trial.prompts[rows], references[rows]
        parts.append(make_portraits(miniature, *inputs, row.recipe, seed + i, poses[rows] if posed else None))
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
"""The paper's values by table and row. Its pose error is the RMSE of DECA's codes, not degrees."""


def line(row: Row, metrics: dict[str, Tensor], apart: bool) -> str:
    """Return a row of a Markdown table: means with 95 % intervals, and the paper's values.

    Args:
        row: The row.
        metrics: The metrics of its portraits, from `evaluate_row`.
        apart: Whether its network was trained for this row alone.
    """
    cells = {name: "{:.3f} ± {:.3f}".format(*interval(values)) for name, values in metrics.items()}
    donor = f"; to whose head it is {cells['donor E']} (E), {cells['donor R']} (R)" if row.swapped else ""
    name = f"{row.name}{' (trained apart)' if apart else ''}{donor}"
    return _columns(row.table, name, *(cells[c] for c in COLUMNS), PAPER.get((row.table, row.name), ""))


def _columns(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def print_tables(miniature: Miniature, ablations: dict[str, TrainedCapFace], people: range) -> None:
    """Make and evaluate the portraits of all rows, and print the tables.

    Args:
        miniature: The networks.
        ablations: Networks trained for single rows, by their names in ABLATIONS. The one without identity is also pi*.
        people: Numbers of people held out from training.
    """
    print(_columns("table", "row", *COLUMNS, "the paper"), _columns(*["---"] * (len(COLUMNS) + 3)), sep="\n")
    trial, metrics, evaluated = Trial.of(people), {}, {}
    star = ablations["neither"].capface if "neither" in ablations else None
    for row in ROWS:
        trained = ablations.get(row.model)
        if trained is None and row.apart:
            continue
        network = miniature if trained is None else replace(miniature, capface=trained.capface, tokens=trained.tokens)
        if row.recipe and (row.recipe.alpha or row.recipe.head_until):
            row = replace(row, recipe=replace(row.recipe, star=star))
        key = (trained, row.recipe, row.swapped)
        if key not in evaluated:  # some rows are in several tables
            evaluated[key] = evaluate_row(row, trial, make_row(row, trial, network), miniature)
        metrics[row.name] = evaluated[key]
        print(line(row, evaluated[key], trained is not None), flush=True)
    print_contrasts(metrics)


def print_contrasts(metrics: dict[str, dict[str, Tensor]]) -> None:
    """Print the paired differences of CONTRASTS. People differ more from each other than rows do.

    Args:
        metrics: The metrics of each row, by its name.
    """
    print("", _columns("difference", *COLUMNS), _columns(*["---"] * (len(COLUMNS) + 1)), sep="\n")
    for one, other in CONTRASTS:
        if one in metrics and other in metrics:
            cells = ("{:+.3f} ± {:.3f}".format(*interval(metrics[one][c] - metrics[other][c])) for c in COLUMNS)
            print(_columns(f"{one} - {other}", *cells), flush=True)


def pose_predicted(features: Tensor, angles: Tensor) -> Tensor:
    """Return how well a ridge regression predicts the poses of heads from features.

    Args:
        features: `[N, C]`.
        angles: `[N, A]`. The regression is fitted to the first seven eighths of the rows and tested on the rest.

    Returns:
        The explained fraction of each angle's variance, `[A]`.
    """
    fitted = len(features) * 7 // 8
    x, y = features.double(), angles.double()
    x, y = (x - x[:fitted].mean(0)) / (x[:fitted].std(0) + 1e-6), y - y[:fitted].mean(0)
    gram = x[:fitted].T @ x[:fitted] + 0.05 * fitted * torch.eye(x.shape[1], dtype=x.dtype)
    error = x[fitted:] @ torch.linalg.solve(gram, x[:fitted].T @ y[:fitted]) - y[fitted:]
    return 1 - error.pow(2).sum(0) / y[fitted:].pow(2).sum(0)


def print_pose_predicted(people: People, count: int = 6400) -> None:
    """Print how well yaw, pitch and roll can be predicted from the identity features that CapFace gets of a person."""
    angles = angles_of(people.scenes.heads.rotation[:count])
    tokens = people.tokens[:count]
    features = {"embedding": people.embeddings[:count], "mean of tokens": tokens.mean(1), "tokens in order": tokens.flatten(1)}
    for name, feature in features.items():
        fractions = ", ".join(f"{fraction:.2f}" for fraction in pose_predicted(feature, angles))
        print(f"{name}: a linear regression explains {fractions} of the variance of yaw, pitch and roll")


def interval(values: Tensor) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % confidence interval, by the normal approximation."""
    samples = values.double().numpy()
    return float(samples.mean()), float(1.96 * samples.std(ddof=1) / np.sqrt(len(samples)))
