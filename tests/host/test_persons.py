"""Files of the command `person` in the host: its own loaders give the predictions of the plain loop."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from capface.errors import BadInput
from capface.miniature.networks import load_miniature
from capface.tests.synthetic import fill, relative_error
from capface.tests.training.base_files import autoencoder_shapes
from capface.training.export import write_tensors
from capface.training.loop import LoopSettings
from capface.training.persons.adaptation import METHODS
from capface.training.persons.plain import NAME, with_person
from capface.training.persons.train import PersonSettings, main, train_person
from capface.training.persons.tunable import TunableCheckpoint, TunableMiniature

for package in ("accelerate", "diffusers", "transformers", "tensorboard"):
    pytest.importorskip(package)

PROMPT = "beach, red shirt"
FULL_AUTOENCODER = {"ch": 128, "ch_mult": (1, 2, 4, 4), "num_res_blocks": 2}
"""Stable Diffusion 1.x's, whose sizes ComfyUI does not read from the file."""


@pytest.fixture(scope="module", autouse=True)
def isolated():
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def models(in_host, tmp_path_factory):
    """A folder whose subfolders ComfyUI searches."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("loras", "embeddings", "checkpoints"):
        (folder / name).mkdir()
        in_host.folder_paths.add_model_folder_path(name, str(folder / name))
    return folder


@torch.inference_mode()
def prediction(model, x, t, conditioning):
    """The noise that a MODEL predicts."""
    import comfy.model_management as mm

    mm.load_models_gpu([model])
    device = model.load_device
    text = conditioning[0][0].to(device, torch.float32)
    return model.model.diffusion_model(x.to(device), t.to(device), context=text.expand(len(x), -1, -1)).cpu()


@pytest.mark.parametrize("method", METHODS)
def test_a_person_of_the_miniature(in_host, models, method, tmp_path):
    from capface.nodes.load_miniature import LoadMiniature

    base = TunableMiniature()
    settings = PersonSettings(method, (f"{{}}, {PROMPT}",), rank=4, vectors=2, batch=2)
    loop = LoopSettings(steps=3, learning_rate=1e-2, warmup=0, average=0.5, sample_every=0)
    picture = torch.linspace(-1, 1, 3 * 128 * 128).view(1, 3, 128, 128)
    adaptation = train_person(base, picture, settings, loop, tmp_path / "run", cpu=True)
    name = f"{method}-of-anna"
    folder = models / ("embeddings" if method == "word" else "loras")
    write_tensors(folder / f"{name}.safetensors", adaptation.file(base), about={})

    plain = with_person(load_miniature(), load_file(folder / f"{name}.safetensors"))
    x, t = torch.randn(2, 8, 16, 16), torch.tensor([10.0, 700.0])
    subject = {"word": f"embedding:{NAME}, "}.get(method, "")
    with torch.no_grad():
        text = plain.text_encoder(plain.text_encoder.tokenize([subject + PROMPT]))
        expected = plain.denoiser(x, t, text.expand(2, -1, -1))

    model, clip, *_ = LoadMiniature.execute().result
    if method != "word":
        (model,) = in_host.nodes.LoraLoaderModelOnly().load_lora_model_only(model, f"{name}.safetensors", 1.0)
    encode = in_host.nodes.CLIPTextEncode().encode
    (found,) = encode(clip, subject.replace(NAME, name) + PROMPT)
    assert relative_error(found[0][0], text) < 1e-6
    error = relative_error(prediction(model, x, t, found), expected)
    print(f"{method}: relative error {error:.1e}")
    assert error < 1e-6
    before, clip_before, *_ = LoadMiniature.execute().result
    assert relative_error(prediction(before, x, t, encode(clip_before, PROMPT)[0]), expected) > 1e-3


def test_words_that_are_missing_or_of_another_base(in_host, models, caplog):
    from capface.nodes.load_miniature import LoadMiniature

    clip = LoadMiniature.execute().result[1]
    encode = in_host.nodes.CLIPTextEncode().encode
    with caplog.at_level("WARNING", "capface"):
        (found,) = encode(clip, f"embedding:nobody, {PROMPT}")
    assert "no embedding nobody" in caplog.text
    assert torch.equal(found[0][0], encode(clip, f", {PROMPT}")[0][0][0])
    save_file({"emb_params": torch.zeros(1, 768)}, models / "embeddings" / "other.safetensors")
    with pytest.raises(BadInput, match=r"vectors of 768 numbers, but the miniature's words have 96"):
        encode(clip, "embedding:other")


@pytest.fixture(scope="module")
def checkpoint(standins, models):
    """The stand-in checkpoint with Stable Diffusion 1.x's autoencoder, in half precision."""
    path = min((standins / "checkpoints").glob("*.safetensors"))
    tensors = {k: t for k, t in load_file(path).items() if not k.startswith("first_stage_model.")}
    shapes = autoencoder_shapes(FULL_AUTOENCODER)
    tensors |= {f"first_stage_model.{k}": fill(k, s).half() for k, s in shapes.items()}
    save_file(tensors, models / "checkpoints" / "base.safetensors")
    return models / "checkpoints" / "base.safetensors"


@pytest.mark.parametrize("method", METHODS)
def test_a_person_of_a_checkpoint(in_host, models, checkpoint, method, tmp_path):
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(photo)
    out = tmp_path / f"{method}-anna"
    more = ["--text"] if method == "lora" else []
    quick = [
        "--size",
        "64",
        "--steps",
        "2",
        "--batch",
        "1",
        "--cpu",
        "--learning-rate",
        "1e-2",
        "--rank",
        "2",
        "--average",
        "0",
    ]
    assert main([str(photo), str(out), "--base", str(checkpoint), "--method", method, *quick, *more]) == 0
    kind = {"lora": "loras", "word": "embeddings", "whole": "checkpoints"}[method]
    (out / f"{out.name}.safetensors").rename(models / kind / f"{out.name}.safetensors")

    name = f"{out.name}.safetensors"
    load = in_host.nodes.CheckpointLoaderSimple().load_checkpoint
    model, clip, _ = load(name if method == "whole" else checkpoint.name)[:3]
    if method == "lora":
        model, clip = in_host.nodes.LoraLoader().load_lora(model, clip, name, 1.0, 1.0)
    prompt = f"a photo of embedding:{out.name} at home" if method == "word" else "a photo of sks person at home"
    (found,) = in_host.nodes.CLIPTextEncode().encode(clip, prompt)

    whole = TunableCheckpoint(models / "checkpoints" / name if method == "whole" else checkpoint)
    layers = {**whole.layers(), **whole.text_layers()} if method == "lora" else {}
    tensors = load_file(models / kind / name)
    for key, layer in layers.items():
        with torch.no_grad():
            layer.weight += tensors[f"{key}.lora_up.weight"] @ tensors[f"{key}.lora_down.weight"]
    vectors = tensors["emb_params"] if method == "word" else None
    tokens = whole.tokenize("a photo of {} at home", "sks person", 0 if vectors is None else 1)[None]
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([300.0])
    with torch.no_grad():
        text = whole.encode_text(tokens, vectors)
        expected = whole.denoiser(x, t, found[0][0].float())
    errors = relative_error(found[0][0], text), relative_error(prediction(model, x, t, found), expected)
    print(f"{method}: relative error of the text {errors[0]:.1e}, of the prediction {errors[1]:.1e}")
    assert errors[0] < 5e-3 and errors[1] < 1e-4  # ComfyUI keeps the text encoder in half precision on a CPU
