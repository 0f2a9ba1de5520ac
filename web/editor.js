// The picture inside Edit Head. The editor only writes the node's ordinary widgets and shows the server's rendering of them.
// Therefore a workflow gives the same head in the browser, in its API form and without a browser.

import { app } from "../../scripts/app.js";
import { drawBall } from "./ball.js";
import { FullWindow } from "./full_window.js";
import { Gestures, listenBeforeCanvas } from "./gestures.js";
import { recall, remember } from "./given_tokens.js";
import { drawGuides, frameAfter } from "./guides.js";
import { photoBehind, widgetBehind } from "./links.js";
import { body, LEAST_SIDE } from "./look.js";
import { Pictures } from "./pictures.js";
import { preference, setPreference } from "./preferences.js";
import { Readings } from "./readings.js";
import { HEAD_RADIUS, Rings } from "./rings.js";
import { Sections } from "./sections.js";
import { Strip } from "./strip.js";
import { mirrored } from "./symmetry.js";
import { canTake, choosePhoto, takenValues, takeFrom } from "./take.js";
import { WidgetValues } from "./widget_values.js";
import { word } from "./words.js";

const NODE = "CapFaceEditHead";
const WIDGET = "editor";
const FIRST_WIDTH = 360;

class HeadEditor {
  #node;
  #root = document.createElement("div");
  #values;
  #gestures;
  #pictures;
  #sections;
  // The server's token for the inputs of the node's last run.
  #given = null;
  #recalled = false;
  #view = { over: false, close: false, head: 0 };
  #heads = 1;
  #ball;
  #removed = false;
  // Where head and eyes are, in the frame's units: centre and size of the head, centres and radius of the eyes.
  #places = [0, 0, 1, 0, 0, 0, 0, 0];
  #rings;
  #readings;
  #strip;
  #window;

  constructor(node) {
    this.#node = node;
    this.#values = new WidgetValues(node, () => this.#want(), () => this.#update());
    this.#build();
    this.#pictures = new Pictures(() => this.#request(), (answer) => this.#show(answer), () => Boolean(this.#window?.open));
    this.#window = new FullWindow(node, () => this.#key(), [this.#root, this.#sections.row.element], this.#values, this.#gestures,
      () => this.#sections.openNames, () => this.#windowChanged());
    this.#listen();
    this.#chain();
    node.setSize([Math.max(node.size[0], FIRST_WIDTH), node.computeSize()[1] + FIRST_WIDTH - LEAST_SIDE]);
    this.#update();
    this.#want();
  }

  // ---- pictures

