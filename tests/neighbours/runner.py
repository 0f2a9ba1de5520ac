"""A process with a ComfyUI and a group of packs: it runs the group's cases and writes a row for each.

COMFYUI_PATH=… PACKS=… python -m capface.tests.neighbours.runner <group> <file for the rows> [text in the case's name]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from capface.tests.neighbours import packs
from capface.tests.neighbours.bench import Bench, compare, start_host
from capface.tests.neighbours.cases import CASES, GROUPS, NOT_LOADED, plain_sampling
from capface.tools.comfy import find_host, host_version


def main(group, out, only=""):
    """Run a group's cases, and write each row as a line of JSON."""
    torch.set_num_threads(1)
    comfyui = find_host()
    cases = [case for case in CASES if case.group == group and only in case.name]
    there, missing = [], {}
    for name in GROUPS[group]:
        try:
            packs.pack_folder(name)
            there.append(name)
        except packs.PackMissing as e:
            missing[name] = str(e)
    with tempfile.TemporaryDirectory(prefix="capface-neighbours-") as base, Path(out).open("w", encoding="utf-8") as file:
        for folder in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (Path(base) / folder).mkdir()
        nodes, standins = start_host(comfyui, base)
        bench = Bench(nodes, standins)
        if group == "together":
            with torch.inference_mode():
                bench.before = plain_sampling(bench)
        failed = packs.load(nodes, there)
        for case in cases:
            start = time.monotonic()
            row = {"case": case.name, "pack": case.pack, "method": case.method, "group": group, "host": host_version(comfyui)}
            row["tolerance"] = case.tolerance
            if case.pack in missing:
                row["missing"] = missing[case.pack]
            elif failed.keys() & {case.pack, *case.needs}:
                row |= {"version": packs.pack_version(case.pack), "stock": NOT_LOADED, "capface": NOT_LOADED, "error": None}
            else:
                row["version"] = packs.pack_version(case.pack)
                row |= case.check(bench) if case.check else compare(bench, case)
            row["seconds"] = round(time.monotonic() - start, 1)
            file.write(json.dumps(row) + "\n")
            file.flush()
    os._exit(0)  # packs leave threads running


if __name__ == "__main__":
    main(*sys.argv[1:])
