"""Compare the control images of heads with the code of the packs that draw them, on the same heads.

    python tasks.py bench control_images --aux FOLDER --instantid FOLDER [--mediapipe FOLDER] [--heads 12]

FOLDER is a checkout of comfyui_controlnet_aux, of ComfyUI_InstantID, or a folder that has the package mediapipe (0.10.30 or
newer, whose drawing is plain Python and OpenCV). A row whose code is missing is left out. What is compared:

- Points: the other code draws the same points. The rows say how many drawn pixels both have (intersection over union), and how
  many of the common ones have the same colour.
- Depth: MiDaS's and Depth Anything's nodes run with the true inverse depth in place of their networks'. The row gives the mean
  difference in 8-bit steps.
- Normals: MiDaS's node gets its normals from the depth by Sobel's filter. In front of flat parts both must agree; the row gives
  the median angle. Bae's and EMOCA's code get the true normals in place of their networks'.
- Canny: OpenCV's on the same grey picture after the same blur. The row gives the share of edge pixels within one pixel of the
  other's, in both directions.
- Networks: MediaPipe's face mesh and MTCNN read rendered people with known heads. The rows say how far their points are from
  the drawn ones.
- Soft edges have no counterpart without the weights of a network; the row says how well they separate OpenCV's edges.
"""

import argparse
import ast
import importlib
import math
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capface.benchmarks.face_mesh import SIDE, known_head
from capface.flame.builtin import builtin_head
from capface.flame.control_images import control_image
from capface.flame.control_images.edges import edge_source
from capface.flame.control_images.face_points import MESH_POINTS, five_points, mesh_pixels
from capface.flame.control_images.surface import head_surface
from capface.flame.editing import express
from capface.flame.model import HeadModel, HeadParams
from capface.flame.render import render_head
from capface.miniature.people import Setting, draw_people
from capface.models.faces import MtcnnDetector, load_face_landmarker
from capface.tools.face_landmarker_file import find

HEIGHT, WIDTH = 512, 448
PICTURE = (HEIGHT, WIDTH)


def some_heads(count: int, seed: int = 0) -> HeadParams:
    """Return heads with random poses, shapes and expressions."""
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=random)

    heads = HeadParams.neutral(count)
    camera = torch.stack([between(4, 7, count), between(-0.2, 0.2, count), between(-0.2, 0.2, count)], dim=1)
    turn = torch.stack([between(-0.3, 0.3, count), between(-0.9, 0.9, count), between(-0.4, 0.4, count)], dim=1)
    heads = heads.replace(camera=camera, rotation=turn, shape=torch.randn(heads.shape.shape, generator=random))
    amounts = {"smile_left": between(0, 1, count), "mouth_open": between(0, 0.6, count), "brows_up_left": between(0, 1, count)}
    return express(builtin_head(), heads, amounts)


def to_bytes(picture: Tensor) -> np.ndarray:
    """Convert `[B, 3, H, W]` in 0..1 to `[B, H, W, 3]`, cut off to bytes as ComfyUI and the other packs do."""
    return (picture.clamp(0, 1) * 255 + 1e-3).byte().movedim(1, -1).numpy()


def overlap(mine: np.ndarray, theirs: np.ndarray) -> str:
    """State the intersection over union of drawn pixels, and the share of the common ones with the same colour."""
    a, b = mine.any(-1), theirs.any(-1)
    both = a & b
    return f"pixels {both.sum() / (a | b).sum():.4f}, colours {(mine == theirs).all(-1)[both].mean():.4f}"


def within_a_pixel(edges: np.ndarray, others: np.ndarray) -> float:
    """Return the share of edge pixels with one of the other's in their 3 × 3 neighbourhood."""
    near = torch.nn.functional.max_pool2d(torch.from_numpy(others[:, None].astype(np.float32)), 3, 1, 1)[:, 0].numpy() > 0
    return near[edges].mean()


def aux_keypoints(model: HeadModel, heads: HeadParams) -> str:
    """Draw with DWPose's drawing, from this pack's JSON as comfyui_controlnet_aux decodes it."""
    util = importlib.import_module("custom_controlnet_aux.dwpose.util")
    made = control_image("face keypoints", model, heads, *PICTURE)
    body = importlib.import_module("custom_controlnet_aux.dwpose.body")
    theirs = []
    for pose in made.keypoints:
        numbers = np.array(pose["people"][0]["face_keypoints_2d"]).reshape(-1, 3)
        points = [body.Keypoint(x, y) if found else None for x, y, found in numbers]
        theirs.append(util.draw_facepose(np.zeros((HEIGHT, WIDTH, 3), np.uint8), points))
    return overlap(to_bytes(made.picture), np.stack(theirs))


