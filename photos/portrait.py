"""What each network sees of a photo in which a face was found: the aligned portrait, FaceNet's face, DECA's crop.

Conventions: those of `crops`. Images are RGB `[3,H,W]` in 0..1 on the CPU.
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
    move_box,
    transform_points,
)


def align(image: Tensor, face: FaceDetection) -> tuple[Tensor, FaceDetection, Tensor]:
    """Bring a face upright into the middle of a 512 × 512 portrait, as the training photos were.

    Args:
        image: `[3,H,W]`.
        face: The face in it.

    Returns:
        The portrait `[3,512,512]`, the face as it lies there, and the transform `[3,3]` from photo pixel to portrait pixel.

    Raises:
        BadInput: When eyes and mouth coincide.
    """
    portrait, transform = ffhq_crop(image, face.points5)
    points68 = None if face.points68 is None else transform_points(transform, face.points68)
    moved = FaceDetection(move_box(transform, face.box), face.score, transform_points(transform, face.points5), points68)
    return portrait, moved, transform


def cut(image: Tensor, face: FaceDetection, aligned: bool = True) -> tuple[Tensor, Tensor]:
    """Cut the portrait and FaceNet's face out of a photo.

    FaceNet's face is cut from the portrait, by the detector's box moved there. FaceNet itself was trained on faces as they were
    held, but CapFace learned from its embeddings of aligned portraits. Only so a tilted face is upright, and one at the photo's
    border is padded before the box is stretched to FaceNet's square. What it costs is one more resampling. The detector is not
    asked again: over seven faces its second box was hardly nearer to the box of the upright portrait (mean IoU 0.92 to the
    moved box's 0.89 upright, 0.82 to 0.78 at 30° of tilt, 0.74 to 0.74 at 50°), and it may be another person's.

    Args:
        image: `[3,H,W]`.
        face: The face in it.
        aligned: Whether the portrait is aligned, or the whole photo.

    Returns:
        The portrait `[3,h,w]` in 0..1, and FaceNet's input `[3,160,160]`.
    """
    if aligned:
        image, face, _ = align(image, face)
    return image, facenet_face(image, face.box)


def deca_face(image: Tensor, face: FaceDetection) -> tuple[Tensor, Tensor]:
    """Cut DECA's crop out of a photo, by the 68 landmarks where there are any, else by the box.

    Args:
        image: `[3,H,W]`.
        face: The face in it.

    Returns:
        The crop `[3,224,224]` and its transform `[3,3]`, image pixel to crop pixel.
    """
    square = deca_square_from_box(face.box) if face.points68 is None else deca_square(face.points68)
    transform = deca_transform(*square)
    return deca_crop(image, transform), transform
