// Edit Head's widgets in sections, with a row of buttons that chooses one and the presets of that one below it. Only the visibility
// of the widgets changes. Their order and values stay the same, in the saved workflow and in its API form.

import { app } from "../../scripts/app.js";
import { word } from "./words.js";

// The widgets of each section, by their names.
const SECTIONS = {
  Pose: ["pose_mode", "yaw", "pitch", "roll", "neck_yaw", "neck_pitch", "neck_roll"],
  Position: ["position_mode", "position_x", "position_y", "size"],
  Expression: ["expression_mode", "jaw_open", "jaw_side", "smile_left", "smile_right", "frown", "mouth_open", "pucker"],
  Brows: ["brows_up_left", "brows_up_right", "brows_down", "sneer_left", "sneer_right", "cheeks"],
  Gaze: ["gaze_yaw", "gaze_pitch", "eyes_closed_left", "eyes_closed_right", "squint_left", "squint_right"],
  Light: ["light", "light_strength", "ambient", "key_azimuth", "key_elevation", "key_intensity", "key_softness", "key_color"],
  Shape: ["shape_strength"],
};
const TITLES = Object.keys(SECTIONS);
const MOST_WIDGETS = Math.max(...Object.values(SECTIONS).map(({ length }) => length));
// The node property that stores the open sections. Properties are saved with the workflow.
const PROPERTY = "open_sections";
const OPEN_AT_FIRST = "Pose";
const WIDGET = "sections";
const MARGIN = 6;
// Heights in pixels: the buttons with their margins, one row of presets, and a widget on the canvas and in Nodes 2.0, until and
// since frontend 1.53.
const ROW_HEIGHT = 38;
const STRIP_HEIGHT = 46;
const WIDGET_HEIGHT = { classic: 24, vueBefore: 33, vue: 28 };

