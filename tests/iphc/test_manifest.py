"""The manifest: all mistakes at once with their places, the shipped sets, and who is chosen."""

import json
import re
from typing import Any

import pytest

from capface.errors import BadInput
from capface.iphc.command import main
from capface.iphc.manifest import SETS, find_manifest, read_manifest
from capface.iphc.model_files import needed
from capface.iphc.people import chosen
from capface.iphc.places import Problems, read_json
from capface.iphc.plan import networks
from capface.iphc.trial import head_problems, missing_nodes
from capface.iphc.units import units_of
from capface.iphc.workflow import bound, head_choices, head_inputs, marked
from capface.tests.iphc.conftest import workflow


def test_a_correct_manifest_is_read(bench):
    manifest = bench.manifest()
    assert [person.name for person in manifest.people] == ["ann", "bob"]
    assert manifest.images_of_a_method == 2 * 2 * 2 * 2
    assert manifest.methods[0].workflow["4"]["inputs"] == {"seed": 0, "steps": 3, "cfg": 1.0}


def test_all_mistakes_are_reported_at_once_with_their_places(bench):
    bench.write("workflow.json", workflow(n1="photo", n3="@seed"))
    bench.write("prompts.json", ["a {subject}", "a {subject}", "a {person}", 3])
    bench.write("heads.json", {"left": {"yaw": "far", "tilt": 3}, "a b": {}, "lit": {"light": "green"}})
    with pytest.raises(BadInput) as caught:
        bench.manifest(
            seed="x", images=0, people={"photos": "nowhere"}, prompts="prompts.json", heads="heads.json", size=[10, 10],
            metrics=["taste"], colour=1,
            methods={
                "one": {"workflow": "workflow.json"}, "two": {"workflow": "missing.json"}, "three": {"images": "x/{who}.png"},
                "four": {}, "five": {"workflow": "workflow.json", "subject": 3}, "a/b": {"images": "x"}, "a b": {"images": "x"},
            },
        )  # fmt: skip
    text = str(caught.value)
    print(text)
    for place, what in {
        "manifest.json": "colour: unknown key",
        "prompts.json": "[1]: the same prompt as number 1",
        "heads.json": "left.yaw: expected a number",
        "workflow.json": "no node's title has the mark @photo",
    }.items():
        assert re.search(rf"(?m)^{re.escape(place)}:\d+: {re.escape(what)}", text)
    for what in (
        "seed: expected a whole number", "images: expected 1 or more", "people.photos: there is no folder",
        "unknown field {person}",
        "[3]: expected a text", "left.tilt: Edit Head has no such input", "a b: expected a name of letters",
        "lit.light: expected one of",
        "metrics[0]: unknown metric 'taste'", "missing.json:1: cannot be read", "methods.three.images: unknown field {who}",
        "methods.four: expected either a workflow or images", "methods.five.subject: expected a text",
        "methods.a b: another method",
        "@seed belongs to a node of class KSampler",
    ):  # fmt: skip
        assert what in text
    assert int(text.split()[0]) == len(text.splitlines()) - 1 >= 20


def test_a_mistake_has_the_line_of_its_value(bench, tmp_path):
    bench.manifest()
    text = bench.file.read_text()
    line = 1 + text[: text.index('"unit_images"')].count("\n")
    bench.file.write_text(text.replace('"unit_images": 4', '"unit_images": 0'))
    with pytest.raises(BadInput, match=rf"1 mistake in .*\nmanifest.json:{line}: unit_images: expected 1 or more, got 0"):
        read_manifest(bench.file)
    bench.file.write_text(text[:-3])
    with pytest.raises(BadInput, match="not valid JSON"):
        read_manifest(bench.file)


def test_keys_that_are_given_twice_are_mistakes(tmp_path):
    file = tmp_path / "twice.json"
    file.write_text('{"a": [1, {"b": 2,\n "b": "}"}],\n "c": "x\\"y"}')
    problems = Problems()
    value, places = read_json(file, problems)
    assert value == {"a": [1, {"b": "}"}], "c": 'x"y'}
    assert places == {(): 1, ("a",): 1, ("a", 0): 1, ("a", 1): 1, ("a", 1, "b"): 2, ("c",): 3}
    assert problems.lines == ["twice.json:2: a[1].b: this key is given twice"]


