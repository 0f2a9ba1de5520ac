// Presets of Edit Head: named sets of widget values for one section. Those of the pack are in presets.json, with pictures that
// tools/preset_pictures.py draws. The user's own are files in ComfyUI's user folder, each with its picture.

import { api } from "../../scripts/api.js";
import { language } from "./words.js";

const FOLDER = "capface/presets";
const ENDING = ".json";
const MOST_CHARACTERS = 60;
const FORBIDDEN = /[\\/:*?"<>|\p{Cc}]/gu;
const place = (file) => new URL(file, import.meta.url).href;

/** The groups of the pack's presets: {section, resets, values, presets: [{name, titles, values}]}. */
export const groups = fetch(place("./presets.json")).then((response) => response.json());

let listed = null;
const listeners = new Set();

/** Call a function whenever the user's presets have changed; returns a function that ends it. */
export function whenChanged(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The pack's presets of a group, as {title, values, background}. */
export function shipped(group) {
  const count = group.presets.length;
  return group.presets.map((preset, i) => ({
    title: preset.titles[language()],
    values: preset.values,
    background: `url("${place(`./presets/${group.section.toLowerCase()}.jpg`)}") ${count > 1 ? (100 * i) / (count - 1) : 0}% 0 / ${100 * count}% 100%`,
  }));
}

/**
 * The user's presets of a section, as {title, values, background, file}.
 * @param {string} section the group's
 */
export async function own(section) {
  const all = await (listed ??= list());
  return all.filter((preset) => preset.section === section);
}

/**
 * Save a preset.
 * @param {string} section the group's
 * @param {string} title as the user has entered it
 * @param {object} values widget values by name
 * @param {string} picture as a data URL
 * @returns {Promise<"saved" | "exists" | "failed">}
 */
export async function save(section, title, values, picture) {
  const file = fileOf(section, title);
  const body = JSON.stringify({ values, picture });
  const response = await ask(`/userdata/${encodeURIComponent(file)}?overwrite=false`, { method: "POST", body });
  return refreshed(response);
}

/** Rename a preset; the result is as for `save`. */
export async function rename(preset, title) {
  const file = fileOf(preset.section, title);
  if (file === preset.file) return "saved";
  const path = `/userdata/${encodeURIComponent(preset.file)}/move/${encodeURIComponent(file)}?overwrite=false`;
  return refreshed(await ask(path, { method: "POST" }));
}

/** Delete a preset; the result is as for `save`. */
export async function remove(preset) {
  return refreshed(await ask(`/userdata/${encodeURIComponent(preset.file)}`, { method: "DELETE" }));
}

/** The text as the name of a preset, or an empty text. */
export function cleanTitle(text) {
  return String(text ?? "").replace(FORBIDDEN, " ").replace(/\s+/g, " ").trim().replace(/^\.+|\.+$/g, "").slice(0, MOST_CHARACTERS).trim();
}

function fileOf(section, title) {
  return `${FOLDER}/${section.toLowerCase()}/${cleanTitle(title)}${ENDING}`;
}

async function ask(path, options) {
  try {
    return await api.fetchApi(path, options);
  } catch {
    return { ok: false, status: 0 };
  }
}

function refreshed({ ok, status }) {
  listed = null;
  for (const listener of listeners) listener();
  return ok ? "saved" : status === 409 ? "exists" : "failed";
}

/** Read all of the user's presets. A folder that does not exist is not asked for, because every 404 is an error in the console. */
async function list() {
  let known = "";
  for (const part of FOLDER.split("/")) {
    const entries = await readJson(`/v2/userdata?path=${encodeURIComponent(known)}`);
    if (!entries?.some?.(({ name, type }) => name === part && type === "directory")) return [];
    known = known ? `${known}/${part}` : part;
  }
  const files = (await readJson(`/userdata?dir=${encodeURIComponent(FOLDER)}&recurse=true`)) ?? [];
  const presets = await Promise.all(files.map((file) => read(String(file).replaceAll("\\", "/"))));
  return presets.filter(Boolean).sort((a, b) => a.title.localeCompare(b.title));
}

async function read(name) {
  const [section, title, ...deeper] = name.split("/");
  if (!title?.endsWith(ENDING) || deeper.length) return null;
  const file = `${FOLDER}/${name}`;
  const found = await readJson(`/userdata/${encodeURIComponent(file)}`);
  if (typeof found?.values !== "object" || found.values === null) return null;
  const picture = /^data:image\/(png|jpeg|webp);base64,[\w+/=]+$/.test(found.picture) ? found.picture : "";
  const known = (await groups).find((group) => group.section.toLowerCase() === section)?.section ?? section;
  const background = picture && `url("${picture}") center / cover`;
  return { section: known, title: title.slice(0, -ENDING.length), values: found.values, background, file };
}

async function readJson(path) {
  const response = await ask(path);
  if (!response.ok) return null;
  return response.json().catch(() => null);
}
