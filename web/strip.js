// The row of presets under the sections of Edit Head: small heads to click, the user's own beside them. Pointing at one shows it
// in the picture, clicking sets the widgets, as one undo step.

import { app } from "../../scripts/app.js";
import { cleanTitle, groups, own, remove, rename, save, shipped, whenChanged } from "./presets.js";
import { word } from "./words.js";

const PICTURE_SIDE = 112;
// Sides of the tiles in a node, and the gap between them, in pixels.
const [LEAST_TILE, MOST_TILE, GAP] = [34, 84, 3];
// Sections that have no presets of their own show those of another one.
const GROUP_OF = { Brows: "Expression" };

export class Strip {
  #element = document.createElement("div");
  #values;
  #once;
  #picture;
  #section = null;
  #tiles = [];
  #forget;
  #drawn = 0;

  /**
   * @param {import("./widget_values.js").WidgetValues} values the values that presets set
   * @param {(change: () => void) => void} once makes a change as one undo step
   * @param {() => HTMLCanvasElement} picture returns the picture of the head, for thumbnails of the user's presets
   */
  constructor(values, once, picture) {
    this.#values = values;
    this.#once = once;
    this.#picture = picture;
    this.#element.className = "strip";
    this.#element.setAttribute("role", "group");
    this.#element.setAttribute("aria-label", word("presets"));
    this.#element.addEventListener("wheel", (event) => event.stopPropagation());
    this.#forget = whenChanged(() => this.#draw());
    new ResizeObserver(() => this.#fit()).observe(this.#element);
  }

  get element() {
    return this.#element;
  }

  close() {
    this.#forget();
  }

  /** Show the presets of a section; null shows none. */
  show(section) {
    if (section === this.#section) return;
    this.#section = section;
    this.#draw();
  }

  /** Mark the preset that the widgets show. */
  update() {
    for (const { button, values } of this.#tiles) {
      const same = Object.entries(values).every(([name, value]) => this.#values.get(name) === value);
      button.setAttribute("aria-pressed", String(same));
    }
  }

  async #draw() {
    const number = ++this.#drawn;
    const section = this.#section;
    const name = GROUP_OF[section] ?? section;
    const group = section && (await groups).find((one) => one.section === name);
    const presets = group ? [...shipped(group), ...(await own(name))] : [];
    if (number !== this.#drawn) return;
    const focused = this.#tiles.find(({ button }) => button === document.activeElement)?.title;
    this.#values.try(null);
    this.#tiles = presets.map((preset) => this.#tile(group, preset));
    const children = this.#tiles.map(({ place }) => place);
    if (group) children.push(this.#button("plus", word("save"), "+", () => this.#save(group)));
    this.#element.replaceChildren(...children);
    this.#tiles.find(({ title }) => focused && title === focused)?.button.focus();
    this.#fit();
    this.update();
  }

  /** Make the tiles as large as the row's box lets all of them be. */
  #fit() {
    const { offsetWidth: width, offsetHeight: height, childElementCount: count } = this.#element;
    const columnsOf = (side) => Math.max(1, Math.floor((width + GAP) / (side + GAP)));
    const most = columnsOf(LEAST_TILE);
    let columns = columnsOf(MOST_TILE);
    const tall = () => Math.ceil(count / columns) * ((width + GAP) / columns) - GAP;
    while (columns < most && tall() > height) columns++;
    this.#element.style.setProperty("--columns", columns);
  }

  #tile(group, preset) {
    const values = this.#complete(group, preset.values);
    const place = document.createElement("span");
    place.className = "place";
    const button = this.#button("tile", preset.title, "", () => this.#once(() => this.#values.set(values)));
    if (preset.background) button.style.background = preset.background;
    else button.textContent = preset.title.slice(0, 2);
    button.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && this.#values.try(values));
    button.addEventListener("pointerleave", () => this.#values.try(null));
    button.addEventListener("click", () => this.#values.try(null));
    place.append(button);
    if (preset.file) {
      const again = () => this.#rename(preset);
      const away = () => this.#remove(preset);
      place.append(this.#button("mini rename", word("rename"), "✎", again), this.#button("mini delete", word("delete"), "×", away));
      button.addEventListener("keydown", ({ key }) => (key === "F2" ? again() : key === "Delete" && away()));
    }
    return { place, button, values, title: preset.title };
  }

  /** The widgets that a preset sets: all of its group, so that nothing of the head before it remains. */
  #complete(group, wanted) {
    const { defaults } = this.#values;
    const values = Object.fromEntries(group.resets.map((name) => [name, defaults[name]]));
    for (const [name, value] of Object.entries({ ...group.values, ...wanted })) {
      if (name in defaults && typeof value === typeof defaults[name]) values[name] = value;
    }
    return values;
  }

  #button(kind, label, text, work) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = kind;
    button.title = label;
    button.setAttribute("aria-label", label);
    button.textContent = text;
    button.addEventListener("click", work);
    return button;
  }

  // ---- the user's own

  async #save(group) {
    const names = [...group.resets, ...Object.keys(group.values)];
    const values = Object.fromEntries(names.map((name) => [name, this.#values.get(name)]));
    const title = await this.#ask("");
    if (title) this.#say(await save(group.section, title, values, this.#thumbnail()));
  }

  async #rename(preset) {
    const title = await this.#ask(preset.title);
    if (title) this.#say(await rename(preset, title));
  }

  async #remove(preset) {
    const sure = await app.extensionManager.dialog.confirm({ title: preset.title, message: word("sure"), type: "delete" });
    if (sure) this.#say(await remove(preset));
  }

  async #ask(before) {
    const text = await app.extensionManager.dialog.prompt({ title: word("save"), message: word("name"), defaultValue: before });
    return cleanTitle(text);
  }

  #say(result) {
    if (result === "saved") return;
    const detail = word(result === "exists" ? "exists" : "unsaved");
    app.extensionManager.toast.add({ severity: "error", summary: "Edit Head", detail, life: 6000 });
  }

  /** The middle of the picture as a small file. */
  #thumbnail() {
    const picture = this.#picture();
    const small = Object.assign(document.createElement("canvas"), { width: PICTURE_SIDE, height: PICTURE_SIDE });
    const side = Math.min(picture.width, picture.height);
    const ctx = small.getContext("2d");
    ctx.fillStyle = "#141926";
    ctx.fillRect(0, 0, PICTURE_SIDE, PICTURE_SIDE);
    const [x, y] = [(picture.width - side) / 2, (picture.height - side) / 2];
    ctx.drawImage(picture, x, y, side, side, 0, 0, PICTURE_SIDE, PICTURE_SIDE);
    return small.toDataURL("image/jpeg", 0.85);
  }
}
