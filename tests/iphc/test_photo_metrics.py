"""The metrics for photos: exact numbers with prescribed networks, and real photos with stand-ins for the networks' files."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.editing import edit_head, turn_head
from capface.flame.fitting import fixed_landmarks
from capface.flame.model import HeadParams, frame_to_pixels, points_on_mesh, project
from capface.iphc.command import main
from capface.iphc.photo_metrics import PhotoMetrics, PhotoNetworks
from capface.iphc.workflow import head_inputs
from capface.models.faces import FaceDetection
from capface.photos.analysis import FaceAnalyzer
from capface.tests.models.test_open_clip_model import EMBEDDING, TEXT, VISION
from capface.tests.synthetic import fill, state_dict
from capface.tools.standins import write_facenet

SIDE, TURN = 256, 15.0
HEADS = {"left": {"yaw": -20.0, "pitch": 5.0, "roll": 0.0}, "mouth": {"jaw_open": 12.0}, "lit": {"light": "neutral"}}
PROMPTS = ["a {subject} at sea", "a {subject} in a hat", "a {subject} on a horse"]
ALL = ["facenet", "arcface", "clip", "deca", "landmarks"]


@dataclass(frozen=True)
class Scene:
    """What the prescribed networks see in a picture, whose shade is the scene's number."""

    who: int
    head: HeadParams
    """Of the built-in model, as landmarks show it."""
    deca: HeadParams
    prompt: int = 0
    has_face: bool = True


class Prescribed:
    """Networks that recognise a scene by the shade of its picture, and know everything about it."""

    def __init__(self):
        self.scenes: list[Scene] = []

    def picture(self, scene: Scene) -> Tensor:
        self.scenes.append(scene)
        return torch.full((3, SIDE, SIDE), (len(self.scenes) - 1) / 255)

    def at(self, shade: Tensor) -> Scene:
        return self.scenes[round(shade.item() * 255)]

    def detect(self, image):
        scene = self.at(image.amax())
        if not scene.has_face:
            return []
        model = builtin_head()
        places = fixed_landmarks(model).places(torch.zeros(1))  # as a 3D detector sees them
        points = project(points_on_mesh(model.vertices(scene.head), model.faces, *places), scene.head.camera)[0, :, :2].float()
        points = frame_to_pixels(points, SIDE, SIDE) - 0.5  # a detector's pixel centres are whole numbers
        five = torch.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])
        return [FaceDetection(torch.cat([points.amin(0), points.amax(0)]), 0.9, five, points)]

    def facenet(self, faces):
        shades = (faces.amax((1, 2, 3)) * 128 + 127.5) / 255
        return torch.stack([one_hot(self.at(shade).who) for shade in shades])

    def deca(self, crops):
        codes = []
        for shade in crops.amax((1, 2, 3)):
            head = self.at(shade).deca
            camera = torch.tensor([[8.0, 0.0, 0.0]])
            parts = (head.shape, head.texture, head.expression, head.rotation, head.jaw, camera, head.light.flatten(1))
            codes.append(torch.cat(parts, dim=1))
        return torch.cat(codes)

    def embed(self, image, points5):
        """Be ArcFace, for whom two people have a cosine of 0.6."""
        return torch.tensor([1.0, 0.0]) if self.at(image.amax()).who == 0 else torch.tensor([0.6, 0.8])

    def images(self, images):
        return torch.stack([one_hot(self.at(image.amax()).prompt) for image in images])

    def texts(self, texts):
        self.asked = list(texts)
        return torch.stack([one_hot(i) for i in range(len(texts))])


def one_hot(number: int) -> Tensor:
    return F.one_hot(torch.tensor(number), 512).float()


@pytest.fixture
def scenes(bench):
    """Prescribed networks, the metrics, the reference scene, and what a perfect portrait of it is for a head condition."""
    networks, model = Prescribed(), builtin_head()
    own = HeadParams.neutral().replace(rotation=torch.tensor([[0.05, 0.1, 0.0]]), camera=torch.tensor([[5.0, 0.1, 0.0]]))
    deca = own.replace(shape=torch.linspace(-1, 1, 100)[None], jaw=torch.tensor([[0.1, 0.0, 0.0]]))
    reference = Scene(0, own, deca)
    shade = networks.picture(reference)
    photo = bench.folder / "photos" / "ann.png"
    Image.fromarray((shade.movedim(0, -1) * 255).round().byte().numpy()).save(photo)
    (bench.folder / "photos" / "bob.png").unlink()
    manifest = bench.manifest(heads=HEADS, prompts=PROMPTS, metrics=ALL, methods={"m": {"images": "x-{prompt}.png"}})
    metrics = PhotoMetrics(manifest, PhotoNetworks(FaceAnalyzer(networks), networks, networks))

    def perfect(head, prompt=0):
        asked = head_inputs(HEADS[head])
        return Scene(0, edit_head(model, own, **asked), edit_head(model, deca, **asked), prompt)

    def measure(*asked):
        """Measure (head, prompt, scene)."""
        heads, prompts, shown = zip(*asked, strict=True)
        found = metrics.measure(manifest.people[0], heads, prompts, [networks.picture(scene) for scene in shown])
        return [{name: values[i].item() for name, values in found.items()} for i in range(len(asked))]

    return networks, perfect, measure


