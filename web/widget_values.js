// The values of Edit Head's widgets, including those that a gesture has changed but not yet written.

import { app } from "../../scripts/app.js";
import { gazeAtCamera, STRAIGHT } from "./gaze.js";
import { preference } from "./preferences.js";
import { counterpart } from "./symmetry.js";

// During a gesture the widgets are written at most once in this time: redrawing them takes as long as a picture.
const WRITE_MS = 100;
const TURNING = ["pose_mode", "yaw", "pitch", "roll", "neck_yaw", "neck_pitch", "neck_roll"];

export class WidgetValues {
  #node;
  #changed;
  #written;
  #pending = {};
  #timer;
  #shown = null;
  /** Angles of the node's input head; see gaze.js. */
  base = STRAIGHT;

  /**
   * @param {object} node Edit Head
   * @param {() => void} changed called when a value has changed
   * @param {() => void} written called when the widgets have been written
   */
  constructor(node, changed, written) {
    this.#node = node;
    this.#changed = changed;
    this.#written = written;
    const { required = {}, optional = {} } = node.constructor.nodeData.input;
    this.defaults = Object.fromEntries(
      Object.entries({ ...required, ...optional }).map(([name, spec]) => [name, spec[1]?.default]));
  }

  #widget(name) {
    return this.#node.widgets.find((widget) => widget.name === name);
  }

  get(name) {
    return this.#pending[name] ?? this.#widget(name)?.value ?? this.defaults[name];
  }

  /** The values to draw that differ from their defaults, by name. */
  edited() {
    const values = {};
    for (const [name, value] of Object.entries(this.defaults)) {
      const drawn = this.#shown && name in this.#shown && !this.linked(name) ? this.#shown[name] : this.get(name);
      if (this.#widget(name) && drawn !== value) values[name] = drawn;
    }
    return values;
  }

  /** Draw other values for now, without changing any; null ends it. */
  try(values) {
    if (values === this.#shown) return;
    this.#shown = values;
    this.#changed();
  }

  /** Whether a widget's input is connected. Its value then comes from another node and is not changed here. */
  linked(name) {
    return this.#node.inputs.some((input) => input.widget?.name === name && input.link != null);
  }

  /** Whether a changed value has not been written to its widget yet. */
  pending(name) {
    return name in this.#pending;
  }

  /**
   * Let the values that depend on changed ones follow them: the other side of the face, and eyes that stay on the camera.
   * @returns {boolean} whether there are any
   */
  follow(values) {
    const also = {};
    if (preference("link")) {
      for (const [name, value] of Object.entries(values)) {
        const other = counterpart(name);
        if (other && !(other in values)) also[other] = value;
      }
    }
    if (preference("camera") && TURNING.some((name) => name in values) && !("gaze_yaw" in values)) {
      const get = (name) => (name in values ? values[name] : this.get(name));
      Object.assign(also, gazeAtCamera(get, this.base));
    }
    this.#set(also);
    return Object.keys(also).length > 0;
  }

  /** Change values. The picture is requested at once. The widgets are written a little later, because that is just as slow. */
  set(values) {
    this.#set(values);
    this.follow(values);
  }

  #set(values) {
    for (const [name, wanted] of Object.entries(values)) {
      const widget = this.#widget(name);
      if (!widget || this.linked(name)) continue;
      let value = wanted;
      if (typeof wanted === "number") {
        const { min, max, step2 = 0.01 } = widget.options;
        value = Number((Math.round(Math.max(min, Math.min(max, wanted)) / step2) * step2).toFixed(4));
      }
      if (value === this.get(name)) continue;
      this.#pending[name] = value;
      this.#changed();
      this.#timer ??= setTimeout(() => this.write(), WRITE_MS);
    }
  }

  /** Write the changed values to their widgets now. */
  write() {
    clearTimeout(this.#timer);
    const values = Object.entries(this.#pending);
    // The values stay pending until all are written, so that the widgets' callbacks request no further pictures.
    for (const [name, value] of values) {
      const widget = this.#widget(name);
      widget.value = value;
      widget.callback?.(value, app.canvas, this.#node);
    }
    this.#pending = {};
    this.#timer = null;
    this.#written();
    if (values.length) this.#node.setDirtyCanvas(true, false);
  }
}
