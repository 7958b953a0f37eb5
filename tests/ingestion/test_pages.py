from hypothesis import given
from hypothesis import strategies as st

from citewell.ingestion.loaders.pages import assemble

LINES = st.sampled_from(["Tides", "The sea rises and falls twice in a little more than a day, and", "12", "Page 3 of 9", "",
                         "com\ufffepile", "1,946 mm | 97", "- an item", "ends here.", "goes on in small letters"])  # fmt: skip
PAGES = st.lists(st.lists(LINES, max_size=8).map("\r\n".join), max_size=8)


@given(PAGES)
def test_every_page_has_a_start_in_the_text_in_order(pages: list[str]) -> None:
    text, starts = assemble(pages)
    assert len(starts) == len(pages)
    assert list(starts) == sorted(starts)
    assert all(0 <= start <= len(text) for start in starts)
    assert starts[:1] in ((), (0,))


def test_a_sentence_that_runs_over_a_page_stays_one() -> None:
    text, starts = assemble(["The keeper went down to the sea and", "came back with a lamp. He slept."])
    assert text == "The keeper went down to the sea and came back with a lamp. He slept."
    assert text[starts[1] :].startswith("came back")


def test_hyphens_of_their_own_survive_the_end_of_a_line() -> None:
    text, _ = assemble(["the Schwarz\ufffeWeiß print and the state-of-the\ufffeart lens of the tele\ufffescope"])
    assert text.replace("\n", " ") == "the Schwarz-Weiß print and the state-of-the-art lens of the telescope"


def test_rows_with_labels_of_one_make_keep_their_lines() -> None:
    page = (
        "E11 the hydraulic oil is too cold for the drive, wait for the heater\n"
        "E17 the focus motor has lost its place, send it to its end and then\nback to the middle of its travel\n"
        "E40 the encoder of the dome has not been read for longer than a second"
    )
    assert assemble([page])[0] == page.replace("then\nback", "then back")


def test_tables_lists_and_short_lines_keep_their_lines() -> None:
    page = "Averages and extremes of the long record\nmean temperature 6.1 4.9 30.4\nyearly rain 1,946 1,870 168\n- first item\n- second item"
    assert assemble([page])[0] == page


def test_the_lines_of_a_rows_label_stay_with_its_figures() -> None:
    page = (
        "Averages of the long record of this station, in millimetres and in degrees, year by year\nItem 2025 2024\n"
        "Revenue from contracts\nwith customers in 2024 and 2025,\nnet of returns 12,345.6 11,200.1\n"
        "Total 13,579 12,300\nAssets 5 6\nDebt 7 8\nof which rope 12 14\nThe sea is cold.\nin spring 3 4"
    )
    expected = page.replace("contracts\nwith", "contracts with").replace("2025,\nnet", "2025, net")
    assert assemble([page])[0] == expected
    small = "mean temperature\nof the sea 6.1 4.9\nyearly rain 1,946 1,870"
    assert assemble([small])[0] == small, "rows begin so here"


def test_lines_that_differ_in_their_figures_are_no_running_heads() -> None:
    def invoice(page: int, customer: str, net: int) -> str:
        return (
            f"Northern Supply Ltd\nInvoice for {customer}\nGoods were delivered in March.\nVAT 19 %: {net * 19} EUR\n"
            f"Total due: {net * 119} EUR\nPage {page} of 4"
        )

    text, _ = assemble(
        [invoice(page, *who) for page, who in enumerate((("Ada", 5), ("Bob", 9), ("Cyd", 2), ("Dan", 7)), 1)]
    )
    assert [f"Total due: {net * 119} EUR" in text for net in (5, 9, 2, 7)] == [True] * 4
    assert text.count("VAT 19 %") == 4
    assert text.count("Northern Supply") == 1
    assert "Page " not in text


def test_titles_that_go_up_with_the_page_stay() -> None:
    weeks = [
        f"Rowing course\nWeek {number}\nBring {what}.\n{number}"
        for number, what in enumerate(("oars", "ropes", "boots"), 1)
    ]
    text, _ = assemble(weeks)
    assert [f"Week {number}\nBring" in text for number in (1, 2, 3)] == [True] * 3
    assert text.count("Rowing course") == 1
    text, _ = assemble(
        [f"Seite {number} von 3\nBring {what}." for number, what in enumerate(("oars", "ropes", "boots"), 1)]
    )
    assert "Seite" not in text


def test_page_numbers_go_where_an_appendix_counts_anew_and_figures_of_that_shape_stay() -> None:
    numbers = [*range(1, 9), *range(1, 4)]
    text, _ = assemble([f"Tides {'abcdefghijk'[at]} came.\n{number}" for at, number in enumerate(numbers)])
    assert not any(char.isdigit() for char in text)
    text, _ = assemble(
        [f"Ships that passed in year {'abcd'[at]}\n{number}" for at, number in enumerate((81, 12, 57, 40))]
    )
    assert [number for number in ("81", "12", "57", "40") if number in text] == ["81", "12", "57", "40"]
