"""Draw the workflows' thumbnails for ComfyUI's template browser, using the built-in head:

    python -m capface.tools.thumbnails

They are saved beside the workflows, as workflows/<name>.jpg.
"""

import math
from pathlib import Path

import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from capface.flame.control_images import control_image
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import landmark_pixels, render_head
from capface.flame.render.pictures import normal_colors
from capface.miniature.people import Person, Setting, draw_people
from capface.tools.miniature_sheet import PERSON
from capface.tools.pictures import MODEL, edited
from capface.tools.sheet import to_picture

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
SIDE = 512
"""Pixels of a picture's side."""
FINER = 2
"""Supersampling factor: the renderer draws hard edges, so heads are rendered larger and scaled down."""
SMILE = {"smile_left": 0.9, "smile_right": 0.9, "cheeks": 0.3}
LAMP = {"key_azimuth": 35.0, "key_elevation": 30.0, "key_softness": 0.4}
INK, ACCENT = "#f4f4f6", "#ffb74d"
SKIN, HAIR, LIPS, WHITE, PEN = (1.0, 0.80, 0.65), (0.50, 0.30, 0.20), (0.86, 0.42, 0.42), (1.0, 1.0, 1.0), (0.15, 0.09, 0.11)
"""Of a drawing."""

Colours = tuple[str, str]
"""Colours at the top and the bottom of a background."""
NIGHT, DUSK, SEA, MOSS, ROSE = (
    ("#2b3550", "#10131d"), ("#5b4a78", "#1d1830"), ("#2f6f8f", "#12303f"), ("#5d7f5a", "#1f3026"), ("#9c5866", "#33202a"),
)  # fmt: skip


