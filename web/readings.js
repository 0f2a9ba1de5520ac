// The numbers over Edit Head's picture: the values that a gesture changes, and fields to type them.

import { word } from "./words.js";

const TURNED = /yaw|pitch|roll|azimuth|elevation/;
// What is shown between gestures, by the open section.
const AT_REST = {
  Position: ["position_x", "position_y", "size"],
  Gaze: ["gaze_yaw", "gaze_pitch"],
  Light: ["key_azimuth", "key_elevation"],
};
const POSE = ["yaw", "pitch", "roll"];

export class Readings {
  #element;
  #values;
  #once;
  #section;
  #names = [];
  #during = [];

  /**
   * @param {HTMLElement} element that holds the fields
   * @param {import("./widget_values.js").WidgetValues} values
   * @param {(change: () => void) => void} once makes a change as one undo step
   * @param {() => string | null} section returns the open section
   */
  constructor(element, values, once, section) {
    this.#element = element;
    this.#values = values;
    this.#once = once;
    this.#section = section;
    // The canvas has its own shortcuts.
    for (const name of ["keydown", "keyup", "dblclick"]) element.addEventListener(name, (event) => event.stopPropagation());
  }

  /** Show the values of these widgets while a gesture changes them; none after it. */
  show(names) {
    this.#during = names;
    this.#element.classList.toggle("on", names.length > 0);
    this.update();
  }

  /** Show the values as they are now. */
  update() {
    const names = this.#during.length ? this.#during : (AT_REST[this.#section()] ?? POSE);
    if (this.#element.contains(document.activeElement)) return this.#fill();
    if (names.join() !== this.#names.join()) this.#build(names);
    this.#fill();
  }

  #build(names) {
    this.#names = names;
    this.#element.replaceChildren(...names.map((name) => {
      const [label, input] = [document.createElement("label"), document.createElement("input")];
      Object.assign(input, { type: "text", inputMode: "decimal", autocomplete: "off" });
      input.dataset.name = name;
      input.addEventListener("focus", () => input.select());
      input.addEventListener("keydown", ({ key }) => {
        if (key === "Escape") input.value = this.#text(name);
        if (key === "Escape" || key === "Enter") input.blur();
      });
      input.addEventListener("change", () => this.#type(name, input));
      input.addEventListener("blur", () => this.update());
      label.append(word(name), input);
      return label;
    }));
  }

  #fill() {
    for (const input of this.#element.querySelectorAll("input")) {
      if (input === document.activeElement) continue;
      input.value = this.#text(input.dataset.name);
      input.disabled = this.#values.linked(input.dataset.name);
    }
  }

  #text(name) {
    const value = this.#values.get(name);
    return (TURNED.test(name) ? `${value.toFixed(1)}°` : value.toFixed(2)).replace("-", "−");
  }

  #type(name, input) {
    const value = Number(input.value.replace("−", "-").replace(",", ".").replace("°", ""));
    if (Number.isFinite(value) && input.value.trim()) {
      const custom = name.startsWith("key_") ? { light: "custom" } : {};
      this.#once(() => this.#values.set({ ...custom, [name]: value }));
    }
    input.value = this.#text(name);
  }
}
