"""The documentation's site: it builds without a warning, and asks nothing of other machines."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a broken link, a lost anchor or a page that no menu leads to ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 25
    assert not [page for page in pages if not (site / page).is_file()]


def test_every_link_leads_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name != "404.html":  # shown at any address
            linked = re.findall(r'(?:href|src)="([^"#?:]+)[#?"]', page.read_text(encoding="utf-8"))
            assert not [link for link in linked if not (page.parent / link).exists()], page.name


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//|<link[^>]+href="?(?:https?:)?//')
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not loaded.search(text), page.name
        assert 'class="mermaid"' not in text, f"{page.name}: the theme fetches the program that draws it"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_files_of_the_repository_come_along(site: Path) -> None:
    text = (site / "deploying.html").read_text(encoding="utf-8")
    assert 'href="repository/deploy/compose.yaml"' in text
    assert (site / "repository/deploy/compose.yaml").read_bytes() == (ROOT / "deploy/compose.yaml").read_bytes()


def test_the_python_reference_comes_out_of_the_code(site: Path) -> None:
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in ("client.Client.stream", "threads.RedisSaver.aput", "retrieval.Index.search", "citations.verify"):
        assert f'id="citewell.{name}"' in text, name
