"""Person Mask: the part of the picture that belongs to a person, to bind words to people."""

from comfy_api.latest import io, ui

from ..host.images import from_mask, to_mask
from ..host.person_areas import AREAS, person_area
from .sockets import by_hand, schema


class PersonMask(io.ComfyNode):
    """MASKs of heads -> MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFacePersonMask",
            "Person Mask",
            description="Makes a mask of the part of the picture that belongs to one person, from the heads in it. Connect it "
            "to ComfyUI's Conditioning Set Mask, and the words of that prompt apply to this person only. Join the prompts with "
            "Conditioning Combine before Apply CapFace.",
            search_aliases=["regional prompt", "two people", "couple", "prompt per person", "attention mask", "portrait"],
            inputs=[
                io.Mask.Input("mask", tooltip="The person's head: the mask of their Render Head."),
                *(
                    by_hand(io.Mask, name, tooltip="The head of another person. Where people meet, the nearest head decides.")
                    for name in ("other", "other_2", "other_3")
                ),
                io.Combo.Input(
                    "area",
                    options=list(AREAS),
                    default=AREAS[0],
                    tooltip="person: the head and the body below it. head: the head. side: everything nearer to this head than "
                    "to the others; without others, the whole picture.",
                ),
                io.Float.Input(
                    "grow",
                    default=0.25,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How far the area extends beyond the head, in widths of the head: room for hair and hats.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.25,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Width of the soft edge, in widths of the head. 0 makes a hard edge.",
                ),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="1 where the person is, one mask for each frame.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, mask, area=AREAS[0], grow=0.25, feather=0.25, other=None, other_2=None, other_3=None) -> io.NodeOutput:
        """Make the mask."""
        others = [from_mask(one) for one in (other, other_2, other_3) if one is not None]
        made = to_mask(person_area(from_mask(mask), others, area, grow, feather))
        return io.NodeOutput(made, ui=ui.PreviewMask(made, cls=cls))