def aux_mesh(model: HeadModel, heads: HeadParams) -> str:
    """Draw with the drawing of MediaPipe and the colours of comfyui_controlnet_aux, called as that pack calls it."""
    # the pack imports a module of old versions that its drawing does not use
    formats = types.ModuleType("mediapipe.framework.formats")
    formats.landmark_pb2 = None  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules.setdefault("mediapipe.framework", types.ModuleType("mediapipe.framework"))
    sys.modules.setdefault(formats.__name__, formats)
    common = importlib.import_module("custom_controlnet_aux.mediapipe_face.mediapipe_face_common")
    utils = importlib.import_module("mediapipe.tasks.python.vision.drawing_utils")
    connection = importlib.import_module("mediapipe.tasks.python.vision.face_landmarker").FaceLandmarksConnections.Connection
    landmark = importlib.import_module("mediapipe.tasks.python.components.containers.landmark").NormalizedLandmark
    theirs = []
    for points in mesh_pixels(model, heads, *PICTURE).tolist():
        face = [landmark(x=x / WIDTH, y=y / HEIGHT, z=0) for x, y in points]
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        edges = [connection(start=a, end=b) for a, b in common.face_connection_spec]
        utils.draw_landmarks(
            canvas, face, edges, landmark_drawing_spec=None, connection_drawing_spec=common.face_connection_spec
        )
        # that pack's draw_pupils wants the protocol buffers of old versions: HasField of landmarks without presence
        found = [types.SimpleNamespace(x=p.x if p.x == p.x else -1, y=p.y, HasField=lambda _: False) for p in face]
        common.draw_pupils(canvas, types.SimpleNamespace(landmark=found), common.iris_landmark_spec, 2)
        theirs.append(common.reverse_channels(canvas))
    mine = to_bytes(control_image("face mesh", model, heads, *PICTURE).picture)
    return overlap(mine, np.stack(theirs))


