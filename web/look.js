// The elements of the picture inside Edit Head, and their style.

export const LEAST_SIDE = 240;
const HINT = "drag turns · shift moves · alt tilts<br>wheel sizes · double click resets";

// This style element lives inside the editor and affects nothing else. Its min-height is LEAST_SIDE.
const STYLE = `<style>
.capface-editor { position: relative; width: 100%; height: 100%; min-height: 240px; box-sizing: border-box; overflow: hidden;
  border-radius: 8px; outline: none; touch-action: none; user-select: none; cursor: grab; font: 11px/1.4 Inter, system-ui, sans-serif;
  color: #e8e8ea; background: radial-gradient(circle at 50% 42%, #4a4d55 0%, #2b2d33 55%, #17181b 100%); }
.lg-node .capface-editor { aspect-ratio: 1; height: auto; }
.capface-editor[data-keys]:focus { box-shadow: inset 0 0 0 2px #5aa0ff; }
.capface-editor[data-gesture] { cursor: grabbing; }
.capface-editor[data-gesture="place"] { cursor: move; }
.capface-editor > .picture { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; pointer-events: none; }
.capface-editor > .ball { position: absolute; right: 8px; bottom: 8px; width: 56px; height: 56px; cursor: crosshair; }
.capface-editor > .chip { position: absolute; left: 8px; padding: 2px 8px; border-radius: 999px; background: rgba(16,17,20,.62); pointer-events: none; white-space: nowrap; opacity: 0; transition: opacity .15s; }
.capface-editor > .chip.on { opacity: 1; }
.capface-editor > .source { top: 8px; }
.capface-editor > .reading { bottom: 8px; font-variant-numeric: tabular-nums; }
.capface-editor > .hint { bottom: 8px; max-width: calc(100% - 96px); white-space: normal; border-radius: 8px; color: #c9cad0; }
.capface-editor:hover:not([data-gesture]) > .hint:not(.off) { opacity: 1; transition-delay: .4s; }
.capface-editor > .error { top: 36px; right: 8px; white-space: normal; border-radius: 8px; background: rgba(120,28,28,.86); }
.capface-editor > .heads { position: absolute; top: 8px; left: 50%; transform: translateX(-50%); display: flex; align-items: center;
  height: 28px; border-radius: 8px; background: rgba(16,17,20,.62); font-variant-numeric: tabular-nums; }
.capface-editor > .heads button { background: none; font: 16px/1 Inter, system-ui, sans-serif; }
.capface-editor > .buttons { position: absolute; top: 8px; right: 8px; display: flex; gap: 6px; }
.capface-editor button { width: 28px; height: 28px; padding: 5px; border: 0; border-radius: 8px;
  color: #e8e8ea; background: rgba(16,17,20,.62); cursor: pointer; }
.capface-editor [hidden] { display: none !important; }
.capface-editor button[aria-pressed="true"] { color: #17181b; background: #ffd66b; }
.capface-editor button svg { display: block; width: 18px; height: 18px; fill: none; stroke: currentColor; stroke-width: 1.6; }
</style>`;

export const BODY = `${STYLE}
<canvas class="picture" width="1" height="1" role="img" aria-label="The edited head"></canvas>
<span class="chip source"></span><span class="chip error" role="alert"></span>
<span class="chip hint">${HINT}</span><span class="chip reading"></span>
<span class="heads" hidden title="Which head of the batch is shown; the sliders edit all of them">
<button type="button" data-step="-1" aria-label="The head before">‹</button><span class="number"></span>
<button type="button" data-step="1" aria-label="The next head">›</button></span>
<span class="buttons">
<button type="button" data-view="over" hidden aria-pressed="false" aria-label="Over the photo" title="Show the head over its photo">
<svg viewBox="0 0 20 20"><rect x="2" y="3.5" width="16" height="13" rx="2"/><circle cx="10" cy="9" r="2.6"/><path d="M5 16.5c.8-3 2.7-4 5-4s4.2 1 5 4"/></svg>
</button>
<button type="button" data-view="close" aria-pressed="false" aria-label="Close up" title="Look at the face, wherever it is in the frame">
<svg viewBox="0 0 20 20"><path d="M2.5 6.5v-4h4m7 0h4v4m0 7v4h-4m-7 0h-4v-4"/><circle cx="10" cy="10" r="4"/></svg>
</button></span>
<canvas class="ball" width="112" height="112" role="img" aria-label="Light" title="Drag: where the light comes from. Double click: the head's own light."></canvas>`;
