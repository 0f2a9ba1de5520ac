// Gestures on the picture inside Edit Head: dragging, rings, eyes, two fingers, the wheel and keys. Each gesture is one undo step.

import { app } from "../../scripts/app.js";
import { direction, lampAt } from "./ball.js";
import { preference } from "./preferences.js";
import { HEAD_RADIUS } from "./rings.js";

const WHEEL_OCTAVE = 900;
// Wheel events or key presses within this time of each other are one gesture, or one scroll of the canvas.
const PAUSE_MS = 350;
const POSE = ["yaw", "pitch", "roll"];
const PLACE = ["position_x", "position_y", "size"];
const GAZE = ["gaze_yaw", "gaze_pitch"];
const LIGHT = ["light", "key_azimuth", "key_elevation"];
const DEGREES = 180 / Math.PI;
// While snapping, values are multiples of these.
const SNAP = { angle: 15, place: 0.1, size: 0.125 };
// Steps of keys, and their factors with Alt and with Ctrl.
const STEP = { angle: 2, place: 0.02, size: 1.02 };
const [FINE, COARSE] = [0.25, 7.5];
// An eye is grabbed within this many of its radii. The pointer moves as many times as far as the iris.
const EYE_REACH = 1.6;
const EYE_GEAR = 3;
const GRAB = { move: "place", yaw: "yaw", pitch: "pitch", roll: "tilt", size: "size" };

// The gestures of each editor, by its root element.
const gesturesOf = new WeakMap();
let scrolledCanvas = 0;

export class Gestures {
  #root;
  #values;
  #showFrame;
  #showValues;
  #places;
  #current = null;
  #ending;
  #closed = false;
  // The fingers on the picture, by pointer id.
  #fingers = new Map();
  #pinching = false;
  #undoFirst = null;

  /**
   * Listen to an editor's elements.
   * @param {HTMLElement} root the editor
   * @param {import("./widget_values.js").WidgetValues} values the values that gestures change
   * @param {object} editor
   * @param {() => void} editor.showFrame leaves the close-up; only the whole frame shows the head's position
   * @param {(names: string[]) => void} editor.showValues shows the values of some widgets; none at the end of a gesture
   * @param {() => object} editor.places where head and eyes are, in pixels of the page
   */
  constructor(root, values, { showFrame, showValues, places }) {
    this.#root = root;
    this.#values = values;
    this.#showFrame = showFrame;
    this.#showValues = showValues;
    this.#places = places;
    gesturesOf.set(root, this);
    this.#listen();
  }

  /** Whether a gesture is in progress. */
  get active() {
    return this.#current !== null;
  }

  /** End the gesture in progress and start no others. */
  close() {
    this.#end();
    this.#closed = true;
  }

  // ---- start and end

