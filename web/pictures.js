// Pictures of edited heads from the server. While one is drawn the next may already be asked for, so that the newest wish never
// waits for an answer's way back; what was wished for in between is dropped. At rest a finer picture follows.

import { api } from "../../scripts/api.js";

const PATH = "/capface/edit";
const MOVING = 256;
const AT_REST = 512;
const MOST_UNDER_WAY = 2;
const REST_MS = 180;
const RETRY_MS = 1000;

export class Pictures {
  #ask;
  #show;
  #view = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
  #wanted = false;
  #underWay = 0;
  #asked = 0;
  #shown = 0;
  #rest;
  #abort = new AbortController();

  /**
   * @param {() => object} ask the request's fields, as they are now
   * @param {(answer: {image?: ImageData, source?: string, heads?: number, asked?: number, error?: string}) => void} show
   */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
  }

  /** A new picture is wanted; several wishes within one task are one. */
  want() {
    clearTimeout(this.#rest);
    this.#wanted = true;
    queueMicrotask(() => this.#next());
  }

  close() {
    clearTimeout(this.#rest);
    this.#abort.abort();
  }

  async #next() {
    if (!this.#wanted || this.#underWay === MOST_UNDER_WAY || this.#abort.signal.aborted) return;
    const status = await this.#fetch(MOVING);
    if (this.#wanted) this.#next();
    else if (!this.#underWay && !this.#abort.signal.aborted) {
      clearTimeout(this.#rest);
      this.#rest = setTimeout(() => this.#fetch(AT_REST), status === 429 ? RETRY_MS : REST_MS);
    }
  }

  async #fetch(side) {
    const fields = this.#ask();
    // What asking itself has changed is in the fields.
    this.#wanted = false;
    this.#underWay++;
    const number = ++this.#asked;
    const asked = performance.now();
    const { signal } = this.#abort;
    try {
      const response = await api.fetchApi(PATH, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ view: this.#view, side, raw: true, ...fields }),
        signal,
      });
      if (response.status === 200) {
        const header = (name) => response.headers.get(`X-CapFace-${name}`);
        // Raw pixels, which no decoder makes wait.
        const image = new ImageData(new Uint8ClampedArray(await response.arrayBuffer()), ...header("Size").split(" ").map(Number));
        // Answers may overtake each other, and a fine picture that comes after the next move would jump back.
        if (!signal.aborted && number > this.#shown && !(side === AT_REST && this.#asked > number)) {
          this.#shown = number;
          this.#show({ image, source: header("Head"), heads: Number(header("Heads")), asked });
        }
      } else if (response.status !== 204 && response.status !== 429) {
        const { error } = await response.json().catch(() => ({ error: response.statusText }));
        if (!signal.aborted) this.#show({ error });
      }
      return response.status;
    } catch {
      if (!signal.aborted) this.#show({ error: "The server does not answer." });
      return 0;
    } finally {
      this.#underWay--;
    }
  }
}