def test_set_names_an_input_by_its_nodes_title(bench):
    manifest = bench.manifest(methods={"one": {"workflow": "workflow.json", "set": {"Apply.tau": 500}}})
    assert manifest.methods[0].workflow["6"]["inputs"]["tau"] == 500
    for name, message in {
        "Apply.alpha": "0 nodes titled 'Apply' have an input 'alpha'",
        "Apply.model": "linked to another node",
    }.items():
        with pytest.raises(BadInput, match=message):
            bench.manifest(methods={"one": {"workflow": "workflow.json", "set": {name: 1}}})


def test_paths_do_not_depend_on_the_current_folder(bench, monkeypatch):
    """Ray's workers have another one."""
    bench.manifest(methods={"theirs": {"images": "made/{person}.png"}})
    monkeypatch.chdir(bench.folder)
    manifest = read_manifest(find_manifest("manifest.json"))
    assert all(person.photo is not None and person.photo.is_absolute() for person in manifest.people)
    assert manifest.methods[0].images == str(bench.folder.resolve() / "made" / "{person}.png")


def test_a_manifest_may_extend_one_other(bench):
    bench.manifest()
    bench.write("more.json", {"extends": "manifest.json", "name": "more", "images": 1})
    more = read_manifest(bench.folder / "more.json")
    assert (more.name, more.images, more.seed) == ("more", 1, 5)
    bench.write("most.json", {"extends": "more.json"})
    with pytest.raises(BadInput, match="only one step is allowed"):
        read_manifest(bench.folder / "most.json")


def test_sampling_without_a_node_for_it_is_a_mistake(bench):
    bench.write("workflow.json", workflow(n4="@seed"))
    with pytest.raises(BadInput, match=r"the manifest sets sampling, but no node of workflow\.json has the mark @sampling"):
        bench.manifest()


def test_a_head_condition_replaces_only_the_groups_that_it_names():
    assert head_inputs({"yaw": 10, "light": "neutral"}) == {
        "pose_mode": "absolute", "position_mode": "add", "expression_mode": "add", "yaw": 10, "light": "neutral",
    }  # fmt: skip


def test_binding_leaves_the_workflow_as_it_is():
    graph = workflow()
    changed = bound(graph, {"@prompt": "hello", "@sampling": {"steps": 9}, "@size": {"width": 8, "height": 8}})
    assert graph == workflow()
    assert (changed["2"]["inputs"], changed["4"]["inputs"]["steps"]) == ({"text": "hello"}, 9)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """What the shipped manifests name by environment variables."""
    celeba(tmp_path, people=120, photos=3)
    monkeypatch.setenv("CELEBA", str(tmp_path))
    for pack in ("ComfyUI_IPAdapter_plus", "ComfyUI_InstantID", "PuLID_ComfyUI"):
        (tmp_path / "packs" / pack).mkdir(parents=True)
    monkeypatch.setenv("CUSTOM_NODES", str(tmp_path / "packs"))


def test_the_shipped_manifests_have_no_mistakes(shipped):
    shapes = {}
    for file in SETS.glob("*.json"):
        if "methods" in (content := json.loads(file.read_text(encoding="utf-8"))) or "extends" in content:
            manifest = read_manifest(file)
            shapes[file.stem] = (len(manifest.people), len(manifest.prompts), len(manifest.heads), manifest.images)
    assert shapes.pop("quick") == (4, 6, 4, 1)
    assert shapes.pop("quick_tau") == shapes.pop("quick_persons") == (4, 6, 4, 1)
    for name in ("table2", "table3", "table4", "table5", "table6", "figure8"):
        assert shapes.pop(f"paper_{name}") == (10, 35, 10, 3), "the paper's ablations have ten people"
    assert shapes == dict.fromkeys(("paper", "paper_expression_light", "peers", "peers_sdxl"), (100, 35, 10, 3))
    assert read_manifest(find_manifest("paper")).images_of_a_method == 105_000


def test_the_shipped_heads_vary_what_their_names_say():
    for name, groups in {
        "heads_position_pose": {"pose", "position"},
        "heads_expression_light": {"expression", "light"},
    }.items():
        heads = json.loads((SETS / f"{name}.json").read_text(encoding="utf-8"))
        modes = [head_inputs(condition) for condition in heads.values()]
        assert len(heads) == len({json.dumps(head) for head in heads.values()}) == 10
        for group in ("pose", "position", "expression"):
            assert any(mode[f"{group}_mode"] == "absolute" for mode in modes) == (group in groups)
        assert any("light" in mode for mode in modes) == ("light" in groups)
    assert {"yaw", "smile_left", "light"} <= set(head_choices()[0])


