// Search by the words people type. Newer frontends search for a node's aliases. Older ones only look at its title, so here the
// title in the results also lists the aliases. The node itself keeps its short title.

import { app } from "../../scripts/app.js";
import { ALIASES } from "./aliases.js";

const shortTitles = new Map(); // by the title in the results

app.registerExtension({
  name: "capface.search",
  beforeRegisterNodeDef(nodeType, nodeData) {
    const words = ALIASES[nodeData.name];
    if (!words || nodeData.search_aliases) return;
    const long = `${nodeData.display_name} (${words.join(", ")})`;
    const short = nodeData.display_name;
    shortTitles.set(long, short);
    nodeData.display_name = long;
    // The frontend then gives new nodes this title.
    Object.defineProperty(nodeType, "title", { get: () => short, set() {}, configurable: true });
  },
  nodeCreated(node) {
    // Adding a node from the results gives it their title after this hook.
    queueMicrotask(() => {
      const short = shortTitles.get(node.title);
      if (short) node.title = short;
    });
  },
});
