"""The answerer that needs no key, with the real embedding model."""

import asyncio
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains.answer import AnswerInput
from chains.candidates import candidates
from chains.extract import NEAREST, extractive_answerer
from citewell.citations import verify
from citewell.documents import Chunk, ScoredChunk
from citewell.guards.markup import Markup
from citewell.models.minilm import MiniLM
from tests.stalls import stalls

OIL = (
    "# History\n\nThe 1973 oil crisis began in October 1973 when the members of OAPEC proclaimed an oil embargo. By the end of "
    "the embargo in March 1974,\nthe price of oil had risen from US$3 per barrel to nearly $12 globally.[4] The cri-\nsis had "
    "a major impact on international relations."
)
FLEET = "- The **U.S. fleet** has 1,204 ships.\n- J. Smith commands it from [Norfolk](http://navy.example/n).\n"
BREAD = "Bread is baked from flour, water and salt. It keeps for three days."


def asked(question: str, *texts: str) -> AnswerInput:
    chunks = [
        ScoredChunk(
            chunk=Chunk(id=f"c{i}", source=f"s{i}.md", title=f"Title {i}", text=text, start=0, end=len(text), index=0),
            score=1 - i / 10,
        )
        for i, text in enumerate(texts)
    ]
    return AnswerInput(question=question, chunks=chunks, history=[], summary="")


@pytest.mark.parametrize(
    ("question", "holds"),
    [
        ("When did the oil crisis begin?", "October 1973"),
        ("What did the price of oil rise to?", "nearly $12"),
        ("How many ships does the fleet have?", "1,204"),
        ("Who commands the fleet?", "J. Smith commands it from Norfolk. [2]"),
        ("How long does bread keep?", "three days"),
    ],
)
async def test_the_sentence_that_answers_is_quoted_and_every_quote_is_verified(
    embedder: MiniLM, question: str, holds: str
) -> None:
    inputs = asked(question, OIL, FLEET, BREAD)
    answer = await extractive_answerer(embedder).ainvoke(inputs)
    assert holds in answer.text
    citations = verify(answer.text, inputs["chunks"])
    assert {citation["status"] for citation in citations} == {"verified"}
    assert len(citations) == answer.response_metadata["sentences"]


async def test_what_is_asked_now_counts_not_the_words_it_was_found_by(embedder: MiniLM) -> None:
    given = asked("And how much was it? (oil crisis begin)", OIL, BREAD)
    again = await extractive_answerer(embedder).ainvoke(given)
    now = await extractive_answerer(embedder).ainvoke(given | {"typed": "And how much was it?"})
    assert "answers" not in now.response_metadata, "so few words leave every sentence improbable"
    assert again.text.startswith("The 1973 oil crisis began")
    assert now.text.startswith("By the end of the embargo in March 1974, the price of oil had risen")


async def test_a_question_without_a_word_of_its_own_is_answered_by_what_the_words_lent_to_it_find(
    embedder: MiniLM,
) -> None:
    given = asked("why? (bread keep)", BREAD) | {"typed": "why?"}
    assert "It keeps for three days. [1]" in (await extractive_answerer(embedder).ainvoke(given)).text


async def test_the_answer_reads_as_prose(embedder: MiniLM) -> None:
    answer = await extractive_answerer(embedder).ainvoke(asked("What had the crisis an impact on?", OIL))
    assert "The crisis had a major impact on international relations. [1]" in answer.text
    assert not any(noise in answer.text for noise in ("\n", "[4]", "**", "#", "http"))


async def test_it_streams_word_by_word_what_invoke_returns(embedder: MiniLM) -> None:
    inputs = asked("When did the oil crisis begin?", OIL)
    chain = extractive_answerer(embedder)
    pieces = [piece async for piece in chain.astream(inputs)]
    whole = await chain.ainvoke(inputs)
    assert len(pieces) == len(whole.text.split()) + 1
    assert pieces[0].response_metadata == {"sentences": 2, "answers": whole.response_metadata["answers"]}
    assert 0.5 < whole.response_metadata["answers"] < 1
    assert "".join(piece.text for piece in pieces) == whole.text
    assert whole.response_metadata["model_name"] == "extractive"
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.usage_metadata["output_tokens"] == len(whole.text.split())


