"""The chat page, driven in a real browser; CITEWELL_TEST_PICTURES=docs keeps what it looked like in docs/."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen.canvas import Canvas

from citewell.client import Citation, Client
from citewell.ui.answers import answer_html, question_html, unmarked_html
from citewell.ui.why import why_html
from tests.browser import PATIENCE_MS
from tests.models.paced_server import Paced
from tests.service import LIBRARY, ROOT, START_WITHIN_S, Live, environment, free_port, ingest, running

pytest.importorskip("streamlit")
LISTED = 30
LEGIBLE = 4.5
"""Contrast from which WCAG 2.2 takes words of a usual size for legible (1.4.3)."""
HORN = "In which year was the fog horn of the Skerrow lighthouse added?"
TOWER = "How high is the tower of the lighthouse?"


@dataclass(frozen=True)
class Chat:
    """The page and the service behind it."""

    url: str
    service: Live
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the test library, a PDF of two pages, and a text of which the middle is worth a question."""
    folder = tmp_path_factory.mktemp("ui")
    canvas = Canvas(str(folder / "tides.pdf"), pagesize=A5)
    canvas.setTitle("Tides of the Skerrow coast")
    for lines in (
        ["Tides of the Skerrow coast", "This leaflet is for visitors who walk on the beach."],
        [
            "Spring tides",
            "The highest spring tide of the year reaches 6.8 metres at Orrin Bay.",
            "It comes in late September.",
        ],
    ):
        for number, line in enumerate(lines):
            canvas.drawString(40, 520 - 24 * number, line)
        canvas.showPage()
    canvas.save()
    stages = [f"Stage {number} leads along the dunes to the next hut and takes two hours.\n\n" for number in range(40)]
    stages.insert(20, "The reed warden lends binoculars at the third hide.\n\n")
    (folder / "walk.txt").write_text("".join(stages))
    data_dir = folder / "data"
    data_dir.mkdir()
    ingest(data_dir, LIBRARY, folder / "tides.pdf", folder / "walk.txt")
    return data_dir


@pytest.fixture(scope="module")
def chat(documents: Path) -> Iterator[Chat]:
    with running(documents) as service, (page := serving(service.url, documents)) as url:
        yield Chat(url, service, page.process)


