"""The nodes, in the order of the pipeline. A node declares its schema, makes one call into the pack, and wraps the result."""

from comfy_api.latest import ComfyExtension, io

from ..host import missing_models
from ..host.editor import route
from ..host.example_pictures import place_examples
from ..host.model_folders import register_folders


class CapFaceExtension(ComfyExtension):
    """The extension object that gives ComfyUI the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register the model folders and the route, place the example pictures, and list the nodes."""
        register_folders()
        from .apply_capface import ApplyCapFace
        from .capface_check import CapFaceCheck
        from .combine_heads import AnimateHead, TransferHead
        from .combine_identities import BlendIdentities, IdentityParts
        from .control_image import ControlImage
        from .crop_head import CropHead
        from .edit_head import EditHead
        from .encode_identity import EncodeIdentity
        from .exchange_heads import ExportHead, ImportHead
        from .fit_head import FitHead
        from .head_files import LoadHead, SaveHead
        from .head_preset import HeadPreset
        from .identity_files import LoadIdentity, SaveIdentity
        from .load_head_model import ConvertHeadModel, LoadHeadModel
        from .load_miniature import LoadMiniature, SyntheticPerson
        from .load_models import ConvertCapFace, LoadCapFace, LoadFaceAnalyzer
        from .measure_portrait import MeasurePortrait
        from .person_mask import PersonMask
        from .render_head import RenderHead
        from .reuse_controlnet import ReuseControlNet

        if route.register(EditHead.define_schema().inputs):
            missing_models.register(route.running_server())
            place_examples()
        return [
            LoadCapFace,
            ConvertCapFace,
            LoadFaceAnalyzer,
            LoadHeadModel,
            ConvertHeadModel,
            EncodeIdentity,
            BlendIdentities,
            IdentityParts,
            SaveIdentity,
            LoadIdentity,
            FitHead,
            EditHead,
            HeadPreset,
            TransferHead,
            AnimateHead,
            SaveHead,
            LoadHead,
            ExportHead,
            ImportHead,
            CropHead,
            RenderHead,
            ControlImage,
            PersonMask,
            ApplyCapFace,
            ReuseControlNet,
            MeasurePortrait,
            CapFaceCheck,
            LoadMiniature,
            SyntheticPerson,
        ]
