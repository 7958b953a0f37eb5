import os
import shutil
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from citewell.documents import Source
from citewell.errors import ConfigurationError, IndexMismatch, IngestBusy, SourceNotFound
from citewell.ingestion.command import print_report
from citewell.ingestion.manifest import Manifest
from citewell.ingestion.report import FileReport, Report
from citewell.ingestion.sync import forget, ingest
from citewell.ingestion.upload import Upload, ingest_upload, remove_upload
from citewell.settings import Settings
from tests.ingestion.conftest import MemoryIndex


def by_status(report: Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in report.files:
        found.setdefault(file.status, []).append(file.uri)
    return found


def age(*paths: Path) -> None:
    """Let files look older than the clock's tick, so that their times are trusted."""
    for path in paths:
        os.utime(path, ns=(time.time_ns() - 10**10,) * 2)


async def test_a_second_run_touches_only_what_changed(index: MemoryIndex, settings: Settings, library: Path) -> None:
    age(*(path for path in library.rglob("*") if path.is_file()))
    first = await ingest(index, [library], settings)
    assert by_status(first) == {"new": ["library/a.txt", "library/b.md", "library/deep/er/c.html"]}
    assert first.exit_code == 0

    assert by_status(await ingest(index, [library], settings)) == {"unchanged": sorted(index.held)}

    (library / "a.txt").write_text("The ferry leaves at eight.")
    (library / "new.txt").write_text("New.")
    (library / "b.md").unlink()
    index.writes.clear()
    third = await ingest(index, [library], settings)
    assert by_status(third) == {
        "changed": ["library/a.txt"], "new": ["library/new.txt"], "removed": ["library/b.md"],
        "unchanged": ["library/deep/er/c.html"],
    }  # fmt: skip
    assert index.writes == [["library/a.txt", "library/new.txt"]]
    assert index.held["library/a.txt"].text == "The ferry leaves at eight."


async def test_a_file_only_touched_counts_as_unchanged(index: MemoryIndex, settings: Settings, library: Path) -> None:
    await ingest(index, [library], settings)
    (library / "a.txt").touch()
    assert (await ingest(index, [library], settings)).count("unchanged") == 3


async def test_a_change_that_keeps_size_and_second_is_seen(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    (library / "a.txt").write_text("one")
    await ingest(index, [library], settings)
    (library / "a.txt").write_text("two")
    assert by_status(await ingest(index, [library], settings))["changed"] == ["library/a.txt"]


async def test_losing_the_manifest_embeds_nothing_again(index: MemoryIndex, settings: Settings, library: Path) -> None:
    await ingest(index, [library], settings)
    (settings.data_dir / "ingestion.json").unlink()
    index.writes.clear()
    assert (await ingest(index, [library], settings)).count("unchanged") == 3
    assert index.writes == []


async def test_a_damaged_manifest_is_named(index: MemoryIndex, settings: Settings, library: Path) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "ingestion.json").write_text("{")
    with pytest.raises(ConfigurationError, match="delete it"):
        await ingest(index, [library], settings)


async def test_one_bad_file_never_stops_the_rest(index: MemoryIndex, settings: Settings, library: Path) -> None:
    (library / "a0.pdf").write_bytes(b"%PDF-1.7 broken")
    (library / "empty.txt").write_text("")
    report = await ingest(index, [library], settings)
    assert by_status(report) == {
        "failed": ["library/a0.pdf", "library/empty.txt"],
        "new": ["library/a.txt", "library/b.md", "library/deep/er/c.html"],
    }
    assert [(file.code, file.reason) for file in report.files if file.status == "failed"] == [
        ("source_unreadable", "the PDF is damaged and cannot be opened"),
        ("source_unsupported", "the file is empty"),
    ]
    assert report.exit_code == 1


async def test_what_was_refused_for_good_is_reported_again_without_being_read(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    (library / "empty.txt").write_text("")
    (library / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    age(library / "empty.txt", library / "broken.pdf")
    first = await ingest(index, [library], settings)
    index.is_prepared = False
    second = await ingest(index, [library], settings)
    assert not index.is_prepared, "nothing heavy is loaded for them"
    assert [f for f in first.files if f.status == "failed"] == [f for f in second.files if f.status == "failed"]
    (library / "empty.txt").write_text("No longer.")
    assert by_status(await ingest(index, [library], settings))["new"] == ["library/empty.txt"]


async def test_what_other_limits_or_another_version_refused_is_read_again(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    body = f'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>Tides.{" " * 50_000}</w:t></w:r></w:p></w:body></w:document>'  # fmt: skip
    with zipfile.ZipFile(library / "d.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", body)
    age(library / "d.docx")
    small = settings.model_copy(update={"max_source_bytes": 20_000})
    assert by_status(await ingest(index, [library], small))["failed"] == ["library/d.docx"]
    assert by_status(await ingest(index, [library], settings))["new"] == ["library/d.docx"]

    manifest = Manifest.read(settings.data_dir)
    file = (library / "a.txt").stat()
    age(library / "a.txt")
    manifest.refusals["library/a.txt"] = (
        file.st_size,
        (library / "a.txt").stat().st_mtime_ns,
        "the file is empty",
        "source_unsupported",
    )
    manifest.write()
    assert by_status(await ingest(index, [library / "a.txt"], settings))["failed"] == ["library/a.txt"]
    assert "failed" not in by_status(await ingest(index, [library], settings, rebuild=True))
    manifest = Manifest.read(settings.data_dir)
    manifest.refusals["library/a.txt"] = (
        file.st_size,
        (library / "a.txt").stat().st_mtime_ns,
        "the file is empty",
        "source_unsupported",
    )
    manifest.digests.clear()
    manifest.reader = "an older one"
    manifest.write()
    assert "failed" not in by_status(await ingest(index, [library], settings))


async def test_a_file_that_breaks_keeps_its_old_state_until_it_is_mended_or_gone(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    await ingest(index, [library], settings)
    (library / "a.txt").write_text("")
    report = await ingest(index, [library], settings)
    assert by_status(report)["failed"] == ["library/a.txt"]
    assert index.held["library/a.txt"].text.startswith("The ferry")
    (library / "a.txt").unlink()
    assert by_status(await ingest(index, [library], settings))["removed"] == ["library/a.txt"]


async def test_only_what_lies_below_the_given_paths_is_removed(
    index: MemoryIndex, settings: Settings, library: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "d.txt").write_text("Other.")
    (tmp_path / "other" / "e.txt").write_text("Else.")
    (library / "deep" / "f.txt").write_text("Further.")
    await ingest(index, [library, tmp_path / "other"], settings)
    (tmp_path / "other" / "d.txt").unlink()
    (library / "a.txt").unlink()
    (library / "deep" / "er" / "c.html").unlink()
    assert by_status(await ingest(index, [library / "deep"], settings))["removed"] == ["library/deep/er/c.html"]
    assert "other/d.txt" in index.held
    assert by_status(await ingest(index, [], settings))["removed"] == ["library/a.txt", "other/d.txt"], (
        "no path means all"
    )


async def test_a_dry_run_reports_the_same_and_writes_nothing(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    (library / "empty.txt").write_text("")
    dry = await ingest(index, [library], settings, dry_run=True)
    assert index.held == {}
    assert not index.is_prepared
    assert not settings.data_dir.exists()
    real = await ingest(index, [library], settings)
    assert dry.files == real.files


async def test_a_failing_store_ends_the_run_and_the_next_one_goes_on(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    (library / "long.txt").write_text("A sentence of some length. " * 6000)  # a batch of its own
    (library / "z.txt").write_text("Last.")
    index.fail_at = "library/z.txt"
    with pytest.raises(RuntimeError, match="the store is gone"):
        await ingest(index, [library], settings)
    done = set(index.held)
    assert done == {"library/a.txt", "library/b.md", "library/deep/er/c.html", "library/long.txt"}
    index.fail_at = None
    report = await ingest(index, [library], settings)
    assert by_status(report) == {"new": ["library/z.txt"], "unchanged": sorted(done)}


async def test_small_files_go_to_the_index_together(index: MemoryIndex, settings: Settings, library: Path) -> None:
    for number in range(300):
        (library / f"n{number:03}.txt").write_text(f"Number {number}.")
    report = await ingest(index, [library], settings)
    assert report.count("new") == 303
    assert len(index.writes) == 2


async def test_a_rebuild_reads_everything_again_and_swaps(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    await ingest(index, [library], settings)
    before = index.held
    (library / "a.txt").unlink()
    report = await ingest(index, [], settings, rebuild=True)
    assert by_status(report) == {"new": ["library/b.md", "library/deep/er/c.html"]}
    assert set(index.held) == {"library/b.md", "library/deep/er/c.html"}
    assert index.held is not before


async def test_a_stopped_rebuild_leaves_the_live_index_and_is_taken_up_again(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    await ingest(index, [library], settings)
    (library / "long.txt").write_text("A sentence of some length. " * 6000)
    (library / "z.txt").write_text("Last.")
    index.fail_at = "library/z.txt"
    with pytest.raises(RuntimeError):
        await ingest(index, [library], settings, rebuild=True)
    assert set(index.held) == {"library/a.txt", "library/b.md", "library/deep/er/c.html"}
    index.fail_at = None
    report = await ingest(index, [library], settings, rebuild=True)
    assert by_status(report)["new"] == ["library/z.txt"]
    assert len(index.held) == 5


async def test_a_rebuild_that_would_lose_sources_is_refused(
    index: MemoryIndex, settings: Settings, library: Path, tmp_path: Path
) -> None:
    await ingest(index, [library], settings)
    (settings.data_dir / "ingestion.json").unlink()
    (tmp_path / "e.txt").write_text("Elsewhere.")
    with pytest.raises(ConfigurationError, match=r"would lose library/a\.txt"):
        await ingest(index, [tmp_path / "e.txt"], settings, rebuild=True)


async def test_a_folder_inside_another_keeps_its_names_and_goes_with_it(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    await ingest(index, [library / "deep"], settings)
    await ingest(index, [library], settings)
    assert set(index.held) == {"deep/er/c.html", "library/a.txt", "library/b.md"}, "no file goes by two names"
    (library / ".access").write_text("board")
    await ingest(index, [library], settings)
    assert {new.source.access for new in index.held.values()} == {("board",)}, "nothing stays open"
    (library / "deep" / "d.txt").write_text("Deep.")
    (library / "deep" / "er" / "c.html").unlink()
    assert by_status(await ingest(index, [library], settings))["removed"] == ["deep/er/c.html"]
    shutil.rmtree(library / "deep")
    assert by_status(await ingest(index, [library], settings))["failed"] == ["deep"], "it was asked for by itself"
    assert by_status(await ingest(index, [library], settings, allow_empty=True))["removed"] == ["deep/d.txt"]
    assert set(index.held) == {"library/a.txt", "library/b.md"}
    await ingest(index, [], settings)


async def test_what_went_by_two_names_goes_by_one(index: MemoryIndex, settings: Settings, library: Path) -> None:
    """As earlier versions left it."""
    await ingest(index, [library], settings)
    manifest = Manifest.read(settings.data_dir)
    manifest.roots["deep"] = library / "deep"
    manifest.write()
    report = by_status(await ingest(index, [library], settings))
    assert (report["new"], report["removed"]) == (["deep/er/c.html"], ["library/deep/er/c.html"])


@pytest.mark.parametrize("how", ["gone", "empty", "only folders", "nothing that is read"])
@pytest.mark.parametrize("named", [True, False])
async def test_a_folder_of_which_nothing_is_left_is_not_taken_for_an_emptied_one(
    index: MemoryIndex, settings: Settings, library: Path, tmp_path: Path, how: str, named: bool
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "d.txt").write_text("Other.")
    await ingest(index, [library, tmp_path / "other"], settings)
    library.rename(tmp_path / "elsewhere")
    if how != "gone":
        library.mkdir()
        (library / "lost+found").mkdir()
    if how == "nothing that is read":
        (library / "photo.jpg").write_bytes(b"x")
    (tmp_path / "other" / "e.txt").write_text("Else.")
    paths = [library, tmp_path / "other"] if named and how != "gone" else []

    dry = await ingest(index, paths, settings, dry_run=True)
    report = await ingest(index, paths, settings)
    assert by_status(report) | {"skipped": []} == {
        "failed": ["library"], "new": ["other/e.txt"], "unchanged": ["other/d.txt"], "skipped": [],
    }  # fmt: skip
    assert (report.files, report.exit_code) == (dry.files, 1)
    (failed,) = (file for file in report.files if file.status == "failed")
    assert "is not there" in failed.reason if how == "gone" else "of 3 documents none is left" in failed.reason
    assert {"library/a.txt", "library/b.md", "library/deep/er/c.html"} < set(index.held)
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match=r"would lose library/a\.txt: in library, "):
            await ingest(index, paths, settings, rebuild=True, dry_run=dry_run)

    if how != "gone":
        shutil.rmtree(library)
    (tmp_path / "elsewhere").rename(library)
    assert (await ingest(index, paths, settings)).count("unchanged") == 5
    shutil.rmtree(library)
    meant = await ingest(index, [], settings, allow_empty=True)
    assert by_status(meant)["removed"] == ["library/a.txt", "library/b.md", "library/deep/er/c.html"]
    assert (await ingest(index, [], settings)).exit_code == 0, "it is forgotten"


async def test_a_file_asked_for_by_itself_goes_with_its_folder(
    index: MemoryIndex, settings: Settings, library: Path, tmp_path: Path
) -> None:
    await ingest(index, [library / "a.txt"], settings)
    await ingest(index, [library], settings)
    library.rename(tmp_path / "elsewhere")
    for is_there in (False, True):
        if is_there:
            library.mkdir()
        report = await ingest(index, [], settings)
        assert by_status(report) == {"failed": ["a.txt", "library"]}
    library.rmdir()
    (tmp_path / "elsewhere").rename(library)
    (library / "a.txt").unlink()
    assert by_status(await ingest(index, [library], settings))["removed"] == ["a.txt"]


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_link_that_leads_nowhere_for_a_while_loses_nothing(
    index: MemoryIndex, settings: Settings, library: Path, tmp_path: Path, by_name: bool
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "d.txt").write_text("Other.")
    link = library / ("linked.txt" if by_name else "linked")
    link.symlink_to(tmp_path / "volume" / "d.txt" if by_name else tmp_path / "volume")
    (library / "never.txt").symlink_to(tmp_path / "nothing")
    await ingest(index, [library], settings)
    (tmp_path / "volume").rename(tmp_path / "elsewhere")
    report = await ingest(index, [library], settings)
    assert by_status(report)["failed"] == [f"library/{link.name}"]
    assert by_status(report)["skipped"] == ["library/never.txt"]
    assert len(index.held) == 4
    link.unlink()
    assert by_status(await ingest(index, [library], settings))["removed"] == [
        f"library/{link.name}{'' if by_name else '/d.txt'}"
    ]


async def test_a_rebuild_loses_no_folder_where_the_index_cannot_be_asked(
    index: MemoryIndex, settings: Settings, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(*(path for path in library.rglob("*") if path.is_file()))
    await ingest(index, [library], settings)

    async def refuse() -> list[Source]:
        raise IndexMismatch("built with other settings")

    monkeypatch.setattr(index, "sources", refuse)
    shutil.rmtree(library)
    library.mkdir()
    with pytest.raises(ConfigurationError, match=r"would lose library/a\.txt"):
        await ingest(index, [library], settings, rebuild=True)
    assert len(index.held) == 3
    await ingest(index, [library], settings, rebuild=True, allow_empty=True)
    assert index.held == {}


async def test_forgetting_one_source_leaves_the_others(index: MemoryIndex, settings: Settings, library: Path) -> None:
    await ingest(index, [library], settings)
    await forget(index, ["library/b.md"], settings)
    assert set(index.held) == {"library/a.txt", "library/deep/er/c.html"}
    with pytest.raises(SourceNotFound, match="nothing named lib"):
        await forget(index, ["lib"], settings)
    await forget(index, ["library/"], settings)
    assert index.held == {}


async def test_an_unreadable_folder_fails_and_keeps_what_lies_below(
    index: MemoryIndex, settings: Settings, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest(index, [library], settings)
    scan = os.scandir

    def refuse(path: Path) -> object:  # permissions do not stop root, under whom tests may run
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("citewell.ingestion.files.os.scandir", refuse)
    report = await ingest(index, [library], settings)
    assert by_status(report)["failed"] == ["library/deep"]
    assert "library/deep/er/c.html" in index.held
    assert report.exit_code == 1
    with pytest.raises(
        ConfigurationError, match=r"would lose library/deep/er/c\.html: in library/deep, the folder cannot be read"
    ):
        await ingest(index, [library], settings, rebuild=True)


async def test_an_unreadable_ignore_file_fails_and_keeps_what_lies_in_its_folder(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    await ingest(index, [library], settings)
    held = set(index.held)
    (library / ".citewellignore").write_text("*.md", encoding="utf-16")
    report = await ingest(index, [library], settings)
    assert by_status(report)["failed"] == ["library/.citewellignore"]
    assert set(index.held) == held


async def test_where_a_rebuild_is_advised_the_report_says_so(
    index: MemoryIndex, settings: Settings, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_report(await ingest(index, [library], settings))
    assert "--rebuild" not in capsys.readouterr().out
    index.worn = True
    report = await ingest(index, [library], settings)
    print_report(report)
    assert "`--rebuild` would make it smaller and faster" in capsys.readouterr().out
    assert report.as_dict()["rebuild_advised"] is True
    assert not (await ingest(index, [library], settings, rebuild=True)).is_worn


async def test_two_at_once_are_refused(index: MemoryIndex, settings: Settings, library: Path) -> None:
    async with index.writing():
        with pytest.raises(IngestBusy):
            await ingest(index, [library], settings)


async def test_nothing_to_ingest_is_an_error(index: MemoryIndex, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="nothing to ingest"):
        await ingest(index, [], settings)


async def test_files_that_are_gone_are_not_remembered(index: MemoryIndex, settings: Settings, library: Path) -> None:
    (library / "empty.txt").write_text("")
    age(library / "empty.txt", library / "a.txt")
    await ingest(index, [library], settings)
    assert {"library/empty.txt", "library/a.txt"} <= Manifest.read(settings.data_dir).uris()
    (library / "empty.txt").unlink()
    (library / "a.txt").unlink()
    await ingest(index, [library], settings)
    assert not {"library/empty.txt", "library/a.txt"} & Manifest.read(settings.data_dir).uris()


async def test_nothing_blocks_the_event_loop(index: MemoryIndex, settings: Settings, library: Path) -> None:
    with blockbuster_ctx("citewell"):
        await ingest(index, [library], settings)
        await ingest(index, [library], settings)
        await ingest_upload(index, settings, Upload("a.txt"), BytesIO(b"Text."))
        await ingest(index, [], settings, rebuild=True)
        await remove_upload(index, settings, Upload("a.txt"))
        await forget(index, ["library"], settings)


async def test_progress_is_told_of_every_file(index: MemoryIndex, settings: Settings, library: Path) -> None:
    class Watch:
        total = 0
        files: list[FileReport] = []  # noqa: RUF012  # one instance
        embeddings = 0

        def started(self, total: int) -> None:
            self.total = total

        def embedded(self, chunks: int, total: int) -> None:
            self.embeddings += 1

        def finished(self, file: FileReport) -> None:
            self.files.append(file)

    (library / "empty.txt").write_text("")
    watch = Watch()
    await ingest(index, [library], settings, progress=watch)
    assert watch.total == len(watch.files) == 4
    assert watch.embeddings > 0


async def test_a_thousand_unchanged_files_take_a_moment(index: MemoryIndex, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1000):
        (folder / f"{number}.txt").write_text(f"Number {number}.")
        age(folder / f"{number}.txt")
    await ingest(index, [folder], settings)
    (folder / "7.txt").write_text("Another number.")
    report = await ingest(index, [folder], settings)
    assert (report.count("changed"), report.count("unchanged")) == (1, 999)
    began = time.process_time()  # of the processor, so that what else the machine does is not counted
    report = await ingest(index, [folder], settings)
    assert report.count("unchanged") == 1000
    assert time.process_time() - began < 1
