"""Values of Edit Head from photos: what a fitted head shows, and refusals in Fit Head's words."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
import torch
from PIL import Image

from capface.errors import BadInput, MissingFile
from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import edit_head
from capface.tools.comfy import ComfyProcess

VALUES: dict[str, dict[str, Any]] = {
    "Pose": {"yaw": 25.0, "pitch": -10.0, "roll": 5.0, "neck_yaw": 8.0, "neck_pitch": 0.0, "neck_roll": -4.0},
    "Position": {"position_x": 0.3, "position_y": -0.2, "size": 0.7},
    "Gaze": {"gaze_yaw": 12.0, "gaze_pitch": -6.0},
    "Expression": {"smile_left": 0.8, "smile_right": 0.5, "brows_up_left": 0.6, "jaw_side": 4.0},
}
MODES = {"Pose": "pose_mode", "Position": "position_mode", "Expression": "expression_mode"}


@pytest.fixture(scope="module")
def from_photo(in_host):
    """The module under test, which imports the host's."""
    from capface.host.editor import from_photo
    from capface.host.model_folders import register_folders

    register_folders()
    return from_photo


@pytest.mark.parametrize("section", VALUES)
def test_a_head_is_read_as_the_values_that_made_it(from_photo, section):
    model, mode = builtin_head(), MODES.get(section)
    head = edit_head(model, HeadParams.neutral(), **VALUES[section])
    read = from_photo.values_of(model, head, torch.zeros(1, 3, 64, 64), section)
    wanted = VALUES[section] | ({mode: "absolute"} if mode else {})
    for name, value in wanted.items():
        assert read[name] == (value if isinstance(value, str) else pytest.approx(value, abs=0.12)), name
    # Whatever head they are applied to, these values show the read one.
    other = edit_head(model, HeadParams.neutral(), yaw=-30.0, frown=0.5, size=1.4)
    again = edit_head(model, other, **read)
    part = {"Pose": "rotation", "Position": "camera", "Gaze": "eyes", "Expression": "expression"}[section]
    if section != "Gaze":
        read = from_photo.values_of(model, again, torch.zeros(1, 3, 64, 64), section)
        assert all(read[name] == pytest.approx(value, abs=0.15) for name, value in VALUES[section].items()), part


def test_the_light_of_a_photo_is_read(from_photo):
    model = builtin_head()
    lit: dict[str, Any] = {
        "light": "custom",
        "ambient": 0.3,
        "key_azimuth": -45.0,
        "key_elevation": 30.0,
        "key_intensity": 0.8,
        "key_softness": 0.2,
    }
    photo = render_head(model, edit_head(model, HeadParams.neutral(), **lit), 256, 256).lambertian.clamp(0, 1)
    read = from_photo.values_of(model, HeadParams.neutral(), photo, "Light")
    assert read["light"] == "custom" and read["key_azimuth"] == pytest.approx(-45, abs=8)
    assert read["key_elevation"] == pytest.approx(30, abs=8) and read["ambient"] == pytest.approx(0.3, abs=0.12)


def test_the_photo_is_fitted_as_fit_head_does(from_photo, in_host, tmp_path, monkeypatch):
    folder = in_host.folder_paths.get_input_directory()
    Image.new("RGB", (3000, 1500), (90, 80, 70)).save(f"{folder}/wide.png")
    seen = []

    class Fitted:
        params = edit_head(builtin_head(), HeadParams.neutral(), yaw=20.0)

        def summary(self):
            return "1 head by landmarks"

    monkeypatch.setattr(from_photo, "fit_heads", lambda photo, analyzer, model: seen.append(photo) or Fitted())
    values, text = from_photo.read_values("wide.png", "Pose", "built-in")
    assert values["yaw"] == pytest.approx(20, abs=0.01) and text == "1 head by landmarks"
    assert seen[0].shape == (1, 3, 768, 1536)
    for name in ("../wide.png", "wide.json", "/etc/passwd", "wide.png [output]"):
        with pytest.raises(BadInput, match="within the input"):
            from_photo.read_values(name, "Pose", "built-in")
    with pytest.raises(MissingFile, match=r"nobody\.png"):
        from_photo.read_values("nobody.png [temp]", "Pose", "built-in")
    monkeypatch.setattr(from_photo.user_files, "LARGEST_PICTURE", 1000)
    with pytest.raises(BadInput, match=r"Expected a photo of at most 0 MB, got \d+ MB"):
        from_photo.read_values("wide.png", "Pose", "built-in")


def test_the_route_refuses_what_is_malformed_and_answers_with_fit_heads_errors(comfyui):
    with ComfyProcess(comfyui) as process:
        Image.new("RGB", (64, 64), (90, 80, 70)).save(process.base / "input" / "grey.png")

        def ask(**fields):
            body = json.dumps({"view": "test", **fields}).encode()
            request = urllib.request.Request(f"{process.url}/api/capface/photo", body, {"Content-Type": "application/json"})
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
                    return answer.status, json.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.loads(error.read())

        for fields in ({}, {"photo": "grey.png"}, {"photo": 1, "section": "Pose"}, {"photo": "grey.png", "section": "Shape"},
                       {"photo": "a" * 201, "section": "Pose"}, {"photo": "grey.png", "section": "Pose", "side": 1},
                       {"photo": "grey.png", "section": "Pose", "model": "nothing"}):  # fmt: skip
            assert ask(**fields)[0] == 400, fields
        for name in ("../../etc/passwd", "none.png", "grey.png [temp]", "\0.png"):
            status, answer = ask(photo=name, section="Pose")
            assert status == 422 and answer["error"], name
        # There is no face, or no network to find one with.
        status, answer = ask(photo="grey.png", section="Gaze")
        assert status == 422 and len(answer["error"]) > 20 and "log has the reason" not in answer["error"]
        assert "Traceback" not in process.log_text()
