"""Translations and pages match the schemas, and quoted messages exist."""

import ast
import copy
import json
import re

import pytest

from capface.tests.conftest import ROOT
from capface.tools import words
from capface.tools.words import LANGUAGES

QUOTE = re.compile(r"^- `([^`]+)`", re.MULTILINE)


@pytest.fixture(scope="module")
def nodes(in_host):
    """The pack's nodes by id."""
    return words.pack_nodes()


@pytest.fixture(scope="module")
def english(nodes):
    """The node definitions made from the schemas."""
    return words.node_definitions(nodes.values())


def leaves(tree):
    """Yield every text in a tree of dictionaries."""
    return [tree] if isinstance(tree, str) else [leaf for value in tree.values() for leaf in leaves(value)]


def test_english_is_the_schema(english):
    assert words.read_definitions("en") == english, "run: python tasks.py words"


def test_every_input_and_output_has_a_tooltip(english):
    for name, node in english.items():
        for socket in (*node["inputs"].values(), *node["outputs"].values()):
            assert socket.get("tooltip"), f"{name}.{socket['name']}"


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_no_language_is_outdated(english, language):
    assert words.differences(english, words.read_definitions(language)) == []


def test_translations_match_the_current_english(english):
    """After the translations were updated to a changed English text, run `python tasks.py words --translated`."""
    actual = words.digests(english)
    noted = json.loads(words.TRANSLATED.read_text(encoding="utf-8"))
    changed = sorted(path for path in actual.keys() | noted.keys() if actual.get(path) != noted.get(path))
    assert changed == [], "translate these again in every language"


def test_an_outdated_language_is_detected(english):
    other = copy.deepcopy(english)
    del other["CapFaceApply"]["inputs"]["tau"]["tooltip"]
    other["CapFaceApply"]["inputs"]["gone"] = {"name": "gone"}
    assert words.differences(english, other) == [
        "lacks CapFaceApply/inputs/tau/tooltip",
        "still has CapFaceApply/inputs/gone/name",
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_contain_no_commands_of_the_interface(language):
    """ComfyUI's interface interprets braces, bars and the at sign in a text as commands."""
    for text in leaves(words.read_definitions(language)):
        assert text and not set("{}|@") & set(text), text


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_descriptions_and_tooltips_are_translated(english, language):
    definitions = words.read_definitions(language)
    for name, node in english.items():
        texts = {node["description"], *(t["tooltip"] for t in (*node["inputs"].values(), *node["outputs"].values()))}
        assert not texts & set(leaves(definitions[name])), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_page_with_the_lists_of_its_schema(nodes, language):
    definitions = words.read_definitions(language)
    for name, node in nodes.items():
        top, by_hand = words.read_page(name, language)
        assert top.strip() == words.page_top(node, definitions[name], language).strip(), f"{name}/{language}.md"
        assert by_hand.count("\n## ") == 2, f"{name}/{language}.md: expected what it costs and what goes wrong"
        for entry in node.GET_SCHEMA().inputs:
            assert f"- **{entry.id}**" in top
    folders = {folder.name for folder in (ROOT / "web" / "docs").iterdir()}
    assert folders == set(nodes)


def test_every_page_has_a_picture_that_loads_at_once(nodes):
    """tools/pictures.py makes missing pictures, or tools/node_pictures.py for nodes without a picture of their own."""
    for name in nodes:
        picture = words.page_file(name, "en").with_name(words.PICTURE)
        assert picture.is_file() and picture.stat().st_size <= 60_000, name


def messages():
    """Return every text in the pack's code, with … in place of inserted values."""
    for part in ("files", "flame", "host", "miniature", "models", "nodes", "photos", "__init__.py", "errors.py"):
        for path in [ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_pages_quote_messages_of_the_code(nodes):
    said = set(messages())
    quoted = {}
    for name in nodes:
        pages = {language: QUOTE.findall(words.read_page(name, language)[1]) for language in LANGUAGES}
        for language, found in pages.items():
            assert found == pages["en"], f"{name}/{language}.md quotes other messages than the English page"
        quoted.update(dict.fromkeys(pages["en"], name))
    trouble = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    readme = re.findall(r"^\| `([^`]+)` \|", trouble, re.MULTILINE)
    assert len(readme) > 5
    quoted.update(dict.fromkeys(readme, "docs/troubleshooting.md"))
    for message, where in quoted.items():
        assert any(message.strip("…") in text for text in said), f"{where}: nothing says {message!r}"