async def test_nothing_that_answers_is_said_plainly_with_the_nearest_sources(embedder: MiniLM) -> None:
    answer = await extractive_answerer(embedder).ainvoke(asked("Who painted the Sistine Chapel ceiling?", BREAD, FLEET))
    assert "do not seem to answer" in answer.text
    assert "Title 0; Title 1" in answer.text
    assert answer.response_metadata["sentences"] == 0


async def test_rows_of_a_table_can_be_quoted(embedder: MiniLM) -> None:
    rows = "\n".join(f"Item number {i} of the balance sheet {i * 1017:,} {i * 911:,}" for i in range(1, 9))
    inputs = asked(
        "What were the customer deposits?",
        f"Liabilities\nCustomer deposits of all kinds, in total 110,239 84,382\n{rows}",
    )
    answer = await extractive_answerer(embedder).ainvoke(inputs)
    assert "Customer deposits of all kinds, in total 110,239 84,382" in answer.text
    assert {citation["status"] for citation in verify(answer.text, inputs["chunks"])} == {"verified"}


async def test_the_names_of_a_tables_columns_are_no_answer_and_stand_before_its_first_row(embedder: MiniLM) -> None:
    prices = "| ticket | exhibition | observing evening |\n|---|:---:|---|\n| adult | £7.50 | £16.00 |\n| family | £18.00 | £42.00 |\n"
    answer = await extractive_answerer(embedder).ainvoke(
        asked("What does a ticket for an observing evening cost?", prices)
    )
    assert answer.text.startswith("ticket · exhibition · observing evening [1] ")
    assert "adult · £7.50 · £16.00 [1]" in answer.text
    assert answer.text.count("ticket") == 1
    assert answer.response_metadata["sentences"] == len(re.findall(r"\[1\]", answer.text))


async def test_empty_cells_keep_their_place(embedder: MiniLM) -> None:
    times = "| | Monday | Tuesday |\n|---|---|---|\n| first ferry | | 8:20 |\n| last ferry | 18:20 | 19:00 |\n"
    given = asked("When does the first ferry leave?", times)
    answer = (await extractive_answerer(embedder).ainvoke(given)).text
    assert "Monday · Tuesday [1] first ferry · – · 8:20 [1]" in answer
    assert {citation["status"] for citation in verify(answer, given["chunks"])} == {"verified"}


async def test_columns_whose_names_say_too_little_are_left_out(embedder: MiniLM) -> None:
    told = "The temperature is measured on the fell in a white screen.\n\n| | value | when |\n|---|---|---|\n| lowest temperature | -18.7 °C | 2 February 1947 |\n"
    given = asked("What was the lowest temperature ever measured on the fell?", told)
    answer = (await extractive_answerer(embedder).ainvoke(given)).text
    assert "lowest temperature · -18.7 °C · 2 February 1947 [1]" in answer
    assert {citation["status"] for citation in verify(answer, given["chunks"])} == {"verified"}


async def test_code_is_quoted_line_by_line_without_its_fence(embedder: MiniLM) -> None:
    text = "Any provider will do.\n\n```dotenv\nCHAT_MODEL=anthropic:claude-haiku\nOPENAI_BASE_URL=http://127.0.0.1:8080\n```\n"
    answer = await extractive_answerer(embedder).ainvoke(asked("Which value of CHAT_MODEL stands for Claude?", text))
    assert answer.text.startswith("CHAT_MODEL=anthropic:claude-haiku … [1]")
    assert "dotenv" not in answer.text


async def test_what_code_shows_in_angle_brackets_is_shown_and_verified(embedder: MiniLM) -> None:
    text = "A typed client is made with `Remote[<input>, <output>]`. It takes the address of the service."
    given = asked("How is a typed client made?", text)
    answer = (await extractive_answerer(embedder).ainvoke(given)).text
    assert answer.startswith("A typed client is made with `Remote[<input>, <output>]`. [1]")
    markup = Markup()
    assert markup.feed(answer, last=True) == answer, "a page would have been given something else"
    assert {citation["status"] for citation in verify(answer, given["chunks"])} == {"verified"}