class serving:
    """The page as its own process, over a service."""

    def __init__(self, service_url: str, data_dir: Path) -> None:
        self._port = free_port()
        self._log = (data_dir.parent / f"page-{self._port}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "citewell.ui", f"--server.port={self._port}"],
            env=environment(data_dir, CITEWELL_UI_SERVICE_URL=service_url) | {"HOME": str(data_dir.parent)},
            cwd=data_dir.parent, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> str:
        url, deadline = f"http://127.0.0.1:{self._port}", time.monotonic() + START_WITHIN_S
        while True:
            assert self.process.poll() is None, Path(self._log.name).read_text()
            try:
                if httpx.get(f"{url}/_stcore/health", timeout=5).is_success:
                    return url
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the page did not start"
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures of the page go: into docs/ with CITEWELL_TEST_PICTURES=docs, otherwise nowhere that stays."""
    return ROOT / "docs" if os.environ.get("CITEWELL_TEST_PICTURES") == "docs" else tmp_path


def ask(page: Page, question: str) -> Locator:
    """Type a question, send it with the keyboard, and wait for the whole answer."""
    before = page.locator(".cw-answer[aria-busy=false]").count()
    box = page.get_by_label("Ask the documents")
    box.fill(question)
    box.press("Enter")
    answer = page.locator(".cw-answer[aria-busy=false]").nth(before)
    expect(answer).to_be_visible()
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_visible()  # what was drawn before is gone then
    return answer


def test_an_answer_shows_the_passage_behind_each_sentence(chat: Chat, page: Page, pictures: Path) -> None:
    page.goto(chat.url)
    answer = ask(page, TOWER)
    expect(answer).to_contain_text("42 metres")
    mark = answer.locator("summary").first
    expect(mark).to_have_attribute("aria-label", "Source 1, verified: The Skerrow lighthouse")
    expect(mark).to_contain_text("✓")
    mark.focus()
    page.keyboard.press("Enter")
    expect(answer.locator("mark").first).to_contain_text("42 metres")
    expect(answer.locator(".cw-passage").first).to_contain_text("Agnes Tolland")
    expect(answer.locator(".cw-status").first).to_have_text("✓ Verified")
    expect(page.get_by_text(re.compile(r"^Quoted word for word from the documents .* [1-9]\d* ms$"))).to_be_visible()
    expect(page.locator("[data-testid=stCaptionContainer]").last).to_have_css("opacity", "0.75")
    page.get_by_role("heading", name=TOWER).scroll_into_view_if_needed()
    page.screenshot(path=pictures / "ui-answer.png")
    page.get_by_text("Why this answer").click()
    page.get_by_role("button", name="Search again to see why").click()
    why = page.locator(".cw-why")
    expect(why).to_contain_text("lighthouse.md")
    expect(why.get_by_role("table").first).to_contain_text("kept")
    expect(why).to_contain_text("rerank")
    why.scroll_into_view_if_needed()
    page.screenshot(path=pictures / "ui-why.png")


def test_a_quote_in_the_midst_of_a_document_is_in_sight_where_its_source_opens(chat: Chat, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for url, sources in ((chat.url, ".cw-cite"), (chat.service.url, "details")):
        page.goto(url)
        page.get_by_placeholder("Ask the documents").fill("Where does the reed warden lend binoculars?")
        page.keyboard.press("Enter")
        source = page.locator(sources).first
        source.locator("summary").click()
        expect(source.locator("mark")).to_contain_text("third hide")
        expect(source.locator("mark")).to_be_in_viewport(ratio=1)
        expect(source.get_by_role("link", name="Open the file")).to_have_attribute(
            "href", re.compile(r"/source/file\?uri=walk\.txt$")
        )


def test_no_mark_that_the_keyboard_has_reached_is_hidden_behind_the_question_field(chat: Chat, page: Page) -> None:
    page.set_viewport_size({"width": 1100, "height": 420})
    page.goto(chat.url)
    for question in (TOWER, HORN):
        ask(page, question)
    page.locator(".cw-cite summary").first.focus()
    reached = 0
    while page.locator("summary:focus, [role=radio]:focus, button:focus").count():
        page.wait_for_function(  # it is scrolled to
            """() => document.activeElement.getBoundingClientRect().bottom
                <= document.querySelector("[data-testid=stBottom]").getBoundingClientRect().top"""
        )
        reached += 1
        page.keyboard.press("Tab")
    assert reached >= 6


def drawn(page: Page, answer: str) -> None:
    """An answer as the page draws it, with a verified source behind every marker."""
    citations = [
        Citation(
            marker=1, sentence="", quote="42 metres", status="verified", score=1.0, source="a.md", title="A", page=None,
            start=0, end=9, chunk_id="c",
        )
        for _ in range(answer.count("[1]"))
    ]  # fmt: skip
    style = (ROOT / "citewell/ui/style.css").read_text()
    page.set_content(f"<style>{style}</style>{question_html('كم؟')}{answer_html(answer, citations)}")


def test_a_mark_does_not_end_the_line_it_stands_in(page: Page) -> None:
    drawn(page, "It is high. [1] It is old. [1] It is grey. [1]")
    marks = page.locator("summary")
    expect(marks).to_have_count(3)
    assert len({round(marks.nth(number).bounding_box()["y"]) for number in range(3)}) == 1  # type: ignore[index]
    marks.nth(1).click()
    expect(page.locator("mark").nth(1)).to_be_visible()
    expect(page.locator("mark").nth(0)).to_be_hidden()


def test_long_words_code_and_wide_tables_do_not_widen_a_narrow_page(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    word = "Donaudampfschifffahrt" * 9
    drawn(
        page,
        f"{word} [1]\n\n# {word}\n\n```\n{word}\n```\n\n{'| a wide column ' * 9}|\n{'|-' * 9}|\n{'| cell [1] ' * 9}|",
    )
    page.locator("body").evaluate("(body, html) => body.insertAdjacentHTML('beforeend', html)", unmarked_html([word]))
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    table, code = page.locator(".cw-scroll"), page.locator("pre")
    assert all(box.evaluate("box => box.scrollWidth > box.clientWidth") for box in (table, code))
    table.locator("summary").first.click()
    assert table.locator(".cw-source").first.evaluate("box => box.clientWidth") >= 200


def test_the_times_of_an_answer_fit_on_a_narrow_screen(page: Page) -> None:
    page.set_viewport_size({"width": 250, "height": 400})
    style = (ROOT / "citewell/ui/style.css").read_text()
    page.set_content(f"<style>{style}</style>{why_html({'stages_ms': {'embed': 10.7}}, {})}")
    assert page.evaluate("document.documentElement.scrollWidth") == 250


def test_each_paragraph_runs_as_its_own_letters_do(page: Page) -> None:
    drawn(page, "يستغرق الفرن الكبير 45 دقيقة. [1]\n\nThe oven takes 45 minutes. [1]")
    middle = "element => { const range = document.createRange(); range.selectNodeContents(element); const box = range.getBoundingClientRect(); return (box.left + box.right) / 2 / innerWidth; }"
    where = [page.locator(name).evaluate(middle) for name in (".cw-question", ".cw-p >> nth=0", ".cw-p >> nth=1")]
    assert [place > 0.5 for place in where] == [True, True, False]


@pytest.fixture
def grown(chat: Chat) -> Iterator[Client]:
    """Two conversations more than the page lists at first: "Grown number 0" is the oldest."""
    with Client(chat.service.url) as client:
        for number in range(LISTED + 2):
            client.ask("hello", thread_id=f"grown {number}")
            client.rename(f"grown {number}", f"Grown number {number}")
        yield client
        for number in range(LISTED + 2):
            client.delete(f"grown {number}")


@pytest.mark.usefixtures("grown")
def test_what_can_be_chosen_and_added_stands_above_a_list_that_grows(chat: Chat, page: Page) -> None:
    page.goto(chat.url)
    newest = page.get_by_role("button", name=f"Grown number {LISTED + 1}", exact=True)
    expect(newest).to_be_visible()
    places = [page.get_by_text(name).bounding_box() for name in ("Model and retrieval", "Add a document")]
    places.append(newest.bounding_box())
    heights = [place["y"] for place in places if place is not None]
    assert heights == sorted(heights)
    assert len(heights) == 3
    expect(page.get_by_role("button", name="Grown number 0", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Show older conversations").click()
    expect(page.get_by_role("button", name="Grown number 0", exact=True)).to_be_visible()
    newest.click()
    figures = page.get_by_text("1 question and 1 answer in this conversation.")
    expect(figures).to_be_visible()
    follows = "(figures, other) => figures.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING"
    other = page.get_by_role("button", name="Grown number 1", exact=True)
    assert figures.evaluate(follows, other.element_handle()), "of which conversation they are cannot be seen"


def test_an_open_conversation_that_is_not_listed_is_renamed_and_deleted(chat: Chat, grown: Client, page: Page) -> None:
    page.goto(f"{chat.url}/?thread=grown 0")
    expect(page.get_by_role("button", name=f"Grown number {LISTED + 1}", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Grown number 0", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("An old greeting")
    expect(page.get_by_text("Press Enter to submit")).to_be_hidden()  # it would lie over the title
    page.get_by_role("button", name="Save the title").click()
    expect(page.get_by_text("The conversation was renamed.")).to_be_visible()
    assert grown.threads(limit=LISTED + 2).threads[-1].title == "An old greeting"
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The conversation was deleted.")).to_be_visible()
    assert httpx.get(f"{chat.service.url}/conversation/grown 0").status_code == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_on_a_button_stand_out_by_day_and_night(chat: Chat, browser: Browser, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(chat.url)
    button = page.get_by_role("button", name="New conversation")
    expect(button).to_be_visible()
    assert contrast(button) >= LEGIBLE
    context.close()


def contrast(of: Locator) -> float:
    """Of an element's words with its own background, which has to be opaque; as WCAG 2.2 defines it."""
    colours = of.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    dark, light = sorted(luminance(colour) for colour in colours)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, colour
    parts = [int(part) / 255 for part in found.groups()]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_pdf_opens_at_the_page_on_a_narrow_dark_screen(chat: Chat, browser: Browser, pictures: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(chat.url)
    answer = ask(page, "How high is the highest spring tide of the year at Orrin Bay?")
    answer.locator("summary").first.click()
    expect(answer.locator("summary").first).to_have_attribute(
        "aria-label", "Source 1, verified: Tides of the Skerrow coast, page 2"
    )
    assert contrast(answer.locator("mark").first) >= LEGIBLE
    link = answer.get_by_role("link", name="Open the PDF at page 2")
    url = link.get_attribute("href") or ""
    assert url.endswith("#page=2")
    file = httpx.get(url)
    assert (file.headers["content-type"], file.content[:5]) == ("application/pdf", b"%PDF-")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page is wider than the screen"
    )
    page.screenshot(path=pictures / "ui-narrow-dark.png")
    context.close()


def test_a_citation_names_the_page_of_the_quote_where_its_chunk_began_on_an_earlier_one(chat: Chat) -> None:
    with Client(chat.service.url) as client:
        answer = client.ask("How high is the highest spring tide of the year at Orrin Bay?")
        assert [citation.page for citation in answer.citations if "6.8 metres" in citation.quote] == [2]
        assert client.search("How high is the highest spring tide?").hits[0].page == 1


def test_a_conversation_goes_on_after_a_reload_is_renamed_rated_and_deleted(chat: Chat, page: Page) -> None:
    page.goto(chat.url)
    ask(page, "When was the fog horn added?")
    expect(page).to_have_url(re.compile("thread="))
    expect(page.get_by_role("alert")).to_contain_text("1903")
    page.reload()
    expect(page.locator(".cw-answer")).to_contain_text("1903")
    expect(page.get_by_role("alert")).to_have_count(0)  # a conversation shown again is no news
    expect(ask(page, "And when was it removed?")).to_contain_text("1988")
    expect(page.get_by_text("2 questions and 2 answers")).to_be_visible()

    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("The fog horn")
    page.get_by_role("button", name="Save the title").click()
    expect(page.get_by_role("button", name="The fog horn")).to_be_visible()

    page.get_by_role("radio", name="Thumbs down").last.click()
    page.get_by_label("What would be right?").fill("It was in spring.")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text("Thank you.")).to_be_visible()
    thread = page.url.split("thread=")[1]
    with Client(chat.service.url) as client:
        assert [(one.message, one.rating, one.reason, one.comment) for one in client.ratings(thread)] == [
            (3, "down", "incorrect", "It was in spring.")
        ]
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_text("Ask your documents")).to_be_visible()
    page.get_by_role("button", name="The fog horn").click()
    expect(page.locator(".cw-answer").first).to_contain_text("1903")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The conversation was deleted.")).to_be_visible()
    assert httpx.get(f"{chat.service.url}/conversation/{thread}").status_code == 404


