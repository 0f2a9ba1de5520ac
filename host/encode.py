"""Identity encoding in ComfyUI: the features of `photos.encoding` as a CAPFACE_IDENTITY."""

from typing import Protocol, runtime_checkable

import torch

from ..photos.encoding import EncodedPhotos, EncodeOptions, Features, IdentityEncoder, Photos
from .clip_vision import ClipVision
from .identity import Identity, combine


@runtime_checkable
class EncoderProvider(Protocol):
    """The value of the CAPFACE_READER socket: a `HostFaceAnalyzer` or the miniature's reader."""

    def encoder(self, clip_vision: ClipVision | None) -> IdentityEncoder:
        """Return the identity encoder that uses a CLIP_VISION, if one is connected.

        Raises:
            BadInput: The CLIP_VISION is missing, or cannot be used.
        """
        ...


def encode_identity(
    reader: EncoderProvider,
    images: Photos,
    clip_vision: ClipVision | None = None,
    options: EncodeOptions | None = None,
    how: str = "each",
) -> tuple[Identity, EncodedPhotos]:
    """Encode the person in photos.

    Args:
        reader: The value of the CAPFACE_READER socket.
        images: B photos.
        clip_vision: ComfyUI's CLIP_VISION with CLIP ViT-L/14, or None.
        options: How the photos are encoded; the default options if None.
        how: How several photos are combined; one of `host.identity.COMBINE`.

    Returns:
        The identity, and the encoded photos with preview and notes.

    Raises:
        NoFaceFound: A face is missing, as `options.on_no_face` says.
        BadInput: CLIP is missing or another one, or `how` is unknown.
        MissingFile: The file of a network is missing.
    """
    encoder = reader.encoder(clip_vision)
    encoded = encoder.encode(images, options or EncodeOptions())
    return combine(as_identity(encoded, encoder.features), how, encoded.scores, encoded.areas), encoded


def as_identity(encoded: EncodedPhotos, features: Features) -> Identity:
    """Wrap encoded photos as an identity with one row per photo; photos without a face become null identities."""
    strength = encoded.present[:, None].to(torch.float32).repeat(1, 2)
    return Identity(encoded.global_, encoded.local, strength, features=features)
