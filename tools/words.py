"""The pack's texts in all languages: node definitions for ComfyUI's interface, and the help pages.

    python -m capface.tools.words [--comfyui PATH]               after changing names or tooltips
    python -m capface.tools.words --translated [--comfyui PATH]  after updating the translations to the changed English texts

The English texts are written in the schemas, and those of the template cards in `templates.json`. `locales/en/nodeDefs.json`,
`locales/*/main.json`, `web/aliases.js` and the lists of every page are generated from them and the translations. The costs and
errors of a node are written by hand, below `BY_HAND` in each page.
"""

import argparse
import asyncio
import json
import tempfile
import zlib
from pathlib import Path

from .comfy import ComfyError, find_host, import_host

PACK = Path(__file__).resolve().parent.parent
TRANSLATED = PACK / "tests" / "host" / "translated.json"
"""The file with a digest of the English text that each translation was made from."""
LANGUAGES = ("en", "zh", "ja", "ko")
BY_HAND = "<!-- from here on by hand -->"
_OWN = json.loads((PACK / "tools" / "words.json").read_text(encoding="utf-8"))
HEADINGS, OPTIONAL, FILES = _OWN["headings"], _OWN["optional"], _OWN["files"]
"""Texts of the pages' lists by language: headings and words, the mark of optional inputs, and the placeholder for files."""
_TEMPLATES = json.loads((PACK / "tools" / "templates.json").read_text(encoding="utf-8"))
FOLDERS = ("capface", "CapFace", "ComfyUI-CapFace")
"""Names under which the pack's folder is usually installed. ComfyUI finds the names of templates by it."""
ALIASES_FILE = PACK / "web" / "aliases.js"
PICTURE = "picture.png"
OF_FILES = {"checkpoint", "facenet", "deca", "parser", "open_clip", "clip", "file", "model", "model_file"}
"""Inputs whose options are the user's files."""


def node_definitions(nodes) -> dict:
    """Make the English node definitions, in the format of ComfyUI's interface, from the schemas.

    Args:
        nodes: The node classes.
    """
    definitions = {}
    for node in nodes:
        schema = node.GET_SCHEMA()
        definitions[schema.node_id] = {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {entry.id: _words(entry.display_name or entry.id, entry.tooltip) for entry in schema.inputs},
            "outputs": {str(i): _words(out.display_name, out.tooltip) for i, out in enumerate(schema.outputs)},
        }
    return definitions


def _words(name, tooltip):
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def differences(english: dict, other: dict) -> list[str]:
    """Return the paths that a language lacks, or has in addition to the English ones."""
    mine, theirs = ({path for path, _ in _texts(words)} for words in (english, other))
    return [f"lacks {path}" for path in sorted(mine - theirs)] + [f"still has {path}" for path in sorted(theirs - mine)]


def digests(english: dict) -> dict[str, str]:
    """Return a short digest of every English text by its path, to detect changes after the translation."""
    return {path: f"{zlib.crc32(text.encode()):08x}" for path, text in sorted(_texts(english)) if not path.endswith("/name")}


def _texts(words, path=""):
    if not isinstance(words, dict):
        return [(path, words)]
    return [leaf for key, value in words.items() for leaf in _texts(value, f"{path}/{key}" if path else key)]


def definitions_file(language: str) -> Path:
    """Return the path of a language's node definitions."""
    return PACK / "locales" / language / "nodeDefs.json"


def read_definitions(language: str) -> dict:
    """Read a language's node definitions."""
    return json.loads(definitions_file(language).read_text(encoding="utf-8"))


