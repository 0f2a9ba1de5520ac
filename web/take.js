// Taking the values of a section from a photo: the server fits a head to it as Fit Head does, and reads it as widget values.

import { api } from "../../scripts/api.js";
import { CLIENT, randomId } from "./pictures.js";
import { word } from "./words.js";

const PATH = "/capface/photo";
const FOLDER = "capface";
const TYPES = "image/png,image/jpeg,image/webp,image/bmp,image/gif,image/tiff,image/avif";
const SECTIONS = ["Pose", "Position", "Expression", "Brows", "Gaze", "Light"];

/** Whether a photo has values for a section. */
export function canTake(section) {
  return SECTIONS.includes(section);
}

/** Let the user choose a picture; resolves to a file, or to nothing. */
export function choosePhoto() {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: TYPES });
  return new Promise((done) => {
    input.addEventListener("change", () => done(input.files[0]));
    input.addEventListener("cancel", () => done(undefined));
    input.click();
  });
}

/**
 * Read a section's values from a photo.
 * @param {File} file the photo
 * @param {string} section the section
 * @param {string | undefined} model a choice of Load Head Model
 * @returns {Promise<{values?: object, text?: string, error?: string}>}
 */
export async function takeFrom(file, section, model) {
  const form = new FormData();
  form.append("image", file, file.name || "photo.png");
  form.append("type", "temp");
  form.append("subfolder", FOLDER);
  try {
    const upload = await api.fetchApi("/upload/image", { method: "POST", body: form });
    if (!upload.ok) return { error: await upload.text() };
    const { name, subfolder } = await upload.json();
    const photo = `${subfolder ? `${subfolder}/` : ""}${name} [temp]`;
    const response = await api.fetchApi(PATH, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ view: randomId(), client: CLIENT, photo, section, model }),
    });
    return response.status === 204 ? { error: word("silent") } : await response.json();
  } catch {
    return { error: word("silent") };
  }
}

/**
 * The widget values that show what was read, whatever the node's modes are.
 * @param {object} read from `takeFrom`
 * @param {string} section the section
 * @param {import("./widget_values.js").WidgetValues} values
 */
export function takenValues(read, section, values) {
  const gaze = ["gaze_yaw", "gaze_pitch"];
  const added = values.get("expression_mode") !== "absolute";
  const own = added ? values.base.slice(6) : [0, 0];
  if (section === "Gaze") return Object.fromEntries(gaze.map((name, i) => [name, read[name] - own[i]]));
  if (section !== "Expression" && section !== "Brows") return read;
  // The new mode drops the head's own gaze. Keep it.
  return { ...read, ...Object.fromEntries(gaze.map((name, i) => [name, values.get(name) + own[i]])) };
}
