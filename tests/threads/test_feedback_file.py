"""Ratings in one SQLite file that several processes share."""

from __future__ import annotations

from pathlib import Path

from citewell.feedback import Row, open_feedback
from citewell.settings import Settings


def row(thread: str, message: int) -> Row:
    return Row(
        thread_id=thread, message=message, caller="me", rating="up", reason="", comment="", created="", question="q",
        standalone="q", answer="a", citations=[], model="extractive",
    )  # fmt: skip


async def test_a_rating_is_kept_while_another_process_writes_and_ratings_are_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    async with open_feedback(settings) as one, open_feedback(settings) as other:
        for message in range(200):
            await one.put(row("t", message))
        seen = 0
        async for _ in one.walk():
            if seen < 3:
                await other.put(row("other", seen))
                await one.put(row("mine", seen))
            seen += 1
        assert seen == 200
        assert len(await one.of_thread("other")) == len(await other.of_thread("mine")) == 3