def backdrop(colours: Colours, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Draw a gradient from the top colour to the bottom colour."""
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, colours[1]), Image.new("RGB", size, colours[0]), ramp)


def drawn(params: HeadParams, side: int = SIDE, of: str = "lambertian", tint: str | None = None) -> Image.Image:
    """Draw a head as RGBA on a transparent background.

    Args:
        params: One head.
        side: Pixels.
        of: The map to draw: "lambertian", "albedo" or "normal".
        tint: A colour to multiply by.
    """
    maps = render_head(MODEL, params, FINER * side, FINER * side)
    colour = normal_colors(maps) if of == "normal" else getattr(maps, of)
    pixels = torch.cat([colour, maps.alpha], dim=1)[0].clamp(0, 1).movedim(0, -1)
    image = Image.fromarray((pixels * 255).round().byte().numpy(), "RGBA")
    if tint:
        image = ImageChops.multiply(image, Image.new("RGBA", image.size, tint))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def head(side: int = SIDE, of: str = "lambertian", tint: str | None = None, /, **changes: float | str) -> Image.Image:
    """Edit and draw the average head."""
    return drawn(edited(**(LAMP | changes)), side, of, tint)


def over(canvas: Image.Image, picture: Image.Image, x: float = 0, y: float = 0) -> Image.Image:
    """Paste an RGBA picture onto a canvas with its corner at (x, y), and return the canvas."""
    canvas.paste(picture, (round(x), round(y)), picture)
    return canvas


def photo(picture: Image.Image, side: int, turn: float, colours: Colours) -> Image.Image:
    """Draw a printed photo, rotated by `turn` degrees, as RGBA."""
    edge, foot = side // 16, side // 6
    paper = Image.new("RGBA", (side + 2 * edge, side + edge + foot), INK)
    paper.paste(over(backdrop(colours, (side, side)), picture.resize((side, side))), (edge, edge))
    return paper.rotate(turn, Image.Resampling.BICUBIC, expand=True)


def toon(params: HeadParams) -> Image.Image:
    """Draw a head as RGBA in flat colours and three tones with an ink outline."""
    maps = render_head(MODEL, params, FINER * SIDE, FINER * SIDE)
    albedo, lit = maps.albedo[0].movedim(0, -1), maps.lambertian[0].movedim(0, -1)
    bright = albedo.mean(-1)
    light = lit.mean(-1) / bright.clamp(min=0.01)
    tone = 0.62 + 0.22 * (light > 0.4 * light.amax()) + 0.16 * (light > 0.66 * light.amax())
    # classify each pixel by the colours of the built-in skin
    flat = torch.tensor(SKIN).expand_as(albedo).clone()
    for where, colour in (
        (bright > 0.68, WHITE),
        (albedo[..., 0] > 1.55 * albedo[..., 1], LIPS),
        (bright < 0.47, HAIR),
        (bright < 0.3, PEN),
    ):
        flat[where] = torch.tensor(colour)
    pixels = torch.cat([flat * tone[..., None], maps.alpha[0].movedim(0, -1)], dim=-1)
    picture = Image.fromarray((pixels * 255).round().byte().numpy(), "RGBA")
    colour, alpha = picture.convert("RGB").filter(ImageFilter.ModeFilter(9)), picture.getchannel("A")
    inked = Image.new("RGBA", picture.size, "#1c1420")
    inked.putalpha(alpha.filter(ImageFilter.MaxFilter(15)))
    inked.paste(colour, (0, 0), alpha)
    return inked.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def halftone(colours: Colours, step: int = 24) -> Image.Image:
    """Draw halftone dots that grow downwards."""
    canvas = Image.new("RGB", (SIDE, SIDE), colours[0])
    pen = ImageDraw.Draw(canvas)
    for row, y in enumerate(range(0, SIDE + step, step // 2)):
        for x in range(row % 2 * step // 2, SIDE + step, step):
            pen.circle((x, y), step * 0.1 + step * 0.4 * y / SIDE, colours[1])
    return canvas


def arc(canvas: Image.Image, box: tuple[float, float, float, float], start: float, end: float, colour: str = ACCENT):
    """Draw an arc with an arrowhead at each end; degrees clockwise from the right."""
    pen = ImageDraw.Draw(canvas)
    pen.arc(box, start, end, colour, 8)
    (x0, y0, x1, y1), tip = box, 20
    for angle, way in ((start, -1), (end, 1)):
        a = math.radians(angle)
        x, y = (x0 + x1) / 2 + (x1 - x0) / 2 * math.cos(a), (y0 + y1) / 2 + (y1 - y0) / 2 * math.sin(a)
        along = math.atan2(way * (y1 - y0) * math.cos(a), -way * (x1 - x0) * math.sin(a))
        points = [(x + tip * math.cos(along + t), y + tip * math.sin(along + t)) for t in (0, 2.3, -2.3)]
        pen.polygon(points, colour)


def tiled(faces: list[dict], colours: Colours, columns: int) -> Image.Image:
    """Draw tiles of the average head with different edits."""
    canvas, width, height = backdrop(colours), SIDE // columns, SIDE * columns // len(faces)
    for i, face in enumerate(faces):
        picture = head(height, size=1.42, position_y=0.02, **face)
        left = (height - width) // 2
        over(canvas, picture.crop((left, 0, left + width, height)), i % columns * width, i // columns * height)
    return canvas


def portrait():
    """A photo becomes a portrait."""
    canvas = over(backdrop(SEA), head(size=1.15, yaw=-18.0, pitch=5.0, position_x=0.22, position_y=0.05, **SMILE))
    return over(canvas, photo(head(384, size=1.3), 150, 8, ROSE), 14, 300)


def one_node():
    """A node with a photo at its input and a portrait at its output."""
    canvas = backdrop(SEA)
    pen = ImageDraw.Draw(canvas)
    pen.line([(84, 256), (428, 256)], ACCENT, 7)
    pen.rounded_rectangle((176, 70, 336, 442), 18, "#2b2d33", "#4c505c", 3)
    pen.rounded_rectangle((176, 70, 336, 114), 18, "#3b3f4a", corners=(True, True, False, False))
    for y in range(136, 420, 42):
        pen.rounded_rectangle((192, y, 320, y + 26), 13, "#15161a", "#4c505c", 2)
    over(canvas, photo(head(384, size=1.3), 150, 6, ROSE), 2, 150)
    return over(canvas, photo(head(384, size=1.3, yaw=-28.0, pitch=6.0, **SMILE), 150, -5, MOSS), 320, 150)


def toon_portrait():
    """The same, drawn."""
    params = edited(size=1.15, yaw=-18.0, pitch=5.0, position_x=0.22, position_y=0.05, **SMILE, **LAMP)
    canvas = over(halftone(("#ffd54f", "#ff8a65")), toon(params))
    return over(canvas, photo(head(384, size=1.3), 150, 8, ROSE), 14, 300)


def pose_from_photo():
    """Draw one head in the pose of another."""
    pose = {"yaw": 42.0, "pitch": -12.0, "roll": 14.0}
    canvas = over(backdrop(MOSS), head(size=1.15, position_x=0.22, **pose))
    return over(canvas, photo(head(384, "normal", size=1.2, **pose), 170, 7, NIGHT), 12, 290)


def edit_head():
    """A head between arrows, and the lamp's ball."""
    canvas = backdrop(NIGHT)
    over(canvas, head(size=1.1, yaw=28.0, pitch=6.0, position_y=-0.02, smile_left=0.6, smile_right=0.6))
    arc(canvas, (70, 396, 442, 492), 25, 155)
    arc(canvas, (400, 70, 486, 400), -65, 65)
    pen = ImageDraw.Draw(canvas)
    for i, value in enumerate((0.62, 0.35, 0.8)):
        y = 40 + 26 * i
        pen.rounded_rectangle((24, y, 144, y + 12), 6, "#3a4460")
        pen.rounded_rectangle((24, y, 24 + 120 * value, y + 12), 6, "#8fa3d0")
    return canvas


def expressions():
    """Six faces."""
    faces = [
        {},
        SMILE | {"mouth_open": 0.25, "squint_left": 0.3, "squint_right": 0.3},
        {"brows_up_left": 1.0, "brows_up_right": 1.0, "mouth_open": 0.9},
        {"brows_down": 1.0, "frown": 0.7, "sneer_left": 0.7, "sneer_right": 0.7, "squint_left": 0.4, "squint_right": 0.4},
        {"pucker": 1.0, "brows_up_left": 0.5},
        {"eyes_closed_left": 1.0, "smile_left": 0.9, "smile_right": 0.3},
    ]
    return tiled(faces, DUSK, 3)


def lights():
    """One head lit from four sides."""
    places = ((-80.0, 15.0, "#ffffff"), (0.0, 75.0, "#ffd9a0"), (80.0, 15.0, "#9fc4ff"), (0.0, -60.0, "#ff9d52"))
    lamps = [
        {"key_azimuth": azimuth, "key_elevation": elevation, "key_color": colour, "ambient": 0.06, "key_intensity": 1.3}
        for azimuth, elevation, colour in places
    ]
    return tiled(lamps, ("#14151b", "#08080b"), 2)


def turntable():
    """Five turns, the middle one in front."""
    canvas = backdrop(SEA)
    for x, yaw, size in ((-0.72, -64.0, 0.62), (0.72, 64.0, 0.62), (-0.42, -34.0, 0.78), (0.42, 34.0, 0.78), (0.0, 0.0, 0.95)):
        over(canvas, head(size=size, yaw=yaw, position_x=x, position_y=-0.08))
    arc(canvas, (60, 372, 452, 476), 15, 165)
    return canvas


def two_people():
    """Draw two different heads."""
    canvas = backdrop(MOSS)
    shapes = torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(4))
    for x, shape, tint in ((-0.44, shapes[0], "#b08a78"), (0.44, shapes[1], "#fff0e6")):
        params = edited(size=0.98, position_x=x, position_y=-0.02, yaw=-54 * x, **SMILE, **LAMP).replace(shape=shape)
        over(canvas, drawn(params, tint=tint))
    return canvas


