// Rings and handles around the head in Edit Head's picture, one for each way to move it. They appear when the pointer is over the
// picture, and always on touch screens.

import { word } from "./words.js";

/** The head's radius at size 1, as a fraction of half the frame's short side. With it, the surface stays under the pointer. */
export const HEAD_RADIUS = 0.62;
const EDGE = 16;
const MOVE = "M-8 0h16M0-8v16M-8 0l3-3M-8 0l3 3M8 0l-3-3M8 0l-3 3M0-8l-3 3M0-8l3 3M0 8l-3-3M0 8l3-3";
const SIZE = "M-5-5l10 10M-5-5v5M-5-5h5M5 5v-5M5 5h-5";

export const RINGS = `<svg class="rings" aria-hidden="true">${["yaw", "pitch", "roll"]
  .map((axis) => `<g data-axis="${axis}"><path class="hit"/><path class="halo"/><path class="line"/><title></title></g>`)
  .join("")}${[["move", MOVE], ["size", SIZE]]
  .map(([axis, icon]) => `<g data-axis="${axis}"><circle class="knob" r="12"/><path class="icon" d="${icon}"/><title></title></g>`)
  .join("")}</svg>`;

export class Rings {
  #svg;

  /** @param {HTMLElement} root the editor, which contains RINGS */
  constructor(root) {
    this.#svg = root.querySelector(".rings");
    for (const ring of this.#svg.children) ring.querySelector("title").textContent = word(ring.dataset.axis);
  }

  /**
   * Place the rings around the head.
   * @param {{x: number, y: number, radius: number}} head its centre and radius in pixels of the editor
   * @param {{width: number, height: number}} box the editor's size
   */
  place({ x, y, radius }, { width, height }) {
    const inside = (value, most) => Math.max(EDGE, Math.min(most - EDGE, value));
    const r = Math.min(radius, Math.max(width, height));
    const shapes = {
      // A turntable under the chin, a wheel beside the head, and an arc over it.
      yaw: ellipse(inside(x, width), inside(y + 1.12 * r, height - 0.1 * r), 0.75 * r, 0.18 * r),
      pitch: ellipse(inside(x - 1.05 * r, width), inside(y, height), 0.15 * r, 0.62 * r),
      roll: arc(inside(x, width), Math.max(y, 1.22 * r + EDGE), 1.22 * r, 0.36 * Math.PI),
    };
    for (const ring of this.#svg.children) {
      const { axis } = ring.dataset;
      if (shapes[axis]) for (const path of ring.querySelectorAll("path")) path.setAttribute("d", shapes[axis]);
      else {
        const down = axis === "size" ? 0.8 * r : 0;
        const along = axis === "size" ? 0.95 * r : 1.2 * r;
        // Right of the head, above the light ball.
        const at = [inside(x + along, width), Math.min(inside(y + down, height), height - 80)];
        ring.setAttribute("transform", `translate(${at.join(" ")})`);
      }
    }
  }
}

function ellipse(x, y, rx, ry) {
  return `M${x - rx} ${y}a${rx} ${ry} 0 1 0 ${2 * rx} 0a${rx} ${ry} 0 1 0 ${-2 * rx} 0`;
}

/** An arc over a point, symmetric about the vertical, half as wide as an angle says. */
function arc(x, y, r, half) {
  const [dx, dy] = [r * Math.sin(half), r * Math.cos(half)];
  return `M${x - dx} ${y - dy}A${r} ${r} 0 0 1 ${x + dx} ${y - dy}`;
}