async def test_a_row_is_quoted_without_the_tags_between_its_words(embedder: MiniLM) -> None:
    rows = (
        '| code | meaning |\n|---|---|\n| <a id="e11"></a>E11 | hydraulic oil is too cold |\n'
        '| <a id="e17"></a>E17 | the focus motor has lost its place |\n'
    )
    answer = (await extractive_answerer(embedder).ainvoke(asked("What does error E17 mean?", rows))).text
    assert "E17 · the focus motor has lost its place [1]" in answer


PRICES = """## Prices

| ticket | exhibition | observing evening |
|---|:---:|---|
| adult | £7.50 | £16.00 |
| under 16 | £3.50 | £8.00 |
| under 5 | free | not admitted |
| family (2 + 3) | £18.00 | £42.00 |

Members of the Friends pay nothing for the exhibition and half price for observing evenings. A yearly membership costs £34.
"""
MINUTES = "5. Ticket prices. Dilys Pugh proposed to raise the price of observing evenings in September. Carried."


@pytest.mark.parametrize(
    ("question", "row"),
    [
        ("What does a ticket for an observing evening cost?", "adult · £7.50 · £16.00"),
        ("What does a family ticket for an observing evening cost?", "family (2 + 3) · £18.00 · £42.00"),
        ("How much does an adult pay for the exhibition?", "adult · £7.50 · £16.00"),
    ],
)
async def test_a_row_is_chosen_by_the_names_of_its_columns_and_quoted_as_it_stands(
    embedder: MiniLM, question: str, row: str
) -> None:
    inputs = asked(question, PRICES, MINUTES)
    answer = await extractive_answerer(embedder).ainvoke(inputs)
    assert row in answer.text
    assert "---" not in answer.text
    quotes = {citation["quote"]: citation["status"] for citation in verify(answer.text, inputs["chunks"])}
    assert set(quotes.values()) == {"verified"}
    assert f"| {row.replace(' · ', ' | ')} |" in quotes


WORKSHOPS = """Workshops

date | workshop | places | fee
26 September | Your first telescope: bring the one from the attic | 12 | £25
21 November | Grinding a mirror, part one of four | 6 | £160

Participants must be at least 14 years old."""


async def test_a_table_of_another_format_is_quoted_by_its_rows(embedder: MiniLM) -> None:
    inputs = asked("What is the fee for the workshop on grinding a mirror?", WORKSHOPS)
    answer = await extractive_answerer(embedder).ainvoke(inputs)
    row = "21 November · Grinding a mirror, part one of four · 6 · £160 [1]"
    assert answer.text.startswith(f"date · workshop · places · fee [1] {row}")


def test_a_numbered_heading_of_plain_text_is_not_quoted_and_an_item_of_a_list_is() -> None:
    alone, apart, joined, packing = asked(
        "What must be done?",
        "Call 999 first.\n\n2. Wind, ice and lightning\nThe domes are closed when the mean wind exceeds 65 kilometres an hour.",
        "Call 999 first.\n\n2. Wind, ice and lightning\n\nThe domes are closed when the mean wind exceeds 65 kilometres an hour.",
        "Call 999 first.\n\n2. Wind, ice and lightning\nThe domes are closed in a storm.",
        "Bring along:\n\n1. Warm gloves and a hat\n2. Flat shoes, no heels\n3. A torch with red light\n\nIt is cold.",
    )["chunks"]
    (named,) = asked("What must be done?", "Call 999 first.\n\n2 Error codes of the VX200\n\nE1: the bag is full.")[
        "chunks"
    ]
    assert [one.text for one in candidates([named])] == ["Call 999 first.", "E1: the bag is full."]
    (cut,) = asked("What must be done?", "Call 999 first.\n\n2 Error codes of the VX200")["chunks"]
    assert [one.text for one in candidates([cut])] == ["Call 999 first."]
    for chunk in (alone, apart, joined):
        first, second = candidates([chunk])
        assert first.text == "Call 999 first."
        assert second.text.startswith("The domes are closed ")
    assert [one.text for one in candidates([packing])][-4:] == [
        "Warm gloves and a hat", "Flat shoes, no heels", "A torch with red light", "It is cold.",
    ]  # fmt: skip


