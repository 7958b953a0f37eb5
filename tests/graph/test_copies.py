"""A passage that several documents hold: cited once, with all of them that the caller may read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from citewell.service import Result, Service
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.state import RunContext
from tests.graph.test_neighbours import AFTER, FOUND, QUESTION, diary
from tests.models.scripted_server import scripted_server
from tests.retrieval.samples import made

PUBLIC, STAFF = {"access": ("public",)}, {"access": ("public", "staff")}


def settings(data_dir: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir, top_n=1, **more)


async def with_copies(service: Service) -> None:
    """The passage stands in three documents, what follows it in one of them."""
    (passage,) = [chunk.text for chunk in diary().chunks if FOUND in chunk.text]
    async with service.index.writing():
        await service.index.replace_sources(
            [diary(), made("notes.txt", [passage]), made("private.txt", [passage], access=("staff",))]
        )
        await service.index.judge()


async def ask(service: Service, question: str = QUESTION, **context: Any) -> Result:
    return await service.ask(service.prepare(question, context=RunContext(**context)))


async def test_all_that_the_caller_may_read_are_named(tmp_path: Path) -> None:
    async with open_service(settings(tmp_path, answer_cache_s=600)) as service:
        await with_copies(service)
        for _ in range(2):  # the second time from the cache
            public, staff = await ask(service, **PUBLIC), await ask(service, **STAFF)
            assert {tuple(one["also_in"]) for one in public.citations} == {("notes.txt",)}
            assert {tuple(one["also_in"]) for one in staff.citations} == {("notes.txt", "private.txt")}
        assert public.metadata["cached"]
        within = await ask(service, filter={"source": "notes.txt"}, **PUBLIC)
        assert {one["source"] for one in within.citations} == {"notes.txt"}


async def test_only_documents_that_hold_the_quote_are_named(tmp_path: Path) -> None:
    async with scripted_server() as told:
        model = {"chat_model": "openai:told", "openai_base_url": told.base_url}
        async with open_service(settings(tmp_path, **model)) as service:
            await with_copies(service)
            told.answer = f"{FOUND[:-1]} [1]. {AFTER[:-1]} [1]."
            held, further = (await ask(service, **PUBLIC)).citations
    assert held["also_in"] == ["notes.txt"]
    assert (further["quote"], "also_in" in further) == (AFTER, False)
