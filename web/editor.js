// The picture inside Edit Head. The editor only writes the node's ordinary widgets and shows the server's rendering of them.
// Therefore a workflow gives the same head in the browser, in its API form and without a browser.

import { app } from "../../scripts/app.js";
import { drawBall } from "./ball.js";
import { Gestures, listenToWheel } from "./gestures.js";
import { recall, remember } from "./given_tokens.js";
import { widgetBehind } from "./links.js";
import { BODY, LEAST_SIDE } from "./look.js";
import { Pictures } from "./pictures.js";
import { Sections } from "./sections.js";
import { WidgetValues } from "./widget_values.js";

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

  constructor(node) {
    this.#node = node;
    this.#values = new WidgetValues(node, () => this.#want(), () => this.#sections.update());
    this.#build();
    this.#pictures = new Pictures(() => this.#request(), (answer) => this.#show(answer));
    this.#gestures = new Gestures(this.#root, this.#values, () => {
      if (this.#view.close) this.#setView({ ...this.#view, close: false });
    });
    this.#listen();
    this.#chain();
    node.setSize([Math.max(node.size[0], FIRST_WIDTH), node.computeSize()[1] + FIRST_WIDTH - LEAST_SIDE]);
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
    return { values: this.#values.edited(), ...this.#view, given: this.#given, model, file };
  }

  #show({ image, source, heads, asked, error }) {
    const part = (name) => this.#root.querySelector(`.${name}`);
    part("error").textContent = error ?? "";
    part("error").classList.toggle("on", Boolean(error));
    if (!image) return;
    const { width, height } = image;
    const canvas = part("picture");
    // Setting the size clears the canvas, which is slower than drawing over it.
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
    part("source").textContent = "not run yet";
    part("source").classList.toggle("on", source === "before");
    part("buttons").firstElementChild.hidden = source !== "given-photo";
    this.#heads = heads;
    part("heads").hidden = heads < 2;
    part("number").textContent = `${Math.min(this.#view.head, heads - 1) + 1}/${heads}`;
    this.#root.dispatchEvent(new CustomEvent("capface-picture", { detail: { side: Math.max(width, height), asked } }));
  }

  #setView(view) {
    this.#view = view;
    for (const button of this.#root.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(Boolean(view[button.dataset.view])));
    }
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
    root.innerHTML = BODY;
    const node = this.#node;
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST_SIDE };
    const widget = node.addDOMWidget(WIDGET, "capface.editor", root, options);
    widget.serialize = false;
    this.#sections = new Sections(node, this.#values.defaults, (name) => this.#values.linked(name));
    // Both go to the top, where they stay visible while the sliders below them are moved.
    node.widgets.unshift(...node.widgets.splice(-2));
  }

  #listen() {
    const root = this.#root;
    // The nodes that feed this one may have changed.
    root.addEventListener("pointerenter", () => this.#gestures.active || this.#want());
    for (const button of root.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const { view, step } = button.dataset;
        const { over, close, head } = this.#view;
        // A close-up shows no photo.
        if (view) this.#setView({ over: false, close: false, head, [view]: !this.#view[view] });
        else this.#setView({ over, close, head: (Math.min(head, this.#heads - 1) + Number(step) + this.#heads) % this.#heads });
        this.#remember();
        this.#want();
      });
    }
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
          this.#want();
          this.#sections.update();
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
      this.#gestures.close();
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
    listenToWheel();
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) new HeadEditor(node);
  },
});
