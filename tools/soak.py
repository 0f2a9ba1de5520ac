"""Run many different prompts in one ComfyUI, and show what remains: memory, patches, and whether pictures still are the same.

    python tasks.py soak [--prompts 200] [--seed 0]

The prompts mix the miniature and stand-ins for SD 1.5: people, heads, sizes, samplers, batches, one or two people, settings of
Apply CapFace, pictures of Edit Head, interrupts, and prompts that fail or are refused. The last prompt is then run in a fresh
ComfyUI, and both images are compared bit for bit. The exit status is 0 only if nothing is left behind.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from capface import errors
from capface.errors import CapFaceError
from capface.tools.comfy import (
    PACK,
    ComfyClient,
    ComfyError,
    ComfyProcess,
    PromptRejected,
    find_host,
    host_version,
    model_folders,
    request,
)
from capface.tools.standins import make_standins, write_inputs

Prompt = dict[str, Any]

SAMPLERS = ("ddpm", "euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "ddim", "uni_pc", "lcm")
SCHEDULERS = ("normal", "karras", "simple", "ddim_uniform")
COLUMNS = {
    "rss": "RSS, MB",
    "tensors": "tensors",
    "tensor_bytes": "MB in them",
    "controls": "controls",
    "patchers": "patchers",
    "patches": "patches",
    "loaded": "loaded",
}
MEGABYTES = ("rss", "tensor_bytes")
MOST_GROWTH, SPARE = 0.05, 32e6
"""Growth of the memory in the second half that counts as flat: a part of it, and bytes."""

PROBE = '''
"""Tells what is alive in this ComfyUI."""

import gc
import sys

import comfy.model_management as mm
import psutil
import torch
from aiohttp import web
from comfy.model_patcher import ModelPatcher
from server import PromptServer

NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.get("/soak")
async def soak(request):
    gc.collect()
    tensors, storages, controls, patchers, patches = 0, {}, 0, 0, 0
    for one in gc.get_objects():
        kind = type(one)
        if issubclass(kind, torch.Tensor):
            tensors += 1
            if one.layout == torch.strided and not one.is_meta:
                storage = one.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        elif kind.__name__ == "CapFaceControl":
            controls += 1
        elif issubclass(kind, ModelPatcher):
            patchers += 1
            patches += len(one.patches) + len(one.object_patches)
    found = {"tensors": tensors, "tensor_bytes": sum(storages.values()), "controls": controls, "patchers": patchers}
    found |= {"patches": patches, "loaded": len(mm.current_loaded_models), "rss": psutil.Process().memory_info().rss}
    return web.json_response(found)
'''
"""A pack for the ComfyUI that is watched."""


def load_workflow(name: str) -> Prompt:
    """Return a workflow of the pack in API form."""
    return json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def inputs_of(prompt: Prompt, class_type: str) -> dict[str, Any]:
    """Return the inputs of a prompt's first node of a class."""
    return next(node["inputs"] for node in prompt.values() if node["class_type"] == class_type)


def id_of(prompt: Prompt, class_type: str) -> str:
    """Return the id of a prompt's first node of a class."""
    return next(key for key, node in prompt.items() if node["class_type"] == class_type)