  /** Begin a gesture, unless one of its kind is in progress. Other parts of the editor do so as well. */
  begin(kind) {
    if (this.#current === kind) return;
    this.#end();
    this.#current = kind;
    this.#root.dataset.gesture = kind;
    if (["place", "wheel", "size"].includes(kind)) this.#showFrame();
    app.canvas.emitBeforeChange();
  }

  /** End the gesture in progress. */
  end() {
    this.#end();
  }

  #end() {
    clearTimeout(this.#ending);
    if (!this.#current) return;
    this.#current = null;
    this.#pinching = false;
    delete this.#root.dataset.gesture;
    this.#values.write();
    this.#showValues([]);
    app.canvas.emitAfterChange();
  }

  /** Make a single change a gesture of its own. */
  once(change) {
    if (this.#closed) return;
    this.begin("whole");
    change();
    this.#end();
  }

  /** Make one change of a gesture that ends by itself after a pause. */
  #untilPause(kind, change, names) {
    this.begin(kind);
    change();
    this.#showValues(names);
    clearTimeout(this.#ending);
    this.#ending = setTimeout(() => this.#end(), PAUSE_MS);
  }

  /** Change values, rounded to steps while snapping. */
  #set(event, values) {
    if (event.ctrlKey || event.metaKey || preference("snap")) {
      for (const name of Object.keys(values)) {
        const step = name === "size" ? SNAP.size : PLACE.includes(name) ? SNAP.place : SNAP.angle;
        values[name] = Math.round(values[name] / step) * step;
      }
    }
    this.#values.set(values);
    return Object.keys(values);
  }

  // ---- dragging

  /** Grab what is under the pointer: a ring, an eye, or the head itself. */
  #grab(down) {
    const ring = down.target.closest("[data-axis]")?.dataset.axis;
    if (ring) return GRAB[ring];
    if (down.shiftKey) return "place";
    if (down.altKey) return "tilt";
    const { eyes, eye } = this.#places();
    const reach = Math.max(EYE_REACH * eye, 5);
    return eyes.some(([x, y]) => Math.hypot(down.clientX - x, down.clientY - y) < reach) ? "gaze" : "turn";
  }

  #dragHead(down) {
    const values = this.#values;
    const { unit, head, eye } = this.#places();
    const start = Object.fromEntries([...POSE, ...PLACE, ...GAZE].map((name) => [name, values.get(name)]));
    const degrees = DEGREES / HEAD_RADIUS;
    const kind = this.#grab(down);
    const byRing = Boolean(down.target.closest("[data-axis]"));
    const polar = ({ clientX, clientY }) => Math.atan2(clientY - head.y, clientX - head.x) * DEGREES;
    const distance = ({ clientX, clientY }) => Math.max(8, Math.hypot(clientX - head.x, clientY - head.y));
    let [turned, before] = [0, polar(down)];
    const moves = {
      place: (x, y) => ({ position_x: start.position_x + x, position_y: start.position_y + y }),
      turn: (x, y) => ({ yaw: start.yaw + x * degrees, pitch: start.pitch - y * degrees }),
      yaw: (x) => ({ yaw: start.yaw + x * degrees }),
      pitch: (_, y) => ({ pitch: start.pitch - y * degrees }),
      size: (_x, _y, event) => ({ size: start.size * (distance(event) / distance(down)) }),
      gaze: (x, y) => {
        const gear = (DEGREES * unit) / (EYE_GEAR * Math.max(eye, 1));
        return { gaze_yaw: start.gaze_yaw + x * gear, gaze_pitch: start.gaze_pitch - y * gear };
      },
      tilt: (x, _, event) => {
        if (!byRing) return { roll: start.roll + x * degrees };
        const now = polar(event);
        // The shorter way, also across the angle of 180 degrees.
        turned += ((now - before + 540) % 360) - 180;
        before = now;
        return { roll: start.roll + turned };
      },
    };
    this.#undoFirst = () => values.set({ yaw: start.yaw, pitch: start.pitch });
    this.#follow(down, kind, (event) => {
      const [x, y] = [(event.clientX - down.clientX) / unit, (event.clientY - down.clientY) / unit];
      return this.#set(event, moves[kind](x, y, event));
    });
  }

  #dragLight(down) {
    const values = this.#values;
    const box = down.target.getBoundingClientRect();
    const radius = (box.width / 2) * (5 / 6);
    const [middleX, middleY] = [box.left + box.width / 2, box.top + box.height / 2];
    // A lamp that is grabbed by its dot keeps its distance from the pointer. A press elsewhere moves the lamp to the pointer.
    const [dx, dy] = direction(values.get("key_azimuth"), values.get("key_elevation"));
    const [gapX, gapY] = [middleX + dx * radius - down.clientX, middleY - dy * radius - down.clientY];
    const near = values.get("light") === "custom" && Math.hypot(gapX, gapY) < radius / 3;
    const place = (event) => {
      const x = (event.clientX + (near ? gapX : 0) - middleX) / radius;
      const y = (middleY - event.clientY - (near ? gapY : 0)) / radius;
      const [azimuth, elevation] = lampAt(x, y);
      values.set({ light: "custom" });
      return this.#set(event, { key_azimuth: azimuth, key_elevation: elevation });
    };
    this.#follow(down, "light", place);
    if (!near) this.#showValues(place(down));
  }

  /** Follow a pointer until it is released. */
  #follow(down, kind, move) {
    const root = this.#root;
    this.begin(kind);
    down.target.setPointerCapture(down.pointerId);
    root.querySelector(".hint").classList.add("off");
    const onMove = (event) => {
      event.stopPropagation();
      if (event.pointerId === down.pointerId && !this.#closed && !this.#pinching) this.#showValues(move(event));
    };
    const onUp = (event) => {
      event.stopPropagation();
      if (event.pointerId !== down.pointerId) return;
      for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) root.removeEventListener(name, onUp);
      root.removeEventListener("pointermove", onMove);
      this.#end();
    };
    root.addEventListener("pointermove", onMove);
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) root.addEventListener(name, onUp);
  }

  // ---- two fingers

  /** Size, tilt and move the head with two fingers. The turn by the first finger before is taken back. */
  #pinch() {
    const values = this.#values;
    this.#undoFirst?.();
    this.#pinching = true;
    this.#root.dataset.gesture = "pinch";
    this.#showFrame();
    const { unit } = this.#places();
    const start = Object.fromEntries(["roll", ...PLACE].map((name) => [name, values.get(name)]));
    const span = () => {
      const [[x0, y0], [x1, y1]] = [...this.#fingers.values()];
      return { x: (x0 + x1) / 2, y: (y0 + y1) / 2, length: Math.max(8, Math.hypot(x1 - x0, y1 - y0)), angle: Math.atan2(y1 - y0, x1 - x0) };
    };
    const first = span();
    this.#pinched = (event) => {
      const now = span();
      const angle = (((now.angle - first.angle) * DEGREES + 540) % 360) - 180;
      this.#showValues(this.#set(event, {
        size: start.size * (now.length / first.length),
        roll: start.roll + angle,
        position_x: start.position_x + (now.x - first.x) / unit,
        position_y: start.position_y + (now.y - first.y) / unit,
      }));
    };
  }

  #pinched = () => {};

  #trackFingers() {
    const root = this.#root;
    const at = (event) => [event.clientX, event.clientY];
    root.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" && !event.target.closest("button, input, .ball")) this.#fingers.set(event.pointerId, at(event));
    }, true);
    root.addEventListener("pointermove", (event) => {
      if (!this.#fingers.has(event.pointerId)) return;
      this.#fingers.set(event.pointerId, at(event));
      if (this.#pinching && this.#fingers.size === 2) this.#pinched(event);
    }, true);
    for (const name of ["pointerup", "pointercancel"]) root.addEventListener(name, (event) => this.#fingers.delete(event.pointerId), true);
  }

  // ---- wheel and keys

  /** Scale the head with the wheel, unless the user is scrolling the canvas. */
  wheel(event) {
    const now = performance.now();
    const inDialog = this.#root.closest("dialog");
    if (!inDialog && (event.ctrlKey || app.canvas.read_only || now - scrolledCanvas < PAUSE_MS)) {
      scrolledCanvas = now;
      event.preventDefault();
      event.stopPropagation();
      app.canvas.processMouseWheel(event);
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const delta = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1);
    const values = this.#values;
    this.#untilPause("wheel", () => values.set({ size: values.get("size") * 2 ** (-delta / WHEEL_OCTAVE) }), ["size"]);
  }

  #press(event) {
    if (event.target !== this.#root) return;
    const { key, shiftKey } = event;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    const tilt = { ",": -1, "<": -1, ".": 1, ">": 1 }[key];
    const grow = { "+": 1, "=": 1, "-": -1, _: -1 }[key];
    if (!arrow && !tilt && !grow) return;
    event.preventDefault();
    event.stopPropagation();
    const factor = event.altKey ? FINE : event.ctrlKey || event.metaKey ? COARSE : 1;
    const get = (name) => this.#values.get(name);
    let moved;
    if (tilt) moved = { roll: get("roll") + tilt * factor * STEP.angle };
    else if (grow) moved = { size: get("size") * STEP.size ** (grow * factor) };
    else if (shiftKey) {
      moved = { position_x: get("position_x") + arrow[0] * factor * STEP.place, position_y: get("position_y") - arrow[1] * factor * STEP.place };
    } else moved = { yaw: get("yaw") + arrow[0] * factor * STEP.angle, pitch: get("pitch") + arrow[1] * factor * STEP.angle };
    this.#untilPause("keys", () => this.#values.set(moved), Object.keys(moved));
  }

  // ---- events

  #listen() {
    const root = this.#root;
    const inBall = (event) => event.target.classList.contains("ball");
    const inControl = (event) => event.target.closest("button, input, label");
    this.#trackFingers();
    root.addEventListener("pointerdown", (event) => {
      if (this.#closed || inControl(event)) return event.stopPropagation();
      if (event.button !== 0 || app.canvas.read_only) {
        // Nodes 2.0 opens its own menu on a right click.
        if (event.button !== 2 || !LiteGraph.vueNodesMode) passToCanvas(event);
        return;
      }
      event.stopPropagation();
      delete root.dataset.keys;
      root.focus({ preventScroll: true });
      if (this.#fingers.size > 1) {
        if (this.#fingers.size === 2 && this.active) this.#pinch();
      } else if (inBall(event)) this.#dragLight(event);
      else this.#dragHead(event);
    });
    root.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      if (this.#closed || inControl(event)) return;
      const names = inBall(event) ? LIGHT : [...POSE, ...PLACE];
      this.once(() => this.#values.set(Object.fromEntries(names.map((name) => [name, this.#values.defaults[name]]))));
    });
    root.addEventListener("keydown", (event) => this.#press(event));
    // The focus ring is shown only to keyboard users.
    root.addEventListener("keyup", () => (root.dataset.keys = ""));
    root.addEventListener("blur", () => delete root.dataset.keys);
  }
}

/** Pass a pointer to the canvas, which does not receive events of elements over it: for panning and for the node's menu. */
function passToCanvas(down) {
  down.stopPropagation();
  app.canvas.processMouseDown(down);
  const move = (event) => app.canvas.processMouseMove(event);
  const up = (event) => {
    app.canvas.processMouseUp(event);
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", up);
  };
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", up);
}

/** Give the wheel and fingers to the editor under them. */
export function listenBeforeCanvas() {
  // This listener must come before those of the renderers. Since 1.49, Nodes 2.0 zooms the canvas when the wheel turns over a
  // widget that has not been clicked yet.
  window.addEventListener("wheel", (event) => {
    const gestures = gesturesOf.get(event.target.closest?.(".capface-editor"));
    if (gestures) gestures.wheel(event);
    else scrolledCanvas = performance.now();
  }, { capture: true, passive: false });
  // The canvas zooms and pans by touch events, which it takes before they reach their targets. The editor uses pointer events.
  for (const name of ["touchstart", "touchmove", "touchend", "touchcancel"]) {
    window.addEventListener(name, (event) => {
      if (event.target.closest?.(".capface-editor")) event.stopPropagation();
    }, { capture: true, passive: true });
  }
}
