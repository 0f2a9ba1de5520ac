"""The miniature: the whole method without a download, on synthetic people."""

from comfy_api.latest import io

from ..flame.builtin import builtin_head
from ..host.images import to_image
from ..host.miniature_models import register_miniature
from ..miniature.networks import HELD_OUT, PICTURE, load_miniature
from ..miniature.people import BACKGROUNDS, LIGHTS, SHIRTS, Person, Setting, draw_people
from .sockets import CAPFACE, HEAD, HEAD_MODEL, READER, schema


class LoadMiniature(io.ComfyNode):
    """-> MODEL, CLIP, VAE, CAPFACE, CAPFACE_READER, HEAD_MODEL."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadMiniature",
            "Load Miniature",
            description="All networks of the method at a size that comes with the pack, trained on synthetic people: it shows "
            "how the nodes work, on a CPU in seconds, and knows no real face. Make pictures of 128 × 128 with it.",
            search_aliases=["capface demo", "example"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The base model, for a KSampler."),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="Its text encoder. It knows the words that Synthetic Person gives; others are left out.",
                ),
                io.Vae.Output(display_name="vae", tooltip="Its autoencoder."),
                CAPFACE.Output(display_name="capface"),
                READER.Output(display_name="reader", tooltip="What reads who it is from a whole picture; it seeks no face."),
                HEAD_MODEL.Output(display_name="head_model"),
            ],
        )

    @classmethod
    def execute(cls):
        """Load the miniature."""
        loaded = register_miniature(load_miniature())
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.capface, loaded.reader, builtin_head())


class SyntheticPerson(io.ComfyNode):
    """A number -> IMAGE, HEAD, words."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceSyntheticPerson",
            "Synthetic Person",
            description="Draws a person who does not exist, to try the nodes with. The miniature knows such people alone.",
            search_aliases=["example face", "demo photo"],
            inputs=[
                io.Int.Input(
                    "person",
                    default=HELD_OUT,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=True,
                    tooltip="The same number is always the same person; the miniature never saw those from 1000000 on.",
                ),
                _angle("yaw", 60, "Degrees. Turns the face to the picture's right; negative to its left."),
                _angle("pitch", 30, "Degrees. The face looks up; negative down."),
                _angle("roll", 30, "Degrees. Tilts the head clockwise; negative the other way."),
                io.Combo.Input("light", options=list(LIGHTS), default="front", tooltip="Where the light comes from."),
                io.Combo.Input("shirt", options=list(SHIRTS), default="blue", tooltip="Colour of the shirt."),
                io.Combo.Input(
                    "background", options=list(BACKGROUNDS), default="white studio", tooltip="What is behind the person."
                ),
                io.Int.Input("size", default=PICTURE, min=64, max=1024, step=8, tooltip="Width and height in pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture."),
                HEAD.Output(display_name="head", tooltip="The head as it is drawn, of the built-in head model."),
                io.String.Output(display_name="words", tooltip="What is to be seen, in words that the miniature knows."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, person, yaw, pitch, roll, light, shirt, background, size):
        """Draw the person."""
        who, setting = Person.sample(person), Setting(shirt, background)
        head = who.head(yaw, pitch, roll, light)
        words = ", ".join([*who.words(), *setting.words(), f"lit from {light}"])
        return io.NodeOutput(to_image(draw_people([who], head, [setting], size)), head, words)


def _angle(name: str, limit: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=0.0, min=-limit, max=limit, step=1.0, tooltip=tooltip)
