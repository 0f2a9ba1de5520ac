"""The manifest: what a benchmark compares, in JSON that people write. All its mistakes are found before anything starts."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .people import Person, people_of
from .person_files import LORA, MINIATURE, WORD, PersonFile
from .person_files import mistakes as training_mistakes
from .places import Path_, Problems, read_json
from .workflow import SAMPLING, Workflow, bound, find_input, head_mistakes, marked, mistakes

SETS = Path(__file__).with_name("sets")
"""The manifests, prompts and head conditions that come with the benchmark."""
METRICS = ("miniature", "facenet", "arcface", "clip", "deca", "landmarks")
"""What `score` can compute: see README.md in this folder."""
_KEYS = {
    "name": str, "version": int, "seed": int, "people": dict, "subject": str, "prompts": (str, list), "heads": (str, dict),
    "images": int, "size": list, "sampling": dict, "unit_images": int, "metrics": list, "methods": dict,
}  # fmt: skip
_OPTIONAL = {"size": [], "subject": "person", "images": 1, "unit_images": 90, "sampling": {}, "version": 1, "seed": 0}
_METHOD_KEYS = {
    "workflow": str, "set": dict, "packs": list, "subject": str, "size": list, "sampling": dict, "curve": list, "images": str,
    "seen": str, "why": str, "person": dict,
}  # fmt: skip
_FIELDS = ("person", "prompt", "head", "image")
"""What a method's folder of images may name in its file names."""


@dataclass(frozen=True)
class Method:
    """A way to make portraits."""

    name: str
    workflow: Workflow | None
    """With the manifest's settings in it. None if the images come from a folder."""
    images: str = ""
    """Path of the images of a method that does not run in ComfyUI, with {person}, {prompt}, {head} and {image}."""
    subject: str = "person"
    """What stands for {subject} in its prompts."""
    packs: tuple[str, ...] = ()
    """Folders of the node packs that it needs, besides this one."""
    curve: tuple[str, float] | None = None
    """The setting that it varies and its value, for methods that make up a curve."""
    person: PersonFile | None = None
    """What is trained for each person."""

    @property
    def slug(self) -> str:
        """Its name as a folder."""
        return slug(self.name)

    @property
    def controls_head(self) -> bool:
        """Whether it takes a head condition."""
        return self.workflow is None or bool(marked(self.workflow, "@head"))


@dataclass(frozen=True)
class Manifest:
    """A checked manifest, with everything that it names read."""

    file: Path
    name: str
    version: int
    seed: int
    people: tuple[Person, ...]
    prompts: tuple[str, ...]
    """Texts with {subject}."""
    heads: Mapping[str, Mapping[str, Any]]
    images: int
    """Images for each person, prompt and head."""
    unit_images: int
    """Most images in a unit of work, if one prompt has no more."""
    metrics: tuple[str, ...]
    methods: tuple[Method, ...]
    resolved: dict[str, Any] = field(repr=False, default_factory=dict)
    """The manifest as JSON, with `extends` followed."""

    @property
    def images_of_a_method(self) -> int:
        """How many images each method makes."""
        return len(self.people) * len(self.prompts) * len(self.heads) * self.images


