"""The demo behind `python tasks.py demo`: the miniature's portraits, a photo's face and head, and a portrait in ComfyUI."""

import argparse
import io
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from capface.errors import CapFaceError
from capface.flame.builtin import builtin_head
from capface.flame.model import half_side
from capface.miniature.networks import load_miniature
from capface.models.faces import MtcnnDetector, load_face_landmarker
from capface.photos.analysis import FaceAnalyzer, PlainNetworks
from capface.photos.landmarks import landmarks_of
from capface.tools import weights
from capface.tools.comfy import PACK, ComfyClient, ComfyError, ComfyProcess
from capface.tools.face_landmarker_file import find
from capface.tools.miniature_sheet import SHOTS, people_sheet, portraits_in_comfyui, portraits_in_plain_torch
from capface.tools.sheet import contact_sheet, load_photo, to_picture

STAND_IN_SIZE, STAND_IN_STEPS = 256, 8
START = time.monotonic()


def say(text: str) -> None:
    """Print one line with the seconds since the start."""
    print(f"[{time.monotonic() - START:5.1f} s] {text}", flush=True)


def make_sheet(photo: Tensor, path: Path, mesh_file: Path | None) -> None:
    """Fit the built-in head to the face in a photo, and write a contact sheet of the head.

    Args:
        photo: RGB `[3, H, W]` in 0..1.
        path: The new image file.
        mesh_file: MediaPipe's `face_landmarker.task`, or None.
    """
    height, width = photo.shape[1:]
    say(f"looking for the face in the photo ({width} × {height})")
    landmarker = None if mesh_file is None else load_face_landmarker(mesh_file)
    face = FaceAnalyzer(PlainNetworks(MtcnnDetector(), landmarker=landmarker)).find_face(photo)
    left, top, right, bottom = (round(v) for v in face.box.tolist())
    say(f"face found: {right - left} × {bottom - top} pixels at ({left}, {top}), score {face.score:.3f}")
    model = builtin_head()
    say("fitting the built-in head to it")
    landmarks = landmarks_of(model, [face], height, width)
    head = landmarks.fit()
    error = landmarks.error(head).item() * half_side(height, width)
    say(f"fitted to {landmarks.summary()}; {error:.1f} pixels off on average")
    say("rendering the head in several poses")
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(photo, model, head).save(path)


def choose_weights(comfyui: Path, mesh_file: Path | None) -> tuple[dict[str, weights.Weights], dict[str, list[Path]]]:
    """Choose real weights if they exist, else stand-ins.

    Args:
        comfyui: The folder of ComfyUI.
        mesh_file: MediaPipe's `face_landmarker.task`, or None.

    Returns:
        The weights by their path in `models`, and the folders by kind in which ComfyUI looks for files.
    """
    say("weights:")
    chosen = weights.choose(comfyui / "models", say=say)
    folders = {Path(kind).parent.name: [w.folder] for kind, w in chosen.items()}
    folders["insightface"] = [comfyui / "models" / "insightface"]
    if mesh_file is not None:
        folders["detection"] = [mesh_file.parent]
    return chosen, folders


def make_portrait(photo: Tensor, chosen: dict[str, weights.Weights], client: ComfyClient, out: Path) -> Path:
    """Queue the portrait workflow and save its image.

    Args:
        photo: RGB `[3, H, W]` in 0..1.
        chosen: The weights, from `choose_weights`.
        client: A client of a running ComfyUI.
        out: The folder of the image.

    Returns:
        The image file.
    """
    prompt = json.loads((PACK / "workflows" / "api" / "portrait.json").read_text(encoding="utf-8"))
    weights.use(prompt, chosen)
    nodes = {node["class_type"]: node["inputs"] for node in prompt.values()}
    real = chosen[weights.CAPFACE].real
    if not real:
        nodes["EmptyLatentImage"].update(width=STAND_IN_SIZE, height=STAND_IN_SIZE)
        nodes["KSampler"]["steps"] = STAND_IN_STEPS
        say("with stand-ins the image shows that the whole chain runs, not a person; it is kept small and short")

    def progress(kind: str, data: dict) -> None:
        if kind == "executing" and data.get("node"):
            say(f"  {prompt[data['node']]['class_type']}")
        elif kind == "progress" and prompt[data["node"]]["class_type"] == "KSampler":
            say(f"    step {data['value']} of {data['max']}")

    file = io.BytesIO()
    to_picture(photo).save(file, "PNG")
    nodes["LoadImage"]["image"] = client.upload_image(file.getvalue(), "photo.png")
    say("queueing workflows/api/portrait.json")
    _, (image,) = client.make(prompt, on_event=progress, timeout=3600)
    path = out / ("portrait.png" if real else "portrait-with-stand-ins.png")
    path.write_bytes(image)
    return path


def main() -> int:
    """Run the demo, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--comfyui", type=Path)
    options = parser.parse_args()
    made = {"synthetic person": options.out / "synthetic-person.png", "contact sheet": options.out / "contact-sheet.png"}
    try:
        photo = load_photo(options.photo)
        mesh_file, reason = find()
        if mesh_file is None:
            say(f"no dense landmarks, so the head shows the pose only: {reason}")
        make_sheet(photo, made["contact sheet"], mesh_file)
        say(f"contact sheet: {made['contact sheet']}")
        task, miniature = f"{len(SHOTS)} portraits of a synthetic person by the miniature", load_miniature()
        if options.comfyui:
            chosen, folders = choose_weights(options.comfyui, mesh_file)
            gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
            say(f"starting ComfyUI on the {'GPU' if gpu else 'CPU'}, with this pack and no other")
            with ComfyProcess(options.comfyui, folders, cpu=not gpu) as process, ComfyClient(process) as client:
                say(f"queueing workflows/api/miniature.json: {task}")
                people_sheet(portraits_in_comfyui(client), miniature.evaluator).save(made["synthetic person"])
                made["portrait"] = make_portrait(photo, chosen, client, options.out)
        else:
            say(f"{task}, in plain PyTorch")
            people_sheet(portraits_in_plain_torch(miniature), miniature.evaluator).save(made["synthetic person"])
    except (CapFaceError, ComfyError, OSError) as e:
        print(f"\nThe demo stopped: {e}", file=sys.stderr)
        return 1
    say("done" if options.comfyui else "done, without a portrait: there is no ComfyUI")
    for what, path in made.items():
        print(f"{what}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
