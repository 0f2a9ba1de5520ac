// Pictures of edited heads, rendered by the server. A request is sent while the one before it is still being rendered, which
// hides the time of the response. Requests in between are dropped. A larger picture follows when nothing moves any more.

import { api } from "../../scripts/api.js";
import { word } from "./words.js";

const PATH = "/capface/edit";
const MOVING = 256;
const [AT_REST, LARGE] = [512, 1024];
const MOST_UNDER_WAY = 2;
const REST_MS = 180;
const RETRY_MS = 1000;
export const randomId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
// This tab. The server takes the tabs in turn.
export const CLIENT = randomId();

export class Pictures {
  #ask;
  #show;
  #large;
  #view = randomId();
  #wanted = false;
  #underWay = 0;
  #asked = 0;
  #shown = 0;
  #rest;
  #abort = new AbortController();

  /**
   * @param {() => object} ask returns the request's fields as of now
   * @param {(answer: {image?: ImageData, source?: string, heads?: number, asked?: number, places?: number[], base?: number[],
   *   error?: string}) => void} show
   * @param {() => boolean} large returns whether pictures at rest are shown larger than in a node
   */
  constructor(ask, show, large) {
    this.#ask = ask;
    this.#show = show;
    this.#large = large;
  }

  /** Request a new picture. Several calls within one task make one request. */
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
      this.#rest = setTimeout(() => this.#fetch(this.#large() ? LARGE : AT_REST), status === 429 ? RETRY_MS : REST_MS);
    }
  }

  async #fetch(side) {
    const fields = this.#ask();
    // The fields already contain any changes that the callback itself made.
    this.#wanted = false;
    this.#underWay++;
    const number = ++this.#asked;
    const asked = performance.now();
    const { signal } = this.#abort;
    try {
      const response = await api.fetchApi(PATH, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ view: this.#view, client: CLIENT, side, raw: true, ...fields }),
        signal,
      });
      if (response.status === 200) {
        const header = (name) => response.headers.get(`X-CapFace-${name}`);
        // Raw pixels need no image decoder.
        const image = new ImageData(new Uint8ClampedArray(await response.arrayBuffer()), ...header("Size").split(" ").map(Number));
        // Responses may arrive out of order, and a late large picture would undo the latest movement on the screen.
        if (!signal.aborted && number > this.#shown && !(side !== MOVING && this.#asked > number)) {
          this.#shown = number;
          const [places, base] = ["Places", "Base"].map((name) => header(name)?.split(" ").map(Number));
          this.#show({ image, source: header("Head"), heads: Number(header("Heads")), asked, places, base });
        }
      } else if (response.status !== 204 && response.status !== 429) {
        const { error } = await response.json().catch(() => ({ error: response.statusText }));
        if (!signal.aborted) this.#show({ error });
      }
      return response.status;
    } catch {
      if (!signal.aborted) this.#show({ error: word("silent") });
      return 0;
    } finally {
      this.#underWay--;
    }
  }
}
