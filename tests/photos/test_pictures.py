import struct

import numpy as np
import pytest
import torch
from PIL import Image

from capface.errors import BadFile, BadInput, NoFaceFound
from capface.photos.analysis import FaceAnalyzer
from capface.photos.pictures import blankness, read_picture, rgb_of
from capface.tests.photos.face_networks import Networks

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(RGB).movedim(-1, 0).float() / 255


def saved(path, picture, **options):
    picture.save(path, **options)
    return read_picture(path)


def test_an_ordinary_picture_is_read_to_the_bit(tmp_path):
    assert torch.equal(saved(tmp_path / "a.png", Image.fromarray(RGB)), TENSOR)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 35).reshape(5, 7).astype(np.uint16)
    found = saved(tmp_path / "a.png", Image.fromarray(ramp))
    assert found.shape == (3, 5, 7)
    torch.testing.assert_close(found[0], torch.from_numpy(ramp.astype(np.float32)) / 65535)


def test_float_grey_is_read_with_overshoot_and_gaps(tmp_path):
    ramp = np.linspace(0, 1.5, 35, dtype=np.float32).reshape(5, 7)
    ramp[0, 0] = np.nan
    found = saved(tmp_path / "a.tif", Image.fromarray(ramp))
    torch.testing.assert_close(found[0], torch.from_numpy(np.nan_to_num(ramp)).clamp(max=1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    rgba = np.concatenate([RGB, np.zeros((5, 7, 1), np.uint8)], axis=2)
    rgba[:, 4:, 3] = 255
    picture = Image.fromarray(rgba)
    if mode == "PA":
        picture = picture.quantize(16)
    elif mode == "LA":
        picture = picture.convert("LA")
    found = saved(tmp_path / "a.png", picture)
    assert (found[:, :, :4] == 1).all() and (found[:, :, 4:] != 1).any()


def test_palettes_cmyk_and_orientation_are_read_as_viewers_show_them(tmp_path):
    palette = saved(tmp_path / "a.gif", Image.fromarray(RGB).quantize(64))
    assert (palette - TENSOR).abs().mean() < 0.05
    cmyk = saved(tmp_path / "a.tif", Image.fromarray(RGB).convert("CMYK"))
    assert (cmyk - TENSOR).abs().max() < 0.01
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise by 90 degrees
    turned = saved(tmp_path / "b.png", Image.fromarray(RGB), exif=exif)
    assert torch.equal(turned, TENSOR.rot90(-1, (1, 2)))


def test_a_file_that_is_not_a_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadFile, match=r"a\.png cannot be read as a picture"):
        read_picture(tmp_path / "a.png")


def test_a_picture_without_data_for_all_its_pixels_is_refused(tmp_path):
    picture = Image.new("RGB", (20, 24), "red")
    for kind in ("TIFF", "GIF", "PNG", "JPEG", "BMP", "WEBP"):
        picture.save(tmp_path / f"whole.{kind.lower()}", kind)
        assert read_picture(tmp_path / f"whole.{kind.lower()}").shape == (3, 24, 20)
    data = (tmp_path / "whole.tiff").read_bytes()
    height = struct.pack("<HHII", 257, 4, 1, 24)  # the entry ImageLength
    assert data.count(height) == 1
    data = data.replace(height, struct.pack("<HHII", 257, 4, 1, 524_312))
    (tmp_path / "short.tiff").write_bytes(data)
    with pytest.raises(BadFile, match="20 × 524312 pixels, but has 20 × 24"):
        read_picture(tmp_path / "short.tiff")


def test_channels_become_rgb():
    grey, alpha = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    assert torch.equal(rgb_of(grey), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(rgb_of(torch.cat([grey, alpha], 1))[:, 2], (grey * alpha + 1 - alpha)[:, 0])
    color = torch.rand(2, 3, 4, 4)
    assert torch.equal(rgb_of(color), color)
    torch.testing.assert_close(rgb_of(torch.cat([color, alpha], 1)), color * alpha + 1 - alpha)
    with pytest.raises(BadInput, match="1 to 4 channels, got 5"):
        rgb_of(torch.rand(1, 5, 4, 4))


@pytest.mark.parametrize(("level", "color"), [(1.0, "white"), (0.0, "black"), (0.5, "")])
def test_a_blank_picture_is_named(level, color):
    image = torch.full((3, 50, 50), level)
    image[:, 0, 0] = 0.5
    assert blankness(image) == color
    expected = f"almost entirely {color}" if color else "There is no face"
    with pytest.raises(NoFaceFound, match=expected):
        FaceAnalyzer(Networks([])).find_faces(image[None])
