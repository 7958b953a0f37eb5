"""Real and broken files that others made, where the evaluation data is at hand."""

import pytest

from evals.ingest_files import parse_all
from evals.packs import DATA

FOLDER = DATA / "ingest_files"


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no evaluation data: {FOLDER} is not there (CITEWELL_EVAL_DATA)")
async def test_every_file_of_the_pack_gives_its_text_or_a_reason() -> None:
    outcomes = await parse_all(FOLDER)
    assert [outcome for outcome in outcomes if not outcome.as_expected] == []
    assert len(outcomes) >= 70
