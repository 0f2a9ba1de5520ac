"""The training loop: it lowers the loss, does not change the base, and resumes bit-exactly."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from accelerate import PartialState

from capface.errors import BadInput
from capface.tests.training.small_training import Samples, objective
from capface.training.batch import TrainingBatch
from capface.training.loop import LoopSettings, train

QUICK = LoopSettings(steps=4, learning_rate=1e-3, warmup=3, average=0.9, save_every=2, log_every=2, sample_every=0)
LOSS = {"identity_dropout": 0.3, "tau": "drawn", "text_dropout": 0.2}


def state_of(folder):
    return torch.load(max(folder.glob("state-*.pt")), weights_only=True)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def mean_errors(made, samples, batches=8):
    """Means of the noise and mask terms over many batches with fixed random numbers."""
    outs = []
    with torch.no_grad():
        for i in range(batches):
            outs.append(made(samples.all, torch.Generator().manual_seed(i)))
    return [torch.stack([out[k] for out in outs]).mean().item() for k in ("noise", "mask")]


def test_overfitting_lowers_both_terms_and_leaves_the_base_alone(tmp_path):
    made, samples = objective(), Samples(count=2, batch=4)
    base = {k: v.clone() for k, v in made.base.state_dict().items()}
    noise, mask = mean_errors(made, samples)
    train(made, samples, dataclasses.replace(QUICK, steps=80, learning_rate=3e-3, save_every=80), tmp_path, cpu=True)
    noise_after, mask_after = mean_errors(made, samples)
    print(f"noise {noise:.4f} -> {noise_after:.4f}, mask {mask:.4f} -> {mask_after:.4f}")
    assert noise_after < 0.92 * noise
    assert mask_after < 0.2 * mask
    assert equal(dict(made.base.state_dict()), base)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(objective(**LOSS), Samples(), QUICK, folder, cpu=True)
    return folder


def test_a_run_in_two_parts_equals_one_that_was_not_stopped(whole, tmp_path):
    train(objective(**LOSS), Samples(), dataclasses.replace(QUICK, steps=2), tmp_path, cpu=True)
    assert state_of(tmp_path)["step"] == 2
    train(objective(**LOSS), Samples(), QUICK, tmp_path, cpu=True)
    assert equal(state_of(whole), state_of(tmp_path))
    assert not equal(state_of(whole)["trained"], dict(objective().trained.state_dict()))


def test_parts_are_equal_with_accumulation_in_bfloat16(tmp_path):
    settings = dataclasses.replace(QUICK, steps=2, accumulate=2, precision="bf16")
    train(objective(**LOSS), Samples(), settings, tmp_path / "whole", cpu=True)
    for steps in (1, 2):
        train(objective(**LOSS), Samples(), dataclasses.replace(settings, steps=steps), tmp_path / "parts", cpu=True)
    assert equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


class Deadly(Samples):
    """Sends this process a signal before the fourth batch."""

    def __init__(self, signal):
        super().__init__()
        self.signal = signal

    def batches(self, start: int, rank: int, world: int) -> Iterator[TrainingBatch]:
        for number, batch in enumerate(super().batches(start, rank, world), start):
            if number == 3:
                os.kill(os.getpid(), self.signal)
            yield batch


SCRIPT = """
from pathlib import Path
import signal
from capface.tests.training.test_loop import LOSS, QUICK, Deadly, objective, train
train(objective(**LOSS), Deadly(signal.SIGKILL), QUICK, Path({folder!r}), cpu=True)
"""


def start(code, folder, *launcher):
    """Run a script in its own process and return its exit status."""
    script = folder / "script.py"
    script.write_text(code)
    environ = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.run([sys.executable, *launcher, script], env=environ, timeout=300).returncode


def test_a_killed_run_resumes_from_its_last_state(whole, tmp_path):
    parts = tmp_path / "parts"
    assert start(SCRIPT.format(folder=str(parts)), tmp_path) == -signal.SIGKILL
    assert state_of(parts)["step"] == 2
    train(objective(**LOSS), Samples(), QUICK, parts, cpu=True)
    assert equal(state_of(whole), state_of(parts))


def test_a_terminated_run_finishes_its_step_and_saves(whole, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(objective(**LOSS), Deadly(signal.SIGTERM), dataclasses.replace(QUICK, save_every=9), tmp_path, cpu=True)
    assert state_of(tmp_path)["step"] == 4
    assert signal.getsignal(signal.SIGTERM) == before
    assert equal(state_of(whole)["trained"], state_of(tmp_path)["trained"])


def test_other_settings_do_not_resume(tmp_path):
    train(objective(), Samples(), dataclasses.replace(QUICK, steps=1), tmp_path, cpu=True, about={"data": "a"})
    with pytest.raises(BadInput, match=r"learning_rate was 0\.001, is 0\.1"):
        train(objective(), Samples(), dataclasses.replace(QUICK, learning_rate=0.1), tmp_path, cpu=True, about={"data": "a"})
    with pytest.raises(BadInput, match="data was 'a', is 'b'"):
        train(objective(), Samples(), QUICK, tmp_path, cpu=True, about={"data": "b"})


def test_a_time_limit_ends_the_run_with_a_state(tmp_path):
    train(objective(), Samples(), dataclasses.replace(QUICK, minutes=0.0), tmp_path, cpu=True)
    assert state_of(tmp_path)["step"] == 1


def test_a_nan_loss_is_not_saved(tmp_path):
    samples = Samples()
    samples.all.latents[:] = float("nan")
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        train(objective(), samples, QUICK, tmp_path, cpu=True)
    assert not list(tmp_path.glob("state-*"))


def test_averaged_weights_follow_their_formula(tmp_path):
    """After one step the average is (9 · start + step's weights) / 10, since min(average, (1 + 0) / (10 + 0)) = 1/10 stays."""
    made = objective()
    start = {k: v.clone() for k, v in made.trained.state_dict().items()}
    averaged = train(made, Samples(), dataclasses.replace(QUICK, steps=1), tmp_path, cpu=True).state_dict()
    for key, value in made.trained.state_dict().items():
        assert torch.allclose(averaged[key], 0.1 * start[key] + 0.9 * value, atol=1e-6)


def test_logs_and_exports(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    exported = []
    settings = dataclasses.replace(QUICK, sample_every=3)
    train(
        objective(), Samples(), settings, tmp_path, cpu=True,
        export=lambda averaged, step: exported.append(step),
        preview=lambda averaged: torch.full((3, 8, 16), 0.5),
    )  # fmt: skip
    assert exported == [2, 4]
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["00000003.png", "00000004.png"]
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"loss/loss", "loss/noise", "loss/mask", "learning rate", "images per second"} <= scalars
    assert {s for s in scalars if s.startswith("error by timestep/")} <= {
        f"error by timestep/{t:03d}-{t + 99:03d}" for t in range(0, 1000, 100)
    }
    assert [e.step for e in events.Scalars("loss/noise")] == [2, 4]
    rates = {e.step: e.value for e in events.Scalars("learning rate")}
    assert rates == pytest.approx({2: 1e-3 * 2 / 3, 4: 1e-3})
    assert "4/4" in capsys.readouterr().out


TWO = """
from pathlib import Path
import dataclasses, os
import torch
from capface.tests.training.test_loop import QUICK, Samples, objective, train
made = objective()
settings = dataclasses.replace(QUICK, steps=1, sample_every=1)
preview = (lambda averaged: torch.zeros(3, 8, 8)) if os.environ["RANK"] == "0" else None
train(made, Samples(), settings, Path({folder!r}), cpu=True, preview=preview)
torch.save(made.trained.state_dict(), Path({folder!r}) / ("rank" + os.environ["RANK"] + ".pt"))
"""


def test_two_processes_train_one_network(tmp_path):
    """Gradients are averaged over the processes' batches: both have equal weights, unlike those of one process."""
    two = tmp_path / "two"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert start(TWO.format(folder=str(two)), tmp_path, *launcher) == 0
    first, second = (dict(torch.load(two / f"rank{i}.pt", weights_only=True)) for i in range(2))
    assert equal(first, second)
    assert state_of(two)["settings"]["processes"] == 2
    assert (two / "samples" / "00000001.png").is_file()
    alone = objective()
    train(alone, Samples(), dataclasses.replace(QUICK, steps=1), tmp_path / "one", cpu=True)
    assert not equal(first, dict(alone.trained.state_dict()))


def test_processes_that_accelerate_does_not_know_are_refused(tmp_path, monkeypatch):
    PartialState(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="2 processes were started"):
        train(objective(), Samples(), QUICK, tmp_path, cpu=True)


def test_the_learning_rate_follows_its_decay(tmp_path, monkeypatch):
    rates = []

    class Noting(torch.optim.AdamW):
        def step(self, *arguments, **keywords):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments, **keywords)

    monkeypatch.setattr(torch.optim, "AdamW", Noting)
    cosine = dataclasses.replace(QUICK, steps=6, warmup=1, decay="cosine", save_every=6)
    train(objective(), Samples(), cosine, tmp_path, cpu=True)
    assert rates[0] == cosine.learning_rate
    assert rates[3] == pytest.approx(0.505 * cosine.learning_rate)
    assert rates == sorted(rates, reverse=True)
    with pytest.raises(BadInput, match="steps was 6, is 7"):
        train(objective(), Samples(), dataclasses.replace(cosine, steps=7), tmp_path, cpu=True)


def test_an_unknown_decay_is_refused():
    with pytest.raises(BadInput, match=r"constant, cosine, got 'linear'"):
        LoopSettings(decay="linear")
