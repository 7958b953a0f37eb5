import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.errors import SourceUnreadable
from citewell.ingestion.front_matter import iso_date, split_front_matter
from citewell.retrieval.filters import date_number


def test_title_date_tags_and_access_are_read_and_taken_off() -> None:
    matter, text = split_front_matter(
        "---\ntitle: Tides\ndate: 2026-03-31\ntags: [sea, moon]\naccess: staff\nother: 1\n---\nHigh water.\n"
    )
    assert (
        matter.title,
        matter.date,
        matter.tags,
        matter.access,
    ) == ("Tides", "2026-03-31", ("sea", "moon"), ("staff",))
    assert text == "High water.\n"


def test_front_matter_may_be_toml() -> None:
    matter, text = split_front_matter("+++\ntitle = 'Tides'\ndate = 2026-03-31\ntags = ['sea']\n+++\nHigh water.\n")
    assert (matter.title, matter.date, matter.tags, matter.access) == ("Tides", "2026-03-31", ("sea",), ())
    assert text == "High water.\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "---\nprose between rules, not keys\n---\nmore",
        "---\nThe keeper said: stay.\n---\nmore",
        "---\nkey: unclosed\n",
        "x\n---\na: b\n---\n",
        "x\n---\naccess: b\n---\n",
        "----\nThe tower\n\naccess: by the stairs\n",
        "-- \nThe keeper\n\naccess: by the stairs\n",
        "---\nThe accession: 12\n# access: nobody\n---\n",
        "Access: by the stairs\n---\n",
        "+++\nprose, not TOML\n+++\nmore",
        '{"title": "x"}\n',
    ],
)
def test_other_text_keeps_its_rules_and_is_public(text: str) -> None:
    matter, rest = split_front_matter(text)
    assert rest == text
    assert matter.access == ()


@pytest.mark.parametrize(
    "block", ["access: [staff\ntitle: x", "title: 'open", "access: a: b", "a: !!python/object:os.system x"]
)
def test_front_matter_that_cannot_be_read_fails_the_file_rather_than_publishing_it(block: str) -> None:
    with pytest.raises(SourceUnreadable, match="not valid YAML"):
        split_front_matter(f"---\n{block}\n---\nsecret\n")


@pytest.mark.parametrize(
    "text",
    [
        '---\n"title": x\naccess: staff\n---\n',
        "---\n'access': staff\n---\n",
        "---\nAccess : staff\n---\n",
        "---\ndc.title: x\naccess: staff\n---\n",
        "---\nog:title: x\naccess: staff\n---\n",
        "---\nLast modified: 2026\n\naccess: staff\n---\n",
        "---\n{title: x, access: staff}\n---\n",
        "---\n!!map\naccess: staff\n---\n",
        "---\n\n# who may read\naccess: staff\n---\n",
        "+++\ntitle = 'x'\nAccess = ['staff']\n+++\n",
    ],
)
def test_access_is_read_however_the_keys_are_spelled(text: str) -> None:
    matter, rest = split_front_matter(f"{text}secret\n")
    assert (matter.access, rest) == (("staff",), "secret\n")


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle:x\naccess: staff\n---\n",
        "---\naccess：staff\n---\n",
        "---\ntitle: x\naccess：staff\n---\n",
        "---\ntitle: x\n\u200baccess: staff\n---\n",
        "---\n- access: staff\n---\n",
        "---\nmeta:\n\n  access: staff\n---\n",
        "---\n{title: x, access: [staff}\n---\n",
        "---\naccess: staff\n",
        "---\naccess: staff\n\n",
        "---\naccess: staff\n----\n",
        "---\naccess: staff\n ---\n",
        "----\naccess: staff\n----\n",
        "----\n\naccess: staff\n----\n",
        "--\ntitle: x\naccess: staff\n--\n",
        "—\naccess: staff\n—\n",
        "--- # about\naccess: staff\n---\n",
        "--- {access: staff}\n",
        "---\u00a0\naccess: staff\n---\n",
        " ---\naccess: staff\n---\n",
        "\n---\ntitle: x\naccess: staff\n---\n",
        "\u200b---\naccess: staff\n---\n",
        "%YAML 1.1\n---\naccess: staff\n---\n",
        "<!-- licence\n -->\n---\naccess: staff\n---\n",
        "+++\ntitle: x\naccess: staff\n+++\n",
        "+++\n[extra]\naccess = 'staff'\n+++\n",
        '{"access": "staff"}\n',
        '{\n  "title": "x",\n  "access": ["staff"]\n}\n\n',
        f"---\nx: {'y' * 70_000}\naccess: staff\n---\n",
    ],
)
def test_what_looks_like_front_matter_and_names_access_fails_the_file_rather_than_publishing_it(text: str) -> None:
    with pytest.raises(SourceUnreadable, match=r"access|front matter"):
        split_front_matter(f"{text}secret\n")


