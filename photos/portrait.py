"""The inputs of the networks, cut out of a photo with a known face: aligned portrait, FaceNet's input and DECA's crop.

Conventions are those of `models.faces.crops`. Images are RGB `[3, H, W]` in 0..1 on the CPU.
"""

from torch import Tensor

from ..models.faces import (
    FaceDetection,
    deca_crop,
    deca_square,
    deca_square_from_box,
    deca_transform,
    facenet_face,
    ffhq_crop,
)


def align(image: Tensor, face: FaceDetection) -> tuple[Tensor, FaceDetection, Tensor]:
    """Bring a face upright into the middle of a 512 × 512 portrait, as in the training photos.

    Args:
        image: The photo `[3, H, W]`.
        face: The face in it.

    Returns:
        The portrait `[3, 512, 512]`, the face in the portrait, and the transform `[3, 3]` from photo pixel to portrait pixel.

    Raises:
        BadInput: Eyes and mouth coincide.
    """
    portrait, transform = ffhq_crop(image, face.points5)
    return portrait, face.moved(transform), transform


def cut_portrait(image: Tensor, face: FaceDetection, aligned: bool = True) -> tuple[Tensor, Tensor]:
    """Cut the portrait and FaceNet's input out of a photo.

    FaceNet's input is cut from the portrait, at the detector's box moved into it. FaceNet was trained on unaligned faces, but
    CapFace was trained on its embeddings of aligned portraits. A tilted face becomes upright this way, and a face at the
    photo's border is padded before its box is stretched to FaceNet's square. The cost is one more resampling.

    The detector does not run again on the portrait. On seven faces its second box was hardly closer to the box of the upright
    portrait than the moved box (mean IoU 0.92 against 0.89 upright, 0.82 against 0.78 at 30° of tilt, 0.74 against 0.74 at
    50°), and it may be the box of another person.

    Args:
        image: The photo `[3, H, W]`.
        face: The face in it.
        aligned: Whether the portrait is aligned; otherwise it is the whole photo.

    Returns:
        The portrait `[3, h, w]` in 0..1, and FaceNet's input `[3, 160, 160]`.
    """
    if aligned:
        image, face, _ = align(image, face)
    return image, facenet_face(image, face.box)


def deca_face(image: Tensor, face: FaceDetection) -> tuple[Tensor, Tensor]:
    """Cut DECA's crop out of a photo, around the 68 landmarks if they are known, else around the box.

    Args:
        image: The photo `[3, H, W]`.
        face: The face in it.

    Returns:
        The crop `[3, 224, 224]` and its transform `[3, 3]`, image pixel to crop pixel.
    """
    square = deca_square_from_box(face.box) if face.points68 is None else deca_square(face.points68)
    transform = deca_transform(*square)
    return deca_crop(image, transform), transform
