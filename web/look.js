// The elements of the picture inside Edit Head, and their style.

import { RINGS } from "./rings.js";
import { word } from "./words.js";

export const LEAST_SIDE = 240;

// This style element lives inside the editor and affects nothing else. Its min-height is LEAST_SIDE.
const STYLE = `<style>
.capface-editor { position: relative; width: 100%; height: 100%; min-height: 240px; box-sizing: border-box; overflow: hidden;
  border-radius: 8px; outline: none; touch-action: none; user-select: none; cursor: grab; font: 11px/1.4 Inter, system-ui, sans-serif;
  color: #f0f0f2; background: radial-gradient(circle at 50% 42%, #4a4d55 0%, #2b2d33 55%, #17181b 100%); }
.lg-node .capface-editor { aspect-ratio: 1; height: auto; }
.capface-editor[data-keys]:focus { box-shadow: inset 0 0 0 2px #5aa0ff; }
.capface-editor[data-gesture] { cursor: grabbing; }
.capface-editor[data-gesture="place"], .capface-editor[data-gesture="pinch"] { cursor: move; }
.capface-editor > .picture, .capface-editor > .guides { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.capface-editor > .picture { object-fit: contain; }
.capface-editor > .guides path { fill: none; stroke: rgba(255,255,255,.55); stroke-width: 1; }
.capface-editor > .guides .frame { stroke: #ffd66b; stroke-width: 1.5; }
.capface-editor > .guides .size { stroke: #8fd0ff; stroke-width: 1.5; }
.capface-editor > .guides text { fill: #f0f0f2; paint-order: stroke; stroke: rgba(16,17,20,.85); stroke-width: 3px; font: 11px Inter, system-ui, sans-serif; }
.capface-editor > .rings { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; pointer-events: none; opacity: 0; transition: opacity .15s; }
.capface-editor:hover > .rings, .capface-editor[data-gesture] > .rings { opacity: 1; }
@media (hover: none) { .capface-editor > .rings { opacity: .8; } }
.capface-editor > .rings [data-axis] { pointer-events: all; cursor: grab; }
.capface-editor > .rings [data-axis] path { fill: none; pointer-events: stroke; }
.capface-editor > .rings .hit { stroke: transparent; stroke-width: 18; }
.capface-editor > .rings .halo { stroke: rgba(16,17,20,.6); stroke-width: 4.5; }
.capface-editor > .rings .line { stroke-width: 2; }
.capface-editor > .rings [data-axis="yaw"] .line { stroke: #7ee08a; }
.capface-editor > .rings [data-axis="pitch"] .line { stroke: #ff9c8f; }
.capface-editor > .rings [data-axis="roll"] .line { stroke: #8fc4ff; }
.capface-editor > .rings [data-axis]:hover .line { stroke-width: 3.5; }
.capface-editor > .rings .knob { fill: rgba(16,17,20,.78); stroke: rgba(255,255,255,.6); }
.capface-editor > .rings [data-axis]:hover .knob { stroke: #ffd66b; }
.capface-editor > .rings .icon { stroke: #f0f0f2; stroke-width: 1.4; }
.capface-editor[data-gesture="gaze"] > .rings, .capface-editor[data-gesture="light"] > .rings { opacity: .25; }
.capface-editor > .ball { position: absolute; right: 8px; bottom: 8px; width: 56px; height: 56px; cursor: crosshair; }
.capface-editor > .chip { position: absolute; left: 44px; padding: 2px 8px; border-radius: 8px; background: rgba(16,17,20,.78); pointer-events: none; opacity: 0;
  transition: opacity .15s; }
.capface-editor > .chip.on { opacity: 1; }
.capface-editor > .source, .capface-editor > .busy { top: 8px; white-space: nowrap; }
.capface-editor > .hint { left: 8px; bottom: 8px; line-height: 18px; max-width: calc(100% - 96px); }
.capface-editor:hover:not([data-gesture]) > .hint:not(.off) { opacity: 1; transition-delay: .4s; }
.capface-editor > .error { top: 34px; right: 44px; background: rgba(120,28,28,.92); }
.capface-editor > .reading { position: absolute; left: 8px; bottom: 8px; display: flex; gap: 2px; padding: 1px 4px; border-radius: 8px; background: rgba(16,17,20,.78);
  font-variant-numeric: tabular-nums; opacity: 0; transition: opacity .15s; }
.capface-editor > .reading.on, .capface-editor:hover > .reading, .capface-editor > .reading:focus-within, .capface-editor:focus > .reading { opacity: 1; }
.capface-editor:hover > .hint:not(.off) ~ .reading:not(.on, :focus-within) { opacity: 0; }
.capface-editor > .reading label { display: flex; align-items: center; gap: 3px; padding: 0 3px; }
.capface-editor > .reading input { width: 42px; height: 20px; padding: 0 2px; box-sizing: border-box; border: 0; border-radius: 4px; color: inherit; background: none;
  font: inherit; text-align: right; cursor: text; user-select: text; }
.capface-editor > .reading input:hover, .capface-editor > .reading input:focus { background: rgba(255,255,255,.14); outline: none; }
.capface-editor > .reading input:focus { box-shadow: 0 0 0 1.5px #5aa0ff; }
.capface-editor > .heads { position: absolute; top: 8px; left: 50%; transform: translateX(-50%); display: flex; align-items: center;
  height: 28px; border-radius: 8px; background: rgba(16,17,20,.78); font-variant-numeric: tabular-nums; }
.capface-editor > .heads button { background: none; font: 16px/1 Inter, system-ui, sans-serif; }
.capface-editor > .buttons { position: absolute; top: 8px; display: flex; flex-direction: column; gap: 4px; }
.capface-editor > .views { right: 8px; }
.capface-editor > .tools { left: 8px; opacity: 0; transition: opacity .15s; }
.capface-editor:hover > .tools, .capface-editor:focus-within > .tools { opacity: 1; }
@media (hover: none) { .capface-editor > .tools { opacity: 1; } }
.capface-editor > .opacity { position: absolute; right: 42px; top: 8px; width: 76px; height: 28px; margin: 0; accent-color: #ffd66b; cursor: pointer; }
.capface-editor button { width: 28px; height: 28px; padding: 5px; border: 0; border-radius: 8px;
  color: #f0f0f2; background: rgba(16,17,20,.78); cursor: pointer; }
.capface-editor button:disabled { opacity: .45; cursor: default; }
.capface-editor button:hover { background: rgba(60,62,70,.92); }
.capface-editor button:focus-visible, .capface-editor > .opacity:focus-visible { outline: 2px solid #5aa0ff; }
.capface-editor [hidden] { display: none !important; }
.capface-editor button[aria-pressed="true"] { color: #17181b; background: #ffd66b; }
.capface-editor button svg { display: block; width: 18px; height: 18px; fill: none; stroke: currentColor; stroke-width: 1.6; pointer-events: none; }
.capface-editor.dropping { box-shadow: inset 0 0 0 3px #ffd66b; }
</style>`;

