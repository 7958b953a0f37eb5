import os
from pathlib import Path

import pytest

from citewell.errors import ConfigurationError
from citewell.ingestion.files import Found, Root, name_roots, walk


def look(*paths: Path, known: dict[str, Path] | None = None) -> Found:
    return walk(name_roots(paths, known or {}))


def uris(found: Found) -> list[str]:
    return [file.uri for file in found.files]


def test_files_are_named_from_the_folder_given(library: Path) -> None:
    assert uris(look(library)) == ["library/a.txt", "library/b.md", "library/deep/er/c.html"]


def test_a_file_asked_for_by_name_goes_by_its_name_alone(library: Path) -> None:
    assert uris(look(library / "a.txt")) == ["a.txt"]


def test_a_path_inside_a_known_folder_keeps_that_folders_naming(library: Path) -> None:
    known = {"library": library}
    assert uris(look(library / "deep", known=known)) == ["library/deep/er/c.html"]
    assert uris(look(library / "a.txt", known=known)) == ["library/a.txt"]


def test_two_folders_of_one_name_get_different_ones(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent / "docs").mkdir(parents=True)
        (tmp_path / parent / "docs" / "a.txt").write_text("x")
    assert uris(look(tmp_path / "one" / "docs", tmp_path / "two" / "docs")) == ["docs/a.txt", "two/docs/a.txt"]


def test_a_folder_that_was_moved_keeps_its_name(tmp_path: Path, library: Path) -> None:
    assert name_roots([library], {"library": tmp_path / "gone" / "library"}) == [
        (Root(name="library", path=library), library)
    ]


def test_overlapping_paths_name_each_file_once(library: Path) -> None:
    assert uris(look(library, library / "deep", library / "a.txt")) == [
        "library/a.txt",
        "library/b.md",
        "library/deep/er/c.html",
    ]


def test_hidden_and_foreign_files_are_passed_over_and_said_to_be(library: Path) -> None:
    (library / ".secret.txt").write_text("x")
    (library / ".git").mkdir()
    (library / ".git" / "a.txt").write_text("x")
    (library / "photo.jpg").write_bytes(b"x")
    found = look(library)
    assert len(found.files) == 3
    assert found.skipped["library/.secret.txt"] == found.skipped["library/.git"] == "hidden"
    assert "not a type that is read (.jpg)" in found.skipped["library/photo.jpg"]


def test_a_foreign_file_asked_for_by_name_is_not_passed_over(library: Path) -> None:
    (library / "photo.jpg").write_bytes(b"x")
    assert uris(look(library / "photo.jpg")) == ["photo.jpg"]


def test_links_in_a_circle_end(library: Path) -> None:
    (library / "deep" / "up").symlink_to(library)
    (library / "deep" / "self").symlink_to(library / "deep")
    (library / "again").symlink_to(library / "deep" / "er")
    found = look(library)
    assert uris(found) == ["library/a.txt", "library/b.md", "library/deep/er/c.html"]
    assert set(found.skipped) == {"library/deep/up", "library/deep/self", "library/again"}


def test_a_link_to_a_folder_elsewhere_is_followed(library: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "d.txt").write_text("x")
    (library / "linked").symlink_to(tmp_path / "other")
    assert "library/linked/d.txt" in uris(look(library))


def test_pipes_and_dangling_links_are_passed_over(library: Path) -> None:
    os.mkfifo(library / "pipe.txt")
    (library / "dangling.txt").symlink_to(library / "nothing")
    assert look(library).skipped == {
        "library/pipe.txt": "not a regular file",
        "library/dangling.txt": "a link to nothing",
    }


def test_an_ignore_file_names_what_stays_out_of_its_folder(library: Path) -> None:
    (library / ".citewellignore").write_text("# drafts\n*.md\ndeep/\n")
    found = look(library)
    assert uris(found) == ["library/a.txt"]
    assert found.skipped == {"library/b.md": "named in .citewellignore", "library/deep": "named in .citewellignore"}


def test_an_ignore_file_that_cannot_be_read_keeps_everything_out(library: Path) -> None:
    (library / ".citewellignore").write_text("*.md", encoding="utf-16")
    found = look(library)
    assert found.files == []
    assert "library/.citewellignore" in found.unreadable
    assert found.covering("library/a.txt") == "library/.citewellignore"
    assert found.covering("library/deep/er/c.html") == "library/.citewellignore"
    assert found.covering("library2/a.txt") is None


def test_an_ignore_file_may_begin_with_a_byte_order_mark(library: Path) -> None:
    (library / ".citewellignore").write_text("*.md\n", encoding="utf-8-sig")
    assert uris(look(library)) == ["library/a.txt", "library/deep/er/c.html"]


@pytest.mark.parametrize("name", [b"\xff", b"two\nlines", b"\x1b[31mred", b"\xc2\x9b31m", b"\xe2\x80\xa8"])
def test_a_name_that_cannot_be_shown_is_reported(library: Path, tmp_path: Path, name: bytes) -> None:
    with open(os.fsencode(library / "deep") + b"/" + name + b".txt", "w") as file:
        file.write("x")
    ((shown, reason),) = look(library).unreadable.items()
    assert shown.startswith("library/deep/")
    assert shown.isprintable()
    assert "rename it" in reason
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    (folder / "below").mkdir(parents=True)
    for asked in (folder, folder / "below"):
        with pytest.raises(ConfigurationError, match="rename it") as caught:
            name_roots([asked], {})
        assert caught.value.detail.isprintable()


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        name_roots([tmp_path / "nothing"], {})
