// Left and right. Edit Head names widgets of one side of the face with the endings _left and _right, as seen by the person.

const TURNS = ["yaw", "roll", "neck_yaw", "neck_roll", "position_x", "jaw_side", "gaze_yaw", "key_azimuth"];

/** The widget of the other side of the face; null if a widget has none. */
export function counterpart(name) {
  if (name.endsWith("_left")) return name.replace(/left$/, "right");
  return name.endsWith("_right") ? name.replace(/right$/, "left") : null;
}

/**
 * The values of the mirrored head.
 * @param {string[]} names of all widgets
 * @param {(name: string) => *} get returns a widget's value
 */
export function mirrored(names, get) {
  const values = {};
  for (const name of names) {
    if (TURNS.includes(name)) values[name] = -get(name);
    else if (counterpart(name)) values[name] = get(counterpart(name));
  }
  return values;
}