def test_a_page_follows_the_browsers_back_and_forward_and_what_is_said_in_another_tab(chat: Chat, page: Page) -> None:
    page.goto(chat.url)
    ask(page, HORN)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".cw-question")).to_have_count(0)
    ask(page, TOWER)
    for _ in range(2):
        page.go_back()
    # in lists, as what was drawn before may still stand beside it
    expect(page.locator(".cw-question")).to_have_text([HORN])
    for _ in range(2):
        page.go_forward()
    expect(page.locator(".cw-question")).to_have_text([TOWER])
    other = page.context.new_page()
    other.goto(page.url)
    for tab in (page, other):  # before it is asked, for what to wait as the next answer
        expect(tab.locator(".cw-answer[aria-busy=false]")).to_have_count(1)
    ask(other, "And when was it first lit?")
    ask(page, "Who designed it?")
    expect(page.locator(".cw-question")).to_have_text([TOWER, "And when was it first lit?", "Who designed it?"])


def test_a_document_is_added_and_asked(chat: Chat, page: Page) -> None:
    page.goto(chat.url)
    page.get_by_text("Add a document").click()
    text = b"# The tide mill\n\nThe tide mill of Orrin Bay grinds 3 tonnes of barley a day.\n"
    page.locator("input[type=file]").first.set_input_files(
        {"name": "mill.md", "mimeType": "text/markdown", "buffer": text}
    )
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_text("uploads/mill.md is there now, in 1 passage.")).to_be_visible()
    expect(ask(page, "How much barley does the tide mill grind?")).to_contain_text("3 tonnes")
    page.get_by_role("combobox", name="Added before").click()
    page.get_by_role("option", name="mill.md").click()
    page.get_by_role("button", name="Remove mill.md").click()
    expect(page.get_by_text("mill.md was removed.")).to_be_visible()
    with Client(chat.service.url) as client:
        assert "uploads/mill.md" not in {source.uri for source in client.sources()}