def test_pairs_of_name_and_value_have_no_columns() -> None:
    chunks = asked("", "Open | in summer\nKeeper | Anna Berg\n\n| a | b | c |\n|---|---|---|\n| stone | 12 | |")[
        "chunks"
    ]
    assert [(one.text, one.context) for one in candidates(chunks)] == [
        ("Open in summer", ""), ("Keeper Anna Berg", ""), ("stone 12", "a b c"),
    ]  # fmt: skip


FAQ = """## How long does bread keep?

Three days. In summer it is two.

1. How long does bread keep? (`bread.md`, Keeping)
2. What is bread baked from? (`bread.md`, Baking)

Ask "How long does bread keep?", for instance. "How long does bread keep?" is asked by many who come to the shop.
"""


@pytest.mark.parametrize("question", ["How long does bread keep?", "how long does Bread keep"])
async def test_a_question_is_not_answered_with_itself(embedder: MiniLM, question: str) -> None:
    answer = await extractive_answerer(embedder).ainvoke(asked(question, FAQ))
    assert answer.text.startswith("Three days. [1]")
    assert "keep" not in answer.text.lower()
    assert "bread.md" not in answer.text


async def test_code_that_asks_the_question_is_not_its_answer(embedder: MiniLM) -> None:
    code = (
        'Ask in the terminal:\n\n```console\n$ shop ask "For how long does rye bread keep?"\n```\n\n'
        '```python\nanswer = shop.invoke({"question": "How long does bread keep?"})\n```\n'
    )
    answer = await extractive_answerer(embedder).ainvoke(asked("How long does the bread keep?", code, BREAD))
    assert answer.text.removeprefix(f"{NEAREST}\n\n").startswith("It keeps for three days. [2]")
    assert "shop" not in answer.text


async def test_what_is_said_of_another_question_may_be_quoted(embedder: MiniLM) -> None:
    text = 'Every guest of the mill hears "Who baked it?", a song of the miller.'
    answer = await extractive_answerer(embedder).ainvoke(asked("What does every guest of the mill hear?", text))
    assert text in answer.text


async def test_what_says_no_more_than_the_question_answers_only_yes_or_no(embedder: MiniLM) -> None:
    text = "Bread is baked from flour. It keeps for three days."
    assert (
        "Bread is baked from flour."
        in (await extractive_answerer(embedder).ainvoke(asked("Is bread baked from flour?", text))).text
    )
    assert "Bread is baked from flour." not in (
        await extractive_answerer(embedder).ainvoke(asked("Who baked bread from flour?", text))
    ).text  # fmt: skip


FAULTS = (
    "## Faults\n\n**The coffee is too weak.** Choose a finer grind, one step at a time and only while the grinder runs.\n\n"
    "**The lamp blinks orange.** The grounds container is full or not in place.\n"
)


@pytest.mark.parametrize(
    ("said", "holds"),
    [("My coffee is too weak", "Choose a finer grind"), ("The orange lamp is blinking", "container is full")],
)
async def test_who_says_what_is_wrong_is_not_told_so_again(embedder: MiniLM, said: str, holds: str) -> None:
    answer = (await extractive_answerer(embedder).ainvoke(asked(said, FAULTS, BREAD))).text
    assert holds in answer.split("[1]")[0]
    assert "coffee is too weak" not in answer
    assert "lamp blinks" not in answer


async def test_what_holds_the_keywords_and_says_more_is_quoted(embedder: MiniLM) -> None:
    prices = "| repair | price |\n|---|---|\n| Puncture, front wheel | 14 |\n| Puncture, rear wheel | 19 |\n"
    answer = await extractive_answerer(embedder).ainvoke(asked("puncture rear wheel", prices, BREAD))
    assert "Puncture, rear wheel \u00b7 19 [1]" in answer.text


