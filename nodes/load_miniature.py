"""Load Miniature and Synthetic Person: the whole method without a download, on synthetic people."""

from comfy_api.latest import io

from ..flame.builtin import builtin_head
from ..host.images import to_image
from ..host.miniature_models import register_miniature
from ..miniature.networks import HELD_OUT, PICTURE_SIDE, load_miniature
from ..miniature.people import BACKGROUNDS, PERSON_LIGHTS, SHIRTS, Person, Setting, draw_people
from .sockets import CAPFACE, HEAD, HEAD_MODEL, READER, schema


class LoadMiniature(io.ComfyNode):
    """-> MODEL, CLIP, VAE, CAPFACE, CAPFACE_READER, HEAD_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceLoadMiniature",
            "Load Miniature",
            description="All networks of the method, small enough to come with the pack and trained on synthetic people. It "
            "shows in seconds on a CPU how the nodes work, and knows no real faces. Make images of 128 × 128 pixels with it.",
            search_aliases=["caphuman", "portrait", "capface demo", "example"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The base model, for a KSampler."),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="Its text encoder. It knows the words that Synthetic Person gives; others are ignored.",
                ),
                io.Vae.Output(display_name="vae", tooltip="Its autoencoder."),
                CAPFACE.Output(display_name="capface"),
                READER.Output(
                    display_name="reader",
                    tooltip="Its identity encoder. It encodes the whole picture and does not search for a face.",
                ),
                HEAD_MODEL.Output(display_name="head_model"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Load the miniature."""
        loaded = register_miniature(load_miniature())
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.capface, loaded.reader, builtin_head())


class SyntheticPerson(io.ComfyNode):
    """A number -> IMAGE, HEAD, words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceSyntheticPerson",
            "Synthetic Person",
            description="Renders a person who does not exist, to try the nodes with. The miniature only knows such people.",
            search_aliases=["portrait", "example face", "demo photo"],
            inputs=[
                io.Int.Input(
                    "person",
                    default=HELD_OUT,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=True,
                    tooltip="The same number is always the same person; the miniature was not trained on 1000000 and above.",
                ),
                _angle("yaw", 60, "Degrees. Turns the face to the picture's right; negative to its left."),
                _angle("pitch", 30, "Degrees. The face looks up; negative down."),
                _angle("roll", 30, "Degrees. Tilts the head clockwise; negative the other way."),
                io.Combo.Input("light", options=list(PERSON_LIGHTS), default="front", tooltip="Where the light comes from."),
                io.Combo.Input("shirt", options=list(SHIRTS), default="blue", tooltip="Colour of the shirt."),
                io.Combo.Input(
                    "background", options=list(BACKGROUNDS), default="white studio", tooltip="What is behind the person."
                ),
                io.Int.Input("size", default=PICTURE_SIDE, min=64, max=1024, step=8, tooltip="Width and height in pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture."),
                HEAD.Output(display_name="head", tooltip="The rendered head, of the built-in head model."),
                io.String.Output(display_name="words", tooltip="A description, in words that the miniature knows."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, person: int, yaw: float, pitch: float, roll: float, light: str, shirt: str, background: str, size: int
    ) -> io.NodeOutput:
        """Render the person."""
        who, setting = Person.sample(person), Setting(shirt, background)
        head = who.head(yaw, pitch, roll, light)
        words = ", ".join([*who.words(), *setting.words(), f"lit from {light}"])
        return io.NodeOutput(to_image(draw_people([who], head, [setting], size)), head, words)


def _angle(name: str, limit: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=0.0, min=-limit, max=limit, step=1.0, tooltip=tooltip)
