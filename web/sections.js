// Edit Head's widgets in collapsible sections, with a row of buttons that opens and closes them. Only the visibility of the
// widgets changes. Their order and values stay the same, in the saved workflow and in its API form.

import { app } from "../../scripts/app.js";

// The first widget of each section, in the node's order. The section Expression continues after Gaze.
const BEGIN = {
  pose_mode: "Pose",
  position_mode: "Position",
  expression_mode: "Expression",
  gaze_yaw: "Gaze",
  smile_left: "Expression",
  light: "Light",
  shape_strength: "Shape",
};
const TITLES = [...new Set(Object.values(BEGIN))];
const TRANSLATED = {
  zh: ["姿态", "位置", "表情", "视线", "光照", "形状"],
  ja: ["姿勢", "位置", "表情", "視線", "光", "形状"],
  ko: ["포즈", "위치", "표정", "시선", "조명", "형태"],
};
// The node property that stores the open sections. Properties are saved with the workflow.
const PROPERTY = "open_sections";
const OPEN_AT_FIRST = "Pose";
const WIDGET = "sections";
const ROW_HEIGHT = 34;
const MARGIN = 6;

// This style element lives inside the row and affects nothing else. The row's height is ROW_HEIGHT minus its margins.
const STYLE = `<style>
.capface-sections { display: flex; gap: 4px; width: 100%; height: 22px; padding: 0 4px; box-sizing: border-box;
  font: 11px/1 Inter, system-ui, sans-serif; user-select: none; }
.lg-node .capface-sections { padding: 0; }
.capface-sections button { flex: 1 1 auto; min-width: 0; padding: 0 4px; border: 0; border-radius: 6px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; cursor: pointer; font: inherit;
  color: var(--descrip-text, #999); background: var(--comfy-input-bg, #222); }
.capface-sections button:hover { color: var(--input-text, #ddd); }
.capface-sections button:focus-visible { outline: 2px solid #5aa0ff; outline-offset: -1px; }
.capface-sections button[aria-expanded="true"] { color: var(--input-text, #ddd); box-shadow: inset 0 -2px 0 #5aa0ff; }
.capface-sections button[data-changed]::after { content: ""; display: inline-block; width: 5px; height: 5px; margin: 0 0 2px 4px;
  border-radius: 50%; background: #e8940a; }
</style>`;

// The sections of each node that is in a graph, by graph and node id.
const living = new Map();

export class Sections {
  #node;
  #place;
  #defaults;
  #linked;
  #section = new Map();
  #root = document.createElement("div");
  #buttons = [];
  #row;
  #written;
  // Names of widgets that are about to be linked.
  #linking = new Set();