async def test_an_item_of_a_list_is_whole_where_its_line_ends(embedder: MiniLM) -> None:
    loans = (
        "How long:\n\n- Books: four weeks, renewable twice\n- Films and music: one week\n- Telescopes\n- Games: two wee"
    )
    given = asked("How long can I keep films, books and games?", loans)
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert "Films and music: one week [1]" in answer.text
    assert "Books: four weeks, renewable twice [1]" in answer.text
    cut = await extractive_answerer(embedder).ainvoke(asked("How long can I keep games?", loans))
    assert "Games: two wee \u2026 [1]" in cut.text
    assert {citation["status"] for citation in verify(answer.text, given["chunks"])} == {"verified"}


async def test_a_statement_in_bold_may_be_quoted(embedder: MiniLM) -> None:
    rules = "**Smoking is forbidden in the whole house.** Who does so pays a fine of 50 euros."
    answer = (await extractive_answerer(embedder).ainvoke(asked("Where is smoking forbidden?", rules, BREAD))).text
    assert "Smoking is forbidden in the whole house. [1]" in answer


def test_a_long_row_of_a_table_stays_whole() -> None:
    table = (
        "| not done | why | instead |\n|---|---|---|\n"
        "| Fine-tuning of models | it needs data, a machine for it and an evaluation of its own, and all of this for each of the "
        "models, so that it is seldom what is missing: look at retrieval first | train with other tools, which are made for it, "
        "and name the folder in the setting; the index is then built anew by itself at the next start |"
    )
    chunk = Chunk(id="c", source="s.md", title="", text=table, start=0, end=len(table), index=0)
    assert [one.text[:21] for one in candidates([ScoredChunk(chunk=chunk, score=1)])] == ["Fine-tuning of models"]


def test_columns_may_be_named_with_figures_that_belong_to_a_name() -> None:
    for table, named in (
        ("Side | VX200 | VX400\nBelow | 300 mm | 400 mm\n", True),
        ("E17 | lost | wait\nE18 | back | go\n", False),
    ):
        chunk = Chunk(id="c", source="s.docx", title="", text=table, start=0, end=len(table), index=0, type="docx")
        found = candidates([ScoredChunk(chunk=chunk, score=1)])
        assert [one.columns is not None for one in found] == ([True] if named else [False, False])


def test_no_by_itself_is_quoted_with_what_follows_it() -> None:
    text = "## Does it cool?\n\nNo. It has no compressor.\n\nIt weighs 31 kg. Yes!"
    chunk = Chunk(id="c", source="s.md", title="", text=text, start=0, end=len(text), index=0)
    found = candidates([ScoredChunk(chunk=chunk, score=1)])
    assert [one.text for one in found] == ["No. It has no compressor.", "It weighs 31 kg."]


async def test_what_something_means_is_said_by_what_begins_with_it(embedder: MiniLM) -> None:
    faq = "## Why is there water below the unit?\n\nThe drain is blocked or frozen. Check it as described for E17."
    codes = (
        "Code Meaning Remedy\nE11 Filter clogged Change both filters\nE17 Condensate drain frozen Thaw with warm water"
    )
    answer = await extractive_answerer(embedder).ainvoke(asked("What does E17 mean?", faq, codes))
    assert answer.text.startswith("E17 Condensate drain frozen Thaw with warm water")


def test_the_bars_of_a_table_need_no_spaces_around_them() -> None:
    table = "|option|values|default|\n|---|---|---|\n|mode|on\\|off|on|\n"
    chunk = Chunk(id="c", source="s.md", title="", text=table, start=0, end=len(table), index=0)
    assert [one.cells for one in candidates([ScoredChunk(chunk=chunk, score=1)])] == [("mode", "on|off", "on")]


COVER = """The policy covers many things.

The following are not covered:

- Scaling of teeth. It never is.
- Pregnancy and birth
- Worming

We pay soon."""


