// Gestures on the picture inside Edit Head: dragging, the wheel and arrow keys. Each gesture is one undo step.

import { app } from "../../scripts/app.js";
import { direction, lampAt } from "./ball.js";

// The head's radius, as a fraction of half the frame's short side. With it, the surface stays under the pointer.
const HEAD_RADIUS = 0.62;
const WHEEL_OCTAVE = 900;
// Wheel events or key presses within this time of each other are one gesture, or one scroll of the canvas.
const PAUSE_MS = 350;
const POSE = ["yaw", "pitch", "roll"];
const PLACE = ["position_x", "position_y", "size"];
const LIGHT = ["light", "key_azimuth", "key_elevation"];
const LABELS = { key_azimuth: "azimuth", key_elevation: "elevation", position_x: "x", position_y: "y" };
const DEGREES = new Set([...POSE, "key_azimuth", "key_elevation"]);

// The gestures of each editor, by its root element.
const gesturesOf = new WeakMap();
let scrolledCanvas = 0;

export class Gestures {
  #root;
  #values;
  #showFrame;
  #current = null;
  #ending;
  #closed = false;

  /**
   * Listen to an editor's elements.
   * @param {HTMLElement} root the editor
   * @param {import("./widget_values.js").WidgetValues} values the values that gestures change
   * @param {() => void} showFrame leaves the close-up; only the whole frame shows the head's position
   */
  constructor(root, values, showFrame) {
    this.#root = root;
    this.#values = values;
    this.#showFrame = showFrame;
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

  #begin(kind) {
    if (this.#current === kind) return;
    this.#end();
    this.#current = kind;
    this.#root.dataset.gesture = kind;
    if (["place", "wheel"].includes(kind)) this.#showFrame();
    app.canvas.emitBeforeChange();
  }

  #end() {
    clearTimeout(this.#ending);
    if (!this.#current) return;
    this.#current = null;
    delete this.#root.dataset.gesture;
    this.#showValues([]);
    this.#values.write();
    app.canvas.emitAfterChange();
  }

  /** Make a single change a gesture of its own. */
  #once(change) {
    this.#begin("whole");
    change();
    this.#end();
  }

  /** Make one change of a gesture that ends by itself after a pause. */
  #untilPause(kind, change, names) {
    this.#begin(kind);
    change();
    this.#showValues(names);
    clearTimeout(this.#ending);
    this.#ending = setTimeout(() => this.#end(), PAUSE_MS);
  }

  /** Show the values of some widgets over the picture. */
  #showValues(names) {
    const chip = this.#root.querySelector(".reading");
    chip.classList.toggle("on", names.length > 0);
    if (names.length) {
      const number = (name) => {
        const value = this.#values.get(name);
        return DEGREES.has(name) ? `${value.toFixed(1)}°` : value.toFixed(2);
      };
      chip.textContent = names.map((name) => `${LABELS[name] ?? name} ${number(name)}`).join(" · ").replaceAll("-", "−");
    }
  }

  // ---- dragging

  /** Screen pixels of half the frame's short side. */
  #unit() {
    const canvas = this.#root.querySelector(".picture");
    const box = canvas.getBoundingClientRect();
    return (Math.min(box.width / canvas.width, box.height / canvas.height) * Math.min(canvas.width, canvas.height)) / 2;
  }

  #dragHead(down) {
    const values = this.#values;
    const unit = this.#unit();
    const start = Object.fromEntries([...POSE, ...PLACE].map((name) => [name, values.get(name)]));
    const degrees = 180 / Math.PI / HEAD_RADIUS;
    const kind = down.shiftKey ? "place" : down.altKey ? "tilt" : "turn";
    this.#follow(down, kind, (event) => {
      const [x, y] = [(event.clientX - down.clientX) / unit, (event.clientY - down.clientY) / unit];
      if (kind === "place") {
        values.set({ position_x: start.position_x + x, position_y: start.position_y + y });
        return PLACE.slice(0, 2);
      }
      if (kind === "tilt") {
        values.set({ roll: start.roll + x * degrees });
        return ["roll"];
      }
      values.set({ yaw: start.yaw + x * degrees, pitch: start.pitch - y * degrees });
      return POSE.slice(0, 2);
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
      values.set({ light: "custom", key_azimuth: azimuth, key_elevation: elevation });
      return LIGHT.slice(1);
    };
    this.#follow(down, "light", place);
    if (!near) this.#showValues(place(down));
  }

  /** Follow a pointer until it is released. */
  #follow(down, kind, move) {
    const root = this.#root;
    this.#begin(kind);
    down.target.setPointerCapture(down.pointerId);
    root.querySelector(".hint").classList.add("off");
    const onMove = (event) => {
      event.stopPropagation();
      if (event.pointerId === down.pointerId && !this.#closed) this.#showValues(move(event));
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

  // ---- wheel and keys

  /** Scale the head with the wheel, unless the user is scrolling the canvas. */
  wheel(event) {
    const now = performance.now();
    if (event.ctrlKey || app.canvas.read_only || now - scrolledCanvas < PAUSE_MS) {
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
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const [names, steps] = event.shiftKey ? [PLACE, [0.02, -0.02]] : [POSE, [2, 2]];
    const moved = Object.fromEntries(way.map((n, i) => [names[i], this.#values.get(names[i]) + n * steps[i]]));
    this.#untilPause("keys", () => this.#values.set(moved), names.slice(0, 2));
  }

  // ---- events

  #listen() {
    const root = this.#root;
    const inBall = (event) => event.target.classList.contains("ball");
    root.addEventListener("pointerdown", (event) => {
      if (this.#closed || event.target.closest("button")) return event.stopPropagation();
      if (event.button !== 0 || app.canvas.read_only) {
        // Nodes 2.0 opens its own menu on a right click.
        if (event.button !== 2 || !LiteGraph.vueNodesMode) passToCanvas(event);
        return;
      }
      event.stopPropagation();
      delete root.dataset.keys;
      root.focus({ preventScroll: true });
      if (inBall(event)) this.#dragLight(event);
      else this.#dragHead(event);
    });
    root.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      if (this.#closed || event.target.closest("button")) return;
      const names = inBall(event) ? LIGHT : [...POSE, ...PLACE];
      this.#once(() => this.#values.set(Object.fromEntries(names.map((name) => [name, this.#values.defaults[name]]))));
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

/** Give the wheel to the editor under the pointer. */
export function listenToWheel() {
  // This listener must come before those of the renderers. Since 1.49, Nodes 2.0 zooms the canvas when the wheel turns over a
  // widget that has not been clicked yet.
  window.addEventListener("wheel", (event) => {
    const gestures = gesturesOf.get(event.target.closest?.(".capface-editor"));
    if (gestures) gestures.wheel(event);
    else scrolledCanvas = performance.now();
  }, { capture: true, passive: false });
}