class Prompts:
    """Random prompts; the same seed gives the same ones."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)
        self._miniature, self._portrait = load_workflow("miniature"), load_workflow("portrait")

    def next(self) -> tuple[str, Prompt]:
        """Return what the prompt tries, and the prompt."""
        r = self._random
        kinds = {
            self._one_person: ("one person", 50),
            self._two_people: ("two people", 15),
            self._stand_in: ("stand-in", 10),
            self._interrupted: ("interrupt", 8),
            self._failing: ("failing", 7),
            self._refused: ("refused", 3),
            self._partly_refused: ("partly refused", 2),
        }
        make = r.choices(list(kinds), [weight for _, weight in kinds.values()])[0]
        return kinds[make][0], make()

    def _one_person(self) -> Prompt:
        prompt, r = copy.deepcopy(self._miniature), self._random
        self._change_person(inputs_of(prompt, "CapFaceSyntheticPerson"))
        self._change_head(inputs_of(prompt, "CapFaceEditHead"))
        self._change_run(prompt, (48, 64, 64, 96, 128), (1, 1, 2, 3))
        words = r.choice(("red", "green", "blue")), r.choice(("beach", "forest"))
        inputs_of(prompt, "CLIPTextEncode")["text"] = "{} shirt, {}".format(*words)
        return prompt

    def _two_people(self) -> Prompt:
        prompt = self._one_person()
        apply, render = id_of(prompt, "CapFaceApply"), id_of(prompt, "CapFaceRenderHead")
        inputs_of(prompt, "CapFaceEditHead").update(position_mode="absolute", position_x=-0.5, size=0.6)
        for class_type in ("CapFaceSyntheticPerson", "CapFaceEncodeIdentity", "CapFaceEditHead"):
            prompt[f"second {class_type}"] = copy.deepcopy(prompt[id_of(prompt, class_type)])
        prompt["second CapFaceRenderHead"], prompt["second CapFaceApply"] = (copy.deepcopy(prompt[n]) for n in (render, apply))
        second = {name: prompt[f"second {name}"]["inputs"] for name in ("CapFaceSyntheticPerson", "CapFaceEditHead")}
        self._change_person(second["CapFaceSyntheticPerson"])
        self._change_head(second["CapFaceEditHead"])
        second["CapFaceEditHead"].update(position_mode="absolute", position_x=0.5, size=0.6)
        person, head = id_of(prompt, "CapFaceSyntheticPerson"), id_of(prompt, "CapFaceEditHead")
        moved = {person: "second CapFaceSyntheticPerson", head: "second CapFaceEditHead"}
        for name in ("CapFaceEncodeIdentity", "CapFaceEditHead", "CapFaceRenderHead"):
            links = prompt[f"second {name}"]["inputs"]
            links.update({k: [moved.get(v[0], v[0]), v[1]] for k, v in links.items() if isinstance(v, list)})
        own = {"condition": ["second CapFaceRenderHead", 0], "identity": ["second CapFaceEncodeIdentity", 0]}
        chained = {"positive": [apply, 0], "negative": [apply, 1], "overlap": self._random.choice(("add", "nearest"))}
        prompt["second CapFaceApply"]["inputs"].update(**own, **chained)
        inputs_of(prompt, "KSampler").update(positive=["second CapFaceApply", 0], negative=["second CapFaceApply", 1])
        return prompt

    def _stand_in(self) -> Prompt:
        prompt, r = copy.deepcopy(self._portrait), self._random
        inputs_of(prompt, "LoadImage")["image"] = r.choice(("photo.png", "photo2.png"))
        edit = copy.deepcopy(self._miniature[id_of(self._miniature, "CapFaceEditHead")])
        edit["inputs"].update(head=[id_of(prompt, "CapFaceFitHead"), 0], head_model=[id_of(prompt, "CapFaceLoadHeadModel"), 0])
        self._change_head(edit["inputs"])
        prompt["edit"] = edit
        inputs_of(prompt, "CapFaceRenderHead").update(head=["edit", 0], width=64, height=64)
        self._change_run(prompt, (64, 128), (1, 2))
        return prompt

    def _interrupted(self) -> Prompt:
        prompt = self._random.choice((self._one_person, self._two_people))()
        inputs_of(prompt, "KSampler")["steps"] = 40
        return prompt

    def _failing(self) -> Prompt:
        prompt, r = self._one_person(), self._random
        what = r.randrange(3)
        if what == 0:
            inputs_of(prompt, "CapFaceEncodeIdentity")["face_index"] = 1
        elif what == 1:
            inputs_of(prompt, "CapFaceEditHead").update(light="custom", key_color="blue")
        else:  # the identity of other encoders than CapFace was trained with
            prompt["capface"] = self._portrait[id_of(self._portrait, "CapFaceLoad")]
            inputs_of(prompt, "CapFaceApply")["capface"] = ["capface", 0]
        return prompt

    def _refused(self) -> Prompt:
        prompt = self._one_person()
        inputs_of(prompt, "CapFaceSyntheticPerson")["size"] = 8
        return prompt

    def _partly_refused(self) -> Prompt:
        """Return a prompt of which ComfyUI runs the nodes that show the head, but not the sampler."""
        prompt = self._one_person()
        inputs_of(prompt, "KSampler")["steps"] = 0
        return prompt

    def _change_person(self, inputs: dict[str, Any]) -> None:
        r = self._random
        inputs.update(person=1_000_000 + r.randrange(100_000), yaw=r.randrange(-60, 60), pitch=r.randrange(-30, 30))
        inputs.update(light=r.choice(("front", "left", "right")), shirt=r.choice(("blue", "red")), size=r.choice((64, 96, 128)))

    def _change_head(self, inputs: dict[str, Any]) -> None:
        r = self._random
        inputs.update(yaw=r.uniform(-60, 60), pitch=r.uniform(-20, 20), size=r.uniform(0.3, 1.2), smile_left=r.uniform(0, 1))

    def _change_run(self, prompt: Prompt, sides: tuple[int, ...], steps: tuple[int, ...]) -> None:
        r = self._random
        batch = r.choice((1, 1, 1, 1, 2, 4))
        inputs_of(prompt, "EmptyLatentImage").update(width=r.choice(sides), height=r.choice(sides), batch_size=batch)
        inputs_of(prompt, "KSampler").update(
            seed=r.randrange(2**31),
            steps=r.choice(steps),
            cfg=r.choice((1.0, 2.0, 4.0)),
            sampler_name=r.choice(SAMPLERS),
            scheduler=r.choice(SCHEDULERS),
        )
        start = r.choice((0.0, 0.0, 0.3))
        inputs_of(prompt, "CapFaceApply").update(
            strength=r.choice((0.0, 0.5, 1.0, 1.0, 2.0)),
            tau=r.choice((0.0, 300.0, 700.0, 1000.0, 1000.0)),
            start_percent=start,
            end_percent=r.choice((0.6, 1.0, 1.0)),
            mask_edge=r.choice(("hard", "soft")),
            likeness=r.choice((1.0, 1.0, 1.5)),
            evaluate_every=r.choice((1, 1, 2, 3)),
        )


@dataclass
class Soak:
    """What came of it."""

    probes: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """Number of prompts that were run, and what was alive then."""
    outcomes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    """Errors that are not the pack's own, and prompts that ended otherwise than they should."""
    history: Counter[str] = field(default_factory=Counter)
    queued: int = 0
    same_image: bool = False
    half_written: list[str] = field(default_factory=list)
    """Temporary files in the output folder."""

    def growth(self, what: str) -> tuple[float, float]:
        """Return the largest value in the first half, without the first tenth, and in the second half."""
        last = self.probes[-1][0]
        early = [alive[what] for number, alive in self.probes if last / 10 <= number <= last / 2]
        late = [alive[what] for number, alive in self.probes if number >= last / 2]
        return float(max(early or late)), float(max(late))

    def problems(self) -> list[str]:
        """List what is not as it should be."""
        found = list(self.unexpected)
        for what in MEGABYTES:
            early, late = self.growth(what)
            if late > early * (1 + MOST_GROWTH) + SPARE:
                found.append(f"{COLUMNS[what]} grew from {early / 1e6:.0f} to {late / 1e6:.0f} in the second half")
        if patches := self.probes[-1][1]["patches"]:
            found.append(f"{patches} patches are left")
        if self.queued:
            found.append(f"{self.queued} prompts are still queued")
        if not self.same_image:
            found.append("the last image differs from a fresh process's")
        return found + [f"a temporary file is left: {name}" for name in self.half_written]