async def test_an_item_is_quoted_after_the_sentence_that_leads_to_its_list(embedder: MiniLM) -> None:
    answerer = extractive_answerer(embedder)
    pregnancy = await answerer.ainvoke(asked("Is pregnancy covered?", COVER))
    assert pregnancy.text == "The following are not covered: [1]\n\n- Pregnancy and birth [1]"
    short = await answerer.ainvoke(
        asked("Is pregnancy covered?", COVER.replace("The following are not covered", "We do not pay for"))
    )
    assert short.text.startswith("We do not pay for:\n\n- Pregnancy and birth [1]")
    teeth = await answerer.ainvoke(asked("Is the scaling of teeth covered?", COVER))
    assert teeth.text.startswith("The following are not covered: [1]\n\n- Scaling of teeth. [1]")


async def test_a_sentence_that_leads_to_a_list_is_quoted_with_the_list(embedder: MiniLM) -> None:
    leaflet = (
        "You go home after two hours. Go to the emergency department if you have:\n\u2022 strong pain in your chest\n"
        "\u2022 vomit with blood in it, or black stools\n\u2022 trouble with breathing"
    )
    given = asked("When should I go to the emergency department?", leaflet)
    given["chunks"] = [ScoredChunk(chunk=replace(given["chunks"][0].chunk, type="pdf"), score=1.0)]
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert answer.text.startswith(
        "Go to the emergency department if you have: [1]\n\n- strong pain in your chest [1]\n"
        "- vomit with blood in it, or black stools [1]\n- trouble with breathing"
    )
    assert {citation["status"] for citation in verify(answer.text, given["chunks"])} == {"verified"}


def of_pdf(text: str, *headings: str) -> list[tuple[str, tuple[str, ...]]]:
    chunk = Chunk(
        id="c", source="s.pdf", title="", text=text, start=0, end=len(text), index=0, headings=headings, type="pdf"
    )
    return [(one.text, one.cells) for one in candidates([ScoredChunk(chunk=chunk, score=1)])]


def test_a_labelled_row_of_a_pdf_is_quoted_with_what_its_cells_run_on_to_and_no_section_is_a_row() -> None:
    found = of_pdf(
        "Error codes\nE05\nSensor of the outdoor air\ndefective Replace sensor (part 4711-05)\nE23 Preheater overheated\n"
        "Let it cool for 20 minutes; call service if it happens\ntwice\n\nFilters every 6 months user\n"
        "Drain every 12 months user\n5.1 Changing the filters"
    )
    assert [text for text, _ in found] == [
        "E05 Sensor of the outdoor air defective Replace sensor (part 4711-05)",
        "E23 Preheater overheated Let it cool for 20 minutes; call service if it happens twice",
        "Filters every 6 months user",
        "Drain every 12 months user",
    ]


def test_the_lines_of_a_table_in_a_pdf_are_its_rows() -> None:
    text = (
        "mass of the mirror 1,040 kg\nfastest slew 1.8 degrees per second\nSelected ratios\nlowest permitted altitude 12 degrees\n\n"
        "When the rain sensor is wet the shutter closes by itself\nin 75 seconds. Stand clear."
    )
    rows = ["fastest slew 1.8 degrees per second", "lowest permitted altitude 12 degrees"]
    assert of_pdf(text) == [
        ("mass of the mirror 1,040 kg", ()),  # begins the chunk, whose edge may have cut it
        *((row, (row,)) for row in rows),
        ("When the rain sensor is wet the shutter closes by itself in 75 seconds.", ()),
        ("Stand clear.", ()),
    ]


def test_names_of_columns_in_a_pdf_are_not_quoted() -> None:
    assert of_pdf("Stand clear.\n\ncode meaning what to do\n\nCall the engineer.") == [
        ("Stand clear.", ()),
        ("Call the engineer.", ()),
    ]


def test_a_sentence_that_a_pdf_breaks_at_its_figures_stays_whole() -> None:
    text = "The gain was about $20 billion in the third quarter of\n2023 and 4 cents a share."
    assert of_pdf(text) == [(" ".join(text.split()), ())]


def test_the_title_of_a_document_is_not_quoted() -> None:
    (titled,) = asked("What is it?", "Pawsafe: the policy of 2026\n\nWe insure dogs.")["chunks"]
    titled = ScoredChunk(chunk=replace(titled.chunk, title="Pawsafe: the policy of 2026"), score=1.0)
    assert [one.text for one in candidates([titled])] == ["We insure dogs."]


