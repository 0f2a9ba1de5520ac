"""Editing heads: turned, placed, with another face and in another light."""

from comfy_api.latest import io

from ..flame.editing import KEEP, LIGHTS, MODES, SLIDERS, edit_head
from ..flame.render import portraits
from ..host.editor import EditorInputs, current_client_id, preview_cache
from ..host.images import from_image, to_image
from .sockets import HEAD, HEAD_MODEL, schema

PREVIEW_SIZE = 384


class EditHead(io.ComfyNode):
    """HEAD, HEAD_MODEL, numbers -> HEAD, preview. All state is in ordinary widgets; at their defaults nothing changes."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceEditHead",
            "Edit Head",
            description="Turns and places a head, changes its expression, its light and its shape. Every slider means the same "
            "on every head model; left and right are the person's own. At their defaults all of them leave the head as it "
            "is, and a group set to absolute is reset. In the picture: drag turns the head, shift-drag moves it, the wheel "
            "sizes it, the ball sets the light, a double click resets. The preview is the frame's middle square.",
            search_aliases=["flame", "pose", "expression", "relight", "smile", "gaze"],
            inputs=[
                HEAD.Input("head"),
                HEAD_MODEL.Input("head_model"),
                io.Image.Input("photo", optional=True, tooltip="For light from photo: the photo that the head was fitted to."),
                _mode("pose_mode", "yaw to neck_roll"),
                _angle("yaw", 90, "Degrees. Turns the face to the picture's right; negative to its left."),
                _angle("pitch", 90, "Degrees. The face looks up; negative down."),
                _angle("roll", 180, "Degrees. Tilts the head clockwise; negative the other way."),
                _angle("neck_yaw", 90, "Degrees. Turns the head on its neck, on top of yaw."),
                _angle("neck_pitch", 60, "Degrees. Raises the head on its neck; negative nods."),
                _angle("neck_roll", 60, "Degrees. Tilts the head on its neck."),
                _mode("position_mode", "position_x, position_y and size"),
                _number("position_x", 0.0, -2, 2, "Right, in halves of the frame's short side; absolute 0 is the middle."),
                _number("position_y", 0.0, -2, 2, "Down, in halves of the frame's short side; absolute 0 is the middle."),
                _number("size", 1.0, 0.1, 4, "Factor; absolute 1 is a head of five eighths of the frame's short side."),
                _mode("expression_mode", "jaw, gaze and all expressions"),
                _angle("jaw_open", 40, "Degrees. Negative takes back what is open, not further than shut."),
                _angle("jaw_side", 20, "Degrees. Moves the jaw to the picture's right; negative to its left."),
                _angle("gaze_yaw", 45, "Degrees. Turns both eyes to the picture's right; negative to its left."),
                _angle("gaze_pitch", 35, "Degrees. Turns both eyes up; negative down."),
                *(
                    _number(name, 0.0, slider.least, slider.most, f"{slider.help} 1 is all of it; negative takes it back.")
                    for name, slider in SLIDERS.items()
                ),
                io.Combo.Input(
                    "light",
                    options=list(LIGHTS),
                    default=KEEP,
                    optional=True,
                    tooltip="keep: the head's own. custom: ambient and key_ below. from photo: as in the photo; skin and light "
                    "show only together there, so skin darker than the head's makes the light dimmer. neutral resets.",
                ),
                _number("light_strength", 1.0, 0, 3, "Multiplies the light, whichever it is."),
                _number("ambient", 0.4, 0, 2, "Custom light: an even glow from all around."),
                _angle("key_azimuth", 180, "Custom light, degrees: 0 shines from the viewer, 90 from the right.", default=30.0),
                _angle("key_elevation", 90, "Custom light, degrees: 90 shines from above, -90 from below.", default=25.0),
                _number("key_intensity", 0.6, 0, 3, "Custom light: what skin facing the key light gets of it."),
                _number("key_softness", 0.2, 0, 1, "Custom light: how large the key light is; 0 a point, 1 half the sky."),
                io.String.Input(
                    "key_color",
                    default="#ffffff",
                    optional=True,
                    tooltip="Custom light: the key light's colour, red, green and blue in hexadecimal.",
                ),
                _number("shape_strength", 1.0, 0, 2, "Distance from the average shape: 0 resets the shape, 2 exaggerates it."),
            ],
            outputs=[HEAD.Output(display_name="head"), io.Image.Output(display_name="preview")],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, head, head_model, photo=None, **values):
        """Edit the heads, and keep what they were for the picture in the node."""
        photo = None if photo is None else from_image(photo)
        edited = edit_head(head_model, head, photo, **values)
        preview = to_image(portraits(head_model, edited, PREVIEW_SIZE))
        return io.NodeOutput(edited, preview, ui=_register_inputs(cls.hidden, EditorInputs.split(head_model, head, photo)))


def _register_inputs(hidden: io.HiddenHolder | None, inputs: tuple[EditorInputs, ...]) -> dict[str, list[str | None]]:
    """Cache the inputs for the preview, and return the data for the browser: the inputs' token and the workflow's id."""
    workflow = ((getattr(hidden, "extra_pnginfo", None) or {}).get("workflow") or {}).get("id")
    slot = (current_client_id(), workflow, getattr(hidden, "unique_id", None))
    return {"capface_given": [preview_cache.put(slot, inputs), workflow]}


def _mode(name: str, of: str) -> io.Input:
    """Whether a group adds to the head's own or takes its place."""
    tooltip = f"add: {of} change what the head has. absolute: they alone count; at their defaults that resets them."
    return io.Combo.Input(name, options=list(MODES), default=MODES[0], optional=True, tooltip=tooltip)


def _number(name: str, default: float, low: float, high: float, tooltip: str, step: float = 0.01) -> io.Input:
    return io.Float.Input(
        name,
        default=default,
        min=float(low),
        max=float(high),
        step=step,
        optional=True,
        tooltip=tooltip,
        display_mode=io.NumberDisplay.slider,
    )


def _angle(name: str, most: float, tooltip: str, default: float = 0.0) -> io.Input:
    """Degrees, as far to one side as to the other."""
    return _number(name, default, -most, most, tooltip, step=0.5)