const ICONS = {
  over: '<rect x="2" y="3.5" width="16" height="13" rx="2"/><circle cx="10" cy="9" r="2.6"/><path d="M5 16.5c.8-3 2.7-4 5-4s4.2 1 5 4"/>',
  close: '<path d="M2.5 6.5v-4h4m7 0h4v4m0 7v4h-4m-7 0h-4v-4"/><circle cx="10" cy="10" r="4"/>',
  guides: '<rect x="2" y="2" width="16" height="16" rx="1.5"/><path d="M7.3 2v16M12.7 2v16M2 7.3h16M2 12.7h16"/>',
  full: '<path d="M12 2.5h5.5V8M8 17.5H2.5V12M17 3l-5.5 5.5M3 17l5.5-5.5"/>',
  mirror: '<path d="M10 2v16" stroke-dasharray="2 1.6"/><path d="M7 5v10H2zM13 5v10h5z"/>',
  link: '<path d="M8.5 11.5l3-3M7 9.5l-2.3 2.3a2.6 2.6 0 0 0 3.6 3.6L10.5 13M13 10.5l2.3-2.3a2.6 2.6 0 0 0-3.6-3.6L9.5 7"/>',
  camera: '<path d="M2 10c2-3.5 4.7-5 8-5s6 1.5 8 5c-2 3.5-4.7 5-8 5s-6-1.5-8-5z"/><circle cx="10" cy="10" r="2.5"/>',
  snap: '<path d="M3 17h14M3 17L14 4"/><path d="M11 17a8 8 0 0 0-2.3-6"/>',
  take: '<rect x="2" y="3.5" width="16" height="13" rx="2"/><path d="M10 6v7M7 10.5l3 3 3-3"/>',
  reset: '<path d="M4 4v4h4"/><path d="M4.5 8a6.5 6.5 0 1 1-1 4"/>',
  resetAll: '<path d="M4 4v4h4"/><path d="M4.5 8a6.5 6.5 0 1 1-1 4"/><path d="M8 8.5l4 4M12 8.5l-4 4"/>',
};

/** A button with an icon. Its data attribute says what it does; a pressed one has a state. */
function button(kind, name, state) {
  const pressed = state ? ' aria-pressed="false"' : "";
  const text = escape(word(name));
  return `<button type="button" data-${kind}="${name}"${pressed} aria-label="${text}" title="${text}"><svg viewBox="0 0 20 20" aria-hidden="true">${ICONS[name]}</svg></button>`;
}

const escape = (text) => text.replace(/[&"<]/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** The editor's elements, in the user's language. The order is that of the Tab key. */
export function body() {
  const said = (key) => escape(word(key));
  return `${STYLE}
<canvas class="picture" width="1" height="1" role="img" aria-label="${said("picture")}"></canvas>
${RINGS}<svg class="guides" aria-hidden="true" hidden></svg>
<span class="chip source"></span><span class="chip busy" role="status"></span><span class="chip error" role="alert"></span><span class="chip hint">${said("hint")}</span>
<span class="buttons tools" role="toolbar" aria-label="${said("tools")}">${button("tool", "mirror")}${button("mode", "link", true)}${button("mode", "camera", true)}
${button("mode", "snap", true)}${button("tool", "take")}${button("tool", "reset")}${button("tool", "resetAll")}</span>
<span class="heads" hidden title="${said("batch")}">
<button type="button" data-step="-1" aria-label="${said("previous")}">‹</button><span class="number"></span>
<button type="button" data-step="1" aria-label="${said("next")}">›</button></span>
<input class="opacity" type="range" min="0" max="1" step="0.05" hidden aria-label="${said("opacity")}" title="${said("opacity")}">
<span class="buttons views" role="toolbar" aria-label="${said("views")}">${button("view", "over", true)}${button("view", "close", true)}${button("mode", "guides", true)}
${button("tool", "full", true)}</span>
<span class="reading" role="group"></span>
<canvas class="ball" width="112" height="112" role="img" aria-label="${said("light")}" title="${said("ball")}"></canvas>`;
}
