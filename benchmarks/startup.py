"""Measure what the pack adds to ComfyUI's start: seconds until its nodes are listed and described, in fresh processes.

    python tasks.py bench startup [--runs 5]

Each process imports ComfyUI's own modules before the clock starts, as ComfyUI does before it loads custom nodes. The first
start after an installation also compiles the sources, and is listed separately.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.2
"""Seconds."""


def measure():
    """Return the seconds to load the pack in this process, and the top-level modules that it imported."""
    from capface.tools.comfy import find_host, import_host

    with tempfile.TemporaryDirectory() as base:
        import_host(find_host(), base)
        import comfy_api.latest  # noqa: F401
        import execution  # noqa: F401
        import server  # noqa: F401

        before, start = set(sys.modules), time.perf_counter()
        spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        assert spec is not None and spec.loader is not None
        pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(pack)

        async def nodes():
            return await (await pack.comfy_entrypoint()).get_node_list()

        count = len([node.GET_NODE_INFO_V1() for node in asyncio.run(nodes())])
        seconds = time.perf_counter() - start
    new = sorted({name.split(".")[0] for name in set(sys.modules) - before} - {"pack"})
    print(json.dumps({"seconds": seconds, "nodes": count, "modules": new}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure()
        sys.exit()
    command = [sys.executable, "-m", "capface.benchmarks.startup", "--here"]
    with tempfile.TemporaryDirectory() as compiled:
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = compiled
        starts = [subprocess.check_output(command, text=True, env=environ) for _ in range(options.runs + 1)]
    first, *runs = (json.loads(output.splitlines()[-1]) for output in starts)
    median = statistics.median(run["seconds"] for run in runs)
    print(
        f"{first['nodes']} nodes in {median:.3f} s (median of {len(runs)}; limit {LIMIT} s); modules that came with them: "
        f"{', '.join(first['modules']) or 'none'}; the first start, which compiles: {first['seconds']:.3f} s"
    )
    sys.exit(median > LIMIT)
