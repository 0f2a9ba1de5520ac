"""ArcFace, the recognition network of an insightface model pack: a second opinion on who is who.

Its vectors are not FaceNet's, and CapFace was not trained with them: they serve to measure alone. Nothing is downloaded.

Source: Deng et al., *ArcFace: Additive Angular Margin Loss for Deep Face Recognition* (CVPR 2019).
"""

import torch
from torch.nn import functional as F

from ...errors import MissingFile, MissingPackage, how_to_install
from ...files.insightface_packs import INSIGHTFACE_SOURCE, RECOGNITION_FILES, find_pack
from .detection import bgr_pixels, open_network


class ArcFace:
    """The recognition network of an insightface pack.

    Args:
        root: As for `InsightFaceDetector`.
        name: As for `InsightFaceDetector`.
        providers: As for `InsightFaceDetector`.

    Raises:
        MissingPackage: When insightface (or its onnxruntime) is not installed.
        MissingFile: When the pack, or its recognition network, is not there.
        BadFile: When it cannot be read.
    """

    def __init__(self, root, name="buffalo_l", *, providers=None):
        folder = find_pack(root, name)
        found = sorted(path for pattern in RECOGNITION_FILES for path in folder.glob(pattern))
        if not found:
            raise MissingFile(
                f"{folder} has no recognition network ({' or '.join(RECOGNITION_FILES[:2])}). Unpack {name}.zip from "
                f"{INSIGHTFACE_SOURCE} "
                "into that folder; nothing is downloaded by itself."
            )
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise MissingPackage(how_to_install("insightface onnxruntime") + f" ({error})") from None
        self.network = open_network(get_model, found[0], "recognition", providers)

    def embed(self, image, points5):
        """The identity vector of one face.

        Args:
            image: Shape [3,H,W], RGB in 0..1.
            points5: Shape [5,2], its eyes, nose and mouth corners in pixels (`FaceDetection.points5`).

        Returns:
            Shape [N], of length 1, float32 on the CPU.
        """
        from insightface.app.common import Face

        vector = self.network.get(bgr_pixels(image), Face(kps=points5.numpy()))
        return F.normalize(torch.from_numpy(vector).float(), dim=0)
