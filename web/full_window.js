// Edit Head's editor in the full window: the picture, the sections with their presets, and sliders for the open sections. These
// sliders are ordinary form fields, so they also work with a keyboard and a screen reader.

import { app } from "../../scripts/app.js";
import { word } from "./words.js";

const STYLE = `<style>
.capface-window { width: 100vw; height: 100dvh; max-width: none; max-height: none; margin: 0; padding: 12px; box-sizing: border-box; border: 0; overflow: hidden;
  color: #f0f0f2; background: #17181b; font: 13px/1.4 Inter, system-ui, sans-serif; }
.capface-window::backdrop { background: #17181b; }
.capface-window > .columns { display: grid; grid-template-columns: minmax(0, 1fr) minmax(300px, 400px); gap: 12px; height: 100%; }
.capface-window .capface-editor { aspect-ratio: auto; height: 100%; }
.capface-window > .columns > .side { display: flex; flex-direction: column; gap: 10px; min-height: 0; }
.capface-window .capface-sections { flex: 0 0 auto; height: auto !important; min-height: 0 !important; padding: 0; }
.capface-window .capface-sections button { color: #f0f0f2; background: #2b2d33; }
.capface-window .capface-sections > .tabs { flex-basis: 32px; }
.capface-window .capface-sections > .strip { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); flex: 0 1 auto; max-height: 36vh; }
.capface-window .leave { align-self: flex-end; padding: 6px 12px; border: 0; border-radius: 8px; color: #f0f0f2; background: #2b2d33; font: inherit; cursor: pointer; }
.capface-window .fields { flex: 1 1 0; min-height: 0; overflow: auto; display: grid; align-content: start; gap: 4px; }
.capface-window .fields label { display: grid; grid-template-columns: 9.5em 1fr 5em; gap: 8px; align-items: center; min-height: 28px; }
.capface-window .fields input, .capface-window .fields select { min-width: 0; box-sizing: border-box; font: inherit; color: #f0f0f2; background: #2b2d33;
  border: 0; border-radius: 6px; padding: 3px 6px; }
.capface-window .fields select, .capface-window .fields [type="color"] { grid-column: 2 / -1; }
.capface-window .fields [type="range"] { padding: 0; accent-color: #5aa0ff; }
.capface-window .fields :focus-visible, .capface-window .leave:focus-visible { outline: 2px solid #5aa0ff; }
@media (max-aspect-ratio: 1) { .capface-window > .columns { grid-template-columns: 1fr; grid-template-rows: minmax(0, 1fr) minmax(0, 1fr); } }
</style>`;

// Frames that a new node's elements may take to appear in the page, and the time after which nothing is waited for.
const MOST_FRAMES = 60;
const MOST_MS = 3000;
// The windows of nodes that undo has removed, by the node's key. Their successors take them over.
const left = new Map();

export class FullWindow {
  #node;
  #key;
  #parts;
  #values;
  #gestures;
  #names;
  #changed;
  #dialog = null;
  #places = [];
  #fields = [];
  // The node's key while an undo or redo is in progress.
  #undoing = null;

  /**
   * @param {object} node Edit Head
   * @param {() => string | null} key returns what a node and its successor after an undo have in common
   * @param {HTMLElement[]} parts the editor and the sections, which move into the window and back
   * @param {import("./widget_values.js").WidgetValues} values
   * @param {import("./gestures.js").Gestures} gestures
   * @param {() => string[]} names returns the names of the open sections' widgets
   * @param {(open: boolean) => void} changed called after opening and closing
   */
  constructor(node, key, parts, values, gestures, names, changed) {
    this.#node = node;
    this.#key = key;
    this.#parts = parts;
    this.#values = values;
    this.#gestures = gestures;
    this.#names = names;
    this.#changed = changed;
  }

  get open() {
    return this.#dialog !== null;
  }

  toggle() {
    if (this.open) this.close();
    else this.#show();
  }

