"""Identities: their arithmetic, their parts in the control, and their files."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from capface.errors import BadFile, BadInput, MissingFile
from capface.flame.model.camera import WHOLE
from capface.tests.host.pipeline import person
from capface.tests.synthetic import noise


def identity(seed, batch=1, **fields):
    from capface.host.identity.identity import Identity

    global_ = torch.nn.functional.normalize(noise(seed, [batch, 512]), dim=1)
    return Identity(global_, noise(seed + 1, [batch, 257, 1024]), **fields)


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("global_", "local", "strength"))


def close(a, b):
    return all(torch.allclose(getattr(a, name), getattr(b, name), atol=1e-5) for name in ("global_", "local", "strength"))


def test_other_embeddings_are_refused_with_a_message():
    from capface.host.identity.identity import Identity

    clip_l, facenet = torch.zeros(1, 257, 1024), torch.zeros(1, 512)
    for global_, local in (
        (facenet, torch.zeros(1, 50, 768)),
        (facenet, torch.zeros(1, 577, 1024)),
        (torch.zeros(1, 768), clip_l),
        (torch.zeros(2, 512), clip_l),
        (torch.zeros(512), clip_l),
    ):
        with pytest.raises(BadInput, match=r"FaceNet.*ViT-L/14.*got"):
            Identity(global_, local)


# Several photos, several people


def test_photos_of_one_person_combine():
    from capface.host.identity.identity import combine

    photos = identity(1, 3)
    scores, areas = [0.2, 0.6, 0.2], [10.0, 20.0, 90.0]
    assert combine(photos, "each", scores, areas) is photos
    assert same(combine(photos, "best", scores, areas), photos[[2]])
    for how, local in {
        "mean": photos.local.mean(0),
        "median": photos.local.median(0).values,
        "weighted": 0.2 * photos.local[0] + 0.6 * photos.local[1] + 0.2 * photos.local[2],
    }.items():
        one = combine(photos, how, scores, areas)
        assert torch.allclose(one.local[0], local, atol=1e-6)
        assert one.global_.norm().item() == pytest.approx(1, abs=1e-6)
        assert one.references == 3
    with pytest.raises(BadInput, match=r"each, mean, .*got 'sum'"):
        combine(photos, "sum", scores, areas)


def test_one_bad_photo_moves_the_median_less_than_the_mean():
    from capface.host.identity.identity import Identity, combine

    good, bad = identity(1), identity(50)
    scatter = torch.nn.functional.normalize(good.global_ + 0.01 * noise(7, [5, 512]), dim=1)
    photos = Identity(torch.cat([scatter, bad.global_]), torch.zeros(6, 257, 1024))
    mean, median = (combine(photos, how, [1.0] * 6, [1.0] * 6).global_ @ good.global_.T for how in ("mean", "median"))
    assert mean < 0.99 < median


def joined(first, second):
    """The rows of two identities."""
    from capface.host.identity.identity import Identity

    global_, local, strength = (torch.cat([getattr(first, n), getattr(second, n)]) for n in ("global_", "local", "strength"))
    return Identity(global_, local, strength)


def test_photos_without_a_face_take_no_part():
    from capface.host.identity.identity import combine, null_identity

    one = identity(1)
    rows = joined(one, null_identity(1))
    assert rows.present.tolist() == [True, False]
    for how in ("mean", "median", "weighted", "best"):
        assert close(combine(rows, how, [0.9, 0.0], [5.0, 0.0]), one)
        assert not combine(null_identity(3), how, [0.0] * 3, [0.0] * 3).present.any()


def test_people_blend_by_weights():
    from capface.host.identity.identity import blend

    a, b = identity(1), identity(5)
    assert close(blend([a, b], [2.0, 0.0]), a)
    mixed = blend([a, b], [1.0, 3.0])
    assert torch.allclose(mixed.local, 0.25 * a.local + 0.75 * b.local, atol=1e-6)
    direction = 0.25 * a.global_ + 0.75 * b.global_
    assert torch.allclose(mixed.global_, direction / direction.norm(), atol=1e-6)
    frames = blend([a, identity(9, 3)], [1.0, 1.0])
    assert len(frames) == 3
    assert close(frames[[1]], blend([a, identity(9, 3)[[1]]], [1.0, 1.0]))


def test_identities_that_do_not_match_are_refused():
    from capface.host.identity.identity import blend, take_parts

    a, b = identity(1), identity(5)
    for weights in ([1.0], [0.0, 0.0], [1.0, -1.0]):
        with pytest.raises(BadInput, match="one weight of at least 0"):
            blend([a, b], weights)
    with pytest.raises(BadInput, match=r"\[2, 3\].*Combine each"):
        blend([identity(1, 2), identity(5, 3)], [1.0, 1.0])
    with pytest.raises(BadInput, match=r"\[257, 9\].*after Blend Identities"):
        blend([a, take_parts(b, 1.0, 1.0, 9)], [1.0, 1.0])


def test_the_blend_node_mixes_the_connected_inputs(in_host):
    from capface.host.identity.identity import blend
    from capface.nodes.combine_identities import BlendIdentities

    a, b, c = identity(1), identity(5), identity(9)
    inputs = {"identity_1": a, "weight_1": 1.0, "identity_2": b, "weight_2": 2.0, "identity_4": c, "weight_4": 3.0}
    (mixed,) = BlendIdentities.execute(**inputs).result
    assert same(mixed, blend([a, b, c], [1.0, 2.0, 3.0]))


# Parts


def test_fewer_local_tokens_are_cls_and_evenly_spread_patches():
    from capface.host.identity.identity import GRID, token_order

    order = token_order()
    assert sorted(order) == list(range(257))
    assert order[0] == 0
    patches = [divmod(i - 1, GRID) for i in order[1:]]
    for cells in (2, 4, 8):
        side = GRID // cells
        assert len({(row // side, column // side) for row, column in patches[: cells**2]}) == cells**2


def test_taking_fewer_tokens_twice_is_taking_the_fewer_once():
    from capface.host.identity.identity import take_parts

    person = identity(1)
    assert same(take_parts(take_parts(person, 1.0, 1.0, 64), 1.0, 1.0, 32), take_parts(person, 1.0, 1.0, 32))
    assert same(take_parts(person, 1.0, 1.0, 257), person)
    with pytest.raises(BadInput, match="0 to 257"):
        take_parts(person, 1.0, 1.0, 258)


def residuals(capface, who, batch=1):
    from capface.host.control.evaluation import Evaluation

    condition, _, _ = person(900)
    x, timesteps = noise(950, [1, 4, 8, 8]).expand(batch, -1, -1, -1), torch.full([batch], 500.0)
    evaluation = Evaluation(capface, condition, who, 1000.0)
    return evaluation.residuals(x, timesteps, [(WHOLE, i) for i in range(batch)]), evaluation.context


def difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@torch.no_grad()
def test_each_part_has_an_effect_and_can_be_removed(capface):
    from capface.host.identity.identity import take_parts

    who = identity(1)
    both, context = residuals(capface, who)
    assert context is not None
    ablations = {"local only": (0.0, 1.0, 257), "global only": (1.0, 0.0, 257), "32": (1.0, 1.0, 32), "one": (1.0, 1.0, 0)}
    for name, parts in ablations.items():
        out, tokens = residuals(capface, take_parts(who, *parts))
        assert difference(out, both) > 1e-3, name
        assert tokens is not None
        assert tokens.shape == (1, parts[2] + 1, 768)
        if name == "local only":
            assert torch.equal(tokens[:, :-1], context[:, :-1])
            assert not tokens[:, -1].any()
        if name == "global only":
            assert torch.equal(tokens[:, -1], context[:, -1])
            assert not tokens[:, :-1].any()
        if name == "one":
            assert torch.allclose(tokens[:, -1], context[:, -1], atol=1e-6)
    _, tokens = residuals(capface, take_parts(who, 0.5, 2.0, 257))
    assert tokens is not None
    assert torch.equal(tokens, torch.cat([2 * context[:, :-1], 0.5 * context[:, -1:]], dim=1))


@torch.no_grad()
def test_a_null_identity_equals_no_identity(capface):
    from capface.host.identity.identity import null_identity

    without, _ = residuals(capface, None)
    out, context = residuals(capface, null_identity(1))
    assert context is None
    assert difference(out, without) == 0
    who = identity(1)
    mixed = joined(who, null_identity(1))
    out, _ = residuals(capface, mixed, batch=2)
    alone, _ = residuals(capface, who)
    assert difference([r[:1] for r in out], alone) < 1e-4
    assert difference([r[1:] for r in out], without) < 1e-4
    assert difference(alone, without) > 1e-2


# Files


@pytest.fixture
def saved(in_host, tmp_path, monkeypatch):
    """Save an identity with the node into a separate output folder, and return its path."""
    from capface.nodes.identity_files import SaveIdentity

    monkeypatch.setattr(in_host.folder_paths, "output_directory", str(tmp_path))

    def save(who, prefix="people/ada"):
        from pathlib import Path

        return Path(SaveIdentity.execute(who, prefix).result[0])

    return save


def test_a_saved_identity_loads_unchanged(saved, tmp_path):
    from capface.host.identity.identity import take_parts
    from capface.nodes.identity_files import LoadIdentity

    who = take_parts(identity(1, 2, references=4), 0.5, 2.0, 32)
    path = saved(who)
    assert path == tmp_path / "people" / "ada_00001_.identity.safetensors"
    assert saved(who).name == "ada_00002_.identity.safetensors"
    listed = "people/ada_00001_.identity.safetensors [output]"
    options = LoadIdentity.INPUT_TYPES()["required"]["file"]
    assert listed in (options[0] if isinstance(options[0], list) else options[1]["options"])
    assert LoadIdentity.validate_inputs(listed) is True
    (back,) = LoadIdentity.execute(listed).result
    assert same(back, who)
    assert back.references == 4
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, "ada_00002_.identity.safetensors"]


def test_the_files_metadata_names_maker_and_encoders(saved):
    with safe_open(saved(identity(1)), "pt") as file:
        metadata = file.metadata()
    assert metadata["kind"] == "capface identity"
    assert metadata["version"] == "1"
    assert "VGGFace2" in metadata["global_encoder"]
    assert "ViT-L/14" in metadata["local_encoder"]


def test_files_of_the_first_version_are_read(golden):
    """A file written by version 1, with the tensors that every version needs. All later versions must load it."""
    from capface.host.identity.identity_file import load_identity

    back = load_identity(golden / "version_1.identity.safetensors")
    assert torch.equal(back.global_, torch.nn.functional.normalize(noise(700, [1, 512]), dim=1))
    assert torch.equal(back.local, noise(701, [1, 2, 1024]))
    assert back.strength.tolist() == [[1.0, 1.0]]
    assert back.references == 1


def test_paths_stay_within_the_folders(in_host, saved):
    from capface.nodes.identity_files import LoadIdentity

    for prefix in ("../ada", "/tmp/ada", "people/", ""):
        with pytest.raises(BadInput, match="within the output folder"):
            saved(identity(1), prefix)
    for name in ("../ada.identity.safetensors", "/etc/passwd", "ada.ckpt"):
        assert "within the input or output folder" in str(LoadIdentity.validate_inputs(name))
    with pytest.raises(MissingFile, match="is not in"):
        LoadIdentity.execute("nobody.identity.safetensors")


def reactor(path):
    """A face as saved by ReActor and other insightface tools."""
    save_file({"bbox": torch.zeros(4), "landmark_3d_68": torch.zeros(68, 3), "embedding": torch.randn(512)}, path)


def lora(path):
    save_file({"lora_unet.lora_up.weight": torch.ones(2, 2)}, path)


def pickled(path):
    torch.save({"embedding": torch.zeros(512)}, path)


def page(path):
    path.write_bytes(b"<html>")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (reactor, "insightface.*ArcFace's vectors have 512 values too"),
        (lora, "a LoRA.*not an identity that CapFace saved"),
        (pickled, "not an identity that CapFace saved"),
        (page, "web page"),
    ],
)
def test_other_files_are_refused_with_their_kind(in_host, tmp_path, write, message):
    from capface.host.identity.identity_file import load_identity

    path = tmp_path / "x.identity.safetensors"
    write(path)
    with pytest.raises(BadFile, match=message):
        load_identity(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, r"newer CapFace \(format 2\).*Update"),
        ({"version": None}, "format unknown"),
        ({"global_encoder": "ArcFace w600k_r50"}, "features of ArcFace w600k_r50.*FaceNet"),
        ({"local_encoder": None}, "an unnamed encoder.*ViT-L/14"),
        ({"tensors": {"global": torch.randn(1, 512) * 20}}, "vectors of length 1"),
        ({"tensors": {"local": torch.full((1, 257, 1024), torch.nan)}}, "finite tokens"),
    ],
)
def test_a_file_of_other_features_is_refused(saved, change, message):
    from capface.host.identity.identity_file import load_identity

    path = saved(identity(1))
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()} | change.get("tensors", {})  # noqa: SIM118
        metadata = file.metadata() | {k: v for k, v in change.items() if k != "tensors"}
    save_file(tensors, path, metadata={k: v for k, v in metadata.items() if v is not None})
    with pytest.raises(BadFile, match=message):
        load_identity(path)


def test_an_incomplete_identity_is_refused(saved):
    from capface.host.identity.identity_file import load_identity

    path = saved(identity(1))
    with safe_open(path, "pt") as file:
        save_file({"global": file.get_tensor("global")}, path.with_name("half.safetensors"), metadata=file.metadata())
    with pytest.raises(BadFile, match="incomplete identity"):
        load_identity(path.with_name("half.safetensors"))


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("global", torch.full((1, 512), float("nan")), "NaN"),
        ("global", torch.tensor(1.0), "shapes"),
        ("strength", torch.full((1, 2), float("nan")), "NaN"),
        ("strength", torch.full((1, 2), 1e38), "strengths"),
        ("references", "-5", "-5 photos"),
        ("references", "many", "many photos"),
        ("references", "9" * 5000, "photos"),
        ("version", "9" * 5000, "newer CapFace"),
    ],
)
def test_a_changed_file_is_refused(saved, part, value, words):
    from capface.host.identity.identity_file import load_identity

    path = saved(identity(1))
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    if isinstance(value, str):
        metadata[part] = value
    else:
        tensors[part] = value
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(BadFile, match=words) as error:
        load_identity(path)
    assert len(str(error.value)) < 400


def test_an_identity_of_nobody_or_of_nan_cannot_be_made(in_host):
    from capface.host.identity.identity import Identity

    with pytest.raises(BadInput, match="shapes"):
        Identity(torch.zeros(0, 512), torch.zeros(0, 2, 1024))
    with pytest.raises(BadInput, match="NaN or infinity in global"):
        Identity(torch.full((1, 512), float("inf")), torch.zeros(1, 2, 1024))