def test_a_heading_that_the_loader_found_is_not_quoted() -> None:
    text = "6 When something goes wrong\ncall the engineer on duty, who is there until 04:00."
    assert of_pdf(text, "6 When something goes wrong") == [("call the engineer on duty, who is there until 04:00.", ())]


async def test_a_name_said_once_more_than_in_the_question_may_be_the_answer(embedder: MiniLM) -> None:
    text = "Mercury is the working fluid in the mercury vapor turbine."
    answer = await extractive_answerer(embedder).ainvoke(
        asked("What working fluid is used in a mercury vapor turbine?", text)
    )
    assert text in answer.text


async def test_where_no_sentence_stands_out_each_chunk_is_quoted_once_and_the_answer_says_so_first(
    embedder: MiniLM,
) -> None:
    pages = [
        "Sales of the group 34,229 35,355\n\nCost of sales of the group 19,232 18,795",
        "Operating income 6,539 7,369\n\nMargin of operations 19.1 20.8",
        "Research expenses of the group 1,862 1,994\n\nSelling and general expenses 9,049 7,197",
    ]
    given = asked("What did the group's operations bring in?", *pages)
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert sorted(re.findall(r"\[(\d)\]", answer.text)) == ["1", "2", "3"]
    assert answer.text.startswith(f"{NEAREST}\n\n")
    assert {citation["status"] for citation in verify(answer.text, given["chunks"])} == {"verified"}


async def test_of_two_things_asked_one_that_is_answered_is_enough_to_say_so(embedder: MiniLM) -> None:
    given = asked("When did the oil crisis begin, and who sold the bread?", OIL, BREAD)
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert "October 1973" in answer.text
    assert NEAREST not in answer.text
    alone = await extractive_answerer(embedder).ainvoke(asked("Who sold the bread?", OIL, BREAD))
    assert alone.text.startswith(NEAREST)


async def test_no_chunks_is_no_error(embedder: MiniLM) -> None:
    answer = await extractive_answerer(embedder).ainvoke(asked("What is it?"))
    assert "found nothing" in answer.text


async def test_the_event_loop_goes_on_while_it_reads(embedder: MiniLM) -> None:
    async with stalls() as spent:
        await extractive_answerer(embedder).ainvoke(asked("What?", *(OIL.replace("19", f"{i}") for i in range(10, 40))))
    assert spent.longest_s < spent.whole_s / 2


async def test_a_row_of_one_word_is_not_quoted(embedder: MiniLM) -> None:
    inputs = asked("#", "| # # Paris", "` # # # 1")
    answer = await extractive_answerer(embedder).ainvoke(inputs)
    assert {citation["status"] for citation in verify(answer.text, inputs["chunks"])} == {"verified"}


NOISE = st.lists(
    st.sampled_from([*"#*-|>`[]()1.!?\n", "the", "not", "12%", "[1]", "\u65e5\u672c", "\ud800", "Paris", "word"]),
    max_size=60,
).map(" ".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=NOISE, texts=st.lists(NOISE, max_size=3))
def test_whatever_it_quotes_is_verified(embedder: MiniLM, question: str, texts: list[str]) -> None:
    inputs = asked(question, *texts)
    answer = asyncio.run(extractive_answerer(embedder).ainvoke(inputs))
    if answer.response_metadata["sentences"]:
        assert {citation["status"] for citation in verify(answer.text, inputs["chunks"])} == {"verified"}


async def test_what_stands_in_the_row_of_the_number_that_is_asked_for_is_said_without_reserve(embedder: MiniLM) -> None:
    rows = (
        "E04 oil pressure below 27 bar stop the pumps, warm the oil, try once more\n"
        "E17 dome and telescope apart by over 4 degrees press HOME on the dome panel and wait 3 minutes\n"
        "E23 camera warmer than -95 degrees finish the exposure, refill the flask, wait 40 minutes\n"
    )
    given = asked("What does error E17 mean, and what do I do about it?", rows, BREAD, OIL)
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert answer.text.startswith("E17 dome and telescope apart")
