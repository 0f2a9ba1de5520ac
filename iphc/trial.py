"""`iphc check --try`: what only a running ComfyUI can tell of a manifest, before a run starts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .comfy_host import ComfyHost, HostSettings, RunStopped
from .ledger import MADE
from .manifest import Manifest, Method
from .units import units_of
from .worker import Host, Worker
from .workflow import bound, marked

EDIT_HEAD = "CapFaceEditHead"


def try_methods(manifest: Manifest, settings: HostSettings, open_host: Callable[[HostSettings], Host] = ComfyHost) -> list[str]:
    """Start ComfyUI, compare the manifest with its nodes, and make one image of each method in one step.

    Args:
        manifest: The manifest.
        settings: How to start ComfyUI.
        open_host: Starts it.

    Returns:
        All mistakes, each with its place.

    Raises:
        RunStopped: ComfyUI does not start.
    """
    methods = [method for method in manifest.methods if method.workflow is not None]
    if not methods:
        return []
    worker = Worker(manifest, settings, open_host=open_host)
    try:
        known = worker.start().nodes()
        problems = head_problems(manifest, known.get(EDIT_HEAD, {}))
        for method in methods:
            missing = missing_nodes(method, known)
            problems += [f"methods.{method.name}.workflow: {text}" for text in missing]
            if missing:
                continue
            workflow = bound(method.workflow or {}, {"@sampling": {"steps": 1}})
            unit = next(unit for unit in units_of(manifest) if unit.method == method)
            trial = replace(unit, method=replace(method, workflow=workflow), jobs=unit.jobs[:1])
            (row,) = worker.make(trial)
            if row.status != MADE:
                problems.append(f"methods.{method.name}: {row.reason}")
        return problems
    except RunStopped as error:
        raise RunStopped(f"The manifest cannot be tried. {error}") from None
    finally:
        worker.close()


def missing_nodes(method: Method, known: dict[str, Any]) -> list[str]:
    """Return a text for each class of nodes in a method's workflow that ComfyUI does not have."""
    classes = {node["class_type"] for node in (method.workflow or {}).values()} - known.keys()
    return [f"ComfyUI has no node {name}. Name its pack in 'packs'" for name in sorted(classes)]


def head_problems(manifest: Manifest, info: dict[str, Any]) -> list[str]:
    """Return a text for each value of a head condition that Edit Head does not take.

    Args:
        manifest: The manifest.
        info: ComfyUI's description of Edit Head; nothing is checked without it.
    """
    if not any(method.workflow is not None and marked(method.workflow, "@head") for method in manifest.methods):
        return []
    inputs = {name: entry for part in info.get("input", {}).values() for name, entry in part.items()}
    problems = []
    for head, condition in manifest.heads.items():
        for name, value in condition.items():
            options = inputs[name][1] if name in inputs and len(inputs[name]) > 1 else {}
            least, most = options.get("min"), options.get("max")
            if isinstance(value, int | float) and least is not None and most is not None and not least <= value <= most:
                problems.append(f"heads.{head}.{name}: expected {least:g} to {most:g}, got {value:g}")
    return problems
