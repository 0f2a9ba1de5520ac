// The picture inside Edit Head. It only writes the node's ordinary widgets and shows what the server renders from them, so a
// workflow, its API form and a run without any browser give the same head.

import { app } from "../../scripts/app.js";
import { direction, drawBall, lampAt } from "./ball.js";
import { widgetBehind } from "./links.js";
import { BODY, LEAST_SIDE } from "./look.js";
import { Pictures } from "./pictures.js";
import { Sections } from "./sections.js";

const NODE = "CapFaceEditHead";
const VIEW = "editor";
const MEMORY = "capface.given";
const MOST_REMEMBERED = 64;
const FIRST_WIDTH = 360;
// A head's radius in halves of the frame's short side: the surface stays under the pointer.
const HEAD_RADIUS = 0.62;
const WHEEL_OCTAVE = 900;
// A turn of the wheel or a key press belongs to the one before, and a scroll over the canvas goes on, within so many ms.
const PAUSE_MS = 350;
// While something is dragged the sliders follow every so many ms: to draw them takes as long as a picture.
const WRITE_MS = 100;
const POSE = ["yaw", "pitch", "roll"];
const PLACE = ["position_x", "position_y", "size"];
const LIGHT = ["light", "key_azimuth", "key_elevation"];
const LABELS = { key_azimuth: "azimuth", key_elevation: "elevation", position_x: "x", position_y: "y" };
const DEGREES = new Set([...POSE, "key_azimuth", "key_elevation"]);

// The editors by what of them is on the screen.
const editors = new WeakMap();
let scrolledCanvas = 0;

class HeadEditor {
  #node;
  #defaults;
  #root = document.createElement("div");
  #pictures;
  #sections;
  // Values of the gesture under way that the widgets do not have yet.
  #pending = {};
  #writing;
  #given = null;
  #looks = { over: false, close: false, head: 0 };
  #heads = 1;
  #remembered = false;
  #gesture = null;
  #ending;
  #ball;
  #removed = false;

