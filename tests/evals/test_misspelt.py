"""One word of a question is misspelt, as a slip of the fingers does it."""

import random

from evals.misspelt import misspelt


def test_one_long_word_changes_and_keeps_its_first_letter() -> None:
    question = "When was the lighthouse on Skerrow Point first lit?"
    rng = random.Random(1)
    for _ in range(200):
        changed = [
            pair for pair in zip(question.split(), misspelt(question, rng).split(), strict=True) if len(set(pair)) > 1
        ]
        assert len(changed) <= 1  # a letter may be exchanged for itself
        assert all(
            right in ("lighthouse", "Skerrow", "Point", "first") and right[0] == slip[0] for right, slip in changed
        )
    assert misspelt("Who is he?", rng) == "Who is he?"
