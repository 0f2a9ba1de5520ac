"""Fill in the fields of pyproject.toml that are known only when publishing: the repository's address and the publisher.

Run by .github/workflows/publish.yml on a tag. Needs only the standard library.
"""

import os
import re
import sys
from pathlib import Path


def filled(text: str, tag: str, server: str, repository: str, publisher: str) -> str:
    """Return pyproject.toml with address, icon, banner and publisher.

    Args:
        text: The content of the file.
        tag: The tag to publish, such as v0.1.0.
        server: The server's address, such as https://github.com.
        repository: owner/name on the server.
        publisher: The publisher's id in the registry.

    Raises:
        SystemExit: The tag does not match the version, or the publisher is missing.
    """
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert found is not None, "pyproject.toml gives no version"
    version = found[1]
    if tag != f"v{version}":
        sys.exit(f"Tag {tag} is not version {version} of pyproject.toml; expected v{version}.")
    if not publisher:
        sys.exit("There is no publisher: set the repository's variable COMFY_PUBLISHER_ID to yours of registry.comfy.org.")
    home = f"{server}/{repository}"
    urls = f'[project.urls]\nRepository = "{home}"\nDocumentation = "{home}/blob/{tag}/README.md"\n\n'
    comfy = f'PublisherId = "{publisher}"\n' + "".join(
        f'{key} = "{home}/raw/{tag}/docs/{key.lower()}.png"\n' for key in ("Icon", "Banner")
    )
    return text.replace("[tool.comfy]\n", f"{urls}[tool.comfy]\n{comfy}", 1)


if __name__ == "__main__":
    file = Path("pyproject.toml")
    variables = ("GITHUB_REF_NAME", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "COMFY_PUBLISHER_ID")
    file.write_text(filled(file.read_text(encoding="utf-8"), *(os.environ.get(v, "") for v in variables)), encoding="utf-8")
