// What a node reports as text, in the node itself: CapFace Check's report and Measure Portrait's table.

import { app } from "../../scripts/app.js";

const NODES = new Set(["CapFaceCheck", "CapFaceMeasure"]);
const LEAST_HEIGHT = 120;
const STYLE = `box-sizing: border-box; width: 100%; height: 100%; min-height: ${LEAST_HEIGHT}px; margin: 0; padding: 8px; overflow: auto;
  border-radius: 6px; font: 11px/1.5 ui-monospace, monospace; white-space: pre-wrap; user-select: text; cursor: text;
  color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);`;

app.registerExtension({
  name: "capface.report",
  nodeCreated(node) {
    if (!NODES.has(node.comfyClass)) return;
    const text = document.createElement("pre");
    text.style.cssText = STYLE;
    text.textContent = "Run the workflow.";
    // Text is selected by dragging, which would move the node.
    text.addEventListener("pointerdown", (event) => event.stopPropagation());
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST_HEIGHT };
    node.addDOMWidget("report", "capface.report", text, options).serialize = false;
    const { onExecuted } = node;
    node.onExecuted = function (output, ...rest) {
      onExecuted?.call(this, output, ...rest);
      text.textContent = (output?.text ?? []).join("\n");
    };
  },
});
