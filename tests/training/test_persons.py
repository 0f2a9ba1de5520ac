"""The command `person`: a LoRA, a word or whole weights of one person from one photo."""

import json
from contextlib import nullcontext

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from capface.errors import BadFile, BadInput, MissingFile
from capface.miniature.networks import load_miniature
from capface.miniature.text_encoder import COMMA
from capface.tests.synthetic import relative_error
from capface.tests.training.base_files import CONTEXT, write_base
from capface.training.loop import LoopSettings
from capface.training.persons.adaptation import METHODS, Factors, Whole
from capface.training.persons.objective import PersonObjective, PhotoBatches, Pictures
from capface.training.persons.plain import with_person
from capface.training.persons.train import PersonSettings, main, read_prior, square_picture, train_person
from capface.training.persons.tunable import TunableMiniature, load_tunable, lora_layers
from capface.training.schedule import NoiseSchedule

for package in ("accelerate", "tensorboard"):
    pytest.importorskip(package)

CAPTION = "{}, beach, red shirt"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A file with a picture that is wider than high."""
    path = tmp_path_factory.mktemp("photo") / "anna.png"
    torch.manual_seed(0)
    small = torch.rand(1, 3, 6, 8)
    pixels = torch.nn.functional.interpolate(small, (140, 180), mode="bicubic")[0].clamp(0, 1)
    Image.fromarray((pixels.permute(1, 2, 0) * 255).byte().numpy()).save(path)
    return path


def settings_of(method, **more):
    return PersonSettings(method=method, captions=(CAPTION,), batch=2, rank=3, **more)


def loop_of(steps, **more):
    rate = {"learning_rate": 1e-2, "warmup": 0, "save_every": 1, "sample_every": 0, "average": 0.5}
    return LoopSettings(steps=steps, **{**rate, **more})


def trained(folder, method, steps=2, seed=0, **more):
    base = TunableMiniature()
    picture = torch.linspace(-1, 1, 3 * 128 * 128).view(1, 3, 128, 128)
    return base, train_person(base, picture, settings_of(method, **more), loop_of(steps, seed=seed), folder, cpu=True)


@pytest.mark.parametrize("method", METHODS)
def test_the_file_gives_the_trained_prediction(method, tmp_path):
    base, adaptation = trained(tmp_path, method, vectors=2)
    miniature, fresh = load_miniature(), TunableMiniature()
    x, t = torch.randn(2, 8, 16, 16), torch.tensor([10, 700])
    tokens = base.tokenize(CAPTION, "", 2 if method == "word" else 0)[None].expand(2, -1)
    with torch.no_grad():
        denoiser = adaptation.denoiser if isinstance(adaptation, Whole) else fresh.denoiser
        with adaptation.attached(fresh.layers()) if isinstance(adaptation, Factors) else nullcontext():
            expected = denoiser(x, t, fresh.encode_text(tokens, adaptation.learned))
        tuned = with_person(miniature, adaptation.file(base))
        words = tuned.text_encoder.tokenize([CAPTION.replace("{}", "embedding:person")] * 2)
        assert (words < 0).sum() == (4 if method == "word" else 0)
        found = tuned.denoiser(x, t, tuned.text_encoder(words) if method == "word" else fresh.encode_text(tokens, None))
        assert relative_error(found, expected) < 1e-6
        plain = miniature.denoiser(x, t, miniature.text_encoder(miniature.text_encoder.tokenize(["beach, red shirt"] * 2)))
        assert relative_error(found, plain) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_resumes_with_the_same_result(method, tmp_path):
    _, whole = trained(tmp_path / "whole", method, steps=3)
    trained(tmp_path / "parts", method, steps=1)
    _, parts = trained(tmp_path / "parts", method, steps=3)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(BadInput, match="subject was 'sks person', is 'someone'"):
        trained(tmp_path / "parts", method, steps=4, subject="someone")


def test_the_seed_decides(tmp_path):
    results = [list(trained(tmp_path / str(i), "lora", seed=seed)[1].parameters()) for i, seed in enumerate((5, 5, 6))]
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])


def test_only_what_is_trained_changes(tmp_path):
    before = {k: v.clone() for k, v in load_miniature().denoiser.state_dict().items()}
    for method in ("word", "lora"):
        base, adaptation = trained(tmp_path / method, method)
        assert all(torch.equal(v, before[k]) for k, v in base.denoiser.state_dict().items())
        assert all(parameter.abs().max() > 0 for parameter in adaptation.parameters())


def test_training_on_a_photo_lowers_its_error():
    base = TunableMiniature()
    latents = base.encode_picture(torch.linspace(-1, 1, 3 * 128 * 128).view(1, 3, 128, 128))
    photo = Pictures.of_photo(latents, [base.tokenize(CAPTION, "", 0)])
    objective = PersonObjective(base, Whole(base.denoiser), NoiseSchedule(), "eps")
    batches = PhotoBatches(photo, 4)
    optimizer = torch.optim.Adam(objective.trained.parameters(), 1e-3)

    def error():
        return objective(batches(torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2))["loss"]

    before = error().item()
    for seed in range(8):
        optimizer.zero_grad()
        objective(batches(torch.Generator().manual_seed(seed)), torch.Generator().manual_seed(seed))["loss"].backward()
        optimizer.step()
    assert error().item() < 0.7 * before


def test_half_of_a_batch_shows_other_people():
    photo = Pictures.of_photo((torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)), [torch.tensor([1]), torch.tensor([2])])
    others = Pictures(torch.full((3, 2, 4, 4), 5.0), torch.full((3, 2, 4, 4), 0.1), torch.tensor([[7], [8], [9]]))
    batch = PhotoBatches(photo, 40, others)(torch.Generator().manual_seed(0))
    assert set(batch["tokens"][:40, 0].tolist()) == {1, 2} and set(batch["tokens"][40:, 0].tolist()) == {7, 8, 9}
    assert (batch["latents"][:40] == 1).all() and 0.05 < batch["latents"][40:].std() < 0.2
    assert len(PhotoBatches(photo, 40)(torch.Generator())) == 40


def test_pictures_of_other_people_belong_to_the_run(photo, tmp_path, capsys):
    (tmp_path / "others").mkdir()
    for i in range(2):
        Image.new("RGB", (70, 80), (90 * i, 0, 0)).save(tmp_path / "others" / f"{i}.png")
    (tmp_path / "others" / "1.txt").write_text("blue shirt, forest")
    pictures = read_prior(tmp_path / "others", "beach", 64)
    assert [caption for _, caption in pictures] == ["beach", "blue shirt, forest"]
    assert all(picture.shape == (1, 3, 64, 64) for picture, _ in pictures)
    quick = ["--method", "whole", "--base", "miniature", "--size", "64", "--steps", "1", "--batch", "1", "--cpu"]
    command = [str(photo), str(tmp_path / "out"), *quick, "--prior", str(tmp_path / "others")]
    assert main(command) == 0
    assert main([*command, "--prior-caption", "beach"]) == 1
    assert "prior was" in capsys.readouterr().err
    assert main([str(photo), str(tmp_path / "b"), *quick, "--prior", str(tmp_path / "missing")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_a_lora_has_the_names_that_other_programs_use():
    keys = set(lora_layers(TunableMiniature().denoiser))
    assert len(keys) == 88
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q" in keys
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0" in keys
    assert "lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_attn2_to_v" in keys


def test_a_file_of_another_base_is_refused():
    with pytest.raises(BadFile, match="made for another base"):
        with_person(load_miniature(), {"lora_unet_down_blocks_0_attentions_0_x.lora_up.weight": torch.ones(2, 2)})


def test_learned_words_take_their_place_in_a_prompt():
    encoder = load_miniature().text_encoder
    both = encoder.with_learned({"Anna": torch.ones(2, 96), "b.c": torch.full((1, 96), 2.0)})
    known = encoder.tokenize(["red"])[0, 0].item()
    tokens = both.tokenize(["embedding:b.c, red embedding:Anna embedding:nobody"])[0].tolist()
    assert tokens[:5] == [-3, COMMA, known, -1, -2] and not any(tokens[5:])
    assert encoder.tokenize(["embedding:Anna red"])[0].tolist()[:2] == [known, 0]
    assert not encoder.learned


def test_a_photo_becomes_a_square():
    photo = torch.zeros(3, 100, 200)
    photo[:, :, 50:150] = 1
    square = square_picture(photo, 64)
    assert square.shape == (1, 3, 64, 64) and square.min() > 0.9
    with pytest.raises(BadInput, match=r"at least 64 × 64 pixels, got 200 × 40"):
        square_picture(photo[:, :40], 64)
    with pytest.raises(BadInput, match="multiple of 8, got 100"):
        square_picture(photo, 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "full"}, "Expected a method out of lora, word, whole, got 'full'"),
        ({"method": "word", "captions": ("a photo",)}, "Expected {} in each caption"),
        ({"method": "word", "text": True}, "leave out --text"),
        ({"method": "lora", "rank": 0}, "Expected rank to be at least 1, got 0"),
        ({"method": "lora", "captions": ()}, "at least one caption"),
        ({"method": "lora", "weighting": "none"}, "Expected a loss weighting"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        PersonSettings(**{"captions": ("{}",), **settings})


def test_what_the_miniature_cannot_do_is_refused(tmp_path):
    with pytest.raises(BadInput, match="leave out --text"):
        trained(tmp_path, "lora", text=True)
    with pytest.raises(BadInput, match="does not know the word 'zebra'"):
        trained(tmp_path, "word", start="zebra")
    with pytest.raises(BadInput, match="too long"):
        TunableMiniature().tokenize("red " * 40 + "{}", "", 1)
    with pytest.raises(MissingFile):
        load_tunable(str(tmp_path / "missing.safetensors"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    for package in ("diffusers", "transformers", "open_clip"):
        pytest.importorskip(package)
    return write_base(tmp_path_factory.mktemp("base") / "sd.safetensors")


def command(photo, out, checkpoint, *more):
    quick = ["--size", "64", "--steps", "2", "--batch", "1", "--cpu", "--learning-rate", "1e-2"]
    return main([str(photo), str(out), "--base", str(checkpoint), *quick, *more])


def test_a_lora_of_a_checkpoint(photo, checkpoint, tmp_path, capsys):
    assert command(photo, tmp_path / "anna", checkpoint, "--method", "lora", "--text", "--rank", "2", "--half") == 0
    assert (tmp_path / "anna" / "anna.safetensors").stat().st_mode == (tmp_path / "anna" / "state-00000002.pt").stat().st_mode
    assert "anna.safetensors, after 2 steps: copy it into ComfyUI's models/loras" in capsys.readouterr().out
    tensors = load_file(tmp_path / "anna" / "anna.safetensors")
    key = "lora_te_text_model_encoder_layers_1_self_attn_out_proj"
    assert tensors[f"{key}.lora_down.weight"].shape == (2, CONTEXT) and tensors[f"{key}.alpha"] == 2
    assert tensors[f"{key}.lora_up.weight"].abs().max() > 0
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight" in tensors
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    with safe_open(tmp_path / "anna" / "anna.safetensors", "pt") as file:
        assert json.loads(file.metadata()["settings"])["method"] == "lora"


def test_a_word_of_a_checkpoint(photo, checkpoint, tmp_path, capsys):
    out = tmp_path / "anna"
    assert command(photo, out, checkpoint, "--method", "word", "--vectors", "2", "--start", "woman") == 0
    assert "write embedding:anna in a prompt" in capsys.readouterr().out
    vectors = load_file(out / "anna.safetensors")["emb_params"]
    start = load_tunable(str(checkpoint)).vectors_of("woman")
    assert vectors.shape == (2, CONTEXT) and len(start) == 1
    assert 0 < (vectors - start).abs().max() < 0.1
    long = command(photo, tmp_path / "b", checkpoint, "--method", "word", "--caption", "red " * 80 + "{}")
    assert long == 1 and "expected at most 75" in capsys.readouterr().err


@pytest.mark.parametrize("text", [False, True])
def test_whole_weights_of_a_checkpoint(photo, checkpoint, tmp_path, text):
    assert command(photo, tmp_path / "anna", checkpoint, "--method", "whole", *["--text"] * text) == 0
    before, after = load_file(checkpoint), load_file(tmp_path / "anna" / "anna.safetensors")
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"model", *["cond_stage_model"] * text}
    load_tunable(str(tmp_path / "anna" / "anna.safetensors"))


def test_a_word_reaches_clip_at_its_place(checkpoint):
    base = load_tunable(str(checkpoint))
    tokens = base.tokenize("a photo of {}, outdoors", "", 1)[None]
    word = base.vectors_of("cat")
    plain = base.tokenize("a photo of {}, outdoors", "cat", 0)[None]
    assert torch.equal((tokens < 0).nonzero(), torch.tensor([[0, 4]]))
    with torch.no_grad():
        assert torch.equal(base.encode_text(tokens, word), base.encode_text(plain, None))


def test_wrong_files_are_reported(photo, checkpoint, tmp_path, capsys):
    assert main([str(tmp_path / "no.png"), str(tmp_path / "a"), "--method", "lora", "--base", str(checkpoint)]) == 1
    assert main([str(photo), str(tmp_path / "a"), "--method", "lora", "--base", str(photo)]) == 1
    assert main([str(photo), str(tmp_path / "a"), "--method", "lora", "--base", "miniature", "--steps", "0"]) == 1
    lines = capsys.readouterr().err
    assert "no.png" in lines and "not a checkpoint" in lines and "Expected steps of at least 1" in lines
