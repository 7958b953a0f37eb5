"""The pages a person opens, driven in a real browser: type, send, see tokens and the answer, go on."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from playwright.sync_api import Page, expect

from tests.models.told_server import ToldServer, told_server
from tests.service import Live


def test_the_front_page_answers_with_sources_that_open_at_the_quote(live: Live, page: Page) -> None:
    page.goto(live.url)
    page.get_by_label("Question").fill("How high is the tower of the lighthouse?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer").first).to_contain_text("42 metres")
    source = page.locator("details").first
    expect(source).to_contain_text("✓ verified")
    source.locator("summary").click()
    expect(source.locator("mark")).to_contain_text("42 metres")
    expect(source.locator(".passage")).to_contain_text("Marrick quarry")
    page.get_by_label("Question").fill("And when was it first lit?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".answer").nth(1)).to_contain_text("14 March 1871")


def test_the_front_page_shows_its_conversation_again_after_a_reload(live: Live, page: Page) -> None:
    page.goto(live.url)
    page.get_by_label("Question").fill("How high is the tower of the lighthouse?")
    page.keyboard.press("Enter")
    expect(page.locator("details").first).to_contain_text("“Its tower is 42 metres")
    page.reload()
    expect(page.locator(".question")).to_have_text("How high is the tower of the lighthouse?")
    expect(page.locator(".answer")).to_contain_text("42 metres")
    page.locator("details summary").first.click()
    expect(page.locator("details mark").first).to_contain_text("42 metres")
    page.get_by_role("button", name="New conversation").click()
    page.reload()
    expect(page.get_by_text("passages", exact=False).last).to_be_visible()
    expect(page.locator(".question")).to_have_count(0)


@pytest.fixture
def told() -> Iterator[ToldServer]:
    """In a thread of its own: the browser's tests are not asynchronous."""
    ready: Future[ToldServer] = Future()
    done = threading.Event()

    async def serve() -> None:
        async with told_server() as server:
            ready.set_result(server)
            await asyncio.to_thread(done.wait)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve())
        yield ready.result(10)
        done.set()
        serving.result(10)


def test_the_front_page_tells_what_no_source_stands_behind(
    start: Callable[..., Live], told: ToldServer, page: Page
) -> None:
    told.answer = "The tower is 42 metres high. Elephants <b>painted</b> it in 1702."
    service = start(CITEWELL_CHAT_MODEL="openai:told", OPENAI_API_KEY="none", OPENAI_BASE_URL=told.base_url)
    page.goto(service.url)
    page.get_by_label("Question").fill("How high is the tower of the lighthouse?")
    page.keyboard.press("Enter")
    expect(page.locator("details")).to_have_count(1)
    expect(page.locator("details")).to_contain_text("✓ verified")
    expect(page.get_by_text("Without a source")).to_contain_text("“Elephants")
    expect(page.get_by_text("Without a source")).not_to_contain_text("42 metres")


def test_the_front_page_says_in_words_that_nobody_answers(start: Callable[..., Live], page: Page) -> None:
    service = start()
    page.goto(service.url)
    service.process.kill()
    service.process.wait()
    page.get_by_label("Question").fill("How high is the tower of the lighthouse?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")


def test_the_front_page_says_what_went_wrong(live: Live, page: Page) -> None:
    page.goto(live.url)
    page.get_by_label("Question").fill("x" * 5001)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("5,001 characters")


def test_the_playground_shows_tokens_and_the_answer(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/rag/playground/")
    page.locator("textarea").last.fill("How high is the tower of the lighthouse?")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("42 metres").first).to_be_visible()
    expect(page.get_by_text("verified").first).to_be_visible()


def test_the_playground_remembers_by_thread_id(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/rag/playground/")
    page.get_by_label("thread id").fill("playground thread")
    for question, words in (
        ("How high is the tower of the lighthouse?", "42 metres"),
        ("And when was it first lit?", "14 March 1871"),
    ):
        page.locator("textarea").last.fill(question)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_text(words).first).to_be_visible()


def test_the_chat_playground_streams_and_remembers(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/chat/playground/", wait_until="networkidle")  # before it has the schema it sends no thread
    for question, words in (
        ("How high is the tower of the lighthouse?", "42 metres"),
        ("And when was it first lit?", "14 March 1871"),
    ):
        page.locator("textarea").last.fill(question)
        page.keyboard.press("Enter")
        expect(page.get_by_text(words).first).to_be_visible()


def test_the_api_page_draws_itself(live: Live, page: Page) -> None:
    page.goto(f"{live.url}/docs")
    expect(page.get_by_text("/rag/invoke").first).to_be_visible()