def openpose_body():
    """Draw an OpenPose skeleton with a rendered head."""
    canvas = backdrop(("#191a22", "#0a0a0e"))
    pen = ImageDraw.Draw(canvas)
    neck, hips = (256, 190), ((226, 352), (286, 352))
    limbs = [(neck, hips[0]), (neck, hips[1])]
    for shoulder, elbow, hand, hip, knee, foot in (
        ((196, 200), (150, 262), (196, 320), hips[0], (206, 430), (200, 506)),
        ((316, 200), (362, 262), (400, 190), hips[1], (312, 430), (322, 506)),
    ):
        limbs += [(neck, shoulder), (shoulder, elbow), (elbow, hand), (hip, knee), (knee, foot)]
    for i, ends in enumerate(limbs):
        colour = f"hsv({360 * i // len(limbs)}, 85%, 95%)"
        pen.line(ends, colour, 14)
        for end in ends:
            pen.circle(end, 10, colour)
    return over(canvas, head(300, size=1.2, yaw=-12.0, **SMILE), 106, -28)


def second_pass():
    """Coarse on the left, fine on the right."""
    fine = over(backdrop(DUSK), head(size=1.3, yaw=16.0, **SMILE))
    coarse = fine.resize((40, 40), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    left = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(left).polygon([(0, 0), (296, 0), (216, SIDE), (0, SIDE)], fill=255)
    fine.paste(coarse, (0, 0), left)
    ImageDraw.Draw(fine).line([(296, 0), (216, SIDE)], INK, 5)
    return fine


def face_detailer():
    """A small coarse head in a frame, and the same fine and large."""
    place = {"yaw": 14.0, **SMILE}
    canvas = over(backdrop(MOSS), head(size=0.42, position_x=-0.52, position_y=-0.46, **place))
    box = (26, 34, 220, 228)
    coarse = canvas.crop(box).resize((26, 26), Image.Resampling.BOX).resize((194, 194), Image.Resampling.NEAREST)
    canvas.paste(coarse, box[:2])
    fine = over(backdrop(ROSE, (340, 340)), head(340, size=1.1, **place))
    canvas.paste(fine, (156, 156))
    pen = ImageDraw.Draw(canvas)
    for start, end in (((box[0], box[3]), (156, 496)), ((box[2], box[1]), (496, 156))):
        pen.line([start, end], INK, 3)
    pen.rectangle(box, outline=ACCENT, width=5)
    pen.rectangle((156, 156, 496, 496), outline=ACCENT, width=5)
    return canvas


def face_detailer_impact():
    """Draw a coarse picture with only the outlined head segment in fine detail."""
    picture = head(size=0.8, position_x=0.1, position_y=-0.12, yaw=14.0, **SMILE)
    fine, segment = over(backdrop(MOSS), picture), picture.getchannel("A")
    canvas = fine.resize((32, 32), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    line = Image.new("RGB", canvas.size, ACCENT)
    canvas.paste(line, (0, 0), segment.filter(ImageFilter.MaxFilter(13)))
    canvas.paste(fine, (0, 0), segment)
    box = segment.getbbox()
    assert box is not None, "the picture shows a head"
    left, top, right, bottom = box
    pen, grow, arm = ImageDraw.Draw(canvas), 36, 64
    for x, across in ((left - grow, arm), (right + grow, -arm)):
        for y, down in ((top - grow, arm), (bottom + grow, -arm)):
            pen.line([(x + across, y), (x, y), (x, y + down)], INK, 6, "curve")
    return canvas


def lora_and_depth():
    """A head before a room in shades of depth."""
    canvas = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(canvas)
    for i in range(16):
        share, grey = i / 16, 215 - 12 * i
        left, top = 256 * share * 0.86, 220 * share * 0.86
        pen.rectangle((left, top, SIDE - left, SIDE - top * 1.1), (grey, grey, grey))
    return over(canvas, head(size=1.15, yaw=-22.0, position_y=0.12, key_color="#ffc98a", **SMILE))


def restyle():
    """A photo on the left, a drawing on the right."""
    params = edited(size=1.3, yaw=-8.0, **SMILE, **LAMP)
    canvas, other = over(backdrop(SEA), drawn(params)), over(halftone(("#80deea", "#26a69a")), toon(params))
    canvas.paste(other.crop((256, 0, SIDE, SIDE)), (256, 0))
    ImageDraw.Draw(canvas).line([(256, 0), (256, SIDE)], INK, 5)
    return canvas


def inpaint():
    """A grey photo in which the face alone is in colour."""
    painted = head(size=1.25, yaw=20.0, **SMILE)
    canvas = over(backdrop(ROSE), painted)
    face, box = Image.new("L", canvas.size), (136, 116, 396, 432)
    ImageDraw.Draw(face).ellipse(box, fill=255)
    face = ImageChops.multiply(face, painted.getchannel("A"))
    canvas = Image.composite(canvas, ImageOps.grayscale(canvas).convert("RGB"), face)
    pen = ImageDraw.Draw(canvas)
    for start in range(0, 360, 15):
        pen.arc(box, start, start + 8, INK, 5)
    return canvas


def dots(canvas: Image.Image, params: HeadParams, colour: str, radius: float) -> Image.Image:
    """Draw a head's 68 landmarks."""
    pen = ImageDraw.Draw(canvas)
    for point in landmark_pixels(MODEL, params, SIDE, SIDE)[0].tolist():
        pen.circle(tuple(point), radius, colour)
    return canvas


def measure():
    """A head with its landmarks, and bars."""
    params = edited(size=1.1, yaw=-16.0, position_x=-0.14, **LAMP)
    canvas = dots(over(backdrop(NIGHT), drawn(params)), params, ACCENT, 4)
    pen = ImageDraw.Draw(canvas)
    for i, (value, colour) in enumerate(((0.86, "#81c784"), (0.62, "#4fc3f7"), (0.74, "#ba68c8"), (0.4, "#ffb74d"))):
        x = 384 + 29 * i
        pen.rounded_rectangle((x, 456 - 300 * value, x + 20, 456), 5, colour)
    pen.line([(376, 462), (502, 462)], INK, 4)
    return canvas


def landmark_control():
    """The landmarks alone on the left, on the head on the right."""
    params = edited(size=1.3, yaw=12.0, **LAMP)
    canvas = over(backdrop(MOSS), drawn(params))
    canvas.paste("black", (0, 0, 256, SIDE))
    return dots(canvas, params, "white", 5)


def miniature():
    """A person who does not exist, on a photo and elsewhere."""
    person = Person.sample(PERSON)
    heads = HeadParams.cat([person.head(yaw=24.0, pitch=4.0, light="left"), person.head()])
    settings = Setting("green", "beach"), Setting("blue", "white studio")
    made, given = (to_picture(p) for p in draw_people([person] * 2, heads, settings, SIDE))
    return over(made, photo(given.convert("RGBA"), 150, 8, ROSE), 14, 300)


def head_first():
    """From noise over a head to a person."""
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1)) * 255
    canvas = Image.fromarray(noise.byte().numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST).point(lambda v: v * 0.6)
    place = {"size": 1.3, "yaw": -10.0}
    shapes, person = over(canvas.copy(), head(SIDE, "normal", **place)), over(backdrop(ROSE), head(**place, **SMILE))
    canvas.paste(shapes.crop((110, 0, 262, SIDE)), (110, 0))
    canvas.paste(person.crop((262, 0, SIDE, SIDE)), (262, 0))
    for x in (110, 262):
        ImageDraw.Draw(canvas).line([(x, 0), (x, SIDE)], INK, 5)
    return canvas


