"""The miniature's networks in the host: nodes and stock sampler make the same portraits as its own DDIM loop."""

from typing import Any

import pytest
import torch

from capface.errors import BadInput, NoFaceFound
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import angles_of
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.miniature.autoencoder import Autoencoder
from capface.miniature.evaluator import Evaluator
from capface.miniature.networks import PICTURE_SIDE, Miniature
from capface.miniature.recognizer import Recognizer
from capface.miniature.text_encoder import TextEncoder
from capface.models.diffusion.capface import CapFace, IdentityTokens
from capface.models.diffusion.denoiser import Denoiser
from capface.photos.encoding import EncodeOptions
from capface.training.miniature.portrait_sampler import Recipe, head_hint, make_portraits
from capface.training.miniature.train_capface import HINT_WIDTHS
from capface.training.miniature.train_denoiser import CONFIG, vocabulary

PROMPT = "red shirt, beach"


@pytest.fixture(scope="module")
def miniature():
    """Untrained networks, but with residuals that are not zero."""
    torch.manual_seed(0)
    denoiser, recognizer = Denoiser(CONFIG), Recognizer()
    capface = CapFace.from_denoiser(denoiser, hint_widths=HINT_WIDTHS)
    for layer in [*capface.zero_convs, capface.middle_block_out]:
        torch.nn.init.normal_(layer.get_parameter("0.weight"), std=0.05)
    torch.nn.init.normal_(capface.input_hint_block[-1].get_parameter("weight"), std=0.1)
    torch.nn.init.constant_(capface.mask_predict[0].get_parameter("bias"), 1.0)
    tokens = IdentityTokens(recognizer.config.widths[-1], recognizer.config.global_width, CONFIG.context_width)
    words = TextEncoder(vocabulary(), CONFIG.context_width)
    made = Miniature(denoiser, capface, tokens, recognizer, words, Autoencoder(), Evaluator(29))
    for network in vars(made).values():
        network.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def loaded(in_host, miniature):
    from capface.host.miniature_models import register_miniature

    return register_miniature(miniature)


@pytest.fixture
def photo():
    """`[1, 128, 128, 3]` in 0..1, as an IMAGE."""
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=PICTURE_SIDE, mode="bicubic")
    return smooth.clamp(0, 1).movedim(1, -1)


def identity_of(loaded, photo):
    from capface.nodes.encode_identity import EncodeIdentity

    return EncodeIdentity.execute(photo, loaded.reader, "largest", 0, True).result[0]


