"""What is no question to the documents."""

import pytest

from chains.small_talk import is_small_talk


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "Hi there!",
        "thanks!",
        "Thank you so much.",
        "who are you?",
        "What can you do",
        "OK, great, thanks",
        "Thanks, that helped!",
        "Good morning \U0001f600",
    ],
)
def test_greetings_thanks_and_questions_about_the_service(text: str) -> None:
    assert is_small_talk(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "?", "why?", "Who are you looking for at the front desk?", "What can you do about error E17?", "and then?",
        "Is there a lift?", "thanks, and when do they open?", "Help with the dome", "What is a good night for observing?", "Hallo",
    ],
)  # fmt: skip
def test_all_else_is_a_question(text: str) -> None:
    assert not is_small_talk(text)


def test_a_long_text_is_read_in_no_time() -> None:
    assert not is_small_talk("thanks, " * 600 + "when?")
