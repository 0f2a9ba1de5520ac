"""The interface that saved workflows rely on: node ids, inputs and outputs, recorded in tests/host/surface.json.

python -m capface.tools.surface [--comfyui PATH]   after an intended change; describe the difference in the changelog
"""

import argparse
import json

from .words import PACK, nodes_in_host

SURFACE = PACK / "tests" / "host" / "surface.json"


def surface(node) -> dict:
    """Return a node's inputs and outputs, each with its type."""
    info = node.GET_NODE_INFO_V1()
    kinds = {name: spec[0] for group in ("required", "optional") for name, spec in info["input"].get(group, {}).items()}
    return {
        "inputs": {name: "COMBO" if isinstance(kind, list) else kind for name, kind in kinds.items()},
        "outputs": dict(zip(info["output_name"], info["output"], strict=True)),
    }


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="PATH")
    nodes = nodes_in_host(parser.parse_args().comfyui)
    listed = {name: surface(node) for name, node in sorted(nodes.items())}
    SURFACE.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