def slug(name: str) -> str:
    """Return a name as a part of a path that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", name).strip("-.") or "-"


def find_manifest(name: str) -> Path:
    """Return the file of a manifest: a path, or the name of one that comes with the benchmark, such as `quick`."""
    path = Path(name).expanduser()
    shipped = SETS / f"{name.removesuffix('.json')}.json"
    return shipped if not path.is_file() and shipped.is_file() else path.resolve()  # workers may have another current folder


def read_manifest(file: Path) -> Manifest:
    """Read and check a manifest.

    Args:
        file: The manifest.

    Returns:
        The manifest, with its prompts, heads, workflows and people read.

    Raises:
        BadManifest: It has mistakes; the message lists all of them with file, line and key.
    """
    reader = _Reader(file)
    manifest = reader.read()
    if manifest is None or reader.problems:
        raise BadManifest(file, sorted(set(reader.problems.lines)))
    return manifest


class BadManifest(BadInput):
    """A manifest with mistakes. Unlike other messages, this one is never shortened."""

    def __init__(self, file: Path, found: list[str]):
        """State them.

        Args:
            file: The manifest.
            found: Its mistakes, each with its place.
        """
        self.found = found
        super().__init__(f"{len(found)} mistake{'s' * (len(found) != 1)} in {file}:")

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.found])


class _Reader:
    """Reads one manifest and collects its mistakes."""

    def __init__(self, file: Path):
        self.file, self.problems = file, Problems()
        self.origin: dict[str, tuple[Path, dict[Path_, int]]] = {}  # of each top-level key

    def bad(self, path: Path_, text: str) -> None:
        file, places = self.origin.get(str(path[0]), (self.file, {})) if path else (self.file, {})
        self.problems.add(file, places or self.places, path, text)

    def read(self) -> Manifest | None:
        own, self.places = read_json(self.file, self.problems)
        if own is None:
            return None
        if not isinstance(own, dict):
            self.bad((), "expected an object")
            return None
        value, base = own, own.get("extends")
        self.origin = dict.fromkeys(own, (self.file, self.places))
        if base is not None:
            value = self._extended(own, base)
        self.value = {**_OPTIONAL, **{k: v for k, v in value.items() if k != "extends"}}
        for key in sorted(set(self.value) - set(_KEYS)):
            self.bad((key,), f"unknown key. There are: {', '.join(_KEYS)}, extends")
        for key, kind in _KEYS.items():
            if key not in self.value:
                self.bad((key,), "is missing")
            elif not isinstance(self.value[key], kind) or isinstance(self.value[key], bool):
                self.bad((key,), f"expected {_kind(kind)}, got {self.value[key]!r}")
        for key in ("images", "unit_images"):
            if isinstance(self.value.get(key), int) and self.value[key] < 1:
                self.bad((key,), f"expected 1 or more, got {self.value[key]}")
        people = self._people()
        prompts, heads = self._prompts(), self._heads()
        metrics = self._metrics()
        methods = tuple(self._methods())
        if self.problems:
            return None
        v = self.value
        manifest = Manifest(
            self.file, v["name"], v["version"], v["seed"], people, prompts, heads, v["images"], v["unit_images"], metrics,
            methods, v,
        )  # fmt: skip
        if "miniature" in metrics:
            from .miniature_metrics import mistakes as unmeasurable

            for path, text in unmeasurable(manifest):
                self.bad(path, text)
            if len(metrics) > 1:
                self.bad(("metrics",), "the metric 'miniature' stands alone: the others measure people on photos")
        elif metrics and any(person.photo is None for person in people):
            self.bad(("metrics",), "synthetic people are measured by 'miniature' only")
        return manifest

    def _extended(self, own: dict[str, Any], base: Any) -> dict[str, Any]:
        """Return the manifest with the keys of the one that it extends."""
        if not isinstance(base, str):
            self.bad(("extends",), f"expected the name of a manifest, got {base!r}")
            return own
        file = self.file.parent / base
        under, places = read_json(file, self.problems)
        if not isinstance(under, dict):
            self.bad(("extends",), f"{file} is not a manifest")
            return own
        if "extends" in under:
            self.bad(("extends",), f"{file.name} extends another manifest; only one step is allowed")
        self.origin = dict.fromkeys(under, (file, places)) | self.origin
        return {**under, **own}

    def _get(self, key: str, kind: Any) -> Any:
        """Return a value of the right type, or None."""
        value = self.value.get(key)
        return value if isinstance(value, kind) and not isinstance(value, bool) else None

    def _beside(self, key: str, name: str) -> Path:
        """Return the path of a file that a key names, relative to the manifest with that key."""
        path = Path(os.path.expandvars(name)).expanduser()
        return path if path.is_absolute() else self.origin.get(key, (self.file, {}))[0].parent / path

    def _people(self) -> tuple[Person, ...]:
        asked = self._get("people", dict)
        if asked is None:
            return ()
        found = people_of(
            asked, lambda name: self._beside("people", name), lambda path, text: self.bad(("people", *path), text)
        )
        names = [slug(person.name) for person in found]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.bad(("people",), f"two people would have the folder '{name}': rename a photo")
        return tuple(found)

    def _listed(self, key: str, kinds: Any) -> tuple[Any, Path, dict[Path_, int], Path_]:
        """Return a list that stands in the manifest or in a file that it names, with its place."""
        value = self._get(key, kinds)
        file, places = self.origin.get(key, (self.file, self.places))
        if not isinstance(value, str):
            return value, file, places, (key,)
        path = self._beside(key, value)
        value, places = read_json(path, self.problems)
        return value, path, places, ()

    def _prompts(self) -> tuple[str, ...]:
        value, file, places, at = self._listed("prompts", (str, list))
        if value is None:
            return ()
        if not isinstance(value, list) or not value:
            self.problems.add(file, places, at, "expected a list of prompts with at least one")
            return ()
        for i, prompt in enumerate(value):
            if not isinstance(prompt, str) or not prompt.strip():
                self.problems.add(file, places, (*at, i), f"expected a text, got {prompt!r}")
            elif prompt in value[:i]:
                self.problems.add(file, places, (*at, i), f"the same prompt as number {value.index(prompt) + 1}")
            elif unknown := set(re.findall(r"\{(.*?)\}", prompt)) - {"subject"}:
                self.problems.add(
                    file, places, (*at, i), f"unknown field {{{sorted(unknown)[0]}}}: only {{subject}} is replaced"
                )
        return tuple(map(str, value))

    def _heads(self) -> dict[str, dict[str, Any]]:
        value, file, places, at = self._listed("heads", (str, dict))
        if value is None:
            return {}
        if not isinstance(value, dict) or not value:
            self.problems.add(file, places, at, "expected an object of head conditions with at least one")
            return {}
        for name, condition in value.items():
            for path, text in head_mistakes(condition):
                self.problems.add(file, places, (*at, name, *path), text)
            if slug(name) != name:
                self.problems.add(file, places, (*at, name), "expected a name of letters, digits, '.', '_', '=' and '-'")
        return value

    def _metrics(self) -> tuple[str, ...]:
        value = self._get("metrics", list) or []
        for i, name in enumerate(value):
            if name not in METRICS:
                self.bad(("metrics", i), f"unknown metric {name!r}. There are: {', '.join(METRICS)}")
            elif name in value[:i]:
                self.bad(("metrics", i), f"the metric {name!r} is named twice")
        return tuple(map(str, value))

    def _size(self, value: Any, path: Path_) -> tuple[int, int] | None:
        """Return width and height; None leaves those of the workflow."""
        if value == []:
            return None
        if isinstance(value, list) and len(value) == 2 and all(type(n) is int and n >= 8 and n % 8 == 0 for n in value):
            return value[0], value[1]
        self.bad(path, f"expected [width, height] in multiples of 8, got {value!r}")
        return None

    def _sampling(self, value: Any, path: Path_) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.bad(path, f"expected an object, got {value!r}")
            return {}
        for name in sorted(set(value) - {*SAMPLING, "checkpoint", "negative"}):
            self.bad((*path, name), f"unknown key. There are: {', '.join(SAMPLING)}, checkpoint, negative")
        return value

    def _methods(self) -> Iterator[Method]:
        methods = self._get("methods", dict)
        if methods is None:
            return
        if not methods:
            self.bad(("methods",), "expected at least one method")
        slugs = [slug(name) for name in methods]
        for name in methods:
            if slugs.count(slug(name)) > 1:
                self.bad(("methods", name), f"another method would have the same folder '{slug(name)}'")
        for name, value in methods.items():
            path: Path_ = ("methods", name)
            if not isinstance(value, dict):
                self.bad(path, f"expected an object, got {value!r}")
                continue
            wrong = False
            for key, entry in value.items():
                if key not in _METHOD_KEYS:
                    self.bad((*path, key), f"unknown key. There are: {', '.join(_METHOD_KEYS)}")
                elif not isinstance(entry, _METHOD_KEYS[key]):
                    self.bad((*path, key), f"expected {_kind(_METHOD_KEYS[key])}, got {entry!r}")
                    wrong = True
            if ("workflow" in value) == ("images" in value):
                self.bad(path, "expected either a workflow or images")
            elif not wrong:
                yield self._method(name, value, path)

    def _method(self, name: str, value: dict[str, Any], path: Path_) -> Method:
        subject = value.get("subject", self.value.get("subject"))
        curve = value.get("curve")
        if curve is not None and (len(curve) != 2 or not isinstance(curve[0], str) or not isinstance(curve[1], int | float)):
            self.bad((*path, "curve"), f"expected [setting, number], got {curve!r}")
            curve = None
        packs = []
        for i, pack in enumerate(value.get("packs", [])):
            if isinstance(pack, str) and os.path.expandvars(pack).startswith("$"):
                self.bad((*path, "packs", i), f"the environment variable in {pack} is not set. It names a folder of node packs")
            elif not isinstance(pack, str) or not self._beside("methods", pack).is_dir():
                self.bad((*path, "packs", i), f"there is no folder {pack!r}")
            else:
                packs.append(str(self._beside("methods", pack)))
        common = {"subject": subject, "packs": tuple(packs), "curve": tuple(curve) if curve else None}
        if "images" in value:
            unknown = set(re.findall(r"\{(.*?)\}", value["images"])) - set(_FIELDS)
            if unknown:
                self.bad((*path, "images"), f"unknown field {{{sorted(unknown)[0]}}}. There are: {', '.join(_FIELDS)}")
            return Method(name, None, str(self._beside("methods", value["images"])), **common)
        workflow = self._workflow(value, path)
        trained = self._trained(value, workflow, path)
        if trained is not None and trained.train == "word" and "subject" not in value:
            common["subject"] = WORD
        return Method(name, workflow, **common, person=trained)

    def _trained(self, value: dict[str, Any], workflow: Workflow, path: Path_) -> PersonFile | None:
        """Read what a method trains for each person, and look whether its workflow and prompts use that."""
        asked = value.get("person")
        if asked is None:
            if workflow and marked(workflow, LORA):
                self.bad((*path, "workflow"), f"a node has the mark {LORA}, but the method trains no 'person'")
            return None
        found = list(training_mistakes(asked))
        for at, text in found:
            self.bad((*path, "person", *at), text)
        if found:
            return None
        sampling = value.get("sampling", self.value.get("sampling"))
        base = asked.get("base") or (sampling.get("checkpoint") if isinstance(sampling, dict) else None)
        if not isinstance(base, str):
            self.bad((*path, "person"), f'expected a checkpoint in \'sampling\', or "base": "{MINIATURE}"')
            return None
        subject = value.get("subject", self.value.get("subject"))
        options = tuple(sorted((key, entry) for key, entry in asked.items() if key not in ("train", "base")))
        trained = PersonFile(asked["train"], base, str(subject), options)
        if trained.mark is not None and workflow and not marked(workflow, trained.mark):
            self.bad((*path, "workflow"), f"no node has the mark {trained.mark}, which would load what is trained")
        if trained.train == "word":
            if WORD not in value.get("subject", WORD):
                self.bad((*path, "subject"), f"expected {WORD} in it, which stands for the learned word")
            prompts = self._get("prompts", list) or []
            if any(isinstance(prompt, str) and "{subject}" not in prompt for prompt in prompts):
                self.bad((*path, "person"), "a prompt has no {subject}, so it would not name the learned word")
        return trained

    def _workflow(self, value: dict[str, Any], path: Path_) -> Workflow:
        """Read a method's workflow, and set what does not differ between its images."""
        file = self._beside("methods", value["workflow"])
        workflow, places = read_json(file, self.problems)
        if workflow is None:
            self.bad((*path, "workflow"), f"{file} cannot be used, see there")
            return {}
        found = list(mistakes(workflow))
        for at, text in found:
            self.problems.add(file, places, at, text)
        if found:
            return {}
        own = {"sampling", "size"} & value.keys()
        size = self._size(value.get("size", self.value.get("size")), (*path, "size") if "size" in own else ("size",))
        sampling = self._sampling(
            value.get("sampling", self.value.get("sampling", {})), (*path, "sampling") if "sampling" in own else ("sampling",)
        )
        values: dict[str, Any] = {"@size": dict(zip(("width", "height"), size, strict=True))} if size else {}
        values["@sampling"] = {key: entry for key, entry in sampling.items() if key in SAMPLING}
        values |= {f"@{key}": sampling[key] for key in ("checkpoint", "negative") if key in sampling}
        for mark in ("@sampling", "@checkpoint", "@negative"):
            if values.get(mark) and not marked(workflow, mark):
                key = mark[1:] if mark == "@sampling" else f"sampling.{mark[1:]}"
                self.bad((*path, "workflow"), f"the manifest sets {key}, but no node of {file.name} has the mark {mark}")
        workflow = bound(workflow, values)
        for name, setting in value.get("set", {}).items():
            try:
                key, entry = find_input(workflow, name)
            except KeyError as error:
                self.bad((*path, "set", name), error.args[0])
            else:
                if isinstance(workflow[key]["inputs"][entry], list):
                    self.bad((*path, "set", name), "this input is linked to another node")
                workflow[key]["inputs"][entry] = setting
        return workflow


def _kind(kind: Any) -> str:
    names = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}
    return " or ".join(names[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