  close() {
    if (!this.#dialog) return;
    const dialog = this.#dialog;
    this.#dialog = null;
    this.#gestures.end();
    this.#putBack();
    dialog.close();
    dialog.remove();
    this.#changed(false);
  }

  /** Handle that the node was removed. The host's undo replaces all nodes: then the window stays, as a still picture. */
  removed() {
    if (!this.#dialog || !this.#undoing) return this.close();
    const dialog = this.#dialog;
    this.#dialog = null;
    this.#gestures.end();
    const stills = this.#parts.map(still);
    for (const [i, part] of this.#parts.entries()) part.after(stills[i]);
    this.#putBack();
    left.set(this.#undoing, dialog);
    setTimeout(() => dialog.remove(), MOST_MS);
  }

  /** Handle that the node was loaded: take over the window of the node that it replaces. */
  resume(frames = MOST_FRAMES) {
    const before = left.get(this.#key());
    if (!before?.isConnected || this.open) return;
    // The renderers move the elements into the page. They must be there before they are taken from it.
    if (frames > 0 && !this.#parts.every((part) => part.isConnected)) return void requestAnimationFrame(() => this.resume(frames - 1));
    left.delete(this.#key());
    this.#show();
    before.remove();
  }

  #putBack() {
    for (const [i, part] of this.#parts.entries()) this.#places[i].replaceWith(part);
  }

  /**
   * Undo or redo a step. The host's own shortcut does not act in a field, and since frontend 1.49 not behind a dialog. Where it
   * acts, it has taken a step from its lists by the second frame.
   */
  async #undo(command) {
    this.#gestures.end();
    this.#undoing = this.#key();
    const before = stepsLeft();
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    if (stepsLeft() === before) await app.extensionManager.command.execute(command);
    setTimeout(() => (this.#undoing = null), MOST_MS);
  }

  /** Show the values as they are now. */
  update() {
    if (!this.#dialog) return;
    const names = this.#names();
    if (names.join() !== this.#fields.map(({ name }) => name).join()) {
      this.#fields = names.map((name) => this.#field(name));
      this.#dialog.querySelector(".fields").replaceChildren(...this.#fields.map(({ label }) => label));
    }
    for (const { fill } of this.#fields) fill();
  }

  #show() {
    const dialog = document.createElement("dialog");
    dialog.className = "capface-window";
    dialog.setAttribute("aria-label", this.#node.title);
    dialog.innerHTML = `${STYLE}<div class="columns"><div class="side"><button type="button" class="leave"></button><div class="fields"></div></div></div>`;
    const leave = dialog.querySelector(".leave");
    leave.textContent = word("leave");
    leave.addEventListener("click", () => this.close());
    // A slider that is removed from the page, or Escape, may not leave a gesture open.
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
    // The canvas has shortcuts for keys and files.
    for (const name of ["keydown", "keyup", "paste", "copy"]) dialog.addEventListener(name, (event) => event.stopPropagation());
    dialog.addEventListener("keydown", (event) => {
      const command = undoCommand(event);
      if (!command) return;
      event.preventDefault();
      this.#undo(command);
    });
    this.#dialog = dialog;
    this.#places = this.#parts.map((part) => {
      // Without its height, Nodes 2.0 would resize the node, which is an undo step.
      const place = document.createElement("div");
      place.style.height = `${part.offsetHeight}px`;
      part.replaceWith(place);
      return place;
    });
    const [editor, sections] = this.#parts;
    dialog.querySelector(".columns").prepend(editor);
    leave.after(sections);
    document.body.append(dialog);
    dialog.showModal();
    editor.focus();
    this.#fields = [];
    this.update();
    this.#changed(true);
  }

  #field(name) {
    const widget = this.#node.widgets.find((one) => one.name === name);
    const label = document.createElement("label");
    const text = document.createElement("span");
    text.textContent = widget.label || name;
    label.append(text);
    label.title = widget.tooltip ?? "";
    const inputs = this.#inputs(name, widget);
    label.append(...inputs);
    const fill = () => {
      for (const input of inputs) {
        input.disabled = this.#values.linked(name);
        if (input !== document.activeElement || input.type === "range") input.value = this.#values.get(name);
      }
    };
    return { name, label, fill };
  }

  #inputs(name, widget) {
    const accessible = widget.label || name;
    if (typeof this.#values.defaults[name] === "number") {
      const { min, max, step2 = 0.01 } = widget.options;
      return ["range", "number"].map((type) => {
        const input = Object.assign(document.createElement("input"), { type, min, max, step: step2 });
        input.setAttribute("aria-label", accessible);
        // All changes until the pointer or the key is released are one undo step.
        input.addEventListener("input", () => {
          if (input.value === "") return;
          this.#gestures.begin("field");
          this.#values.set({ [name]: Number(input.value) });
          this.update();
        });
        for (const end of ["change", "blur"]) input.addEventListener(end, () => this.#gestures.end());
        return input;
      });
    }
    const combo = Array.isArray(widget.options?.values);
    const input = document.createElement(combo ? "select" : "input");
    if (combo) input.append(...widget.options.values.map((value) => new Option(value, value)));
    else input.type = "color";
    input.setAttribute("aria-label", accessible);
    input.addEventListener("change", () => this.#gestures.once(() => this.#values.set({ [name]: input.value })));
    return [input];
  }
}

/** The host's command for a shortcut. */
function undoCommand({ key, ctrlKey, metaKey, shiftKey, altKey }) {
  if (!(ctrlKey || metaKey) || altKey) return null;
  const letter = key.toLowerCase();
  if (letter === "z") return shiftKey ? "Comfy.Redo" : "Comfy.Undo";
  return letter === "y" && !shiftKey ? "Comfy.Redo" : null;
}

/** How many steps the host could undo and redo. */
function stepsLeft() {
  const { undoQueue, redoQueue } = app.extensionManager.workflow?.activeWorkflow?.changeTracker ?? {};
  return `${undoQueue?.length}/${redoQueue?.length}`;
}

/** A copy of an element as it looks now. */
function still(element) {
  const copy = element.cloneNode(true);
  const copies = copy.querySelectorAll("canvas");
  for (const [i, canvas] of element.querySelectorAll("canvas").entries()) copies[i].getContext("2d").drawImage(canvas, 0, 0);
  return copy;
}