  constructor(node) {
    this.#node = node;
    const { required = {}, optional = {} } = node.constructor.nodeData.input;
    this.#defaults = Object.fromEntries(
      Object.entries({ ...required, ...optional }).map(([name, spec]) => [name, spec[1]?.default]));
    this.#build();
    this.#pictures = new Pictures(() => this.#request(), (answer) => this.#show(answer));
    this.#listen();
    this.#chain();
    node.setSize([Math.max(node.size[0], FIRST_WIDTH), node.computeSize()[1] + FIRST_WIDTH - LEAST_SIDE]);
    this.#want();
  }

  // ---- widgets

  #widget(name) {
    return this.#node.widgets.find((widget) => widget.name === name);
  }

  #value(name) {
    return this.#pending[name] ?? this.#widget(name)?.value ?? this.#defaults[name];
  }

  /** Whether another node sets a widget, which is then not ours to set. */
  #linked(name) {
    return this.#node.inputs.some((input) => input.widget?.name === name && input.link != null);
  }

  /** Want other values. The picture is asked for at once; the widgets follow a little later, since they cost as much time. */
  #set(values) {
    for (const [name, wanted] of Object.entries(values)) {
      const widget = this.#widget(name);
      if (!widget || this.#linked(name)) continue;
      let value = wanted;
      if (typeof wanted === "number") {
        const { min, max, step2 = 0.01 } = widget.options;
        value = Number((Math.round(Math.max(min, Math.min(max, wanted)) / step2) * step2).toFixed(4));
      }
      if (value === this.#value(name)) continue;
      this.#pending[name] = value;
      this.#want();
      this.#writing ??= setTimeout(() => this.#write(), WRITE_MS);
    }
  }

  #write() {
    clearTimeout(this.#writing);
    const values = Object.entries(this.#pending);
    // Until all are written, what they call wants no further picture.
    for (const [name, value] of values) {
      const widget = this.#widget(name);
      widget.value = value;
      widget.callback?.(value, app.canvas, this.#node);
    }
    this.#pending = {};
    this.#writing = null;
    this.#sections.update();
    if (values.length) this.#node.setDirtyCanvas(true, false);
  }

  #reset(names) {
    this.#whole(() => this.#set(Object.fromEntries(names.map((name) => [name, this.#defaults[name]]))));
  }

  // ---- pictures

  #want() {
    this.#pictures.want();
    this.#drawBall();
  }

  #request() {
    if (!this.#remembered) this.#recall();
    const values = {};
    for (const [name, value] of Object.entries(this.#defaults)) {
      if (this.#widget(name) && this.#value(name) !== value) values[name] = this.#value(name);
    }
    const model = this.#source("head_model", "CapFaceLoadHeadModel", "model");
    const file = this.#source("head", "CapFaceLoadHead", "file");
    return { values, ...this.#looks, given: this.#given, model, file };
  }

  /** A widget of the node that an input comes from, where that is a node of a type; undefined for any other. */
  #source(input, type, widget) {
    return widgetBehind(this.#node, input, type, widget);
  }

  #show({ image, source, heads, asked, error }) {
    const part = (name) => this.#root.querySelector(`.${name}`);
    part("error").textContent = error ?? "";
    part("error").classList.toggle("on", Boolean(error));
    if (!image) return;
    const { width, height } = image;
    const canvas = part("picture");
    // A new size clears the canvas, which costs more than drawing over it.
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
    part("source").textContent = "not run yet";
    part("source").classList.toggle("on", source === "before");
    part("buttons").firstElementChild.hidden = source !== "given-photo";
    this.#heads = heads;
    part("heads").hidden = heads < 2;
    part("number").textContent = `${Math.min(this.#looks.head, heads - 1) + 1}/${heads}`;
    this.#root.dispatchEvent(new CustomEvent("capface-picture", { detail: { side: Math.max(width, height), asked } }));
  }

  #look(looks) {
    this.#looks = looks;
    for (const button of this.#root.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(Boolean(looks[button.dataset.view])));
    }
  }

  #drawBall() {
    const names = ["ambient", "key_azimuth", "key_elevation", "key_intensity", "key_softness", "key_color"];
    const lamp = Object.fromEntries(names.map((name) => [name, this.#value(name)]));
    const lit = this.#value("light") === "custom";
    const drawn = JSON.stringify([lamp, lit]);
    if (drawn === this.#ball) return;
    this.#ball = drawn;
    drawBall(this.#root.querySelector(".ball"), lamp, lit);
  }

  // ---- what the node was last given; this browser tab remembers the server's token for it through a reload

  #key() {
    const graph = this.#node.graph;
    return graph ? `${(graph.rootGraph ?? graph).id}/${graph.id}/${this.#node.id}` : null;
  }

  #recall() {
    const key = this.#key();
    if (!key) return;
    this.#remembered = true;
    const mine = memory().find(([name]) => name === key);
    if (mine && !this.#given) {
      this.#given = mine[1];
      this.#look({ ...this.#looks, ...mine[2] });
    }
  }

  #remember() {
    const key = this.#key();
    if (!key || !this.#given) return;
    const others = memory().filter(([name]) => name !== key);
    sessionStorage.setItem(MEMORY, JSON.stringify([[key, this.#given, this.#looks], ...others].slice(0, MOST_REMEMBERED)));
  }

  #executed(output) {
    const [token, workflow] = output?.capface_given ?? [];
    const graph = this.#node.graph;
    // The user may have turned to another workflow, whose node has the same number. The id of one that is not open is that of a
    // like one: the host had the result from its run.
    if (!token || (workflow && graph && workflow !== (graph.rootGraph ?? graph).id && isOpen(workflow))) return;
    this.#given = token;
    this.#remember();
    this.#want();
  }

  // ---- gestures: one undo step each

  #begin(kind) {
    if (this.#gesture === kind) return;
    this.#end();
    this.#gesture = kind;
    this.#root.dataset.gesture = kind;
    // Only the whole frame shows where the head goes.
    if (this.#looks.close && ["place", "wheel"].includes(kind)) this.#look({ ...this.#looks, close: false });
    app.canvas.emitBeforeChange();
  }

  #end() {
    clearTimeout(this.#ending);
    if (!this.#gesture) return;
    this.#gesture = null;
    delete this.#root.dataset.gesture;
    this.#read([]);
    this.#write();
    app.canvas.emitAfterChange();
  }

  #whole(change) {
    this.#begin("whole");
    change();
    this.#end();
  }

  /** A gesture that has no end of its own. */
  #brief(kind, change, names) {
    this.#begin(kind);
    change();
    this.#read(names);
    clearTimeout(this.#ending);
    this.#ending = setTimeout(() => this.#end(), PAUSE_MS);
  }

  /** Show widgets' numbers. */
  #read(names) {
    const chip = this.#root.querySelector(".reading");
    chip.classList.toggle("on", names.length > 0);
    if (names.length) {
      const number = (name) => {
        const value = this.#value(name);
        return DEGREES.has(name) ? `${value.toFixed(1)}°` : value.toFixed(2);
      };
      chip.textContent = names.map((name) => `${LABELS[name] ?? name} ${number(name)}`).join(" · ").replaceAll("-", "−");
    }
  }

  /** Screen pixels of half the frame's short side. */
  #unit() {
    const canvas = this.#root.querySelector(".picture");
    const box = canvas.getBoundingClientRect();
    return (Math.min(box.width / canvas.width, box.height / canvas.height) * Math.min(canvas.width, canvas.height)) / 2;
  }

  #drag(down) {
    const unit = this.#unit();
    const start = Object.fromEntries([...POSE, ...PLACE].map((name) => [name, this.#value(name)]));
    const degrees = 180 / Math.PI / HEAD_RADIUS;
    const kind = down.shiftKey ? "place" : down.altKey ? "tilt" : "turn";
    this.#follow(down, kind, (event) => {
      const [x, y] = [(event.clientX - down.clientX) / unit, (event.clientY - down.clientY) / unit];
      if (kind === "place") {
        this.#set({ position_x: start.position_x + x, position_y: start.position_y + y });
        return PLACE.slice(0, 2);
      }
      if (kind === "tilt") {
        this.#set({ roll: start.roll + x * degrees });
        return ["roll"];
      }
      this.#set({ yaw: start.yaw + x * degrees, pitch: start.pitch - y * degrees });
      return POSE.slice(0, 2);
    });
  }

  #dragLight(down) {
    const box = down.target.getBoundingClientRect();
    const radius = (box.width / 2) * (5 / 6);
    const [middleX, middleY] = [box.left + box.width / 2, box.top + box.height / 2];
    // Taken by the dot, the lamp does not jump; the ball elsewhere calls it there.
    const [dx, dy] = direction(this.#value("key_azimuth"), this.#value("key_elevation"));
    const [gapX, gapY] = [middleX + dx * radius - down.clientX, middleY - dy * radius - down.clientY];
    const near = this.#value("light") === "custom" && Math.hypot(gapX, gapY) < radius / 3;
    const place = (event) => {
      const x = (event.clientX + (near ? gapX : 0) - middleX) / radius;
      const y = (middleY - event.clientY - (near ? gapY : 0)) / radius;
      const [azimuth, elevation] = lampAt(x, y);
      this.#set({ light: "custom", key_azimuth: azimuth, key_elevation: elevation });
      return LIGHT.slice(1);
    };
    this.#follow(down, "light", place);
    if (!near) this.#read(place(down));
  }

  /** Follow a pointer until it is let go. */
  #follow(down, kind, move) {
    const root = this.#root;
    this.#begin(kind);
    down.target.setPointerCapture(down.pointerId);
    root.querySelector(".hint").classList.add("off");
    const onMove = (event) => {
      event.stopPropagation();
      if (event.pointerId === down.pointerId && !this.#removed) this.#read(move(event));
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

  /** The wheel over the picture sizes the head. */
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
    this.#brief("wheel", () => this.#set({ size: this.#value("size") * 2 ** (-delta / WHEEL_OCTAVE) }), ["size"]);
  }

  #press(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const [names, steps] = event.shiftKey ? [PLACE, [0.02, -0.02]] : [POSE, [2, 2]];
    const values = Object.fromEntries(way.map((n, i) => [names[i], this.#value(names[i]) + n * steps[i]]));
    this.#brief("keys", () => this.#set(values), names.slice(0, 2));
  }

  #listen() {
    const root = this.#root;
    const inBall = (event) => event.target.classList.contains("ball");
    root.addEventListener("pointerdown", (event) => {
      if (this.#removed || event.target.closest("button")) return event.stopPropagation();
      if (event.button !== 0 || app.canvas.read_only) {
        // Nodes 2.0 have a menu of their own.
        if (event.button !== 2 || !LiteGraph.vueNodesMode) this.#passOn(event);
        return;
      }
      event.stopPropagation();
      delete root.dataset.keys;
      root.focus({ preventScroll: true });
      inBall(event) ? this.#dragLight(event) : this.#drag(event);
    });
    root.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      if (this.#removed || event.target.closest("button")) return;
      this.#reset(inBall(event) ? LIGHT : [...POSE, ...PLACE]);
    });
    root.addEventListener("keydown", (event) => this.#press(event));
    // The ring is for those who come by keyboard.
    root.addEventListener("keyup", () => (root.dataset.keys = ""));
    root.addEventListener("blur", () => delete root.dataset.keys);
    // What feeds the node may have been changed elsewhere.
    root.addEventListener("pointerenter", () => this.#gesture || this.#want());
    for (const button of root.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const { view, step } = button.dataset;
        const { over, close, head } = this.#looks;
        // A close-up shows no photo.
        if (view) this.#look({ over: false, close: false, head, [view]: !this.#looks[view] });
        else this.#look({ over, close, head: (Math.min(head, this.#heads - 1) + Number(step) + this.#heads) % this.#heads });
        this.#remember();
        this.#want();
      });
    }
  }

  /** Let the canvas have a pointer that it cannot hear: panning, the node's menu. */
  #passOn(down) {
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

  // ---- the node

  #build() {
    const root = this.#root;
    root.className = "capface-editor";
    root.tabIndex = 0;
    editors.set(root, this);
    root.innerHTML = BODY;
    const node = this.#node;
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST_SIDE };
    const widget = node.addDOMWidget(VIEW, "capface.editor", root, options);
    widget.serialize = false;
    this.#sections = new Sections(node, this.#defaults, (name) => this.#linked(name));
    // On top, where they can be seen while the sliders under them are moved.
    node.widgets.unshift(...node.widgets.splice(-2));
  }

  #chain() {
    const node = this.#node;
    const after = (name, work) => {
      const before = node[name];
      node[name] = function (...args) {
        const result = before?.apply(this, args);
        work(...args);
        return result;
      };
    };
    for (const widget of node.widgets) {
      if (!(widget.name in this.#defaults)) continue;
      const before = widget.callback;
      widget.callback = (...args) => {
        const result = before?.apply(widget, args);
        if (!(widget.name in this.#pending)) {
          this.#want();
          this.#sections.update();
        }
        return result;
      };
    }
    // A saved node lists its widgets' values by number, without holes for what is not saved.
    after("onSerialize", (saved) => {
      saved.widgets_values = node.widgets.filter((widget) => widget.serialize !== false).map(({ value }) => value);
    });
    after("onConfigure", (saved) => {
      this.#remembered = false;
      this.#sections.placed();
      this.#sections.configured(saved);
      this.#mount();
      this.#want();
    });
    after("onAdded", () => this.#sections.placed());
    after("onExecuted", (output) => this.#executed(output));
    after("onConnectInput", (slot) => this.#sections.linking(node.inputs[slot]?.widget?.name));
    after("onConnectionsChange", () => {
      this.#sections.fold();
      this.#want();
    });
    after("onRemoved", () => {
      this.#end();
      this.#removed = true;
      this.#sections.removed();
      this.#pictures.close();
    });
  }

  /** After an undo the renderer of Nodes 2.0 keeps the elements of the node that was there before: put ours in their places. */
  #mount(frames = 20) {
    if (this.#removed || !LiteGraph.vueNodesMode || frames === 0) return;
    requestAnimationFrame(() => {
      const missing = [this.#root, this.#sections.row.element].filter((mine) => !mine.isConnected);
      for (const mine of missing) {
        document.querySelector(`[data-node-id="${this.#node.id}"] .${mine.className}`)?.replaceWith(mine);
      }
      if (missing.length) this.#mount(frames - 1);
    });
  }
}

/** Whether a workflow is open, in view or behind the one that is. */
function isOpen(id) {
  const { openWorkflows = [] } = app.extensionManager?.workflow ?? {};
  return openWorkflows.some(({ activeState }) => activeState?.id === id);
}

/** What this tab remembers: [node, token, looks], the latest first. */
function memory() {
  try {
    const entries = JSON.parse(sessionStorage.getItem(MEMORY) ?? "[]");
    return Array.isArray(entries) ? entries.filter(Array.isArray) : [];
  } catch {
    return [];
  }
}

app.registerExtension({
  name: "capface.head-editor",
  setup() {
    // Before the renderers: since 1.49 Nodes 2.0 zoom the canvas over a widget that was not clicked yet.
    window.addEventListener("wheel", (event) => {
      const editor = editors.get(event.target.closest?.(".capface-editor"));
      if (editor) editor.wheel(event);
      else scrolledCanvas = performance.now();
    }, { capture: true, passive: false });
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) new HeadEditor(node);
  },
});
