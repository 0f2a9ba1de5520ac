// The tokens under which the server keeps the inputs of nodes that have run. This browser tab stores them, so that they survive
// a reload of the page.

const KEY = "capface.given";
const MAX_NODES = 64;

/**
 * Look up a node.
 * @param {string} node the node's key
 * @returns {[string, string, object] | undefined} the key, the token and the state of the view
 */
export function recall(node) {
  return entries().find(([name]) => name === node);
}

/** Store the token and the state of the view for a node. The oldest entries are dropped. */
export function remember(node, token, view) {
  const others = entries().filter(([name]) => name !== node);
  sessionStorage.setItem(KEY, JSON.stringify([[node, token, view], ...others].slice(0, MAX_NODES)));
}

/** All entries, the latest first. */
function entries() {
  try {
    const stored = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter(Array.isArray) : [];
  } catch {
    return [];
  }
}
