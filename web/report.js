// Text output of nodes: reports are shown in the node, notes about a photo as a message over the canvas.

import { app } from "../../scripts/app.js";

const REPORTS = new Set(["CapFaceCheck", "CapFaceMeasure"]);
const NOTES = new Set(["CapFaceEncodeIdentity"]);
const LEAST_HEIGHT = 120;
const STYLE = `box-sizing: border-box; width: 100%; height: 100%; min-height: ${LEAST_HEIGHT}px; margin: 0; padding: 8px; overflow: auto;
  border-radius: 6px; font: 11px/1.5 ui-monospace, monospace; white-space: pre-wrap; user-select: text; cursor: text;
  color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);`;

function showReport(node) {
  const text = document.createElement("pre");
  text.style.cssText = STYLE;
  text.textContent = "Run the workflow.";
  // Dragging selects text. Without this it would move the node.
  text.addEventListener("pointerdown", (event) => event.stopPropagation());
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST_HEIGHT };
  node.addDOMWidget("report", "capface.report", text, options).serialize = false;
  return (said) => (text.textContent = said);
}

function showNotes(node) {
  let last = "";
  return (said) => {
    // A run in which the node is cached sends the same notes again.
    if (said && said !== last) {
      app.extensionManager.toast.add({ severity: "warn", summary: node.title, detail: said, life: 15000 });
    }
    last = said;
  };
}

app.registerExtension({
  name: "capface.report",
  nodeCreated(node) {
    const kind = node.comfyClass;
    const show = REPORTS.has(kind) ? showReport(node) : NOTES.has(kind) ? showNotes(node) : null;
    if (!show) return;
    const { onExecuted } = node;
    node.onExecuted = function (output, ...rest) {
      onExecuted?.call(this, output, ...rest);
      show((output?.text ?? []).join("\n").trim());
    };
  },
});