def test_a_perfect_copy_is_perfect_in_every_column(scenes):
    networks, perfect, measure = scenes
    found = measure(*((head, prompt, perfect(head, prompt)) for head in HEADS for prompt in range(3)))
    assert networks.asked == ["a person at sea", "a person in a hat", "a person on a horse"]
    for one in found:
        fitted = {"landmarks": one.pop("landmarks"), "turn": one.pop("turn")}
        assert one == pytest.approx(
            {
                "found": 1, "id": 1, "arcface": 1, "clip": 1, "accuracy": 1, "shape": 0, "pose": 0, "expression": 0,
                "light": 0,
            }, abs=1e-4,
        )  # fmt: skip
        assert fitted["turn"] < 1 and fitted["landmarks"] < 1


def test_another_person_costs_identity_and_shape(scenes):
    _, perfect, measure = scenes
    scene = perfect("left")
    (found,) = measure(("left", 0, replace(scene, who=1, deca=scene.deca.replace(shape=scene.deca.shape + 0.3))))
    assert found["id"] == pytest.approx(0, abs=1e-6)
    assert found["arcface"] == pytest.approx(0.6, abs=1e-6)
    assert found["shape"] == pytest.approx(0.3, abs=1e-4)
    assert found["pose"] == pytest.approx(0, abs=1e-4) and found["turn"] < 1 and found["accuracy"] == 1


def test_a_head_turned_by_known_degrees_is_measured_as_such(scenes):
    _, perfect, measure = scenes
    scene, model = perfect("mouth"), builtin_head()
    turned = replace(scene, head=turn_head(model, scene.head, yaw=TURN), deca=turn_head(model, scene.deca, yaw=TURN))
    (found,) = measure(("mouth", 0, turned))
    assert found["turn"] == pytest.approx(TURN, abs=1)
    difference = turned.deca.rotation - scene.deca.rotation
    assert found["pose"] == pytest.approx(math.sqrt(difference.square().sum().item() / 6), abs=1e-5), "six numbers"
    assert found["pose"] == pytest.approx(math.radians(TURN) / math.sqrt(6), rel=0.05)
    assert found["landmarks"] > 3 and found["id"] == pytest.approx(1)


def test_expression_jaw_and_light_count_in_their_own_columns(scenes):
    _, perfect, measure = scenes
    scene = perfect("lit")
    deca = scene.deca.replace(expression=scene.deca.expression + 0.2, light=scene.deca.light - 0.1)
    closed = perfect("mouth").deca.replace(jaw=torch.zeros(1, 3))
    smiling, shut = measure(("lit", 0, replace(scene, deca=deca)), ("mouth", 0, replace(perfect("mouth"), deca=closed)))
    assert (smiling["expression"], smiling["light"]) == pytest.approx((0.2, 0.1), abs=1e-4)
    assert smiling["shape"] == smiling["pose"] == 0
    assert shut["pose"] == pytest.approx(perfect("mouth").deca.jaw.norm().item() / math.sqrt(6), abs=1e-4)


def test_shuffled_prompts_cost_the_prompt_alone(scenes):
    _, perfect, measure = scenes
    found = measure(("left", 0, perfect("left", 1)), ("left", 1, perfect("left", 2)), ("left", 2, perfect("left", 2)))
    assert [one["clip"] for one in found] == [0, 0, 1] and [one["accuracy"] for one in found] == [0, 0, 1]
    assert all(one["id"] == 1 and one["turn"] < 1 for one in found)


def test_a_picture_without_a_face_has_its_prompt_and_nothing_else(scenes):
    _, perfect, measure = scenes
    faceless, seen = measure(("left", 0, replace(perfect("left"), has_face=False)), ("left", 0, perfect("left")))
    measured = {name for name, value in faceless.items() if not math.isnan(value)}
    assert measured == {"found", "clip", "accuracy"} and faceless["found"] == 0 and seen["found"] == seen["id"] == 1


def test_a_photo_without_a_face_leaves_its_person_unmeasured(scenes):
    networks, perfect, measure = scenes
    networks.scenes[0] = replace(networks.scenes[0], has_face=False)
    (found,) = measure(("left", 0, perfect("left")))
    assert set(found) == {"found", "clip", "accuracy"} and found["found"] == 1