def instantid_five_points(model: HeadModel, heads: HeadParams, folder: Path) -> str:
    """Draw with InstantID's draw_kps, taken from its source: the module itself needs insightface when it is imported."""
    import cv2
    import PIL.Image

    tree = ast.parse((folder / "InstantID.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "draw_kps"]
    names: dict[str, Any] = {"np": np, "math": math, "cv2": cv2, "PIL": PIL}
    exec(compile(tree, "InstantID.py", "exec"), names)
    theirs = [
        np.asarray(names["draw_kps"](np.zeros((HEIGHT, WIDTH, 3)), points))
        for points in five_points(model, heads, *PICTURE).double().numpy()
    ]
    mine = to_bytes(control_image("five points", model, heads, *PICTURE).picture)
    return overlap(mine, np.stack(theirs))


def aux_depth(model: HeadModel, heads: HeadParams, name: str) -> str:
    """Run a depth node of comfyui_controlnet_aux with the true inverse depth in place of its network's."""
    surface = head_surface(model, heads, *PICTURE)
    inside = surface.alpha > 0
    nearest = torch.where(inside, surface.height, -torch.inf).flatten(1).amax(1)[:, None, None, None]
    inverse = torch.where(inside, 40 / (0.3 + nearest - surface.height), 1.0)[:, 0]
    mine = to_bytes(control_image("depth", model, heads, *PICTURE).picture)
    blank, theirs = np.zeros((HEIGHT, WIDTH, 3), np.uint8), []
    for depth in inverse:
        if name == "midas":
            detector = fake_midas(depth)
            picture = detector(blank, detect_resolution=WIDTH, output_type="np")
        else:
            module = importlib.import_module("custom_controlnet_aux.depth_anything_v2")
            detector = object.__new__(module.DepthAnythingV2Detector)
            detector.model, detector.filename = (
                types.SimpleNamespace(infer_image=lambda *_, depth=depth, **__: depth.numpy()),
                "vits",
            )
            picture = detector(blank, detect_resolution=WIDTH, output_type="np")
        theirs.append(picture)
    difference = np.abs(mine.astype(int) - np.stack(theirs).astype(int))
    return f"mean difference {difference.mean():.2f} of 255, largest {difference.max()}"


def fake_midas(depth: Tensor) -> Any:
    """Return MiDaS's detector of comfyui_controlnet_aux whose network gives this depth `[H, W]`."""
    module = importlib.import_module("custom_controlnet_aux.midas.transformers")
    detector = object.__new__(module.MidasDetector)
    detector.processor = lambda **_: {}
    detector.model = lambda **_: types.SimpleNamespace(predicted_depth=depth[None])
    detector.device = "cpu"
    return detector


def angles(mine: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the angles in degrees between two maps of normals, inside a mask."""
    a, b = (maps[inside].astype(float) / 127.5 - 1 for maps in (mine, theirs))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return np.degrees(np.arccos((a * b).sum(1).clip(-1, 1)))


def aux_midas_normals(model: HeadModel, heads: HeadParams) -> str:
    """Run MiDaS's normals of comfyui_controlnet_aux on depth in a unit in which its formula is that of true normals."""
    surface = head_surface(model, heads, *PICTURE)
    pixel = 2 / (WIDTH * heads.camera[:, 0])
    # Sobel's filter multiplies a slope by 8, and the formula's z is 2 pi. With depth in quarters of pi pixels, both fit.
    depth = (surface.height[:, 0] / pixel[:, None, None] + 500) * (np.pi / 4) * surface.alpha[:, 0]
    blank, theirs = np.zeros((HEIGHT, WIDTH, 3), np.uint8), []
    for one in depth:
        theirs.append(fake_midas(one)(blank, depth_and_normal=True, detect_resolution=WIDTH, output_type="np")[1])
    mine = to_bytes(control_image("normal MiDaS", model, heads, *PICTURE).picture)
    inner = -torch.nn.functional.max_pool2d(-surface.alpha, 5, 1, 2)[:, 0].numpy() > 0
    found = angles(mine, np.stack(theirs), inner)
    outside = np.abs(mine.astype(int) - np.stack(theirs).astype(int))[
        torch.nn.functional.max_pool2d(surface.alpha, 5, 1, 2)[:, 0].numpy() == 0
    ]
    return (
        f"angle: median {np.median(found):.2f}\N{DEGREE SIGN}, 90 % below {np.quantile(found, 0.9):.1f}\N{DEGREE SIGN}; "
        f"background differs by {outside.max()}"
    )


def aux_bae_normals(model: HeadModel, heads: HeadParams) -> str:
    """Run Bae's node of comfyui_controlnet_aux with the true normals, in its axes left, up and front, as its network's."""
    module = importlib.import_module("custom_controlnet_aux.normalbae")
    surface = head_surface(model, heads, *PICTURE)
    normal = torch.nn.functional.normalize(surface.normal, dim=1, eps=1e-6) * torch.tensor([-1.0, 1, 1])[:, None, None]
    normal = torch.where(surface.alpha > 0, normal, torch.tensor([0.0, 0, 1])[:, None, None])
    theirs = []
    for one in normal:
        detector = object.__new__(module.NormalBaeDetector)
        detector.model, detector.device, detector.norm = lambda _, one=one: [[one[None]]], "cpu", lambda image: image
        theirs.append(detector(np.zeros((HEIGHT, WIDTH, 3), np.uint8), detect_resolution=WIDTH, output_type="np"))
    mine = to_bytes(control_image("normal BAE", model, heads, *PICTURE).picture)
    difference = np.abs(mine.astype(int) - np.stack(theirs).astype(int))
    return f"mean difference {difference.mean():.2f} of 255, largest {difference.max()}"


def opencv_canny(model: HeadModel, heads: HeadParams) -> str:
    """Find edges with OpenCV on the same picture after the same blur, with thresholds in its unit."""
    import cv2

    grey = to_bytes(edge_source(render_head(model, heads, *PICTURE)))[..., 0]
    theirs = np.stack([cv2.Canny(cv2.GaussianBlur(g, (5, 5), 1), 0.15 * 255, 0.3 * 255, L2gradient=True) > 0 for g in grey])
    mine = to_bytes(control_image("canny", model, heads, *PICTURE).picture)[..., 0] > 0
    return f"within a pixel: {within_a_pixel(mine, theirs):.3f} of this pack, {within_a_pixel(theirs, mine):.3f} of OpenCV's"


def soft_edges_on_canny(model: HeadModel, heads: HeadParams) -> str:
    """Compare soft edges on OpenCV's edges and away from them."""
    import cv2

    grey = to_bytes(edge_source(render_head(model, heads, *PICTURE)))[..., 0]
    edges = np.stack([cv2.Canny(g, 50, 100, L2gradient=True) > 0 for g in grey])
    soft = to_bytes(control_image("soft edge", model, heads, *PICTURE).picture)[..., 0]
    far = torch.nn.functional.max_pool2d(torch.from_numpy(edges[:, None].astype(np.float32)), 41, 1, 20)[:, 0].numpy() == 0
    return f"median {np.median(soft[edges]):.0f} on OpenCV's edges, {np.median(soft[far]):.0f} more than 20 pixels away"


def arc2face_normals(model: HeadModel, heads: HeadParams) -> str:
    """Compare with Render Head's normals, saved as in the demo. They are those of DECA's renderer (tests/golden)."""
    normal = render_head(model, heads, *PICTURE).normal
    theirs = ((normal * 0.5 + 0.5).clamp(0, 1).movedim(1, -1).numpy() * 255).astype(np.uint8)
    mine = to_bytes(control_image("normal Arc2Face", model, heads, *PICTURE).picture)
    difference = np.abs(mine.astype(int) - theirs.astype(int))
    return f"mean difference {difference.mean():.2f} of 255, largest {difference.max()}"


def detectors(model: HeadModel, count: int) -> dict[str, str]:
    """Run the networks on rendered people with known heads, and measure how far their points are from the drawn ones."""
    path, reason = find()
    landmarker, mtcnn = load_face_landmarker(path) if path else None, MtcnnDetector()
    mesh_errors, five_errors = [], []
    for number in range(count):
        person, head, *_ = known_head(model, number, 0)
        picture = draw_people([person], head, [Setting.sample(number)], SIDE)[0]
        places = five_points(model, head, SIDE, SIDE)[0]
        eyes = (places[0] - places[1]).norm()
        if landmarker:
            mesh = landmarker.landmarks(picture, eyes=places[None, :2] - 0.5)[0].points[:, :2] + 0.5
            mesh_errors.append((mesh - mesh_pixels(model, head, SIDE, SIDE)[0])[list(MESH_POINTS)].norm(dim=1).mean() / eyes)
        if faces := mtcnn.detect(picture):
            five_errors.append((faces[0].points5 + 0.5 - places).norm(dim=1).mean() / eyes)

    def text(errors: list[Tensor]) -> str:
        mean = 100 * torch.stack(errors).mean()
        return f"drawn points {mean:.1f} % of the eye distance away, {len(errors)} of {count} people"

    return {"face mesh": text(mesh_errors) if landmarker else f"not compared: {reason}", "five points": text(five_errors)}


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")  # the other packs' own
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aux", type=Path, help="checkout of comfyui_controlnet_aux")
    parser.add_argument("--instantid", type=Path, help="checkout of ComfyUI_InstantID")
    parser.add_argument("--mediapipe", type=Path, help="folder with the package mediapipe")
    parser.add_argument("--heads", type=int, default=12)
    options = parser.parse_args()
    model, heads = builtin_head(), some_heads(options.heads)
    for folder in (options.aux / "src" if options.aux else None, options.mediapipe):
        if folder:
            sys.path.append(str(folder))
    rows: list[tuple[str, str, bool, Any]] = [
        ("depth", "MiDaS's node", bool(options.aux), lambda: aux_depth(model, heads, "midas")),
        ("depth", "Depth Anything V2's node", bool(options.aux), lambda: aux_depth(model, heads, "depth anything")),
        ("normal BAE", "Bae's node", bool(options.aux), lambda: aux_bae_normals(model, heads)),
        ("normal MiDaS", "MiDaS's node", bool(options.aux), lambda: aux_midas_normals(model, heads)),
        ("normal Arc2Face", "EMOCA's renderer", True, lambda: arc2face_normals(model, heads)),
        ("canny", "OpenCV", True, lambda: opencv_canny(model, heads)),
        ("soft edge", "OpenCV's Canny", True, lambda: soft_edges_on_canny(model, heads)),
        ("face keypoints", "DWPose's drawing", bool(options.aux), lambda: aux_keypoints(model, heads)),
        ("face mesh", "MediaPipe's drawing", bool(options.aux and options.mediapipe), lambda: aux_mesh(model, heads)),
        (
            "five points",
            "InstantID's draw_kps",
            bool(options.instantid),
            lambda: instantid_five_points(model, heads, options.instantid),
        ),
    ]
    print(f"{len(heads)} heads of {WIDTH} × {HEIGHT} pixels\n\n| kind | compared with | result |\n| --- | --- | --- |")
    for kind, other, possible, compare in rows:
        print(f"| {kind} | {other} | {compare() if possible else 'not compared: name its folder'} |", flush=True)
    for kind, result in detectors(model, options.heads).items():
        print(f"| {kind} | a network, on rendered people | {result} |")


if __name__ == "__main__":
    main()
