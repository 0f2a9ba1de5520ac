"""The measures of the built-in head, and the named shape components that change them.

Conventions: metres and radians. The defaults of `Measures` are those of an average adult, so `Measures()` is the average
head. Factors are relative to the average. A shape component changes one measure, or a few that belong together, by about
one standard deviation of adults (after published tables of head and face anthropometry).
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Measures:
    """Measures of a head, independent of one another."""

    # whole head
    skull_width: float = 1.0
    skull_height: float = 1.0
    skull_depth: float = 1.0
    face_width: float = 1.0
    face_length: float = 0.0
    """Length of the lower face beyond the average, in metres."""
    neck_width: float = 1.0
    # upper face
    forehead_slope: float = 0.0
    brow_height: float = 0.0
    brow_ridge: float = 0.0030
    eye_x: float = 0.0315
    eye_y: float = 0.0280
    eye_z: float = 0.0350
    eye_radius: float = 0.0120
    eye_width: float = 0.0296
    eye_tilt: float = 0.0018
    """Height of the outer corner of the eye above the inner one."""
    upper_lid: float = 0.0052
    lower_lid: float = 0.0043
    # middle face
    cheekbones: float = 0.0030
    cheeks: float = 0.0
    """How far the soft cheeks protrude beyond the average."""
    nose_length: float = 0.0460
    nose_width: float = 0.0172
    nose_bridge: float = 0.0
    nose_tip: float = 0.0205
    """How far the tip protrudes from the base of the nose."""
    nose_lift: float = 0.0
    # mouth
    mouth_y: float = -0.0410
    mouth_width: float = 0.0260
    upper_lip: float = 0.0072
    lower_lip: float = 0.0088
    lip_fullness: float = 1.0
    # jaw
    jaw_width: float = 1.0
    jaw_angle: float = 0.0
    chin_length: float = 0.0
    chin_width: float = 0.0150
    chin_out: float = 0.0030
    # ears
    ear_size: float = 1.0
    ear_flare: float = 0.33


# name: what one standard deviation adds to each measure
SHAPE_COMPONENTS: dict[str, dict[str, float]] = {
    "face_width": {"face_width": 0.040},
    "face_length": {"face_length": 0.0050},
    "skull_width": {"skull_width": 0.038},
    "skull_height": {"skull_height": 0.045},
    "skull_depth": {"skull_depth": 0.040},
    "forehead_slope": {"forehead_slope": 0.0050},
    "neck_width": {"neck_width": 0.090},
    "jaw_width": {"jaw_width": 0.060},
    "jaw_angle": {"jaw_angle": 0.0045},
    "chin_length": {"chin_length": 0.0040},
    "chin_width": {"chin_width": 0.0035},
    "chin_out": {"chin_out": 0.0035},
    "cheekbones": {"cheekbones": 0.0024},
    "cheeks": {"cheeks": 0.0035},
    "brow_height": {"brow_height": 0.0028},
    "brow_ridge": {"brow_ridge": 0.0024},
    "eye_size": {"eye_radius": 0.0005, "eye_width": 0.0018, "upper_lid": 0.0007, "lower_lid": 0.0005},
    "eye_spacing": {"eye_x": 0.0016},
    "eye_height": {"eye_y": 0.0020},
    "eye_depth": {"eye_z": -0.0018},
    "eye_tilt": {"eye_tilt": 0.0018},
    "nose_length": {"nose_length": 0.0028},
    "nose_width": {"nose_width": 0.0019},
    "nose_bridge": {"nose_bridge": 0.0024},
    "nose_tip": {"nose_tip": 0.0024},
    "nose_lift": {"nose_lift": 0.0014},
    "mouth_height": {"mouth_y": 0.0020},
    "mouth_width": {"mouth_width": 0.0022},
    "upper_lip": {"upper_lip": 0.0014},
    "lower_lip": {"lower_lip": 0.0014},
    "lip_fullness": {"lip_fullness": 0.35},
    "ear_size": {"ear_size": 0.08},
    "ear_flare": {"ear_flare": 0.14},
}
SHAPE_NAMES = tuple(SHAPE_COMPONENTS)


def component(name: str, amount: float = 1.0) -> Measures:
    """Return the average measures plus `amount` standard deviations of the shape component `name`."""
    average = Measures()
    return replace(average, **{key: getattr(average, key) + amount * step for key, step in SHAPE_COMPONENTS[name].items()})
