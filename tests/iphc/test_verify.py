"""`verify`: what it finds in a run's files, and images that come out otherwise the second time."""

from dataclasses import replace

import pytest

from capface.iphc.comfy_host import RunStopped
from capface.iphc.command import main
from capface.iphc.ledger import Ledger
from capface.iphc.run import Run, RunOptions, environments, run_here
from capface.iphc.units import fingerprint, units_of
from capface.iphc.verify import inspect, remake


@pytest.fixture
def made(bench, fake):
    """A finished run: its manifest, its ledger and its units."""
    manifest = bench.manifest()
    assert run_here(Run(manifest, bench.out, RunOptions(show=False)), fake).status == 0
    return manifest, Ledger(bench.out), list(units_of(manifest))


def test_a_finished_run_is_in_order_and_comes_out_the_same_again(bench, made, fake, fake_log):
    manifest, _, _ = made
    verdict, images = inspect(manifest, bench.out)
    assert (verdict.whole, verdict.images, verdict.failed, verdict.problems) == (4, 16, 0, [])
    assert remake(manifest, images, 5, 0, fake, next(iter(environments(bench.out).values()))) == []
    assert len(fake_log("image")) == 16 + 5


def test_every_kind_of_damage_is_found(bench, made):
    manifest, ledger, units = made
    ledger.path_of(units[0]).unlink()
    ledger.path_of(units[1]).write_bytes(b"PAR1")
    rows = ledger.rows(units[2])
    rows[0] = replace(rows[0], pixels="0" * 64)
    rows[1] = replace(rows[1], seed=1)
    rows[2] = replace(rows[2], status="failed", file=None)
    ledger.write(units[2], fingerprint(manifest, units[2]), rows)
    ledger.write(units[3], "another mark", ledger.rows(units[3]))
    (ledger.folder / "stranger.parquet").touch()
    verdict, images = inspect(manifest, bench.out)
    found = "\n".join(verdict.problems)
    for text in (
        f"{units[0].name}: absent", f"{units[1].name}: broken", "image 0: the image does not have the pixels",
        "image 1: the row is that of another image", "head right, image 0: failed without a reason",
        f"{units[3].name}: other, made from another manifest", "stranger.parquet: belongs to no unit",
    ):  # fmt: skip
        assert text in found
    assert len(verdict.problems) == 7 and "7 problems" in verdict.text
    assert len(images) == 1


def test_images_that_come_out_otherwise_are_named(bench, made, fake):
    manifest, _, _ = made
    _, images = inspect(manifest, bench.out)
    unit, job, _ = images[0]
    assert remake(manifest, [(unit, job, "0" * 64)], 1, 0, fake) == [
        f"{unit.name}, prompt 0, head left, image 0: made again: other pixels"
    ]


def test_another_device_is_not_taken_for_another_image(bench, made, fake, monkeypatch):
    manifest, _, _ = made
    monkeypatch.setenv("FAKE_DEVICE", "another")
    with pytest.raises(RunStopped, match="another device"):
        remake(manifest, inspect(manifest, bench.out)[1], 1, 0, fake, next(iter(environments(bench.out).values())))


def test_the_commands_exit_status(bench, made, fake, capsys):
    _, ledger, units = made
    command = ["verify", str(bench.file), str(bench.out), "--comfyui", fake.comfyui, "--cpu", "--sample", "2"]
    assert main(command) == 0
    assert "2 images made again\neverything is in order" in capsys.readouterr().out
    ledger.path_of(units[0]).unlink()
    assert main([*command[:-1], "0"]) == 1
    assert "1 problems" in capsys.readouterr().out
