"""Runs with a fake ComfyUI that dies, hangs and refuses: nothing is lost or made twice, and every failure has its reason."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from capface.errors import BadInput
from capface.iphc.command import main
from capface.iphc.ledger import FAILED, MADE, Ledger
from capface.iphc.progress import Progress, duration
from capface.iphc.run import Run, RunOptions, alone, run_here
from capface.iphc.units import units_of
from capface.tests.iphc.conftest import SECONDS, alive, hurry_clock, until
from capface.tools.comfy import PromptRejected

QUIET = RunOptions(show=False)


def rows_of(manifest, out):
    ledger = Ledger(out)
    return [row for unit in units_of(manifest) for row in ledger.rows(unit)]


def run(manifest, out, fake, options=QUIET):
    return run_here(Run(manifest, out, options), fake)


def test_every_image_is_made_once(bench, fake, fake_log):
    manifest = bench.manifest()
    outcome = run(manifest, bench.out, fake)
    assert (outcome.status, outcome.made, outcome.failed) == (0, 16, 0)
    rows = rows_of(manifest, bench.out)
    assert len({row.pixels for row in rows}) == len(rows) == 16
    assert Counter(fake_log("image")) == Counter(
        f"image {job.seed} {manifest.prompts[job.prompt].replace('{subject}', 'person')}"
        for u in units_of(manifest)
        for job in u.jobs
    )
    assert len(fake_log("start")) == 1
    assert len(fake_log("upload")) == 2, "a person is read once"
    assert all(row.environment in json.loads((bench.out / "environment.json").read_text()) for row in rows)
    progress = json.loads((bench.out / "progress.json").read_text())
    assert (progress["state"], progress["done"], progress["images"], progress["failed"]) == ("finished", 16, 16, 0)


def test_the_same_command_makes_nothing_again(bench, fake, fake_log):
    manifest = bench.manifest()
    run(manifest, bench.out, fake)
    before = fake_log()
    assert run(manifest, bench.out, fake).status == 0
    assert fake_log() == before, "not even ComfyUI is started"
    bench.content["prompts"].append("a {subject} on a horse")
    run(bench.manifest(), bench.out, fake)
    assert len(fake_log("image")) == 16 + 8


def test_a_killed_comfyui_costs_one_image(bench, fake, fake_log):
    manifest = bench.manifest(prompts=["a {subject} [die once]", "another"])
    assert run(manifest, bench.out, fake).status == 0
    assert (len(fake_log("start")), len(fake_log("image"))) == (2, 16)
    assert [row.tries for row in rows_of(manifest, bench.out)] == [2] + [1] * 15


def test_a_hanging_comfyui_is_killed(bench, fake, fake_log, monkeypatch):
    def started():
        return [int(line.split()[1]) for line in fake_log("start")]

    manifest = bench.manifest(prompts=["a {subject} [hang once]"])
    hurry_clock(monkeypatch, lambda: bool(fake_log("hang")) and len(started()) == 1 and alive(*started()))
    assert run(manifest, bench.out, fake).status == 0
    assert (len(fake_log("start")), len(fake_log("image"))) == (2, 8)
    assert not any(alive(pid) for pid in started())


def test_refused_and_failed_prompts_are_rows_with_the_hosts_words(bench, fake, fake_log):
    manifest = bench.manifest(prompts=["a [refuse]", "a [raise]", "fine", "a [part]"])
    outcome = run(manifest, bench.out, fake)
    assert (outcome.status, outcome.made, outcome.failed) == (3, 8, 24)
    reasons = Counter((row.prompt, row.status, row.reason) for row in rows_of(manifest, bench.out))
    assert reasons == {
        (0, FAILED, "ComfyUI refused the prompt: refused on demand"): 8,
        (1, FAILED, "KSampler: raised on demand"): 8,
        (2, MADE, ""): 8,
        (3, FAILED, "ComfyUI refused the prompt: some outputs are invalid\n  node 3 (EditHead): invalid on demand: yaw"): 8,
    }
    assert len(fake_log("start")) == 1
    failures = [json.loads(line) for line in (bench.out / "failures.jsonl").read_text().splitlines()]
    assert Counter(one["prompt"] for one in failures) == {0: 8, 1: 8, 3: 8}
    assert run(manifest, bench.out, fake).failed == 24, "failures are not tried again"
    assert len(fake_log("start")) == 1
    again = run(manifest, bench.out, fake, replace(QUIET, retry=True))
    assert (again.failed, len(fake_log("image"))) == (24, 8), "only the units with failures are"


def test_a_poisoned_unit_ends_as_failed_rows(bench, fake, fake_log):
    manifest = bench.manifest(prompts=["a [die]", "fine"], people={"photos": "photos", "count": 1})
    outcome = run(manifest, bench.out, fake)
    assert (outcome.status, outcome.made, outcome.failed) == (3, 4, 4)
    rows = rows_of(manifest, bench.out)
    assert [row.tries for row in rows[:4]] == [3, 3, 1, 1]
    assert rows[0].reason.startswith("ComfyUI was lost 3 times with this image. ComfyUI ended by itself with status 9")
    assert rows[2].reason.startswith("not tried: ComfyUI was lost 3 times in each of 2 images")
    assert len(fake_log("die")) == 6
    assert all(row.status == MADE for row in rows[4:])


def test_a_comfyui_that_does_not_start_stops_the_run_with_its_log(bench, fake, tmp_path):
    (tmp_path / "fake" / "no-start").touch()
    manifest = bench.manifest()
    outcome = run(manifest, bench.out, fake)
    assert outcome.status == 1
    assert "did not start 2 times" in outcome.stopped and "no start on demand" in outcome.stopped
    assert not list(bench.out.rglob("*.parquet"))
    (tmp_path / "fake" / "no-start").unlink()
    assert run(manifest, bench.out, fake).status == 0


def test_a_full_disk_stops_the_run_and_keeps_what_is_whole(bench, fake, tiny_disk):
    manifest = bench.manifest()
    (ballast := tiny_disk / "ballast").write_bytes(bytes(28_000))
    outcome = run(manifest, tiny_disk / "out", fake)
    assert outcome.status == 1
    assert "is full" in outcome.stopped and "units are whole and kept. The same command continues." in outcome.stopped
    whole = [u for u in units_of(manifest) if Ledger(tiny_disk / "out").path_of(u).exists()]
    assert 0 < len(whole) < 4
    assert not list(tiny_disk.rglob("*.part"))
    ballast.unlink()
    assert run(manifest, tiny_disk / "out", fake).made == 16


def test_comfyuis_own_full_disk_stops_the_run_instead_of_failing_every_image(bench, fake):
    outcome = run(bench.manifest(prompts=["a [full]"]), bench.out, fake)
    assert outcome.status == 1 and "is full: [Errno 28]" in outcome.stopped
    assert not list(bench.out.rglob("*.parquet"))


def test_half_written_files_are_made_again(bench, fake, fake_log):
    manifest = bench.manifest()
    run(manifest, bench.out, fake)
    paths = [Ledger(bench.out).path_of(unit) for unit in units_of(manifest)]
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    (part := paths[1].with_name(f"capface-{'1' * 32}.part")).write_bytes(b"PAR1")
    before = len(fake_log("image"))
    assert run(manifest, bench.out, fake).made == 16
    assert len(fake_log("image")) - before == 4
    assert not part.exists()


def test_units_of_another_manifest_are_not_mixed_in(bench, fake, fake_log):
    run(bench.manifest(), bench.out, fake)
    other = bench.manifest(seed=6)
    with pytest.raises(BadInput, match=r"4 units in .* were made from another manifest, such as one/ann/000"):
        Run(other, bench.out, QUIET)
    assert run(other, bench.out, fake, replace(QUIET, remake=True)).made == 16
    assert len(fake_log("image")) == 32


def test_another_device_is_not_mixed_in(bench, fake, monkeypatch):
    run(bench.manifest(), bench.out, fake)
    bench.content["prompts"].append("more")
    monkeypatch.setenv("FAKE_DEVICE", "another")
    outcome = run(bench.manifest(), bench.out, fake)
    assert outcome.status == 1 and "device: ['fake'] before, ['another'] now" in outcome.stopped
    mixed = run(bench.manifest(), bench.out, fake, replace(QUIET, mixed=True))
    assert mixed.status == 0
    rows = rows_of(bench.manifest(), bench.out)
    assert Counter(row.environment for row in rows).most_common()[0][1] == 16
    assert len(json.loads((bench.out / "environment.json").read_text())) == 2


def test_a_method_may_be_a_folder_of_images(bench, fake):
    folder = bench.folder / "theirs" / "ann"
    folder.mkdir(parents=True)
    for prompt in (0, 1):
        for head in ("left", "right"):
            Image.new("RGB", (8, 8), (100 * prompt, 50, 0)).save(folder / f"{prompt}-{head}-0.png")
    manifest = bench.manifest(methods={"theirs": {"images": "theirs/{person}/{prompt}-{head}-{image}.png"}})
    outcome = run(manifest, bench.out, None)
    assert (outcome.made, outcome.failed) == (4, 12)
    assert "bob" in outcome.failures[-1].reason and "No such file" in outcome.failures[-1].reason


def test_images_need_not_be_kept(bench, fake):
    manifest = bench.manifest()
    run(manifest, bench.out, fake, replace(QUIET, keep=False))
    rows = rows_of(manifest, bench.out)
    assert all(row.file is None and row.pixels and row.bytes > 0 for row in rows)


def test_an_unknown_method_is_refused(bench):
    with pytest.raises(BadInput, match=r"no method 'three'\. There are: one"):
        Run(bench.manifest(), bench.out, RunOptions(only=("three",)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_a_killed_driver_takes_comfyui_along_and_the_same_command_resumes(bench, fake, fake_log, tmp_path):
    manifest = bench.manifest(prompts=["a", "b", "c [gate]"])
    command = [sys.executable, "-m", "capface.iphc.command", "run", str(bench.file), str(bench.out)]
    command += ["--comfyui", fake.comfyui, "--cpu"]
    environment = dict(os.environ, PYTHONSAFEPATH="1")
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    until(lambda: fake_log("gate"), "the first image of the third unit")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (host,) = (int(line.split()[1]) for line in fake_log("start"))
    until(lambda: not alive(host), "the end of the killed driver's ComfyUI")
    assert len(list(bench.out.rglob("*.parquet"))) == 2
    made = len(fake_log("image"))
    (tmp_path / "fake" / "open").touch()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode == 0
    assert len(fake_log("image")) - made == 24 - 2 * 4
    rows = rows_of(manifest, bench.out)
    assert len(rows) == len({(row.person, row.prompt, row.head, row.image) for row in rows}) == 24
    assert all(row.status == MADE for row in rows)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_a_terminated_run_stops_cleanly(bench, fake, fake_log):
    bench.manifest(prompts=["a", "b [gate]"])
    command = [sys.executable, "-m", "capface.iphc.command", "run", str(bench.file), str(bench.out)]
    driver = subprocess.Popen(
        [*command, "--comfyui", fake.comfyui, "--cpu"], stderr=subprocess.PIPE, env=dict(os.environ, PYTHONSAFEPATH="1")
    )
    until(lambda: fake_log("gate"), "the first image of the second unit")
    driver.terminate()
    _, errors = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 1 and b"stopped: Interrupted." in errors
    progress = json.loads((bench.out / "progress.json").read_text())
    assert len(list(bench.out.rglob("*.parquet"))) == 1
    assert (progress["state"], progress["done"]) == ("stopped", 4), "images of the unit in hand are not counted"
    assert not any(alive(int(line.split()[1])) for line in fake_log("start"))


def test_two_runs_do_not_write_to_one_folder(bench, capsys):
    bench.manifest(methods={"theirs": {"images": "photos/{person}.png"}})
    with alone(bench.out):
        other = subprocess.run(
            [sys.executable, "-m", "capface.iphc.command", "run", str(bench.file), str(bench.out)],
            capture_output=True, text=True, env=dict(os.environ, PYTHONSAFEPATH="1"),
        )  # fmt: skip
        assert (other.returncode, "Another run writes to" in other.stderr) == (2, True)
    assert main(["run", str(bench.file), str(bench.out)]) == 0
    assert "16 images made, 0 failed" in capsys.readouterr().out


def test_progress_tells_the_rate_and_the_time_left(tmp_path, capsys):
    now = [0.0]
    progress = Progress(tmp_path / "progress.json", 1000, 100, 2, lambda: now[0])
    for _ in range(60):
        now[0] += 0.5
        progress.count(1, 0, "one/ann/000")
    assert progress.rate == pytest.approx(2)
    assert progress.seconds_left == pytest.approx(420)
    assert capsys.readouterr().out.splitlines()[-1] == "160/1000 images  2 failed  2.00/s  7 min left  one/ann/000"
    content = json.loads((tmp_path / "progress.json").read_text())
    assert content["done"] == 160 and content["images_per_second"] == pytest.approx(2)
    now[0] += 200
    assert progress.rate < 0.5, "a standstill shows"


def test_durations_are_readable():
    assert [duration(s) for s in (5, 89, 600, 7260, 200_000)] == ["5 s", "89 s", "10 min", "2 h 1 min", "2 d 7 h"]


def test_a_refusal_survives_pickling():
    """Otherwise it would end a process that gets it from another one."""
    errors = [{"message": "too far", "details": "yaw"}]
    refused = PromptRejected(
        {"error": {"message": "invalid"}, "node_errors": {"3": {"class_type": "EditHead", "errors": errors}}}
    )
    again = pickle.loads(pickle.dumps(refused))
    assert (str(again), again.node_errors) == (str(refused), refused.node_errors)
    assert str(again) == "invalid\n  node 3 (EditHead): too far: yaw"
