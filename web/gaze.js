// Where the eyes look: the gaze that meets the camera, for any pose of the head.

const RADIANS = Math.PI / 180;
/** Angles of a head without any: yaw, pitch and roll of the head and of its neck, yaw and pitch of its eyes. */
export const STRAIGHT = [0, 0, 0, 0, 0, 0, 0, 0];

/**
 * The gaze sliders that let a head look at the viewer.
 * @param {(name: string) => *} get returns a widget's value
 * @param {number[]} base angles of the node's input head in degrees, as in STRAIGHT
 * @returns {{gaze_yaw: number, gaze_pitch: number}} in degrees
 */
export function gazeAtCamera(get, base = STRAIGHT) {
  const total = (mode, names, at) => names.map((name, i) => get(name) + (get(mode) === "absolute" ? 0 : base[at + i]));
  const head = rotation(...total("pose_mode", ["yaw", "pitch", "roll"], 0));
  const neck = rotation(...total("pose_mode", ["neck_yaw", "neck_pitch", "neck_roll"], 3));
  // The viewer's direction in the head: the last row of head · neck.
  const [x, y, z] = [0, 1, 2].map((column) => head[2].reduce((sum, value, i) => sum + value * neck[i][column], 0));
  const own = get("expression_mode") === "absolute" ? [0, 0] : base.slice(6);
  return {
    gaze_yaw: Math.atan2(x, z) / RADIANS - own[0],
    gaze_pitch: Math.asin(Math.max(-1, Math.min(1, y))) / RADIANS - own[1],
  };
}

/** R_y(yaw) · R_x(-pitch) · R_z(-roll), as rows; see flame/editing/edits.py. */
function rotation(yaw, pitch, roll) {
  const [[a, b], [c, d], [e, f]] = [yaw, -pitch, -roll].map((angle) => [Math.cos(angle * RADIANS), Math.sin(angle * RADIANS)]);
  return [
    [a * e + b * d * f, b * d * e - a * f, b * c],
    [c * f, c * e, -d],
    [a * d * f - b * e, b * f + a * d * e, a * c],
  ];
}