// This style element lives inside the row and affects nothing else. The height of the buttons is ROW_HEIGHT minus the margins.
const STYLE = `<style>
.capface-sections { display: flex; flex-direction: column; gap: 6px; width: 100%; padding: 0 4px; box-sizing: border-box; overflow: hidden;
  font: 11px/1 Inter, system-ui, sans-serif; user-select: none; }
.lg-node .capface-sections { padding: 0; }
.capface-sections button { border: 0; cursor: pointer; font: inherit; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); }
.capface-sections button:focus-visible { outline: 2px solid #5aa0ff; outline-offset: -2px; }
.capface-sections > .tabs { display: flex; gap: 3px; flex: 0 0 26px; }
.capface-sections > .tabs button { flex: 1 1 auto; min-width: 0; padding: 0 3px; border-radius: 6px; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.capface-sections > .tabs button:hover { filter: brightness(1.25); }
.capface-sections > .tabs button[aria-expanded="true"] { box-shadow: inset 0 -2px 0 #5aa0ff; }
.capface-sections > .tabs button { position: relative; }
.capface-sections > .tabs button[data-changed]::after { content: ""; position: absolute; top: 2px; right: 2px; width: 5px; height: 5px;
  border-radius: 50%; background: #e8940a; }
.capface-sections > .strip { display: grid; grid-template-columns: repeat(var(--columns, 9), minmax(0, 1fr)); gap: 3px; align-content: start;
  flex: 1 1 0; min-height: 0; overflow: hidden auto; scrollbar-width: thin; }
.capface-sections .place { position: relative; display: block; aspect-ratio: 1; }
.capface-sections .tile { display: block; width: 100%; height: 100%; padding: 0; border-radius: 6px; overflow: hidden; }
.capface-sections .tile:hover { box-shadow: inset 0 0 0 2px rgba(255,255,255,.7); }
.capface-sections .tile[aria-pressed="true"] { box-shadow: inset 0 0 0 2px #ffd66b; }
.capface-sections .mini { position: absolute; top: 0; width: 16px; height: 16px; padding: 0; border-radius: 5px; color: #fff; background: rgba(16,17,20,.85);
  opacity: 0; }
.capface-sections .mini.rename { left: 0; }
.capface-sections .mini.delete { right: 0; }
.capface-sections .place:hover .mini, .capface-sections .place:focus-within .mini { opacity: 1; }
.capface-sections .plus { aspect-ratio: 1; border-radius: 6px; font-size: 16px; }
</style><div class="tabs" role="group"></div>`;

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
  #strip;
  #changed;
  #written;
  // Names of widgets that are about to be linked.
  #linking = new Set();

  /**
   * Put a node's widgets into sections.
   * @param {object} node Edit Head
   * @param {object} defaults the widgets' defaults by name
   * @param {(name: string) => boolean} linked whether a widget's input is connected; such a widget stays visible
   * @param {import("./strip.js").Strip} strip shows the presets of a section
   * @param {() => void} changed called when other sections have been opened
   */
  constructor(node, defaults, linked, strip, changed) {
    this.#node = node;
    this.#defaults = defaults;
    this.#linked = linked;
    this.#strip = strip;
    this.#changed = changed;
    node.properties[PROPERTY] ??= OPEN_AT_FIRST;
    for (const widget of node.widgets) {
      const title = TITLES.find((one) => SECTIONS[one].includes(widget.name));
      if (title && widget.name in defaults) this.#section.set(widget, title);
    }
    this.#written = noticesHidden([...this.#section.keys()][0]);
    if (!this.#written) for (const widget of this.#section.keys()) this.#makeFoldable(widget);
    this.#build();
    this.fold();
    this.update();
  }

  /** The section whose presets are shown: the last one of those that are open. */
  get current() {
    return TITLES.findLast((title) => this.#open().has(title)) ?? null;
  }

  /** The names of all widgets, or of those of a section. */
  names(section = null) {
    const all = [...this.#section].filter(([, title]) => !section || title === section);
    return all.map(([widget]) => widget.name);
  }

  /** The names of the widgets in open sections. */
  get openNames() {
    return [...this.#section].filter(([, title]) => this.#open().has(title)).map(([widget]) => widget.name);
  }

  /** Mark the buttons of open sections, and of sections with changed values. */
  update() {
    const open = this.#open();
    this.#strip.show(this.current);
    this.#strip.update();
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
    this.#root.style.height = this.#root.style.minHeight = `${this.#height() - 2 * MARGIN}px`;
  }

  /** The height of the buttons and the presets. With one open section, the presets fill what its widgets leave free. */
  #height() {
    if (!this.current) return ROW_HEIGHT;
    return ROW_HEIGHT + STRIP_HEIGHT + this.#each * Math.max(0, MOST_WIDGETS - this.#shown);
  }

  /** The height of a widget. */
  get #each() {
    return WIDGET_HEIGHT[!LiteGraph.vueNodesMode ? "classic" : this.#written ? "vue" : "vueBefore"];
  }

  /** How many of the widgets are shown. */
  get #shown() {
    return [...this.#section.keys()].filter((widget) => !this.#folded(widget)).length;
  }

  /** The height of everything below the picture. */
  #below() {
    return this.#height() + this.#each * this.#shown;
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
    } else {
      this.#grow();
      this.#draw();
    }
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
    const tabs = root.querySelector(".tabs");
    tabs.setAttribute("aria-label", word("sections"));
    for (const title of TITLES) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.title = title;
      button.textContent = word(title.toLowerCase());
      button.title = word("shift");
      button.addEventListener("click", (event) => this.#toggle(title, event.shiftKey));
      this.#buttons.push(button);
    }
    tabs.append(...this.#buttons);
    root.append(this.#strip.element);
    for (const name of ["pointerdown", "dblclick"]) root.addEventListener(name, (event) => event.stopPropagation());
    const height = () => this.#height();
    const options = { serialize: false, hideOnZoom: false, margin: MARGIN, getMinHeight: height, getMaxHeight: height };
    this.#row = this.#node.addDOMWidget(WIDGET, "capface.sections", root, options);
    this.#row.serialize = false;
  }

  /** The widget that holds the row of buttons. */
  get row() {
    return this.#row;
  }

  /** Open a section in place of the others, or beside them; or close it. */
  #toggle(title, beside) {
    const before = this.#open();
    const open = new Set(beside ? before : []);
    if (!before.has(title) || (!beside && before.size > 1)) open.add(title);
    else open.delete(title);
    app.canvas.emitBeforeChange();
    this.#set(TITLES.filter((name) => open.has(name)).join());
    app.canvas.emitAfterChange();
    this.#changed();
  }

  /** Open exactly these sections. The node's height changes accordingly, and the picture keeps its size. */
  #set(titles) {
    const node = this.#node;
    const before = this.#below();
    node.properties[PROPERTY] = titles;
    this.fold();
    if (LiteGraph.vueNodesMode && !this.#written) {
      // Nodes 2.0 only grows nodes by itself, and `node.size` follows. Later frontends keep `node.size`, and grow it if needed.
      requestAnimationFrame(() => this.#root.closest("[data-node-id]")?.style.setProperty("--node-height", "0px"));
    } else node.setSize([node.size[0], Math.max(node.size[1] + this.#below() - before, node.computeSize()[1])]);
    this.#draw();
  }

  /** Make room for all elements in a node that was saved before there were presets. */
  #grow() {
    const node = this.#node;
    const least = node.computeSize()[1];
    if (!LiteGraph.vueNodesMode && node.size[1] < least) node.setSize([node.size[0], least]);
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