  /**
   * Put a node's widgets into sections.
   * @param {object} node Edit Head
   * @param {object} defaults the widgets' defaults by name
   * @param {(name: string) => boolean} linked whether a widget's input is connected; such a widget stays visible
   */
  constructor(node, defaults, linked) {
    this.#node = node;
    this.#defaults = defaults;
    this.#linked = linked;
    node.properties[PROPERTY] ??= OPEN_AT_FIRST;
    let title;
    for (const widget of node.widgets) {
      title = BEGIN[widget.name] ?? title;
      if (!title || !(widget.name in defaults)) continue;
      this.#section.set(widget, title);
    }
    this.#written = noticesHidden([...this.#section.keys()][0]);
    if (!this.#written) for (const widget of this.#section.keys()) this.#makeFoldable(widget);
    this.#build();
    this.fold();
    this.update();
  }

  /** Mark the buttons of open sections, and of sections with changed values. */
  update() {
    const open = this.#open();
    const changed = new Set();
    for (const [widget, title] of this.#section) {
      if (widget.value !== this.#defaults[widget.name]) changed.add(title);
    }
    for (const button of this.#buttons) {
      const { title } = button.dataset;
      button.setAttribute("aria-expanded", String(open.has(title)));
      button.toggleAttribute("data-changed", changed.has(title));
    }
  }

  /** Hide the widgets of closed sections, except linked ones. Show all others. */
  fold() {
    if (this.#written) for (const widget of this.#section.keys()) widget.hidden = this.#folded(widget);
  }

  /** Handle that the node was added to a graph. */
  placed() {
    const { id, graph } = this.#node;
    if (!graph) return;
    this.#place = `${(graph.rootGraph ?? graph).id}/${id}`;
    living.set(this.#place, this);
  }

  /** Handle that the node was removed. */
  removed() {
    if (living.get(this.#place) === this) living.delete(this.#place);
  }

  /** Show a widget that is about to be linked: a subgraph's node copies a widget linked to its input, with its visibility. */
  linking(name) {
    if (!name) return;
    this.#linking.add(name);
    this.fold();
    queueMicrotask(() => {
      this.#linking.delete(name);
      this.fold();
    });
  }

  /**
   * Handle that a workflow was loaded.
   * @param {object} saved the node as it was saved
   */
  configured(saved) {
    const { properties } = this.#node;
    if (saved?.properties?.[PROPERTY] === undefined) {
      // It was saved before there were sections, with a node as tall as all of them.
      properties[PROPERTY] = TITLES.join();
      this.fold();
      this.#set(OPEN_AT_FIRST);
    } else this.#draw();
  }

  #open() {
    return new Set(String(this.#node.properties[PROPERTY]).split(","));
  }

  #folded(widget) {
    const seen = widget.promoted || this.#linking.has(widget.name) || this.#linked(widget.name);
    return !seen && !this.#open().has(this.#section.get(widget));
  }

  #foldedNamed(name) {
    return this.#folded([...this.#section.keys()].find((widget) => widget.name === name));
  }

  /**
   * Hide a widget while its section is closed, in frontends that do not notice writes to `hidden`. Both renderers read the
   * property, each in its own way. A subgraph's node that also shows the widget reads it with itself as `this`, and always gets
   * false.
   */
  #makeFoldable(widget) {
    const folded = (asking) => asking === widget && this.#folded(widget);
    const { options, computeSize } = widget;
    // From 1.42 to 1.52, Nodes 2.0 reuses these options for the next node with the same id, for example in a subgraph.
    const hidden = () => (living.get(this.#place) ?? this).#foldedNamed(widget.name);
    Object.defineProperty(options, "hidden", { get: hidden, configurable: true, enumerable: true });
    const shown = new Proxy(options, { get: (target, name) => (name === "hidden" ? false : Reflect.get(target, name)) });
    const accessors = {
      hidden: { get() { return folded(this); } },
      options: { get() { return this === widget ? options : shown; } },
      // Older frontends reserve space for hidden widgets. The negative height cancels the gap.
      computeSize: { get() { return folded(this) ? () => [0, -4] : computeSize; } },
    };
    for (const [name, accessor] of Object.entries(accessors)) {
      Object.defineProperty(widget, name, { ...accessor, set() {}, configurable: true });
    }
  }

  #build() {
    const root = this.#root;
    root.className = "capface-sections";
    root.innerHTML = STYLE;
    const words = TRANSLATED[app.extensionManager?.setting?.get("Comfy.Locale")] ?? TITLES;
    for (const [i, title] of TITLES.entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.title = title;
      button.textContent = words[i];
      button.addEventListener("click", () => this.#toggle(title));
      this.#buttons.push(button);
    }
    root.append(...this.#buttons);
    for (const name of ["pointerdown", "dblclick"]) root.addEventListener(name, (event) => event.stopPropagation());
    const height = () => ROW_HEIGHT;
    const options = { serialize: false, hideOnZoom: false, margin: MARGIN, getMinHeight: height, getMaxHeight: height };
    this.#row = this.#node.addDOMWidget(WIDGET, "capface.sections", root, options);
    this.#row.serialize = false;
  }

  /** The widget that holds the row of buttons. */
  get row() {
    return this.#row;
  }

  #toggle(title) {
    const open = this.#open();
    if (!open.delete(title)) open.add(title);
    app.canvas.emitBeforeChange();
    this.#set(TITLES.filter((name) => open.has(name)).join());
    app.canvas.emitAfterChange();
  }

  /** Open exactly these sections. The node's height changes accordingly, and the picture keeps its size. */
  #set(titles) {
    const node = this.#node;
    const before = node.computeSize()[1];
    node.properties[PROPERTY] = titles;
    this.fold();
    const least = node.computeSize()[1];
    if (LiteGraph.vueNodesMode && !this.#written) {
      // Nodes 2.0 only grows nodes by itself, and `node.size` follows. Later frontends keep `node.size`, and grow it if needed.
      requestAnimationFrame(() => this.#root.closest("[data-node-id]")?.style.setProperty("--node-height", "0px"));
    } else node.setSize([node.size[0], Math.max(node.size[1] + least - before, least)]);
    this.#draw();
  }

  #draw() {
    this.fold();
    this.update();
    if (LiteGraph.vueNodesMode && !this.#written) this.#refreshWidgets();
    this.#node.setDirtyCanvas(true, true);
  }

  /** Make Nodes 2.0 read the node's widgets again; see `noticesHidden`. */
  #refreshWidgets() {
    const { widgets } = this.#node;
    widgets.push(widgets.pop());
    const [widget] = this.#section.keys();
    widget.callback?.(widget.value);
  }
}

/**
 * Whether writing a widget's `hidden` property is enough to hide it.
 *
 * Up to frontend 1.52, `hidden` was a plain field. The canvas read it on each drawing, and nothing noticed writes. Nodes 2.0 read
 * `options.hidden` instead, and only when it listed a node's widgets again: in 1.35 and 1.39 after a widget's callback was called,
 * in 1.42 and later after the list `node.widgets` changed. For these frontends, this file defines both as accessors.
 *
 * Since 1.53, `hidden` is an accessor of the frontend's widgets. It writes to a store that both renderers draw from. An accessor
 * defined here would hide it, and the store would keep the value that `options.hidden` had when the widget was created.
 */
function noticesHidden(widget) {
  for (let type = Object.getPrototypeOf(widget); type; type = Object.getPrototypeOf(type)) {
    if (Object.getOwnPropertyDescriptor(type, "hidden")?.set) return true;
  }
  return false;
}
