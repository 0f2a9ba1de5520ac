"""Train a model of one person from one photo: `python tasks.py person PHOTO OUT --method lora|word|whole --base FILE`.

The paper compares CapFace with such models (table 1). `lora` trains low-rank factors of the denoiser's attention, `word` the
vectors of a new word (textual inversion), `whole` all of the denoiser (DreamBooth). The same command resumes a run that was
stopped. OUT/NAME.safetensors, with the folder's own name, is a file for ComfyUI's loaders: LoRA, `embedding:NAME`, checkpoint.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import BadInput
from ...photos.pictures import read_picture
from ..command import add_computing_options, attempt, computing, halve
from ..export import write_tensors
from ..loop import LoopSettings, train
from ..objective import recompute_activations
from ..photo_files import caption_of, find_photos
from ..sampled import SampledBatches
from ..schedule import WEIGHTS, NoiseSchedule
from ..state import steps_done
from .adaptation import METHODS, Adaptation, Factors, Whole, Word
from .objective import PersonObjective, PhotoBatches, Pictures
from .tunable import MINIATURE, SUBJECT, Tunable, load_tunable

SMALLEST = 64
"""Pixels of the shorter side of a photo, at least."""
WHERE = {
    "lora": "models/loras; load it with Load LoRA",
    "word": "models/embeddings; write embedding:{name} in a prompt",
    "whole": "models/checkpoints; load it with Load Checkpoint",
}
"""Where the file of each method goes in ComfyUI."""


@dataclass(frozen=True)
class PersonSettings:
    """Settings that decide what is trained."""

    method: str
    """One of `METHODS`."""
    captions: tuple[str, ...]
    """What the photo is called; each sample takes one of them. `{}` is the person."""
    subject: str = "sks person"
    """What the person is called by the methods that learn no word."""
    rank: int = 16
    """Rank of a LoRA's factors."""
    alpha: float | None = None
    """alpha of a LoRA; None is its rank, so that the factor is 1."""
    vectors: int = 1
    """Vectors of a word."""
    start: str = ""
    """Word with whose vectors a new word begins."""
    text: bool = False
    """Whether the text encoder is trained as well, by `lora` and `whole`."""
    batch: int = 4
    """Samples in a batch."""
    weighting: str = "eps"
    """Weight of each timestep's error, one of `schedule.WEIGHTS`."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadInput(f"Expected a method out of {', '.join(METHODS)}, got {self.method!r}.")
        for name in ("rank", "vectors", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"Expected {name} to be at least 1, got {getattr(self, name)}.")
        if not self.captions:
            raise BadInput("Expected at least one caption.")
        if self.method == "word":
            if missing := [caption for caption in self.captions if SUBJECT not in caption]:
                raise BadInput(f"Expected {SUBJECT} in each caption, in place of the new word, got {missing[0]!r} without it.")
            if self.text:
                raise BadInput("The method word trains the word alone: leave out --text, or choose lora or whole.")
        if self.weighting not in WEIGHTS:
            raise BadInput(f"Expected a loss weighting out of {', '.join(WEIGHTS)}, got {self.weighting!r}.")


def square_picture(photo: Tensor, side: int) -> Tensor:
    """Cut the middle square out of a photo and resize it.

    Args:
        photo: `[3, H, W]` in 0..1.
        side: Side of the result, a multiple of 8.

    Returns:
        `[1, 3, side, side]` in -1..1.

    Raises:
        BadInput: The photo is too small, or the side is no multiple of 8.
    """
    if side < SMALLEST or side % 8:
        raise BadInput(f"Expected a size of at least {SMALLEST} that is a multiple of 8, got {side}.")
    height, width = photo.shape[-2:]
    shorter = min(height, width)
    if shorter < SMALLEST:
        raise BadInput(f"Expected a photo of at least {SMALLEST} × {SMALLEST} pixels, got {width} × {height}.")
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = photo[None, :, top : top + shorter, left : left + shorter]
    if shorter != side:
        square = F.interpolate(square, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return square * 2 - 1


def start_adaptation(base: Tunable, settings: PersonSettings) -> Adaptation:
    """Create what is trained; a LoRA's factors are drawn from torch's generator.

    Args:
        base: The base model.
        settings: What is trained.

    Raises:
        BadInput: The base does not know the word to begin with, or its text encoder cannot be trained.
    """
    if settings.method == "word":
        first = base.vectors_of(settings.start)
        return Word(first[torch.arange(settings.vectors) % len(first)].clone())
    text = base.text_layers() if settings.text else {}
    if settings.method == "lora":
        alpha = settings.rank if settings.alpha is None else settings.alpha
        return Factors({**base.layers(), **text}, settings.rank, float(alpha))
    return Whole(base.denoiser, base.text_encoder if settings.text else None)


def train_person(
    base: Tunable,
    picture: Tensor,
    settings: PersonSettings,
    loop: LoopSettings,
    folder: Path,
    *,
    prior: Sequence[tuple[Tensor, str]] = (),
    cpu: bool = False,
    export: Callable[[Adaptation, int], None] | None = None,
) -> Adaptation:
    """Train a person, or resume the training in the folder.

    Args:
        base: The base model. With the method `whole` its own weights are changed.
        picture: The photo from `square_picture`, `[1, 3, side, side]`.
        settings: What is trained.
        loop: Settings of the optimizer and of the loop.
        folder: Folder of the run.
        prior: Pictures of other people `[1, 3, side, side]` with their captions. Half of each batch is taken from them, so
            that the network does not take everyone for the person (prior preservation).
        cpu: Train on the CPU even if there is a GPU.
        export: Function of the averaged parameters and the number of steps, called whenever the state is saved.

    Returns:
        The averaged parameters.

    Raises:
        BadInput: The folder holds a run with other settings, or a setting does not fit the base.
        FloatingPointError: The loss is NaN or infinite.
    """
    vectors = settings.vectors if settings.method == "word" else 0
    tokens = [base.tokenize(caption, settings.subject, vectors) for caption in settings.captions]
    torch.manual_seed(loop.seed)
    adaptation = start_adaptation(base, settings)
    objective = PersonObjective(base, adaptation, NoiseSchedule(), settings.weighting)
    others = None
    if prior:
        means, deviations = zip(*(base.encode_picture(other) for other, _ in prior), strict=True)
        captions = torch.stack([base.tokenize(caption, "", 0) for _, caption in prior])
        others = Pictures(torch.cat(means), torch.cat(deviations), captions)
    photo = Pictures.of_photo(base.encode_picture(picture), tokens)
    data = SampledBatches(PhotoBatches(photo, settings.batch, others), loop.seed)
    about = json.loads(json.dumps(asdict(settings))) | {"base": base.name, "photo": _digest([(picture, "")])}
    if prior:
        about["prior"] = _digest(prior)
    layers = {**base.layers(), **(base.text_layers() if settings.text else {})} if settings.method == "lora" else {}
    attached = adaptation.attached(layers) if isinstance(adaptation, Factors) else nullcontext()
    with attached:
        return train(objective, data, loop, folder, about=about, cpu=cpu, export=export)


def _digest(pictures: Sequence[tuple[Tensor, str]]) -> str:
    """Return the SHA-256 of pictures in -1..1 with captions."""
    digest = hashlib.sha256()
    for picture, caption in pictures:
        digest.update((picture * 255).round().short().numpy().tobytes() + caption.encode())
    return digest.hexdigest()


def read_prior(folder: Path, caption: str, side: int) -> list[tuple[Tensor, str]]:
    """Read pictures of other people.

    Args:
        folder: Their folder. `NAME.txt` beside `NAME.jpg` is a picture's caption.
        caption: Caption of the others.
        side: Side of the squares.

    Returns:
        Each picture from `square_picture` with its caption, sorted by name.

    Raises:
        MissingFile: There is no picture in the folder.
        BadInput: A picture is too small.
    """
    paths = [folder / photo.source for photo in find_photos(folder)]
    return [(square_picture(read_picture(path), side), caption_of(path, caption)) for path in paths]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("person", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, help="a photo of the person; its middle square is used")
    parser.add_argument("out", type=Path, help="folder of the run; its name is the file's; an existing run is resumed")
    parser.add_argument("--method", choices=METHODS, required=True, help="what is trained")
    parser.add_argument(
        "--base", required=True, metavar="FILE", help=f"any Stable Diffusion 1.x checkpoint, or {MINIATURE!r}: the pack's own"
    )
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--caption", action="append", metavar="TEXT",
        help="what the photo is called, with {} for the person; repeat it for several (default: a few)",
    )  # fmt: skip
    what.add_argument("--subject", default="sks person", help="the person's name for lora and whole (default: %(default)s)")
    what.add_argument("--rank", type=int, default=16, help="rank of a LoRA (default: %(default)s)")
    what.add_argument("--alpha", type=float, help="alpha of a LoRA (default: its rank)")
    what.add_argument("--vectors", type=int, default=1, help="vectors of a word (default: %(default)s)")
    what.add_argument("--start", metavar="WORD", help="word that a new one begins as (default: person)")
    what.add_argument("--text", action="store_true", help="train the text encoder as well, with lora and whole")
    what.add_argument(
        "--prior", type=Path, metavar="FOLDER",
        help="pictures of other people, which are trained as well so that they are not forgotten (default: none)",
    )  # fmt: skip
    what.add_argument("--prior-caption", default="a photo of a person", help="their caption (default: %(default)s)")
    what.add_argument("--size", type=int, help="side of the picture in pixels (default: 512, or 128 for the miniature)")
    what.add_argument("--weighting", choices=list(WEIGHTS), help="weight of each timestep's error (default: the base's)")
    run = parser.add_argument_group("run")
    run.add_argument("--steps", type=int, help="number of steps (default: by method)")
    run.add_argument("--learning-rate", type=float, help="learning rate of AdamW (default: by method and base)")
    run.add_argument("--batch", type=int, default=4, help="samples in a batch (default: %(default)s)")
    run.add_argument("--warmup", type=int, default=0, help="steps until the learning rate is reached (default: %(default)s)")
    run.add_argument("--average", type=float, default=0.99, help="decay of the moving average (default: %(default)s)")
    run.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    run.add_argument("--save-every", type=int, help="steps between saved states (default: a fifth of all)")
    run.add_argument("--minutes", type=float, help="time after which the run saves its state and ends")
    add_computing_options(run)
    run.add_argument("--half", action="store_true", help="write the file in half precision")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> Path:
    """Train, or resume training, and return the path of the file.

    Args:
        options: The command line.

    Raises:
        CapFaceError: A file is missing or invalid, a setting is out of range, or the settings of a resumed run differ.
        FloatingPointError: The loss is NaN or infinite.
    """
    photo = read_picture(options.photo)
    gpu, precision = computing(options)
    base = load_tunable(options.base)
    steps = base.steps[options.method] if options.steps is None else options.steps
    rate = base.rates[options.method] if options.learning_rate is None else options.learning_rate
    if steps < 1 or not rate > 0 or not 0 <= options.average < 1:
        raise BadInput(
            f"Expected steps of at least 1, a learning rate above 0 and an average in 0..1, got {steps}, {rate:g} and "
            f"{options.average:g}."
        )
    settings = PersonSettings(
        method=options.method,
        captions=tuple(options.caption or base.captions),
        subject=options.subject,
        rank=options.rank,
        alpha=options.alpha,
        vectors=options.vectors,
        start=base.start if options.start is None else options.start,
        text=options.text,
        batch=options.batch,
        weighting=options.weighting or base.weighting,
    )
    loop = LoopSettings(
        steps=steps,
        learning_rate=rate,
        warmup=options.warmup,
        average=options.average,
        precision=precision,
        seed=options.seed,
        save_every=options.save_every or max(steps // 5, 1),
        log_every=max(steps // 20, 1),
        sample_every=0,
        minutes=options.minutes,
    )
    side = base.side if options.size is None else options.size
    picture = square_picture(photo, side)
    prior = read_prior(options.prior, options.prior_caption, side) if options.prior else ()
    if gpu and settings.method != "whole":
        halve(base.denoiser, precision)
    if options.recompute:
        recompute_activations(base.denoiser)
    target = options.out / f"{options.out.resolve().name}.safetensors"

    def export(averaged: Adaptation, step: int) -> None:
        note = {"steps": str(step), "seed": str(loop.seed), "settings": json.dumps(asdict(settings)), "base": base.name}
        write_tensors(target, averaged.file(base), dtype=torch.float16 if options.half else None, about=note)

    train_person(base, picture, settings, loop, options.out, prior=prior, cpu=not gpu, export=export)
    return target


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    target = attempt(run, options)
    if isinstance(target, int):
        return target
    patch = options.base == MINIATURE and options.method != "word"
    where = "models/loras; load it with LoraLoaderModelOnly" if patch else WHERE[options.method].format(name=target.stem)
    print(f"{target}, after {steps_done(options.out)} steps: copy it into ComfyUI's {where}.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