def write_definitions(language: str, definitions: dict):
    """Write a language's node definitions."""
    path = definitions_file(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(definitions, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page_file(node_id: str, language: str) -> Path:
    """Return the path of a node's page."""
    return PACK / "web" / "docs" / node_id / f"{language}.md"


def page_top(node, words: dict, language: str) -> str:
    """Generate a page's top: title, description, and the lists of inputs and outputs with units and ranges."""
    schema = node.GET_SCHEMA()
    inputs, outputs, *_ = HEADINGS[language]
    lines = [f"# {words['display_name']}", "", words["description"], ""]
    lines += [f"![{words['display_name']}]({schema.node_id}/{PICTURE})", ""]  # ComfyUI resolves it from web/docs
    if schema.inputs:
        lines += [f"## {inputs}", ""]
        lines += [_entry(entry.id, words["inputs"][entry.id], _values(entry, language)) for entry in schema.inputs]
        lines.append("")
    if schema.outputs:
        lines += [f"## {outputs}", ""]
        for i, out in enumerate(schema.outputs):
            lines.append(_entry(out.display_name, words["outputs"][str(i)], out.get_io_type()))
        lines.append("")
    return "\n".join(lines)


def _entry(name, own, values):
    """Return an entry of a list. ComfyUI's panel for help is too narrow for tables."""
    title = f"**{name}**" if name == own["name"] else f"**{name}** ({own['name']})"
    return f"- {title}: {values}\\\n  {own.get('tooltip', '')}"


def _values(entry, language):
    *_, on, off, to = HEADINGS[language]
    default = getattr(entry, "default", None)
    kind = entry.get_io_type()
    if kind == "COMBO":
        if entry.id in OF_FILES:
            text = FILES[language] if default is None else f"{FILES[language]}; **{default}**"
        else:
            text = ", ".join(f"**{option}**" if option == default else str(option) for option in entry.options)
    elif kind in ("INT", "FLOAT"):
        low, high, default = (f"{n:g}" if kind == "FLOAT" else str(n) for n in (entry.min, entry.max, default))
        text = f"{low} {to} {high}; **{default}**"
    elif kind == "BOOLEAN":
        text = f"**{on}**, {off}" if default else f"{on}, **{off}**"
    else:
        # An input that is connected by hand has a type of its own in addition to the types it accepts: see nodes/sockets.py.
        takes, *others = kind.split(",")
        kind = ", ".join([takes, *(part for part in others if part != f"CAPFACE_{entry.id.upper()}")])
        text = kind if default in (None, "") else f"{kind}; **{default}**"
    return f"{text} ({OPTIONAL[language]})" if entry.optional and not hasattr(entry, "default") else text


def read_page(node_id: str, language: str) -> tuple[str, str]:
    """Read a page's generated part and its part written by hand; both are empty if the page does not exist."""
    path = page_file(node_id, language)
    top, _, by_hand = path.read_text(encoding="utf-8").partition(BY_HAND) if path.is_file() else ("", "", "")
    return top, by_hand


def write_page(node, words: dict, language: str):
    """Generate a page's top again, and keep the part written by hand."""
    node_id = node.GET_SCHEMA().node_id
    path = page_file(node_id, language)
    path.parent.mkdir(parents=True, exist_ok=True)
    by_hand = read_page(node_id, language)[1]
    path.write_text(page_top(node, words, language) + "\n" + BY_HAND + (by_hand or "\n"), encoding="utf-8")


def pack_nodes() -> dict:
    """Return the pack's node classes by id. ComfyUI's modules must be importable."""
    from .. import comfy_entrypoint

    async def listed():
        return await (await comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(listed())}


def nodes_in_host(comfyui: str | None) -> dict:
    """Return the pack's node classes by id, in the modules of a ComfyUI.

    Args:
        comfyui: Its folder; the one that `find_host` finds by default.

    Raises:
        ComfyError: No ComfyUI was found.
    """
    host = find_host(comfyui)
    if host is None:
        raise ComfyError("The schemas need a ComfyUI: name one with --comfyui PATH or in COMFYUI_PATH.")
    with tempfile.TemporaryDirectory() as base:
        import_host(host, base)
        return pack_nodes()


def aliases_module() -> str:
    """Make the module of the words by which search finds the nodes. The schemas must have been defined."""
    from ..nodes.sockets import ALIASES

    known = {name: words for name, words in sorted(ALIASES.items()) if words}
    return f"// Generated from the nodes' schemas by tools/words.py.\n\nexport const ALIASES = {json.dumps(known, indent=2)};\n"


def template_names(language: str) -> dict:
    """Make the titles and descriptions of the template cards in a language, in the format of ComfyUI's interface."""
    cards = {name: texts[language] for name, texts in _TEMPLATES.items()}
    titles, descriptions = ({name: card[i] for name, card in cards.items()} for i in range(2))
    return {
        "templateWorkflows": {
            "template": dict.fromkeys(FOLDERS, titles),
            "templateDescription": dict.fromkeys(FOLDERS, descriptions),
        }
    }


def write_words(nodes: dict) -> None:
    """Write the English definitions, the generated part of every page, and the words for search and templates."""
    write_definitions("en", node_definitions(nodes.values()))
    ALIASES_FILE.write_text(aliases_module(), encoding="utf-8")
    for language in LANGUAGES:
        text = json.dumps(template_names(language), indent=1, ensure_ascii=False)
        definitions_file(language).with_name("main.json").write_text(text + "\n", encoding="utf-8")
    for language in LANGUAGES:
        definitions = read_definitions(language)
        for name in nodes.keys() & definitions.keys():
            write_page(nodes[name], definitions[name], language)


def main() -> None:
    """Write what is generated from the schemas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="PATH")
    parser.add_argument(
        "--translated", action="store_true", help="record that the translations match the current English texts"
    )
    options = parser.parse_args()
    nodes = nodes_in_host(options.comfyui)
    write_words(nodes)
    if options.translated:
        TRANSLATED.write_text(json.dumps(digests(node_definitions(nodes.values())), indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
