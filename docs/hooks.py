"""What the site's generator does beside rendering: files that pages link to outside of docs/ come along.

In the repository a page links to `../deploy/compose.yaml`; on the site the same file lies under `repository/`.
"""

import re
from pathlib import Path
from posixpath import relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FOLDER = "repository"
_OUTSIDE = re.compile(r"\]\(\.\./(?!adr/)([^)#]+)\)")


def _on_site(name: str) -> str:
    """A leading dot would keep a file out of the site."""
    return f"{FOLDER}/{name.lstrip('.')}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page in list(files.documentation_pages()):
        if "/" in page.src_uri:
            continue  # a page in a folder links to pages with ../
        for name in _OUTSIDE.findall(page.content_string):
            if (ROOT / name).is_file() and files.get_file_from_path(_on_site(name)) is None:
                files.append(File.generated(config, _on_site(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to what is no file of the repository stays as it is, and is reported as broken."""

    def moved(match: re.Match[str]) -> str:
        name = _on_site(match[1])
        return match[0] if files.get_file_from_path(name) is None else f"]({relpath(name, '.')})"

    return markdown if "/" in page.file.src_uri else _OUTSIDE.sub(moved, markdown)
