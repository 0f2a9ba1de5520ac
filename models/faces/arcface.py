"""ArcFace, the recognition network of an insightface model pack: a second measure of identity.

Its vectors differ from FaceNet's, and CapFace was not trained with them: they are used only for measuring. Nothing is
downloaded.

Source: Deng et al., *ArcFace: Additive Angular Margin Loss for Deep Face Recognition* (CVPR 2019).
"""

import os

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MissingFile, MissingPackage, how_to_install
from ...files.catalogue import INSIGHTFACE
from ...files.insightface_packs import RECOGNITION_FILES, find_pack
from ...shapes import Float
from .detection import bgr_pixels, open_network


class ArcFace:
    """The recognition network of an insightface pack.

    Args:
        root: As for `InsightFaceDetector`.
        name: As for `InsightFaceDetector`.

    Raises:
        MissingPackage: insightface or its onnxruntime is not installed.
        MissingFile: The pack or its recognition network does not exist.
        BadFile: The network cannot be read.
    """

    def __init__(self, root: str | os.PathLike[str], name: str = "buffalo_l"):
        folder = find_pack(root, name)
        found = sorted(path for pattern in RECOGNITION_FILES for path in folder.glob(pattern))
        if not found:
            raise MissingFile(
                f"{folder} has no recognition network ({' or '.join(RECOGNITION_FILES[:2])}). Unpack {name}.zip from "
                f"{INSIGHTFACE.provenance} into that folder; nothing is downloaded automatically."
            )
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise MissingPackage(how_to_install("insightface onnxruntime") + f" ({error})") from None
        self.network = open_network(get_model, found[0], "recognition")

    def embed(self, image: Float[Tensor, "3 H W"], points5: Float[Tensor, "5 2"]) -> Float[Tensor, " N"]:
        """Compute the identity vector of one face.

        Args:
            image: `[3, H, W]`, RGB in 0..1.
            points5: `[5, 2]`: eyes, nose and mouth corners, in pixels (`FaceDetection.points5`).

        Returns:
            `[N]`, of length 1, float32 on the CPU.
        """
        from insightface.app.common import Face

        vector = self.network.get(bgr_pixels(image), Face(kps=points5.numpy()))
        return F.normalize(torch.from_numpy(vector).float(), dim=0)