FILES = {
    "paper": {
        "checkpoints/realisticVisionV60B1_v51VAE.safetensors", "capface/caphuman.ckpt",
        "clip_vision/clip-vit-large-patch14.safetensors", "facenet/20180402-114759-vggface2.pt",
        "controlnet/control_v11p_sd15_openpose_fp16.safetensors", "insightface/models/buffalo_l/*.onnx",
        "open_clip/open_clip_model.safetensors", "deca/deca_model.tar",
    },
    "paper_expression_light": {"flame/generic_model.pkl", "flame/landmark_embedding.npy"},
    "peers": {
        "ipadapter/ip-adapter-faceid-plusv2_sd15.bin", "loras/ip-adapter-faceid-plusv2_sd15_lora.safetensors",
        "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    },
    "peers_sdxl": {
        "checkpoints/sd_xl_base_1.0.safetensors", "controlnet/controlnet-openpose-sdxl-1.0.safetensors",
        "instantid/ip-adapter.bin", "controlnet/instantid/diffusion_pytorch_model.safetensors",
        "pulid/ip-adapter_pulid_sdxl_fp16.safetensors", "insightface/models/antelopev2/*.onnx",
    },
    "quick": set(),
    "quick_persons": set(),
}  # fmt: skip
"""What each manifest needs; those that extend `paper` also need its files, or some of them."""


@pytest.mark.parametrize("name", FILES)
def test_check_names_the_files_that_a_shipped_manifest_needs(name, shipped, tmp_path, capsys):
    asked = {one.file for one in needed(read_manifest(find_manifest(name)))}
    assert FILES[name] <= asked <= FILES[name] | (set() if name.startswith("quick") else FILES["paper"])
    (tmp_path / "models").mkdir()
    assert main(["check", name, "--models", str(tmp_path / "models")]) == (2 if asked else 0)
    out = capsys.readouterr().out
    assert "no mistakes" in out and all(f"missing: models/{file}, for " in out for file in asked)
    for file in asked:
        path = tmp_path / "models" / file.replace("*", "any")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    main(["check", name, "--models", str(tmp_path / "models")])
    assert "missing: models/" not in capsys.readouterr().out


def test_a_folder_of_packs_that_is_not_named_is_a_mistake(shipped, monkeypatch):
    monkeypatch.delenv("CUSTOM_NODES")
    with pytest.raises(BadInput, match=r"packs\[0\]: the environment variable in \$CUSTOM_NODES/ComfyUI_InstantID is not set"):
        read_manifest(find_manifest("peers_sdxl"))


def test_methods_of_a_table_differ_in_what_it_compares(shipped):
    two, three, four, six = (read_manifest(find_manifest(f"paper_table{n}")).methods for n in (2, 3, 4, 6))

    def inputs(method, kind):
        (node,) = (node for node in method.workflow.values() if node["class_type"] == kind)
        return node["inputs"]

    parts = [inputs(method, "CapFaceIdentityParts") for method in two]
    assert [(p["global_strength"], p["local_tokens"]) for p in parts] == [(1, 257), (1, 0), (0, 257), (1, 257)]
    assert [inputs(method, "CapFaceApply")["tau"] for method in two] == [0, 1000, 1000, 1000]
    assert [inputs(method, "CapFaceIdentityParts")["local_tokens"] for method in three] == [32, 64, 128, 257]
    assert [networks(method) for method in (*four, *six)] == [1, 1, 1, 2, 2]
    assert inputs(four[1], "CapFaceApply")["tau"] == 0
    assert [inputs(method, "CapFaceApply")["alpha"] for method in six] == [0, 0, 0.5]


def test_the_ablations_vary_one_setting(shipped):
    for name, setting in {"paper_table5": "tau", "paper_figure8": "alpha", "quick_tau": "tau"}.items():
        methods = read_manifest(find_manifest(name)).methods
        values = []
        for method in methods:
            assert method.workflow is not None and method.curve is not None
            (node,) = (node for node in method.workflow.values() if node["class_type"] == "CapFaceApply")
            assert method.curve == (setting, node["inputs"].pop(setting))
            values.append(method.curve[1])
        assert values == sorted(set(values)) and len(values) >= 5
        assert all(method.workflow == methods[0].workflow for method in methods), "they differ in nothing else"


def test_the_paper_without_celeba_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.delenv("CELEBA", raising=False)
    with pytest.raises(BadInput, match=r"the environment variable in \$CELEBA is not set"):
        read_manifest(find_manifest("paper"))
    monkeypatch.setenv("CELEBA", str(tmp_path))
    with pytest.raises(BadInput) as caught:
        read_manifest(find_manifest("paper"))
    for name in ("list_eval_partition.txt", "identity_CelebA.txt", "img_celeba or img_align_celeba"):
        assert name in str(caught.value)


def celeba(folder, people, photos):
    """A folder like CelebA's, whose people with odd numbers are in the training split."""
    (folder / "img_celeba").mkdir()
    splits, names = [], []
    for person in range(2 * people):
        for photo in range(photos):
            name = f"{person * photos + photo:06d}.jpg"
            (folder / "img_celeba" / name).touch()
            splits.append(f"{name} {0 if person % 2 else 2}")
            names.append(f"{name} {person}")
    (folder / "list_eval_partition.txt").write_text("\n".join(splits) + "\n")
    (folder / "identity_CelebA.txt").write_text("\n".join(names) + "\n")


def test_people_of_celeba_are_chosen_by_seed_from_the_test_split(bench):
    (folder := bench.folder / "celeba").mkdir()
    celeba(folder, people=30, photos=3)
    people = {"celeba": "celeba", "count": 10, "seed": 0}
    ten = [person.name for person in bench.manifest(people=people).people]
    assert len(set(ten)) == 10 and all(int(name.removeprefix("celeba-")) % 2 == 0 for name in ten)
    assert ten == [person.name for person in bench.manifest(people=people).people]
    assert ten[:4] == [person.name for person in bench.manifest(people=people | {"count": 4}).people]
    assert ten != [person.name for person in bench.manifest(people=people | {"seed": 1}).people]
    with pytest.raises(BadInput, match="expected at most 30"):
        bench.manifest(people=people | {"count": 31})


def test_the_choice_does_not_depend_on_the_order_of_the_list():
    photos = {f"{i}.jpg": str(i // 3) for i in range(60)}
    assert chosen(photos, 5, 7) == chosen(dict(reversed(photos.items())), 5, 7)
    assert chosen({"b.jpg": "1", "a.jpg": "2"}, 2, 0).keys() == {"1", "2"}


def test_the_miniatures_workflow_is_the_shipped_one(bench):
    """Only titles, the pose and the strength of head control differ from workflows/api/miniature.json."""
    from capface.tests.conftest import ROOT

    shipped = json.loads((ROOT / "workflows" / "api" / "miniature.json").read_text(encoding="utf-8"))
    ours = json.loads((ROOT / "iphc" / "workflows" / "miniature.json").read_text(encoding="utf-8"))
    assert {key: node["class_type"] for key, node in ours.items()} == {key: node["class_type"] for key, node in shipped.items()}
    different = {
        (node["class_type"], name)
        for key, node in ours.items()
        for name, value in node["inputs"].items()
        if value != shipped[key]["inputs"][name]
    }
    assert different == {
        ("CapFaceEditHead", "yaw"), ("CapFaceEditHead", "pitch"), ("CapFaceEditHead", "smile_left"), ("CapFaceEditHead",
        "smile_right"),
        ("CapFaceApply", "alpha"), ("SaveImage", "filename_prefix"),
    }  # fmt: skip
    assert marked(ours, "@head") == ["4"]


def test_units_hold_whole_prompts(bench):
    for most, sizes in {1: [4] * 4, 4: [4] * 4, 7: [4] * 4, 8: [8] * 2, 99: [8] * 2}.items():
        assert [len(unit.jobs) for unit in units_of(bench.manifest(unit_images=most))] == sizes


INFO = {"input": {"required": {"yaw": ["FLOAT", {"min": -90, "max": 90}], "light": ["COMBO", {}], "head": ["HEAD"]}}}


def test_what_edit_head_does_not_take_is_named(bench):
    manifest = bench.manifest(heads={"left": {"yaw": -20}, "too-far": {"yaw": 95, "light": "neutral"}})
    assert head_problems(manifest, INFO) == ["heads.too-far.yaw: expected -90 to 90, got 95"]
    assert head_problems(manifest, {}) == []
    bench.write("workflow.json", workflow(n3=None))
    assert head_problems(bench.manifest(), INFO) == [], "no method takes the heads"


def test_nodes_that_comfyui_does_not_have_are_named(bench):
    (method,) = bench.manifest().methods
    known: dict[str, Any] = dict.fromkeys(("LoadImage", "CLIPTextEncode", "KSampler", "SaveImage", "CapFaceApply"))
    assert missing_nodes(method, known) == ["ComfyUI has no node CapFaceEditHead. Name its pack in 'packs'"]