def soak(comfyui: Path, prompts: int, seed: int, say: Callable[[str], object] = print, every: int | None = None) -> Soak:
    """Run prompts in a ComfyUI with this pack.

    Args:
        comfyui: ComfyUI's folder.
        prompts: Number of prompts; the last one is an ordinary portrait.
        seed: Seed of the prompts.
        say: Takes the lines of the table.
        every: Prompts between two lines; by default, there are 20 lines.
    """
    every = every or max(1, prompts // 20)
    made, result, start = Prompts(seed), Soak(), time.monotonic()
    last = Prompts(seed + 1)._one_person()
    inputs_of(last, "CapFaceApply").update(strength=1.0, start_percent=0.0, end_percent=1.0)
    folders = model_folders(make_standins(say=say))
    with tempfile.TemporaryDirectory(prefix="capface-soak-") as probe:
        pack = Path(probe) / "soak_probe"
        pack.mkdir()
        (pack / "__init__.py").write_text(PROBE, encoding="utf-8")
        say(f"ComfyUI {host_version(comfyui)}, {prompts} prompts, seed {seed}")
        say(" ".join(["prompts", "seconds", *COLUMNS.values()]))
        with ComfyProcess(comfyui, folders, others=[pack]) as process, ComfyClient(process) as client:
            write_inputs(process.base / "input")
            for number in range(prompts):
                kind, prompt = ("one person", last) if number == prompts - 1 else made.next()
                _run(client, kind, prompt, result)
                if number % every == 0 or number == prompts - 1:
                    alive = json.loads(request(f"{process.url}/soak"))
                    result.probes.append((number + 1, alive))
                    shown = [f"{alive[k] / 1e6:.0f}" if k in MEGABYTES else str(alive[k]) for k in COLUMNS]
                    widths = [len(text) for text in ("prompts", "seconds", *COLUMNS.values())]
                    cells = [str(number + 1), f"{time.monotonic() - start:.0f}", *shown]
                    say(" ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
            soaked = _image(client, last)
            records = json.loads(request(f"{process.url}/history"))
            result.history = Counter(record["status"]["status_str"] for record in records.values())
            queue = json.loads(request(f"{process.url}/queue"))
            result.queued = len(queue["queue_running"]) + len(queue["queue_pending"])
            result.half_written = [path.name for path in (process.base / "output").rglob("*.part")]
        with ComfyProcess(comfyui, folders) as process, ComfyClient(process) as client:
            result.same_image = np.array_equal(soaked, _image(client, last))
    return result


def _run(client: ComfyClient, kind: str, prompt: Prompt, result: Soak) -> None:
    """Run a prompt, and note how it ended."""
    pictures = {"view": "soak", "values": {"yaw": 10.0}, "raw": True}
    with contextlib.suppress(OSError):
        request(f"{client.process.url}/capface/edit", json.dumps(pictures).encode())
    sampler = id_of(prompt, "KSampler")

    stopped = False

    def stop(event: str, data: dict[str, Any]) -> None:
        nonlocal stopped
        # ComfyUI does not report every step
        if kind == "interrupt" and event == "progress" and data["node"] == sampler and data["value"] >= 2 and not stopped:
            stopped = True
            client.interrupt()

    try:
        run = client.run(prompt, on_event=stop)
    except PromptRejected:
        ended = "refused"
    else:
        ended = run.status
        own = run.error.get("exception_type", "").rpartition(".")[2]
        error = getattr(errors, own, None)
        if ended == "error" and not (isinstance(error, type) and issubclass(error, CapFaceError)):
            result.unexpected.append(f"{run.error.get('node_type')}: {own}: {run.error.get('exception_message', '')[:200]}")
    expected = {"interrupt": "interrupted", "failing": "error", "refused": "refused"}.get(kind, "success")
    result.outcomes[f"{kind}: {ended}"] += 1
    if ended != expected:
        result.unexpected.append(f"{kind} ended as {ended}")


def _image(client: ComfyClient, prompt: Prompt) -> np.ndarray:
    """Run a prompt with another seed, so that nothing of the sampling is cached; return the pixels of its images."""
    prompt = copy.deepcopy(prompt)
    inputs_of(prompt, "KSampler")["seed"] += 1
    _, files = client.make(prompt)
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def main() -> int:
    """Run the prompts, print the table and the end, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tasks.py soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--comfyui", type=Path, default=None, help="folder of the ComfyUI")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    comfyui = find_host(options.comfyui)
    if comfyui is None:
        print("There is no ComfyUI: name one with --comfyui PATH.")
        return 2
    try:
        result = soak(comfyui, options.prompts, options.seed, lambda line: print(line, flush=True))
    except ComfyError as error:
        print(error)
        return 1
    for outcome, count in sorted(result.outcomes.items()):
        print(f"{count:4} {outcome}")
    print("history:", ", ".join(f"{count} {status}" for status, count in result.history.items()), "| queued:", result.queued)
    print(f"the last image {'equals' if result.same_image else 'DIFFERS FROM'} a fresh process's bit for bit")
    for what in MEGABYTES:
        early, late = result.growth(what)
        print(f"most {COLUMNS[what]}: {early / 1e6:.0f} in the first half, {late / 1e6:.0f} in the second")
    problems = result.problems()
    print("\n".join(problems) if problems else "nothing is left behind")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
