"""The JavaScript example, in a real browser, from an origin of its own."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from citewell.identity.keys import new_key
from tests.service import ROOT, free_port, running


def test_the_example_streams_an_answer_into_a_page(indexed: Path, page: Page, tmp_path: Path) -> None:
    page.add_init_script(
        "delete Crypto.prototype.randomUUID"
    )  # as in a page that came over plain HTTP from another machine
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    folder = ROOT / "examples" / "javascript"
    files = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=folder)
    try:
        while True:
            try:
                httpx.get(f"{origin}/stream.html").raise_for_status()
                break
            except httpx.TransportError:
                assert files.poll() is None
                time.sleep(0.1)
        with running(indexed, CITEWELL_CORS_ORIGINS=f'["{origin}"]') as live:
            # other clients in a page send headers of their own, as OpenAI's and MCP's do
            sent = {"access-control-request-headers": "authorization, mcp-protocol-version, x-stainless-os"}
            preflight = {"origin": origin, "access-control-request-method": "POST"} | sent
            assert httpx.options(f"{live.url}/v1/chat/completions", headers=preflight).status_code == 200
            page.goto(f"{origin}/stream.html?service={live.url}")
            page.get_by_label("Question").fill("When was the fog horn added?")
            page.get_by_role("button", name="Ask").click()
            expect(page.locator("#answer")).to_contain_text("1903")
            expect(page.locator("#sources li").first).to_contain_text("(verified)")
            page.get_by_label("Question").fill("And when was it removed?")
            page.get_by_role("button", name="Ask").click()
            expect(page.locator("#answer")).to_contain_text("1988")
            ask = page.get_by_role("button", name="Ask")
            expect(ask).to_be_enabled()
            submit = "() => { document.querySelector('form').requestSubmit(); return document.querySelector('#ask').disabled }"
            assert page.evaluate(submit), "a second question would be answered into the first one's text"
            expect(ask).to_be_enabled()
        key, entry = new_key("alice", (), None)
        (tmp_path / "keys").write_text(entry.line())
        locked = {"CITEWELL_CORS_ORIGINS": f'["{origin}"]', "CITEWELL_API_KEYS_FILE": str(tmp_path / "keys")}
        with running(indexed, **locked) as live:
            page.goto(f"{origin}/stream.html?service={live.url}")
            page.get_by_label("Question").fill("When was the fog horn added?")
            page.get_by_role("button", name="Ask").click()
            expect(page.locator("#answer")).to_contain_text("Send a key")
            page.get_by_label("Key").fill(key)
            page.get_by_role("button", name="Ask").click()
            expect(page.locator("#answer")).to_contain_text("1903")
    finally:
        files.terminate()
        files.wait()
