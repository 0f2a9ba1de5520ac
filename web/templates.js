// The order and the names of the pack's templates. ComfyUI lists them in the order of the file system, under their files' names.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

export const ORDER = [
  "one_node",
  "portrait",
  "edit_head",
  "miniature",
  "pose_from_photo",
  "expressions",
  "lights",
  "toon",
  "restyle",
  "two_people",
  "turntable",
  "second_pass",
  "face_detailer",
  "face_detailer_impact",
  "inpaint",
  "openpose_body",
  "lora_and_depth",
  "landmark_control",
  "head_first",
  "measure",
  "qwen_image_head",
  "sdxl_instantid",
];
const PACK = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0]);

const CARD = "template-workflow-";
const spaced = (name) => name.replace(/[-_]/g, " ").trim();

let naming = false;

// `others` are the names of other packs' templates: a card does not say whose it is, so an equal name stays as it is.
async function nameCards(others) {
  if (naming) return;
  naming = true;
  const messages = await (await api.fetchApi("/i18n")).json();
  const { template, templateDescription } = (messages[app.extensionManager.setting.get("Comfy.Locale")] ?? messages.en ?? {})
    .templateWorkflows ?? {};
  const titles = template?.[PACK], descriptions = templateDescription?.[PACK];
  if (!titles || !descriptions) return;

  function rename(card) {
    const name = card.dataset.testid.slice(CARD.length);
    if (!titles[name] || others.includes(name)) return;
    const walker = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
    let titled = false;
    while (walker.nextNode()) {
      const text = walker.currentNode;
      const said = text.data.trim();
      if (said === titles[name]) titled = true;
      else if (said === name || said === spaced(name)) {
        text.data = titled ? descriptions[name] : titles[name];
        titled = true;
      }
    }
  }

  const cards = `[data-testid^="${CARD}"]`;
  new MutationObserver((changes) => {
    const found = new Set();
    for (const { addedNodes, target } of changes) {
      if (!addedNodes.length) continue;
      const around = target.closest?.(cards);
      if (around) found.add(around);
      else for (const node of addedNodes) {
        if (node.matches?.(cards)) found.add(node);
        for (const card of node.querySelectorAll?.(cards) ?? []) found.add(card);
      }
    }
    for (const card of found) rename(card);
  }).observe(document.body, { childList: true, subtree: true });
  for (const card of document.querySelectorAll(cards)) rename(card);
}

const listed = api.getWorkflowTemplates;
api.getWorkflowTemplates = async function (...given) {
  const found = await listed.apply(this, given);
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  found?.[PACK]?.sort?.((a, b) => place(a) - place(b));
  const others = Object.entries(found ?? {}).flatMap(([pack, names]) => (pack === PACK ? [] : names));
  await nameCards(others).catch((error) => console.warn(`CapFace: templates keep their files' names: ${error}`));
  return found;
};