@pytest.mark.parametrize(
    "text",
    [
        "---\naccess: board\ntitle: x\naccess: public\n---\n",
        "---\nAccess: board\n'access': public\n---\n",
        "---\n{access: board, ACCESS: public}\n---\n",
        "+++\naccess = 'board'\nAccess = 'public'\n+++\n",
    ],
)
def test_two_words_on_who_may_read_fail_the_file(text: str) -> None:
    with pytest.raises(SourceUnreadable, match="more than once"):
        split_front_matter(f"{text}secret\n")


def test_a_head_of_comments_that_never_ends_is_read_in_no_time() -> None:
    text = "<!---->" * 10_000 + "\n" * 10_000 + "text"
    assert split_front_matter(text)[1] == text


@pytest.mark.parametrize("value", ["", "[]", "{a: 1}", "12:30 pm!", "['two words']"])
def test_access_that_names_no_label_fails_the_file(value: str) -> None:
    with pytest.raises(SourceUnreadable, match="access"):
        split_front_matter(f"---\naccess: {value}\n---\nsecret\n")


@pytest.mark.parametrize(
    ("value", "expected"), [("2026-03", "2026-03"), ("2026", "2026"), ("2026-03-31T10:00:00", "2026-03-31T10:00:00")]
)
def test_partial_dates_are_dates(value: str, expected: str) -> None:
    assert split_front_matter(f"---\ndate: {value}\n---\n")[0].date == expected


def test_a_date_in_words_is_left_out_with_a_note() -> None:
    matter, _ = split_front_matter("---\ndate: last Tuesday\n---\n")
    assert matter.date is None
    assert "ISO 8601" in matter.notes[0]


@pytest.mark.parametrize("value", ["0000", "0000-05", "2024-13", "2024-02-30", "٢٠٢٤"])
def test_an_impossible_date_is_left_out_with_a_note(value: str) -> None:
    matter, _ = split_front_matter(f"---\ndate: '{value}'\n---\n")
    assert (matter.date, len(matter.notes)) == (None, 1)


@given(
    st.text("0123456789-T:Z+W ", max_size=12)
    | st.text(max_size=10)
    | st.dates().map(str)
    | st.dates()
    | st.datetimes().map(str)
    | st.integers()
)
def test_every_date_that_is_kept_can_be_filtered_by(value: object) -> None:
    date = iso_date(value)
    assert date is None or 0 < date_number(date) <= 99991231


def test_titles_and_tags_hold_what_a_store_and_a_terminal_can_take() -> None:
    matter, _ = split_front_matter(
        '---\ntitle: "Party \\ud83d\\ude00 a\\0b\\e[31m"\ntags: ["x\\0y", "\\ud83d", "\\0", "e\\u0301t\\u00e9"]\n---\nText.'
    )
    assert matter.title == "Party \ufffd\ufffd ab[31m"
    assert matter.tags == ("xy", "\ufffd", "\u00e9t\u00e9")


def test_aliases_that_explode_are_not_expanded() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
    )
    matter, _ = split_front_matter(f"---\n{bomb}tags: *m\n---\n")
    assert matter.tags == ()


def test_tags_and_labels_have_an_end() -> None:
    words = ", ".join(f"w{number}" for number in range(100))
    kept, _ = split_front_matter(f"---\ntags: [{words}]\n---\nText.")
    assert (len(kept.tags), kept.notes) == (64, ("of 100 tags the first 64 are kept",))
    with pytest.raises(SourceUnreadable, match="100 labels"):
        split_front_matter(f"---\naccess: [{words}]\n---\nText.")