def test_synthetic_people_and_the_miniature_are_not_mixed_with_photos(bench):
    with pytest.raises(BadInput, match="synthetic people are measured by 'miniature' only"):
        bench.manifest(people={"synthetic": 1_000_000}, metrics=["facenet"])
    asked = {"people": {"synthetic": 1_000_000}, "size": [128, 128], "prompts": ["red shirt, beach"]}
    with pytest.raises(BadInput, match="metrics: the metric 'miniature' stands alone"):
        bench.manifest(**asked, metrics=["miniature", "clip"])
    with pytest.raises(BadInput, match=r"metrics\[1\]: the metric 'clip' is named twice"):
        bench.manifest(metrics=["clip", "clip"])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Stand-ins of the true layout: FaceNet, DECA, a small CLIP. MTCNN, which its package brings, finds the faces."""
    pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    folder = tmp_path_factory.mktemp("models")
    for name in ("facenet", "deca", "open_clip"):
        (folder / name).mkdir()
    write_facenet(folder / "facenet" / "20180402-114759-vggface2.pt")
    deca = state_dict("deca_encoder.shapes.json", "E_flame.")
    deca["layers.2.weight"][206:209] = 0
    deca["layers.2.bias"][206:209] = torch.tensor([8.0, 0.0, 0.0])  # a camera
    torch.save({"E_flame": deca}, folder / "deca" / "deca_model.tar")
    with torch.random.fork_rng():
        clip = open_clip.CLIP(EMBEDDING, vision_cfg=VISION, text_cfg=TEXT)
    tensors = {k: fill(f"clip.{k}", tuple(v.shape)) for k, v in clip.state_dict().items()}
    save_file(tensors, folder / "open_clip" / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def photos(bench):
    """Two photos, the second one mirrored and redder, and methods: the photo itself, the other one, and grey pictures."""
    import skimage.data

    photo = skimage.data.astronaut()
    pictures = {"ann": photo, "bob": photo[:, ::-1] // np.array([1, 2, 2], np.uint8)}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).reduce(2).save(bench.folder / "photos" / f"{name}.png")
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(bench.folder / f"grey-{name}.png")
    for one, another in (("ann", "bob"), ("bob", "ann")):
        (bench.folder / f"swapped-{one}.png").write_bytes((bench.folder / "photos" / f"{another}.png").read_bytes())
    methods = {"copy": "photos/{person}.png", "swapped": "swapped-{person}.png", "grey": "grey-{person}.png"}
    bench.content |= {
        "images": 1, "prompts": PROMPTS[:2], "heads": {"own": {}, "left": {"yaw": -30}}, "unit_images": 2,
        "methods": {name: {"images": images} for name, images in methods.items()},
    }  # fmt: skip
    return bench


def test_real_photos_are_measured_with_files_of_the_true_layout(photos, models, capsys):
    photos.manifest(metrics=["facenet", "clip", "deca", "landmarks"])
    file, out = str(photos.file), str(photos.out)
    assert main(["check", file, "--models", str(models)]) == 0
    assert main(["run", file, out]) == 0
    assert main(["score", file, out, "--models", str(models), "--cpu"]) == 0
    assert "24 images are measured" in capsys.readouterr().out
    assert main(["report", file, out]) == 0, "without the networks"
    with (photos.out / "table.csv").open() as table:
        means = {(cells[0], cells[2]): float(cells[3]) for cells in (line.split(",") for line in table) if cells[1] == ""}
    assert means["copy", "id"] == pytest.approx(1, abs=1e-5) and means["swapped", "id"] < 0.9999
    assert means["copy", "found"] == means["swapped", "found"] == 1 and means["grey", "found"] == 0
    assert means["grey", "id0"] == 0 and ("grey", "id") not in means and ("grey", "clip") in means
    assert means["copy", "shape"] == pytest.approx(0, abs=1e-5) and means["swapped", "shape"] > 1e-3
    assert means["copy", "accuracy"] == pytest.approx(0.5), "one picture for two prompts"
    assert 10 < means["copy", "turn"] < 25, "half of the heads were to turn by 30 degrees, from about straight ahead"
    assert means["copy", "landmarks"] < means["swapped", "landmarks"]


def test_check_names_every_missing_file_before_anything_starts(photos, models, capsys, monkeypatch):
    photos.content["heads"]["smile"] = {"smile_left": 1}
    photos.manifest(metrics=ALL)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["check", str(photos.file), "--models", str(models)]) == 2
    found = capsys.readouterr().out
    for text in (
        "missing: models/insightface/models/buffalo_l/*.onnx, for metric arcface: the releases of",
        "missing: models/flame/generic_model.pkl, for metric deca: flame.is.tue.mpg.de",
        "missing: metric clip: ", "open_clip_torch", "missing: metric arcface: ", f"missing. Searched: {models}",
    ):  # fmt: skip
        assert text in found
    assert "facenet/" not in found and "deca_model" not in found
    assert main(["check", str(photos.file)]) == 2
    found = capsys.readouterr().out
    assert "models/deca/deca_model.tar, for metric deca" in found and "Searched: nowhere; name a ComfyUI" in found
    assert main(["run", str(photos.file), str(photos.out)]) == 0, "images can be made without the metrics' files"
    assert main(["score", str(photos.file), str(photos.out)]) == 2
    assert "models/facenet/20180402-114759-vggface2.pt is missing" in capsys.readouterr().err
