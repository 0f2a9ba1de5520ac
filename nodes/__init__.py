"""The nodes, in the order of the pipeline. A node declares its schema, makes one call into the pack, and wraps the result."""

from comfy_api.latest import ComfyExtension, io

from ..host import missing, route
from ..host.assets import register_folders


class CapFaceExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register the model folders and the routes, and list the nodes."""
        register_folders()
        from .apply import ApplyCapFace
        from .blend import BlendIdentities, IdentityParts
        from .check import CapFaceCheck
        from .compose import AnimateHead, TransferHead
        from .crop import CropHead
        from .edit import EditHead
        from .head import FitHead
        from .head_model import ConvertHeadModel, LoadHeadModel
        from .identity import EncodeIdentity
        from .keep import LoadHead, SaveHead
        from .keep_identity import LoadIdentity, SaveIdentity
        from .load import ConvertCapFace, LoadCapFace, LoadFaceReader
        from .measure import MeasurePortrait
        from .miniature import LoadMiniature, SyntheticPerson
        from .render import RenderHead

        if route.register(EditHead.define_schema().inputs):
            missing.register(route.server())
        return [
            LoadCapFace,
            ConvertCapFace,
            LoadFaceReader,
            LoadHeadModel,
            ConvertHeadModel,
            EncodeIdentity,
            BlendIdentities,
            IdentityParts,
            SaveIdentity,
            LoadIdentity,
            FitHead,
            EditHead,
            TransferHead,
            AnimateHead,
            SaveHead,
            LoadHead,
            CropHead,
            RenderHead,
            ApplyCapFace,
            MeasurePortrait,
            CapFaceCheck,
            LoadMiniature,
            SyntheticPerson,
        ]
