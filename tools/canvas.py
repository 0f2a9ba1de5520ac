"""Write workflows/api/*.json from workflows/*.json, by ComfyUI's own frontend in a real browser:

    python -m capface.tools.canvas

To change a workflow, open it in ComfyUI, save it over workflows/<name>.json, and run this. To export only some workflows,
append their names. A workflow that needs a third-party pack (`tools/other_packs.py`) is skipped with a message if the pack is
not installed. A subgraph of a workflow is also written to subgraphs/<title>.json, from where ComfyUI offers it as a node.
"""

import json
import re
import sys
import tempfile

from capface.tools.browser import Browser, CanvasPage
from capface.tools.browser import why_not as why_no_browser
from capface.tools.comfy import PACK, ComfyProcess, find_host, request
from capface.tools.other_packs import NEEDS, NODES, copy_of, why_not
from capface.tools.standins import write_inputs

WORKFLOWS, BLUEPRINTS = PACK / "workflows", PACK / "subgraphs"
SEARCH_ALIASES = ["caphuman", "face id", "identity", "photo to portrait", "pose", "expression", "likeness"]


def subgraphs_of(workflow: dict) -> dict[str, dict]:
    """Return the subgraphs of a workflow by the type of the nodes that open into them."""
    return {graph["id"]: graph for graph in workflow.get("definitions", {}).get("subgraphs", [])}


def nodes_of(workflow: dict) -> list[dict]:
    """Return the nodes of a workflow and of its subgraphs, but not those that stand for subgraphs."""
    graphs = subgraphs_of(workflow)
    inside = [node for graph in graphs.values() for node in graph["nodes"]]
    return [node for node in workflow["nodes"] if node["type"] not in graphs] + inside


def blueprints(workflow: dict) -> dict[str, str]:
    """Return the files of a workflow's subgraphs, by title, as ComfyUI reads them from a pack's folder `subgraphs`."""
    graphs, found = subgraphs_of(workflow), {}
    for node in (node for node in workflow["nodes"] if node["type"] in graphs):
        graph = graphs[node["type"]]
        free = {"id": -1, "pos": [0, 0], "order": 0, "inputs": [one | {"link": None} for one in node["inputs"]],
                "outputs": [one | {"links": []} for one in node["outputs"]]}  # fmt: skip
        found[node["title"]] = json.dumps({
            "revision": 0, "last_node_id": workflow["last_node_id"], "last_link_id": 0, "nodes": [node | free], "links": [],
            "definitions": {"subgraphs": [graph]}, "version": workflow["version"],
            "extra": {"BlueprintDescription": graph["description"], "BlueprintSearchAliases": SEARCH_ALIASES},
        }, indent=2, ensure_ascii=False) + "\n"  # fmt: skip
    return found


def api_text(prompt: dict) -> str:
    """Format a prompt for storage: nodes sorted by number, one line per input. `2:11` is node 11 in the graph of node 2."""
    nodes = {
        key: {name: prompt[key][name] for name in ("class_type", "inputs", "_meta")}
        for key in sorted(prompt, key=lambda key: [int(part) for part in key.split(":")])
    }
    text = json.dumps(nodes, indent=2, ensure_ascii=False)
    return re.sub(r'\[\s+("[\d:]+"),\s+(\d+)\s+\]', r"[\1, \2]", text) + "\n"


def export(host, browser, paths, beside=None):
    """Export some workflows in a ComfyUI with this pack and at most one other."""
    with tempfile.TemporaryDirectory() as folder:
        others = [copy_of(beside, folder)] if beside else []
        with ComfyProcess(host, folder="capface", others=others) as process:
            if beside and (lacks := NODES[beside] - json.loads(request(f"{process.url}/object_info")).keys()):
                print(f"left out: {beside} does not load here: no {min(lacks)}")
                return
            write_inputs(process.base / "input")
            page = CanvasPage(browser.session(), process.url)
            for path in paths:
                workflow = json.loads(path.read_text(encoding="utf-8"))
                page.load(workflow, path.stem)
                if page.problems:
                    sys.exit(f"{path.name}: {page.problems[0]}")
                (WORKFLOWS / "api" / path.name).write_text(api_text(page.prompt()["output"]), encoding="utf-8")
                print(f"{path.name} -> api/{path.name}")
                for name, text in blueprints(workflow).items():
                    (BLUEPRINTS / f"{name}.json").write_text(text, encoding="utf-8")
                    print(f"{path.name} -> subgraphs/{name}.json")


def main():
    """Export all workflows, or those named on the command line."""
    host = find_host()
    if host is None or why_no_browser():
        sys.exit(why_no_browser() or "no ComfyUI: set COMFYUI_PATH")
    kinds = {}
    for path in sorted(WORKFLOWS.glob("*.json")):
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            kinds.setdefault(NEEDS.get(path.stem), []).append(path)
    with Browser() as browser:
        for beside, paths in kinds.items():
            if beside and (reason := why_not(beside)):
                print(f"left out {', '.join(path.stem for path in paths)}: {reason}")
            else:
                export(host, browser, paths, beside)


if __name__ == "__main__":
    main()
