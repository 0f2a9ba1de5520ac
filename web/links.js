// Finding the node that feeds an input. Links are followed as the frontend follows them when it exports a prompt: through virtual
// nodes (reroutes, set and get nodes), bypassed nodes, into and out of subgraphs, through broadcasts of Use Everywhere, and through
// switches whose choice is known before a run. A node that computes ends the search, since its result is not known yet.

const [MUTED, BYPASSED] = [2, 4];
// The origin id of a link from a subgraph's input. Ids are numbers in some frontends and strings in others.
const SUBGRAPH_INPUT = "-10";
const MOST_STEPS = 200;

/**
 * Get the value of a widget of the node that feeds an input.
 * @param {object} node the node with the input
 * @param {string} input the input's name
 * @param {string} type the expected type of the feeding node
 * @param {string} widget the name of that node's widget
 * @returns the value; undefined if the input is not connected, a node of another type feeds it, or the value is only known in a run
 */
export function widgetBehind(node, input, type, widget) {
  const slot = node.inputs?.findIndex(({ name }) => name === input) ?? -1;
  const end = slot < 0 ? null : new Walk().intoInput(node, slot, []);
  return end?.node.type === type ? new Walk().widget(end, widget) : undefined;
}

/**
 * Get the name of the picture that Load Image gives to a node as its photo, or to the Fit Head that gives it its head.
 * @param {object} node Edit Head
 * @returns {string | undefined}
 */
export function photoBehind(node) {
  const name = widgetBehind(node, "photo", "LoadImage", "image");
  if (name !== undefined) return name;
  const slot = node.inputs?.findIndex((input) => input.name === "head") ?? -1;
  const fit = slot < 0 ? null : new Walk().intoInput(node, slot, [])?.node;
  return fit?.type === "CapFaceFitHead" ? widgetBehind(fit, "image", "LoadImage", "image") : undefined;
}

// An end is {node, path}: a node, and the subgraph nodes around it that the walk has entered, the outermost first.
class Walk {
  #steps = 0;

  /** Find the end behind a node's input. */
  intoInput(node, slot, path, type = node.inputs?.[slot]?.type) {
    // A node that is being removed, or moved into a subgraph, is not in a graph for a moment.
    const { graph } = node;
    if (!graph || !node.inputs?.[slot] || ++this.#steps > MOST_STEPS) return null;
    const link = linkOf(graph, node.inputs[slot].link);
    return link ? this.#alongLink(graph, link, path, type) : this.#broadcast(node, slot, path, type);
  }

  /** Get a widget's value, which may come from outside the node's subgraph. */
  widget({ node, path }, name) {
    const input = node.inputs?.find((one) => one.widget?.name === name);
    const link = node.graph && linkOf(node.graph, input?.link);
    if (!link) return node.widgets?.find((one) => one.name === name)?.value;
    if (String(link.origin_id) === SUBGRAPH_INPUT) {
      const values = around(node.graph, path).map((host) => {
        const outer = host.inputs[link.origin_slot];
        if (outer?.link == null) return host.getWidgetFromSlot?.(outer)?.value;
        return valueOf(host.graph.getNodeById(linkOf(host.graph, outer.link)?.origin_id));
      });
      return values.every((value) => value === values[0]) ? values[0] : undefined;
    }
    return valueOf(node.graph.getNodeById(link.origin_id));
  }

  #alongLink(graph, link, path, type) {
    if (String(link.origin_id) !== SUBGRAPH_INPUT) return this.#outOf(graph.getNodeById(link.origin_id), link.origin_slot, path, type);
    // A subgraph may be used several times, each time with different nodes before it.
    const ends = around(graph, path).map((host) => this.intoInput(host, link.origin_slot, path.slice(0, -1), type));
    return ends.every((end) => end?.node === ends[0]?.node) ? (ends[0] ?? null) : null;
  }

  /** Find the end behind a node's output. */
  #outOf(node, slot, path, type) {
    if (!node || node.mode === MUTED || ++this.#steps > MOST_STEPS) return null;
    if (node.mode === BYPASSED) return this.intoInput(node, bypass(node, slot, type), path, type);
    if (node.isSubgraphNode?.()) return this.#intoSubgraph(node, slot, path, type);
    if (node.isVirtualNode) return this.#throughVirtual(node, slot, path, type);
    for (const input of choices(node)) {
      const end = this.intoInput(node, input, path, type);
      if (end) return end;
    }
    return { node, path };
  }

  #intoSubgraph(node, slot, path, type) {
    const inner = node.subgraph;
    const link = linkOf(inner, inner.outputs?.[slot]?.linkIds?.[0]);
    return link ? this.#alongLink(inner, link, [...path, node], type) : null;
  }

  #throughVirtual(node, slot, path, type) {
    // A get node without a set node shows an error message each time it is resolved. Do not resolve it.
    if (node.findSetter && !node.findSetter(node.graph)) return null;
    const elsewhere = node.resolveVirtualOutput?.(slot);
    if (elsewhere?.node) {
      const depth = path.findLastIndex((host) => host.subgraph === elsewhere.node.graph);
      return this.#outOf(elsewhere.node, elsewhere.slot, path.slice(0, depth + 1), type);
    }
    const link = node.getInputLink?.(slot);
    return link ? this.#alongLink(node.graph, link, path, type) : null;
  }

  /** Follow a broadcast of Use Everywhere, which stores its invisible links apart from the graph's own. */
  #broadcast(node, slot, path, type) {
    const mine = (one) => String(one.downstream) === String(node.id) && one.downstream_slot === slot;
    const link = node.graph.extra?.ue_links?.find(mine);
    return link ? this.#outOf(node.graph.getNodeById(link.upstream), link.upstream_slot, path, type) : null;
  }
}

function linkOf(graph, id) {
  if (id == null) return null;
  return graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id] ?? null;
}

/** The subgraph nodes that contain a graph: the one that the walk has entered, or else all. */
function around(graph, path) {
  if (path.length) return [path.at(-1)];
  const root = graph.rootGraph ?? graph;
  const graphs = [root, ...(root.subgraphs?.values() ?? [])];
  return graphs.flatMap(({ nodes }) => nodes.filter((node) => node.subgraph === graph));
}

/** The value of ComfyUI's primitive node; undefined for a node that computes. */
function valueOf(node) {
  return node?.type === "PrimitiveNode" ? node.widgets?.[0]?.value : undefined;
}

/** The input that replaces an output of a bypassed node, chosen as the frontend chooses it. */
function bypass(node, slot, type) {
  const inputs = node.inputs ?? [];
  const out = node.outputs?.[slot]?.type;
  if (type === "*" || type === "") return inputs.length > slot ? slot : 0;
  const fits = (input) => LiteGraph.isValidConnection(input.type, out) && LiteGraph.isValidConnection(input.type, type);
  if (inputs[slot] && fits(inputs[slot])) return slot;
  const exact = inputs.findIndex((input) => input.type === type);
  return exact >= 0 ? exact : inputs.findIndex(fits);
}

/** The inputs from which a switch may take its output, the likeliest first. */
function choices(node) {
  const inputs = node.inputs ?? [];
  // This switch takes the first connected input.
  if (node.type === "Any Switch (rgthree)") return inputs.keys();
  if (node.type === "ImpactSwitch" && inputs.find(({ widget }) => widget?.name === "select")?.link == null) {
    const chosen = node.widgets?.find(({ name }) => name === "select")?.value;
    return [inputs.findIndex(({ name }) => name === `input${chosen}`)].filter((slot) => slot >= 0);
  }
  return [];
}
