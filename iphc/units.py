"""Units of work: a method, a person and a chunk of prompts, with every image's seed and a fingerprint of what decides them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .manifest import Manifest, Method
from .people import Person
from .person_files import WORD, file_name
from .workflow import Workflow, bound, head_inputs, marked

FORMAT = 1
"""Changes when the same manifest would give other images or other files."""


@dataclass(frozen=True)
class Job:
    """One image of a unit."""

    prompt: int
    """Index of the prompt in the manifest."""
    head: str
    """Name of the head condition."""
    image: int
    seed: int


@dataclass(frozen=True)
class Unit:
    """Images that are made by one worker and stored in one file."""

    method: Method
    person: Person
    chunk: int
    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        """Its file without the extension, relative to the folder of units."""
        return f"{self.method.slug}/{self.person.name}/{self.chunk:03d}"


def seed_of(seed: int, person: str, prompt: str, head: str, image: int) -> int:
    """Return the seed of an image, 0..2^48 - 1: the first 6 bytes of SHA-256 of `seed/person/prompt/head/image`.

    It does not depend on the method, so that methods are compared on the same noise, nor on workers, order or time.

    Args:
        seed: The manifest's seed.
        person: The person's name.
        prompt: The prompt's text, with {subject} in it.
        head: The head condition's name.
        image: Number of the image, from 0.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{person}/{prompt}/{head}/{image}".encode()).digest()[:6], "big")


def units_of(manifest: Manifest) -> Iterator[Unit]:
    """Yield all units, by method and then by person, so that what they share is loaded once.

    A unit holds whole prompts: as many as have `unit_images` images, but at least one.
    """
    a_prompt = len(manifest.heads) * manifest.images
    prompts_in_unit = max(1, manifest.unit_images // a_prompt)
    for method in manifest.methods:
        for person in manifest.people:
            for chunk, first in enumerate(range(0, len(manifest.prompts), prompts_in_unit)):
                yield Unit(
                    method,
                    person,
                    chunk,
                    tuple(
                        Job(prompt, head, image, seed_of(manifest.seed, person.name, manifest.prompts[prompt], head, image))
                        for prompt in range(first, min(first + prompts_in_unit, len(manifest.prompts)))
                        for head in manifest.heads
                        for image in range(manifest.images)
                    ),
                )


def prompt_text(manifest: Manifest, method: Method, prompt: int) -> str:
    """Return the text of a prompt for a method."""
    return manifest.prompts[prompt].replace("{subject}", method.subject)


def text_for(manifest: Manifest, unit: Unit, prompt: int) -> str:
    """Return the text of a prompt for a unit, with its person's learned word."""
    text = prompt_text(manifest, unit.method, prompt)
    return text if unit.method.person is None else text.replace(WORD, f"embedding:{file_name(unit.method.slug, unit.person)}")


def training_seed(manifest: Manifest, person: Person) -> int:
    """Return the seed of a person's training, 0..2^31 - 1: it does not depend on the method or the worker."""
    return seed_of(manifest.seed, person.name, "", "", 0) % 2**31


def workflow_of(manifest: Manifest, unit: Unit, job: Job, photo: str | int) -> Workflow:
    """Return the workflow that makes an image.

    Args:
        manifest: The manifest.
        unit: The unit.
        job: The image.
        photo: What LoadImage or Synthetic Person gets: a file's name in the host, or a number.
    """
    assert unit.method.workflow is not None, f"{unit.method.name} has no workflow"
    values: dict[str, Any] = {
        "@photo": photo,
        "@prompt": text_for(manifest, unit, job.prompt),
        "@head": head_inputs(manifest.heads[job.head]),
        "@seed": job.seed,
    }
    if unit.method.person is not None and unit.method.person.mark is not None:
        values[unit.method.person.mark] = f"{file_name(unit.method.slug, unit.person)}.safetensors"
    return bound(unit.method.workflow, values)


def output_of(method: Method) -> str:
    """Return the id of the node with a method's images."""
    assert method.workflow is not None, f"{method.name} has no workflow"
    return marked(method.workflow, "@output")[0]


def fingerprint(manifest: Manifest, unit: Unit) -> str:
    """Return the SHA-256 of everything in the manifest that decides a unit's images.

    It holds the workflow with its settings, the photo's content, what is trained, and the prompts, heads and seeds; not the
    software nor the device, which `environment.json` names, nor the content of model files.
    """
    jobs = [
        [text_for(manifest, unit, job.prompt), job.prompt, manifest.heads[job.head], job.head, job.image, job.seed]
        for job in unit.jobs
    ]
    content = [FORMAT, unit.name, unit.method.workflow, unit.method.images, unit.person.content, jobs]
    if unit.method.person is not None:
        content.append([asdict(unit.method.person), training_seed(manifest, unit.person)])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
