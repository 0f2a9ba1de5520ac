// Pictures of edited heads from the server. One request is under way at a time; when its answer is shown, the newest wish
// is asked for, and what was wished for in between is dropped. At rest a finer picture follows.

import { api } from "../../scripts/api.js";

const PATH = "/capface/edit";
export const MOVING = 256;
export const AT_REST = 512;
const REST_MS = 180;
const RETRY_MS = 1000;

export class Pictures {
  #ask;
  #show;
  #view = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
  #wanted = false;
  #busy = false;
  #closed = false;
  #rest;
  #abort;

  /**
   * @param {() => object} ask the request's fields, as they are now
   * @param {(answer: {bitmap?: ImageBitmap, source?: string, error?: string}) => void} show
   */
  constructor(ask, show) {
    this.#ask = ask;
    this.#show = show;
  }

  /** A new picture is wanted; several wishes within one task are one. */
  want() {
    clearTimeout(this.#rest);
    this.#wanted = true;
    queueMicrotask(() => this.#run());
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#rest);
    this.#abort?.abort();
  }

  async #run() {
    if (this.#busy || this.#closed) return;
    this.#busy = true;
    let pause = REST_MS;
    while (this.#wanted && !this.#closed) {
      const status = await this.#fetch(MOVING);
      if (status === 429 && !this.#wanted) {
        pause = RETRY_MS;
        break;
      }
    }
    this.#busy = false;
    this.#rest = setTimeout(() => this.#refine(), pause);
  }

  async #refine() {
    if (this.#busy || this.#closed) return;
    this.#busy = true;
    await this.#fetch(AT_REST);
    this.#busy = false;
    if (this.#wanted) this.#run();
  }

  async #fetch(side) {
    this.#abort = new AbortController();
    const fields = this.#ask();
    // What asking itself has changed is in the fields.
    this.#wanted = false;
    try {
      const response = await api.fetchApi(PATH, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ view: this.#view, side, ...fields }),
        signal: this.#abort.signal,
      });
      if (response.status === 200) {
        const bitmap = await createImageBitmap(await response.blob());
        // A fine picture that comes after the next move would jump back.
        if (!this.#closed && !(side === AT_REST && this.#wanted)) {
          this.#show({ bitmap, source: response.headers.get("X-CapFace-Head") });
        }
        bitmap.close();
      } else if (response.status !== 204 && response.status !== 429) {
        const { error } = await response.json().catch(() => ({ error: response.statusText }));
        if (!this.#closed) this.#show({ error });
      }
      return response.status;
    } catch (error) {
      if (!this.#closed) this.#show({ error: "The server does not answer." });
      return 0;
    }
  }
}