  #want() {
    this.#pictures.want();
    this.#drawBall();
  }

  #request() {
    if (!this.#recalled) this.#recall();
    const model = widgetBehind(this.#node, "head_model", "CapFaceLoadHeadModel", "model");
    const file = widgetBehind(this.#node, "head", "CapFaceLoadHead", "file");
    const { over, close, head } = this.#view;
    const photo = over ? this.#photo() : undefined;
    const frame = (preference("guides") && frameAfter(this.#node)) || undefined;
    const opacity = preference("opacity");
    return { values: this.#values.edited(), over, close, head, given: this.#given, model, file, photo, frame, opacity };
  }

  /** The name of the photo that the head will be laid over, if a Load Image node has it. */
  #photo() {
    return photoBehind(this.#node);
  }

  #show({ image, source, heads, asked, places, base, error }) {
    const part = (name) => this.#root.querySelector(`.${name}`);
    part("error").textContent = error ?? "";
    part("error").classList.toggle("on", Boolean(error));
    if (!image) return;
    const { width, height } = image;
    const canvas = part("picture");
    // Setting the size clears the canvas, which is slower than drawing over it.
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
    part("source").textContent = word("before");
    part("source").classList.toggle("on", source.startsWith("before"));
    const over = this.#root.querySelector("[data-view=over]");
    over.hidden = !source.endsWith("photo") && !this.#photo();
    part("opacity").hidden = over.hidden || !this.#view.over;
    this.#heads = heads;
    part("heads").hidden = heads < 2;
    part("number").textContent = `${Math.min(this.#view.head, heads - 1) + 1}/${heads}`;
    if (places) this.#places = places;
    if (base) this.#values.base = base;
    this.#drawOver();
    this.#root.dispatchEvent(new CustomEvent("capface-picture", { detail: { side: Math.max(width, height), asked } }));
  }

  /** Where the picture, the head and its eyes are, in pixels of the page. */
  #whereabouts() {
    const canvas = this.#root.querySelector(".picture");
    const box = canvas.getBoundingClientRect();
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const [width, height] = [canvas.width * scale, canvas.height * scale];
    const unit = Math.min(width, height) / 2;
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const [u, v, size, u0, v0, u1, v1, eye] = this.#places;
    return {
      picture: { x: x - width / 2, y: y - height / 2, width, height },
      unit,
      size,
      head: { x: x + u * unit, y: y + v * unit, radius: size * HEAD_RADIUS * unit },
      eyes: [[x + u0 * unit, y + v0 * unit], [x + u1 * unit, y + v1 * unit]],
      eye: eye * unit,
    };
  }

  /** Draw rings and guides where the head is. */
  #drawOver() {
    const root = this.#root;
    const box = root.getBoundingClientRect();
    // The canvas may be zoomed.
    const zoom = box.width / root.offsetWidth || 1;
    const { picture, unit, size, head } = this.#whereabouts();
    const at = ({ x, y }) => ({ x: (x - box.left) / zoom, y: (y - box.top) / zoom });
    const shown = { ...at(head), radius: head.radius / zoom };
    const inside = { width: root.offsetWidth, height: root.offsetHeight };
    this.#rings.place(shown, inside);
    const guides = root.querySelector(".guides");
    // SVG elements have no property "hidden".
    guides.toggleAttribute("hidden", !preference("guides") || this.#view.close);
    if (guides.hasAttribute("hidden")) return;
    const frame = { ...at(picture), width: picture.width / zoom, height: picture.height / zoom };
    drawGuides(guides, { picture: frame, unit: unit / zoom, head: shown, size }, frameAfter(this.#node));
  }

  /** Show changed values in everything but the picture. */
  #update() {
    this.#sections.update();
    this.#root.querySelector("[data-tool=take]").disabled = !canTake(this.#sections.current);
    this.#readings.update();
    this.#window?.update();
  }

  #windowChanged() {
    this.#root.querySelector("[data-tool=full]").setAttribute("aria-pressed", String(this.#window.open));
    this.#sections.fold();
    this.#drawOver();
    this.#want();
  }

  #setView(view) {
    this.#view = view;
    for (const button of this.#root.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(Boolean(view[button.dataset.view])));
    }
  }

  #showModes() {
    for (const button of this.#root.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(preference(button.dataset.mode)));
    }
    this.#root.querySelector(".opacity").value = preference("opacity");
  }

  #drawBall() {
    const names = ["ambient", "key_azimuth", "key_elevation", "key_intensity", "key_softness", "key_color"];
    const lamp = Object.fromEntries(names.map((name) => [name, this.#values.get(name)]));
    const lit = this.#values.get("light") === "custom";
    const drawn = JSON.stringify([lamp, lit]);
    if (drawn === this.#ball) return;
    this.#ball = drawn;
    drawBall(this.#root.querySelector(".ball"), lamp, lit);
  }

  // ---- inputs of the last run

  #key() {
    const graph = this.#node.graph;
    return graph ? `${(graph.rootGraph ?? graph).id}/${graph.id}/${this.#node.id}` : null;
  }

  #recall() {
    const key = this.#key();
    if (!key) return;
    this.#recalled = true;
    const entry = recall(key);
    if (entry && !this.#given) {
      this.#given = entry[1];
      this.#setView({ ...this.#view, ...entry[2] });
    }
  }

  #remember() {
    const key = this.#key();
    if (key && this.#given) remember(key, this.#given, this.#view);
  }

  #executed(output) {
    const [token, workflow] = output?.capface_given ?? [];
    const graph = this.#node.graph;
    // The user may have switched to another workflow, whose node has the same id: ignore results of another open workflow. If
    // the workflow of the result is not open, the server took the result from its cache, from the run of an identical workflow.
    if (!token || (workflow && graph && workflow !== (graph.rootGraph ?? graph).id && isOpen(workflow))) return;
    this.#given = token;
    this.#remember();
    this.#want();
  }

  // ---- the node

  #build() {
    const root = this.#root;
    root.className = "capface-editor";
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", word("editor"));
    root.innerHTML = body();
    const node = this.#node;
    const values = this.#values;
    this.#gestures = new Gestures(root, values, {
      showFrame: () => this.#view.close && this.#setView({ ...this.#view, close: false }),
      showValues: (names) => this.#readings.show(names),
      places: () => this.#whereabouts(),
    });
    const once = (change) => this.#gestures.once(change);
    this.#rings = new Rings(root);
    this.#strip = new Strip(values, once, () => root.querySelector(".picture"));
    this.#readings = new Readings(root.querySelector(".reading"), values, once, () => this.#sections.current);
    this.#showModes();
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST_SIDE };
    const widget = node.addDOMWidget(WIDGET, "capface.editor", root, options);
    widget.serialize = false;
    this.#sections = new Sections(node, values.defaults, (name) => values.linked(name), this.#strip, () => this.#update());
    // Both go to the top, where they stay visible while the sliders below them are moved.
    node.widgets.unshift(...node.widgets.splice(-2));
  }

  #listen() {
    const root = this.#root;
    // The nodes that feed this one may have changed, and the modes by another editor.
    root.addEventListener("pointerenter", () => {
      if (this.#gestures.active) return;
      this.#showModes();
      this.#want();
    });
    for (const button of root.querySelectorAll("button")) button.addEventListener("click", () => this.#press(button.dataset));
    const opacity = root.querySelector(".opacity");
    opacity.addEventListener("input", () => {
      setPreference("opacity", Number(opacity.value));
      this.#want();
    });
    this.#listenToDrops();
    new ResizeObserver(() => root.isConnected && this.#drawOver()).observe(root);
  }

  #press({ view, step, mode, tool }) {
    const { over, close, head } = this.#view;
    // A close-up shows no photo.
    if (view) this.#setView({ over: false, close: false, head, [view]: !this.#view[view] });
    else if (step) this.#setView({ over, close, head: (Math.min(head, this.#heads - 1) + Number(step) + this.#heads) % this.#heads });
    else if (mode) this.#setMode(mode);
    else this.#use(tool);
    this.#remember();
    this.#want();
  }

  #setMode(mode) {
    setPreference(mode, !preference(mode));
    this.#showModes();
    if (mode === "camera" && preference(mode)) this.#gestures.once(() => this.#values.follow({ yaw: this.#values.get("yaw") }));
    this.#drawOver();
  }

  #use(tool) {
    const values = this.#values;
    const names = this.#sections.names(tool === "reset" ? this.#sections.current : null);
    if (tool === "full") this.#window.toggle();
    else if (tool === "take") choosePhoto().then((file) => file && this.#take(file));
    else if (tool === "mirror") this.#gestures.once(() => values.set(mirrored(names, (name) => values.get(name))));
    else this.#gestures.once(() => values.set(Object.fromEntries(names.map((name) => [name, values.defaults[name]]))));
  }

  /** Take the open section's values from a photo. */
  async #take(file) {
    const section = this.#sections.current;
    if (!canTake(section)) return;
    const part = (name) => this.#root.querySelector(`.${name}`);
    part("error").classList.remove("on");
    part("busy").textContent = word("reading");
    part("busy").classList.add("on");
    const model = widgetBehind(this.#node, "head_model", "CapFaceLoadHeadModel", "model");
    const { values, error } = await takeFrom(file, section, model);
    part("busy").classList.remove("on");
    if (this.#removed) return;
    if (values) this.#gestures.once(() => this.#values.set(takenValues(values, section, this.#values)));
    else {
      part("error").textContent = error;
      part("error").classList.add("on");
    }
  }

  /** Take the open section's values from a photo that is dropped on the picture. The canvas would load it as a workflow. */
  #listenToDrops() {
    const root = this.#root;
    const photo = ({ dataTransfer }) => [...(dataTransfer?.items ?? [])].find(({ kind }) => kind === "file");
    const over = (event, on) => {
      if (!photo(event) || !canTake(this.#sections.current)) return false;
      event.preventDefault();
      event.stopPropagation();
      root.classList.toggle("dropping", on);
      return true;
    };
    for (const name of ["dragenter", "dragover"]) root.addEventListener(name, (event) => over(event, true));
    root.addEventListener("dragleave", () => root.classList.remove("dropping"));
    root.addEventListener("drop", (event) => {
      const file = event.dataTransfer?.files?.[0];
      if (over(event, false) && file) this.#take(file);
    });
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
      if (!(widget.name in this.#values.defaults)) continue;
      const before = widget.callback;
      widget.callback = (...args) => {
        const result = before?.apply(widget, args);
        if (!this.#values.pending(widget.name)) {
          this.#values.follow({ [widget.name]: widget.value });
          // What follows a slider belongs to the same undo step.
          if (!this.#gestures.active) this.#values.write();
          this.#want();
          this.#update();
        }
        return result;
      };
    }
    // A saved node lists its widgets' values by position, without gaps for widgets that are not saved.
    after("onSerialize", (saved) => {
      saved.widgets_values = node.widgets.filter((widget) => widget.serialize !== false).map(({ value }) => value);
    });
    after("onConfigure", (saved) => {
      this.#recalled = false;
      this.#sections.placed();
      this.#sections.configured(saved);
      this.#mount();
      this.#window.resume();
      this.#want();
    });
    after("onAdded", () => this.#sections.placed());
    after("onExecuted", (output) => this.#executed(output));
    after("onConnectInput", (slot) => this.#sections.linking(node.inputs[slot]?.widget?.name));
    after("onConnectionsChange", () => {
      this.#sections.fold();
      this.#update();
      this.#want();
    });
    after("onRemoved", () => {
      this.#window.removed();
      this.#gestures.close();
      this.#strip.close();
      this.#removed = true;
      this.#sections.removed();
      this.#pictures.close();
    });
  }

  /** Replace the elements of the node's predecessor. After an undo, the Nodes 2.0 renderer keeps them in the page. */
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

/** Whether a workflow is open, in the active tab or in another one. */
function isOpen(id) {
  const { openWorkflows = [] } = app.extensionManager?.workflow ?? {};
  return openWorkflows.some(({ activeState }) => activeState?.id === id);
}

app.registerExtension({
  name: "capface.head-editor",
  setup() {
    listenBeforeCanvas();
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) new HeadEditor(node);
  },
});
