"""Edit Head: changes pose, position, expression, light and shape of heads."""

from comfy_api.latest import io

from ..flame.editing import KEEP, LIGHTS, MODES, SLIDERS, edit_head
from ..flame.render import portraits
from ..host.editor import EditorInputs, current_client_id, preview_cache
from ..host.images import from_image, to_image
from ..host.memory import require_memory
from .sockets import HEAD, HEAD_MODEL, schema

PREVIEW_SIZE = 384
PREVIEW_BYTES_PER_PIXEL = 36
"""Memory of the preview for each pixel of each head: a single picture, which is joined with the others and converted."""


class EditHead(io.ComfyNode):
    """HEAD, HEAD_MODEL -> HEAD, preview. All state is in ordinary widgets, whose defaults change nothing."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceEditHead",
            "Edit Head",
            description="Turns and moves a head, and changes its expression, light and shape. Every slider has the same effect "
            "on every head model. Left and right are the person's own. The defaults leave the head unchanged; with absolute, "
            "they reset their group. In the picture: drag to turn the head, shift-drag to move it, use the wheel to scale it "
            "and the ball to set the light, and double-click to reset. The preview shows the frame's central square.",
            search_aliases=[
                "flame",
                "pose",
                "expression",
                "emotion",
                "smile",
                "gaze",
                "eyes",
                "light",
                "relight",
                "face editor",
            ],
            inputs=[
                HEAD.Input("head"),
                HEAD_MODEL.Input("head_model"),
                io.Image.Input(
                    "photo", optional=True, tooltip="The photo that the head was fitted to, for the light 'from photo'."
                ),
                _mode("pose_mode", "yaw to neck_roll"),
                _angle("yaw", 90, "Degrees. Turns the face to the picture's right; negative values to the left."),
                _angle("pitch", 90, "Degrees. Turns the face up; negative values down."),
                _angle("roll", 180, "Degrees. Tilts the head clockwise; negative values counterclockwise."),
                _angle("neck_yaw", 90, "Degrees. Turns the head on its neck, on top of yaw."),
                _angle("neck_pitch", 60, "Degrees. Raises the head on its neck; negative values lower it."),
                _angle("neck_roll", 60, "Degrees. Tilts the head on its neck."),
                _mode("position_mode", "position_x, position_y and size"),
                _number(
                    "position_x", 0.0, -2, 2, "Moves right, in halves of the frame's short side. Absolute 0 is the centre."
                ),
                _number("position_y", 0.0, -2, 2, "Moves down, in halves of the frame's short side. Absolute 0 is the centre."),
                _number("size", 1.0, 0.1, 4, "Scale factor. Absolute 1 makes the head five eighths of the frame's short side."),
                _mode("expression_mode", "jaw, gaze and all expressions"),
                _angle("jaw_open", 40, "Degrees. Negative values close an open jaw, but not beyond closed."),
                _angle("jaw_side", 20, "Degrees. Moves the jaw to the picture's right; negative values to the left."),
                _angle("gaze_yaw", 45, "Degrees. Turns both eyes to the picture's right; negative values to the left."),
                _angle("gaze_pitch", 35, "Degrees. Turns both eyes up; negative values down."),
                *(
                    _number(
                        name,
                        0.0,
                        slider.least,
                        slider.most,
                        f"{slider.help} 1 is the full expression; negative values reduce it.",
                    )
                    for name, slider in SLIDERS.items()
                ),
                io.Combo.Input(
                    "light",
                    options=list(LIGHTS),
                    default=KEEP,
                    optional=True,
                    tooltip="keep: the head's own light. custom: the values of ambient and key_ below. from photo: estimated "
                    "from the photo; skin darker than the head's gives a dimmer light, as a photo does not separate the two. "
                    "neutral: resets the light.",
                ),
                _number("light_strength", 1.0, 0, 3, "Factor for the brightness of any light."),
                _number("ambient", 0.4, 0, 2, "Custom light: even light from all directions."),
                _angle(
                    "key_azimuth", 180, "Custom light, degrees: 0 is light from the viewer, 90 from the right.", default=30.0
                ),
                _angle("key_elevation", 90, "Custom light, degrees: 90 is light from above, -90 from below.", default=25.0),
                _number("key_intensity", 0.6, 0, 3, "Custom light: intensity of the key light on skin that faces it."),
                _number(
                    "key_softness", 0.2, 0, 1, "Custom light: size of the key light, from 0 (a point) to 1 (half the sky)."
                ),
                io.String.Input(
                    "key_color",
                    default="#ffffff",
                    optional=True,
                    tooltip="Custom light: colour of the key light, as red, green and blue in hexadecimal.",
                ),
                _number(
                    "shape_strength",
                    1.0,
                    0,
                    2,
                    "Factor for the difference from the average shape. 0 resets the shape, 2 exaggerates it.",
                ),
            ],
            outputs=[HEAD.Output(display_name="head"), io.Image.Output(display_name="preview")],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, head, head_model, photo=None, **values):
        """Edit the heads, and cache the inputs for the picture in the node."""
        require_memory(head.batch, PREVIEW_SIZE, PREVIEW_SIZE, PREVIEW_BYTES_PER_PIXEL)
        photo = None if photo is None else from_image(photo)
        edited = edit_head(head_model, head, photo, **values)
        preview = to_image(portraits(head_model, edited, PREVIEW_SIZE))
        return io.NodeOutput(edited, preview, ui=_register_inputs(cls.hidden, EditorInputs.split(head_model, head, photo)))


def _register_inputs(hidden: io.HiddenHolder | None, inputs: tuple[EditorInputs, ...]) -> dict[str, list[str | None]]:
    """Cache the inputs for the preview, and return the data for the browser: the inputs' token and the workflow's id."""
    workflow = ((getattr(hidden, "extra_pnginfo", None) or {}).get("workflow") or {}).get("id")
    slot = (current_client_id(), workflow, getattr(hidden, "unique_id", None))
    return {"capface_given": [preview_cache.put(slot, inputs), workflow]}


def _mode(name: str, group: str) -> io.Input:
    """Return the input that chooses whether a group of sliders is added to the head's values or replaces them."""
    tooltip = (
        f"add: {group} are added to the head's own values. absolute: they replace them; the defaults reset the head's values."
    )
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
    """Return an input in degrees with a symmetric range."""
    return _number(name, default, -most, most, tooltip, step=0.5)