def controlled(kinds: tuple[str, ...], colours: Colours, **changes: float) -> Image.Image:
    """Draw a head in front, and control images of it as cards behind."""
    canvas, posed = backdrop(colours), edited(**(LAMP | changes))
    for i, kind in enumerate(kinds):
        picture = control_image(kind, MODEL, posed, SIDE // 2, SIDE // 2).picture[0].movedim(0, -1)
        card = photo(Image.fromarray((picture * 255).round().byte().numpy()).convert("RGBA"), 210, 9 - 9 * i, colours)
        over(canvas, card, 6 + 84 * i, 14 + 150 * i)
    return over(canvas, head(SIDE - 150, **changes), 170, 150)


def qwen_image_head():
    """A head, and its depth behind it."""
    return controlled(("depth", "normal BAE"), SEA, yaw=35.0, size=1.25, **SMILE)


def sdxl_instantid():
    """A head, and its five points and depth behind it."""
    return controlled(("five points", "depth"), ROSE, yaw=-30.0, pitch=6.0, size=1.25)


THUMBNAILS = {
    "edit_head": edit_head, "expressions": expressions, "face_detailer": face_detailer,
    "face_detailer_impact": face_detailer_impact, "head_first": head_first,
    "inpaint": inpaint, "landmark_control": landmark_control, "lights": lights, "lora_and_depth": lora_and_depth,
    "measure": measure, "miniature": miniature, "one_node": one_node,
    "openpose_body": openpose_body, "portrait": portrait, "pose_from_photo": pose_from_photo,
    "qwen_image_head": qwen_image_head, "restyle": restyle, "sdxl_instantid": sdxl_instantid,
    "second_pass": second_pass, "toon": toon_portrait, "turntable": turntable, "two_people": two_people,
}  # fmt: skip


if __name__ == "__main__":
    for name, draw in THUMBNAILS.items():
        draw().save(WORKFLOWS / f"{name}.jpg", quality=88, optimize=True)
