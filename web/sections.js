// Edit Head's widgets in sections that fold, and the row of buttons that opens them. The widgets themselves stay where they are
// and what they are, in the saved workflow and in its API form; only whether they are seen changes.

import { app } from "../../scripts/app.js";

// The widget that a section begins with, in the order of the node. The sliders of the face go on behind those of the gaze.
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
// Saved with the workflow, as a node's properties are.
const PROPERTY = "open_sections";
const OPEN_AT_FIRST = "Pose";
const WIDGET = "sections";
const ROW_HEIGHT = 34;
const MARGIN = 6;

// Inside the row itself, and of use to nothing else. The row is ROW_HEIGHT less its margins high.
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

// The sections of each node that is in a graph, by its place.
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
  // Widgets that are about to be linked, by their names.
  #linking = new Set();

  /**
   * Fold a node's widgets.
   * @param {object} node Edit Head
   * @param {object} defaults its widgets' defaults by name
   * @param {(name: string) => boolean} linked whether another node sets a widget; its link is to be seen
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

  /** Show what is open and what differs from its default. */
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

  /** Hide what is folded and not linked, show all else. */
  fold() {
    if (this.#written) for (const widget of this.#section.keys()) widget.hidden = this.#folded(widget);
  }

  /** The node came into a graph. */
  placed() {
    const { id, graph } = this.#node;
    if (!graph) return;
    this.#place = `${(graph.rootGraph ?? graph).id}/${id}`;
    living.set(this.#place, this);
  }

  /** The node was removed. */
  removed() {
    if (living.get(this.#place) === this) living.delete(this.#place);
  }

  /** A widget is about to be linked. Where the link comes from a subgraph's input, its node copies the widget, hidden or not. */
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
   * After a workflow was loaded.
   * @param {object} saved the node as it was saved
   */
  configured(saved) {
    const { properties } = this.#node;
    if (saved?.properties?.[PROPERTY] === undefined) {
      // It knew no sections, and the node was as tall as all of them.
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
   * Let a widget be hidden while its section is folded, where nothing notices `hidden` being written. Both renderers ask for it,
   * each in its way. A subgraph's node that shows the widget, too, asks with itself as `this`, and always sees it.
   */
  #makeFoldable(widget) {
    const folded = (asking) => asking === widget && this.#folded(widget);
    const { options, computeSize } = widget;
    // From 1.42 to 1.52 Nodes 2.0 keep these options for the widget of the next node with that number, in a subgraph say.
    const hidden = () => (living.get(this.#place) ?? this).#foldedNamed(widget.name);
    Object.defineProperty(options, "hidden", { get: hidden, configurable: true, enumerable: true });
    const shown = new Proxy(options, { get: (target, name) => (name === "hidden" ? false : Reflect.get(target, name)) });
    const accessors = {
      hidden: { get() { return folded(this); } },
      options: { get() { return this === widget ? options : shown; } },
      // Older frontends leave room for what is hidden: all of it but the gap.
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

  /** The row's widget, to be placed among the others. */
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

  /** Open some sections and no others; the node grows or shrinks by them, the picture keeps its size. */
  #set(titles) {
    const node = this.#node;
    const before = node.computeSize()[1];
    node.properties[PROPERTY] = titles;
    this.fold();
    const least = node.computeSize()[1];
    if (LiteGraph.vueNodesMode && !this.#written) {
      // They only grow of themselves, and `node.size` follows them; later frontends keep it, and grow where it does not do.
      requestAnimationFrame(() => this.#root.closest("[data-node-id]")?.style.setProperty("--node-height", "0px"));
    } else node.setSize([node.size[0], Math.max(node.size[1] + least - before, least)]);
    this.#draw();
  }

  #draw() {
    this.fold();
    this.update();
    if (LiteGraph.vueNodesMode && !this.#written) this.#lookAgain();
    this.#node.setDirtyCanvas(true, true);
  }

  /** Have Nodes 2.0 look at the node's widgets again; see `noticesHidden`. */
  #lookAgain() {
    const { widgets } = this.#node;
    widgets.push(widgets.pop());
    const [widget] = this.#section.keys();
    widget.callback?.(widget.value);
  }
}

/**
 * Whether it is enough to write a widget's `hidden`.
 *
 * Up to frontend 1.52 it was a plain field, read whenever the canvas was drawn, and nothing noticed it being written. Nodes 2.0
 * looked at `options.hidden` instead, and only when a node's widgets were listed anew: in 1.35 and 1.39 when the callback of one
 * was called, in 1.42 and later when the list `node.widgets` changed. There both are accessors of ours.
 *
 * Since 1.53 it is an accessor of the frontend's widgets, and what is written to it goes into a store that both renderers draw
 * from. An accessor of ours would hide it: the store then kept what `options.hidden` was when the widget was made.
 */
function noticesHidden(widget) {
  for (let type = Object.getPrototypeOf(widget); type; type = Object.getPrototypeOf(type)) {
    if (Object.getOwnPropertyDescriptor(type, "hidden")?.set) return true;
  }
  return false;
}