def test_an_upload_that_a_click_has_ended_is_told(chat: Chat, page: Page) -> None:
    page.goto(chat.url)
    page.get_by_text("Add a document").click()
    text = b"The harbour master counts the boats at noon.\n\n" * 80_000
    page.locator("input[type=file]").first.set_input_files(
        {"name": "boats.txt", "mimeType": "text/plain", "buffer": text}
    )
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_text("Indexing passage")).to_be_visible()
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_text("boats.txt was not added")).to_be_visible()
    with Client(chat.service.url) as client:
        assert "uploads/boats.txt" not in {source.uri for source in client.sources()}


def test_what_nobody_chose_is_as_the_service_is_set(documents: Path, page: Page, paced: Paced) -> None:
    models = paced.model(0) | {"CITEWELL_SIMPLE_MODEL": "openai:cheap", "CITEWELL_ANSWER_CACHE_S": "3600"}
    with running(documents, **models) as service, serving(service.url, documents) as url:
        httpx.post(
            f"{service.url}/chat", json={"message": TOWER}, timeout=60
        ).raise_for_status()  # the first turn imports
        page.goto(url)
        expect(ask(page, HORN)).to_contain_text("42 metres")
        expect(page.get_by_text("Answered by cheap")).to_be_visible()
        page.get_by_role("button", name="New conversation").click()
        expect(page.get_by_text("Ask your documents")).to_be_visible()
        ask(page, HORN)
        expect(page.get_by_text("given before to the same question")).to_be_visible()
        page.get_by_text("Model and retrieval").click()
        kept = page.get_by_role("spinbutton", name="Passages kept")
        kept.fill("2")
        kept.press("Enter")
        page.get_by_role("button", name="New conversation").click()
        expect(page.get_by_text("Ask your documents")).to_be_visible()
        ask(page, HORN)
        expect(page.get_by_text("Answered by cheap")).to_be_visible()
        expect(page.get_by_text("given before to the same question")).to_have_count(0)
        page.get_by_text("Why this answer").click()
        page.get_by_role("button", name="Search again to see why").click()
        expect(page.locator(".cw-why")).to_contain_text("2 kept")


