"""Head as Control Image: the same head as the control image of other models."""

from comfy_api.latest import io, ui

from ..flame.control_images import BYTES_PER_PIXEL, DISTANCE, HIGH, KINDS, LOW, control_image
from ..host.images import to_image, to_mask
from ..host.memory import require_memory
from .render_head import warn_about_empty_frames
from .sockets import HEAD, HEAD_MODEL, schema


class ControlImage(io.ComfyNode):
    """HEAD, HEAD_MODEL -> IMAGE, MASK, POSE_KEYPOINT."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceControlImage",
            "Head as Control Image",
            description="Renders the head as the controls of other models expect it: depth, normals, edges, face keypoints, "
            "face mesh, or InstantID's five points. Connect the image to Apply ControlNet, or to the node of that model. The "
            "base model may be of any family.",
            search_aliases=["depth", "canny", "openpose", "dwpose", "mediapipe", "instantid", "arc2face", "controlnet", "pose"],
            inputs=[
                HEAD.Input("head"),
                HEAD_MODEL.Input("head_model"),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default=KINDS[0],
                    tooltip="What the control was trained on. depth: MiDaS, Depth Anything. normal BAE: red left, green up, "
                    "blue front. OpenGL: red right, green up, blue front. MiDaS: red front, green up, blue left. Arc2Face: as "
                    "OpenGL, on grey. face keypoints: DWPose, OpenPose. face mesh: MediaPipe. five points: InstantID.",
                ),
                io.Int.Input("width", default=1024, min=16, max=8192, step=8, tooltip="Width of the picture, in pixels."),
                io.Int.Input("height", default=1024, min=16, max=8192, step=8, tooltip="Height of the picture, in pixels."),
                io.Float.Input(
                    "camera_distance",
                    default=DISTANCE,
                    min=0.05,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    tooltip="Depth only. Metres from the camera to the nearest point of the head. A smaller distance gives the "
                    "face more relief. The background is infinitely far away.",
                ),
                io.Float.Input(
                    "low_threshold",
                    default=LOW,
                    min=0.01,
                    max=0.98,
                    step=0.01,
                    optional=True,
                    tooltip="Canny only. Gradients above this continue an edge.",
                ),
                io.Float.Input(
                    "high_threshold",
                    default=HIGH,
                    min=0.02,
                    max=0.99,
                    step=0.01,
                    optional=True,
                    tooltip="Canny only. Gradients above this start an edge. Lower values draw more lines of the face.",
                ),
                io.Int.Input(
                    "grow_mask",
                    default=0,
                    min=-512,
                    max=512,
                    optional=True,
                    tooltip="Pixels by which the mask grows. Negative values shrink it.",
                ),
                io.Int.Input(
                    "feather_mask",
                    default=0,
                    min=0,
                    max=512,
                    optional=True,
                    tooltip="Width in pixels over which the mask's border fades out.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The control image."),
                io.Mask.Output(display_name="mask", tooltip="1 where the head is."),
                io.Custom("POSE_KEYPOINT").Output(
                    display_name="keypoints",
                    tooltip="70 points of the face in OpenPose's JSON format, as DWPose's nodes give them.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        head,
        head_model,
        kind,
        width,
        height,
        camera_distance=DISTANCE,
        low_threshold=LOW,
        high_threshold=HIGH,
        grow_mask=0,
        feather_mask=0,
    ):
        """Render the control image."""
        require_memory(head.batch, height, width, BYTES_PER_PIXEL)
        made = control_image(
            kind,
            head_model,
            head,
            height,
            width,
            distance=camera_distance,
            low=low_threshold,
            high=high_threshold,
            grow=grow_mask,
            feather=feather_mask,
        )
        warn_about_empty_frames("Head as Control Image", made.alpha)
        image = to_image(made.picture)
        return io.NodeOutput(image, to_mask(made.mask), made.keypoints, ui=ui.PreviewImage(image, cls=cls))