def test_the_nodes_make_the_portrait_that_the_plain_loop_makes(in_host, miniature, loaded, photo):
    from capface.nodes.apply_capface import ApplyCapFace

    head = HeadParams.neutral()
    positive, negative = (loaded.clip.encode_from_tokens_scheduled(loaded.clip.tokenize(text)) for text in (PROMPT, ""))
    identity = identity_of(loaded, photo)
    condition = HeadCondition(builtin_head(), head)
    settings: dict[str, Any] = {"strength": 1.0, "tau": 1000.0, "start_percent": 0.0, "end_percent": 1.0}
    applied = ApplyCapFace.execute(positive, negative, loaded.capface, condition, identity=identity, **settings).result[:2]
    empty = {"samples": torch.zeros(1, 4, PICTURE_SIDE // 8, PICTURE_SIDE // 8)}
    sampler = in_host.nodes.KSampler()
    images = {}
    for name, (p, n) in {"with": applied, "without": (positive, negative)}.items():
        latent = sampler.sample(loaded.model, 5, 10, 2.0, "ddim", "ddim_uniform", p, n, empty, 1.0)[0]
        images[name] = in_host.nodes.VAEDecode().decode(loaded.vae, latent)[0]
    assert images["with"].shape == (1, PICTURE_SIDE, PICTURE_SIDE, 3)
    assert (images["with"] - images["without"]).abs().max() > 0.02
    recipe = Recipe(steps=10, guidance=2.0, eta=0.0)
    plain = make_portraits(miniature, head_hint(head), [PROMPT], photo.movedim(-1, 1) * 2 - 1, recipe, seed=5)
    # both sample the same noise
    difference = (images["with"].movedim(-1, 1) - plain).abs().mean()
    print(f"mean difference {difference:.5f}")
    assert difference < 0.25 * (images["without"].movedim(-1, 1) - plain).abs().mean()
    assert difference < 0.005


def test_an_identity_names_its_encoder_and_fits_no_other_capface(loaded, photo):
    from capface.host.control.apply import apply_capface
    from capface.host.identity.identity import MINIATURE
    from capface.tests.host.pipeline import person, small_capface

    identity = identity_of(loaded, photo)
    assert identity.features == MINIATURE
    assert identity.local.shape == (1, 16, 96) and identity.global_.shape == (1, 128)
    assert identity.global_.norm() == pytest.approx(1, abs=1e-4)
    condition, theirs, _ = person(1)
    with pytest.raises(BadInput, match=r"small expects embeddings of 512.*miniature"):
        apply_capface([[[None, {}]]], small_capface(), condition, identity)
    with pytest.raises(BadInput, match=r"the miniature expects embeddings of 128.*FaceNet"):
        apply_capface([[[None, {}]]], loaded.capface, condition, theirs)


def test_heads_cannot_be_fitted_with_its_reader(loaded, photo):
    from capface.host.fitting import fit_heads

    with pytest.raises(BadInput, match="does not detect faces"):
        fit_heads(photo.movedim(-1, 1), loaded.reader, builtin_head())


def test_a_connected_clip_vision_is_refused_with_the_reason(loaded, photo):
    from capface.nodes.encode_identity import EncodeIdentity

    class ClipVitL:
        def encode_image(self, image):
            return {"last_hidden_state": torch.zeros(len(image), 257, 1024)}

    with pytest.raises(BadInput, match=r"makes its own local tokens.*Leave clip_vision unconnected") as refused:
        EncodeIdentity.execute(photo, loaded.reader, "largest", 0, True, clip_vision=ClipVitL())
    assert "16 of 96" not in str(refused.value)


def test_its_encoder_encodes_the_whole_picture_as_in_training(miniature, loaded, photo):
    from capface.nodes.encode_identity import EncodeIdentity

    identity, preview = EncodeIdentity.execute(photo, loaded.reader, "largest", 0, True).result
    wanted = miniature.recognizer.cpu()(photo.movedim(-1, 1) * 2 - 1)
    torch.testing.assert_close(identity.global_, wanted[0])
    torch.testing.assert_close(identity.local, wanted[1])
    assert preview.shape == (1, 512, 3 * 512, 3)


def test_its_encoder_has_one_face_per_picture(loaded, photo):
    from capface.nodes.encode_identity import EncodeIdentity

    with pytest.raises(NoFaceFound, match="no face number 1"):
        EncodeIdentity.execute(photo, loaded.reader, "largest", 1, True)
    passed = EncodeIdentity.execute(photo, loaded.reader, "largest", 1, True, on_no_face="passthrough").result[0]
    assert not passed.present.any() and passed.local.shape == (1, 16, 96)
    with pytest.raises(BadInput, match="no face parser"):
        EncodeIdentity.execute(photo, loaded.reader, "largest", 0, True, parse="on")


def test_portraits_are_measured_with_its_encoder_without_faces(loaded, photo):
    from capface.host.portrait_metrics import ID, References, measure

    images = photo.movedim(-1, 1)
    references = References(photos=images, head=HeadParams.neutral(), head_model=builtin_head())
    found = measure(torch.cat([images, images.flip(3)]), loaded.reader, references)
    assert found.columns[ID][0] == pytest.approx(1, abs=1e-5) and found.columns[ID][1] < 1
    assert found.faceless == []
    for part in ("ArcFace", "landmark error"):
        assert "does not detect faces" in found.unmeasured[part]


def test_its_text_encoder_refuses_patches(loaded):
    import comfy.sd

    with pytest.raises(BadInput, match="no LoRA"):
        loaded.clip.clone()
    with pytest.raises(BadInput, match="no LoRA"):
        comfy.sd.load_lora_for_models(loaded.model, loaded.clip, {}, 1.0, 1.0)


def test_pictures_go_through_its_autoencoder(in_host, miniature, loaded, photo):
    latent = in_host.nodes.VAEEncode().encode(loaded.vae, photo)[0]["samples"]
    assert torch.allclose(latent, miniature.autoencoder.encode(photo.movedim(-1, 1) * 2 - 1), atol=1e-5)


def test_a_synthetic_person_is_the_same_in_every_picture(in_host):
    from capface.nodes.load_miniature import SyntheticPerson

    def drawn(person=1_000_000, yaw=0.0, light="front", shirt="blue", background="forest", size=96):
        return SyntheticPerson.execute(person, yaw, 0.0, 0.0, light, shirt, background, size).result

    image, head, words = drawn()
    assert image.shape == (1, 96, 96, 3)
    assert image.min() >= 0 and image.max() <= 1
    assert torch.equal(image, drawn()[0])
    assert set(words.replace(",", " ").split()) <= set(vocabulary())
    assert "blue shirt" in words and "forest" in words and "lit from front" in words
    turned = drawn(yaw=30.0, shirt="red", light="left")
    assert torch.equal(turned[1].shape, head.shape)
    assert angles_of(turned[1].rotation)[0].tolist() == pytest.approx([30.0, 0.0, 0.0], abs=1e-3)
    assert turned[2].split(", ")[:2] == words.split(", ")[:2]
    other = drawn(person=1_000_001)
    assert not torch.equal(other[1].shape, head.shape)
    assert (other[0] - image).abs().mean() > 0.01


def test_the_loader_returns_the_packaged_networks(in_host):
    from capface.nodes.load_miniature import LoadMiniature, SyntheticPerson

    model, clip, vae, capface, reader, head_model = LoadMiniature.execute().result
    assert model.model.latent_format.latent_channels == vae.latent_channels
    assert head_model is builtin_head()
    person = SyntheticPerson.execute(1_000_000, 0.0, 0.0, 0.0, "front", "blue", "forest", PICTURE_SIDE).result[0]
    back = in_host.nodes.VAEDecode().decode(vae, in_host.nodes.VAEEncode().encode(vae, person)[0])[0]
    assert (back - person).abs().mean() < 0.05
    assert clip.tokenize("red shirt").count_nonzero() == 2
    assert capface.name == "the miniature"
    encoded = reader.encode(person.movedim(-1, 1), EncodeOptions())
    assert encoded.global_.norm() == pytest.approx(1, abs=1e-3)
