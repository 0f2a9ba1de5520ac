// Which node really feeds an input. A link is followed as the frontend follows it when it exports a prompt: through virtual nodes
// (reroutes, set and get nodes), bypassed nodes, and subgraphs in and out; through broadcasts of Use Everywhere; and through
// switches as far as their choice shows before a run. A node that computes is an end: what it will give, nobody knows yet.

const [MUTED, BYPASSED] = [2, 4];
// Of a link that comes into a subgraph; ids are numbers in some frontends and text in others.
const SUBGRAPH_INPUT = "-10";
const MOST_STEPS = 200;

/**
 * The value of a widget of the node that an input comes from.
 * @param {object} node whose input it is
 * @param {string} input its name
 * @param {string} type of the node that is looked for
 * @param {string} widget its widget's name
 * @returns the value; undefined where another node feeds the input, or none does, or that only shows in a run
 */
export function widgetBehind(node, input, type, widget) {
  const slot = node.inputs?.findIndex(({ name }) => name === input) ?? -1;
  const end = slot < 0 ? null : new Walk().intoInput(node, slot, []);
  return end?.node.type === type ? new Walk().widget(end, widget) : undefined;
}

// An end is {node, path}: a node, and the subgraph nodes around it from the outermost on, as far as the walk has come through them.
class Walk {
  #steps = 0;

  /** The end behind a node's input. */
  intoInput(node, slot, path, type = node.inputs?.[slot]?.type) {
    // A node that is being removed, or moved into a subgraph, is in no graph for a moment.
    const { graph } = node;
    if (!graph || !node.inputs?.[slot] || ++this.#steps > MOST_STEPS) return null;
    const link = linkOf(graph, node.inputs[slot].link);
    return link ? this.#alongLink(graph, link, path, type) : this.#broadcast(node, slot, path, type);
  }

  /** A widget's value, which may come from outside the subgraph that its node is in. */
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
    // A subgraph may stand in several places, with other nodes before each.
    const ends = around(graph, path).map((host) => this.intoInput(host, link.origin_slot, path.slice(0, -1), type));
    return ends.every((end) => end?.node === ends[0]?.node) ? (ends[0] ?? null) : null;
  }

  /** The end behind a node's output. */
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
    // Get nodes complain on the screen where nothing was set, and we ask often.
    if (node.findSetter && !node.findSetter(node.graph)) return null;
    const elsewhere = node.resolveVirtualOutput?.(slot);
    if (elsewhere?.node) {
      const depth = path.findLastIndex((host) => host.subgraph === elsewhere.node.graph);
      return this.#outOf(elsewhere.node, elsewhere.slot, path.slice(0, depth + 1), type);
    }
    const link = node.getInputLink?.(slot);
    return link ? this.#alongLink(node.graph, link, path, type) : null;
  }

  /** Use Everywhere keeps its invisible links beside the graph's own. */
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

/** The subgraph nodes that a graph stands in: the one that the walk came through, else all. */
function around(graph, path) {
  if (path.length) return [path.at(-1)];
  const root = graph.rootGraph ?? graph;
  const graphs = [root, ...(root.subgraphs?.values() ?? [])];
  return graphs.flatMap(({ nodes }) => nodes.filter((node) => node.subgraph === graph));
}

/** The value that a node of core's primitives holds; one that computes has none yet. */
function valueOf(node) {
  return node?.type === "PrimitiveNode" ? node.widgets?.[0]?.value : undefined;
}

/** The input that takes an output's place where a node is bypassed, as the frontend chooses it. */
function bypass(node, slot, type) {
  const inputs = node.inputs ?? [];
  const out = node.outputs?.[slot]?.type;
  if (type === "*" || type === "") return inputs.length > slot ? slot : 0;
  const fits = (input) => LiteGraph.isValidConnection(input.type, out) && LiteGraph.isValidConnection(input.type, type);
  if (inputs[slot] && fits(inputs[slot])) return slot;
  const exact = inputs.findIndex((input) => input.type === type);
  return exact >= 0 ? exact : inputs.findIndex(fits);
}

/** The inputs of a switch from which its output may come, the likeliest first. */
function choices(node) {
  const inputs = node.inputs ?? [];
  // Takes the first that is there.
  if (node.type === "Any Switch (rgthree)") return inputs.keys();
  if (node.type === "ImpactSwitch" && inputs.find(({ widget }) => widget?.name === "select")?.link == null) {
    const chosen = node.widgets?.find(({ name }) => name === "select")?.value;
    return [inputs.findIndex(({ name }) => name === `input${chosen}`)].filter((slot) => slot >= 0);
  }
  return [];
}