def test_a_service_that_goes_away_takes_nothing_off_the_page(documents: Path, page: Page) -> None:
    with ExitStack() as stack:
        with running(documents) as service:
            with Client(service.url) as client:
                client.ask(HORN, thread_id="other")
                for _ in range(51):
                    client.ask(TOWER, thread_id="long")
            url = stack.enter_context(serving(service.url, documents))
            page.goto(f"{url}?thread=long")
            expect(page.locator(".cw-answer")).to_have_count(50)
        page.get_by_role("button", name="Show earlier messages").dispatch_event("click")
        expect(page.locator(".stMain").get_by_text("cannot be reached")).to_be_visible()
        page.get_by_role("button", name="In which year was the fog horn").first.click()
        expect(page.locator("[data-testid=stSidebar]").get_by_text("cannot be reached")).to_be_visible()
        expect(page.locator(".cw-answer")).to_have_count(50)
        page.reload()
        expect(page.locator(".stMain").get_by_text("cannot be reached")).to_be_visible()
        assert page.url.endswith("?thread=long"), "the next try would not know which conversation it was"


def test_an_answer_can_be_stopped_and_a_fault_says_what_to_do(
    documents: Path, page: Page, paced: Paced, pictures: Path
) -> None:
    endless = paced.model(1) | {"CITEWELL_CHAT_MODEL": "openai:endless"}
    with running(documents, **endless) as service, serving(service.url, documents) as url:
        page.goto(url)
        box = page.get_by_label("Ask the documents")
        box.fill(TOWER)
        box.press("Enter")
        expect(page.locator(".cw-answer")).to_contain_text("The tower")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Stopped.")).to_be_visible()
        deadline = time.monotonic() + START_WITHIN_S
        while "citewell_turns_running 0.0" not in httpx.get(f"{service.url}/metrics").text:
            assert time.monotonic() < deadline, "the run goes on in the service"
            time.sleep(0.1)
        service.process.kill()
        service.process.wait()
        page.get_by_role("button", name="Ask again").click()
        expect(page.get_by_text("cannot be reached").last).to_be_visible()
        expect(page.get_by_text("make run").last).to_be_visible()
        page.screenshot(path=pictures / "ui-fault.png")


def test_nobody_else_is_let_in_unless_that_is_asked_for(chat: Chat) -> None:
    """Whoever opens the page acts with the key it was started with."""
    listening = [one.laddr.ip for one in psutil.Process(chat.process.pid).net_connections() if one.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_a_setting_that_cannot_be_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "citewell.ui", f"--server.port={free_port()}"],
        env=environment(tmp_path, CITEWELL_TOPK="3"), cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "citewell.ui: CITEWELL_TOPK is not a setting; did you mean CITEWELL_TOP_K?\n"
