// Guides over Edit Head's picture: thirds, the frame of the render, and the head's height in pixels at two common sizes.

import { word } from "./words.js";

// The height of a head of size 1, as a fraction of the frame's short side.
const HEAD_HEIGHT = 5 / 8;
const SIDES = [512, 768];
const MOST_NODES = 60;

/**
 * Draw the guides.
 * @param {SVGElement} svg over the editor
 * @param {object} places where the picture and the head are, in pixels of the editor
 * @param {[number, number] | null} frame width and height of the render, if known
 */
export function drawGuides(svg, { picture, unit, head, size }, frame) {
  const [width, height] = frame ?? [1, 1];
  const short = Math.min(width, height);
  const [w, h] = [(unit * width) / short, (unit * height) / short];
  const [x, y] = [picture.x + picture.width / 2, picture.y + picture.height / 2];
  const thirds = [-1, 1].map((side) => `M${x + (side * w) / 3} ${y - h}v${2 * h}M${x - w} ${y + (side * h) / 3}h${2 * w}`);
  const half = size * HEAD_HEIGHT * unit;
  const left = Math.max(8, head.x - 0.95 * half);
  const pixels = (side) => Math.round(size * HEAD_HEIGHT * side);
  const text = (side, at) => `<text x="${left + 8}" y="${at}">${pixels(side)} px ${word("at")} ${side}</text>`;
  svg.innerHTML = `<path d="${thirds.join("")}"/><path class="frame" d="M${x - w} ${y - h}h${2 * w}v${2 * h}h${-2 * w}z"/>
    <path class="size" d="M${left + 5} ${head.y - half}h-5v${2 * half}h5"/>${text(SIDES[0], head.y - half + 4)}${text(SIDES[1], head.y + half + 4)}`;
}

/**
 * Find the width and height of the picture that a node's head will be in: those of the latent image that the sampler starts from,
 * or else those of Render Head.
 * @param {object} node Edit Head
 * @returns {[number, number] | null}
 */
export function frameAfter(node) {
  const { graph } = node;
  const queue = [node];
  const seen = new Set(queue);
  let render = null;
  for (const one of queue) {
    for (const output of one.outputs ?? []) {
      for (const id of output.links ?? []) {
        const link = graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id];
        const next = link && graph.getNodeById(link.target_id);
        if (!next || seen.has(next) || seen.size > MOST_NODES) continue;
        seen.add(next);
        queue.push(next);
        if (next.type === "CapFaceRenderHead") render ??= sides(next);
        const latent = next.inputs?.findIndex(({ type }) => type === "LATENT") ?? -1;
        const found = latent >= 0 ? sides(next.getInputNode?.(latent)) : null;
        if (found) return found;
      }
    }
  }
  return render;
}

function sides(node) {
  const value = (name) => node?.widgets?.find((widget) => widget.name === name)?.value;
  const [width, height] = [value("width"), value("height")];
  return width > 0 && height > 0 ? [Math.round(width), Math.round(height)] : null;
}
