// The order of the pack's templates. ComfyUI lists them in the order of the file system.

import { api } from "../../scripts/api.js";

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
];
const PACK = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0]);

const listed = api.getWorkflowTemplates;
api.getWorkflowTemplates = async function (...given) {
  const found = await listed.apply(this, given);
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  found?.[PACK]?.sort?.((a, b) => place(a) - place(b));
  return found;
};
