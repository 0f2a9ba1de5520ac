"""The plan: what the paper's shape takes, from measured seconds."""

import shutil
from dataclasses import replace
from statistics import mean, median

import pytest

from capface.errors import BadInput
from capface.iphc.command import main
from capface.iphc.manifest import find_manifest, read_manifest
from capface.iphc.plan import Costs, bytes_needed, measured, networks, plan_text
from capface.iphc.run import Run, RunOptions, run_here
from capface.tests.iphc.test_manifest import celeba
from capface.tests.iphc.test_run import rows_of


@pytest.fixture
def paper(tmp_path, monkeypatch):
    celeba(tmp_path, people=120, photos=2)
    monkeypatch.setenv("CELEBA", str(tmp_path))
    return read_manifest(find_manifest("paper"))


def test_the_plan_multiplies_images_by_seconds(paper):
    text = plan_text(paper, [Costs("two seconds", lambda method: 2.0, 400_000)], 3.0)
    assert "105,000 images of a method; 630,000 of 6 methods" in text
    assert "not counted below: training 100 people for each of Textual inversion, LoRA, DreamBooth" in text
    (line,) = (line.split("  ") for line in text.splitlines() if line.startswith("all"))
    assert [cell.strip() for cell in line if cell.strip()] == ["all", "630,000", "350.0", "252.0", "14 d 14 h", "43 h 45 min"]
    assert "cost: 1,050.00 at 3 a GPU hour" in text


def test_the_measured_devices_tell_methods_apart(paper):
    assert [networks(method) for method in paper.methods] == [1, 1, 1, 1, 1, 2]
    for cost in measured(None, None):
        *single, starred = (cost.seconds(method) for method in paper.methods)
        assert len(set(single)) == 1 and single[0] < starred
    assert {cost.source.split(",")[0] for cost in measured(None, None)} == {"NVIDIA H100 80GB HBM3", "NVIDIA H200"}
    text = plan_text(paper, measured(None, None), None)
    assert "give --price" in text and "NOT THESE IMAGES" not in text
    other = replace(paper, resolved=paper.resolved | {"size": [1016, 1016]})
    assert plan_text(other, measured(None, None), None).count("NOT THESE IMAGES") == 2
    assert "NOT THESE IMAGES" not in plan_text(other, measured(None, 3.0), None)


def test_seconds_can_come_from_a_run(bench, fake):
    manifest = bench.manifest()
    with pytest.raises(BadInput, match="has no images"):
        measured(bench.out, None)
    run_here(Run(manifest, bench.out, RunOptions(show=False)), fake)
    (cost,) = measured(bench.out, None)
    rows = rows_of(manifest, bench.out)
    assert cost.seconds(manifest.methods[0]) == pytest.approx(median(row.seconds for row in rows))
    assert cost.bytes == pytest.approx(mean(row.bytes for row in rows))
    assert cost.seconds(replace(manifest.methods[0], name="another")) == cost.seconds(manifest.methods[0])
    assert cost.source.startswith("medians of 16 images in")


def test_the_commands_exit_status_tells_mistakes(bench, capsys):
    bench.manifest()
    assert main(["check", str(bench.file)]) == 0
    assert "2 people x 2 prompts x 2 heads x 2 = 16 images of each of 1 methods, in 4 units" in capsys.readouterr().out
    assert main(["plan", str(bench.file), "--seconds", "3600"]) == 0
    assert "16.0" in capsys.readouterr().out
    bench.write("manifest.json", bench.content | {"images": 0})
    assert main(["check", str(bench.file)]) == 2
    assert "images: expected 1 or more" in capsys.readouterr().err
    assert main(["check", "no-such-manifest"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_disk_that_may_be_too_small_is_named_before_the_run(bench, capsys, monkeypatch):
    manifest = bench.manifest(methods={"theirs": {"images": "photos/{person}.png"}}, size=[1024, 512])
    assert bytes_needed(manifest, 16) == pytest.approx(16 * 2 * 424_339)
    free = shutil.disk_usage(bench.folder)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert main(["run", str(bench.file), str(bench.out)]) == 0
    assert "The images may need" in capsys.readouterr().out
    bench.out.rename(bench.folder / "elsewhere")
    assert main(["run", str(bench.file), str(bench.out), "--keep", "none"]) == 0
    assert "may need" not in capsys.readouterr().out
