"""The service as a process: starting, stopping, starting again."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from rich.console import Console

from citewell import __version__
from citewell.api.serve import WORKER_STARTS_WITHIN_S
from citewell.terminal import _show
from tests.models.paced_server import Paced
from tests.redis_servers import Server
from tests.service import LIBRARY, ROOT, START_WITHIN_S, STOP_WITHIN_S, Live, environment, free_port, problem, running

QUESTION = "How high is the tower of the lighthouse?"


def test_a_restart_keeps_the_conversation(data_dir: Path) -> None:
    with running(data_dir) as live:
        httpx.post(f"{live.url}/chat", json={"message": QUESTION, "conversation_id": "t"}, timeout=60).raise_for_status()  # fmt: skip
        before = httpx.get(f"{live.url}/conversation/t").json()
    with running(data_dir) as live:
        assert httpx.get(f"{live.url}/conversation/t").json() == before
        body = {"message": "And when was it first lit?", "conversation_id": "t"}
        assert "14 March 1871" in httpx.post(f"{live.url}/chat", json=body, timeout=60).json()["response"]


def test_conversations_live_in_redis_when_it_is_set(start: Callable[..., Live], redis_url: str) -> None:
    live = start(CITEWELL_REDIS_URL=redis_url)
    for message in (QUESTION, "And when was it first lit?"):
        body = {"message": message, "conversation_id": "t"}
        reply = httpx.post(f"{live.url}/chat", json=body, timeout=60).raise_for_status().json()
    assert "14 March 1871" in reply["response"]
    assert httpx.get(f"{live.url}/readyz").json()["checks"]["threads"] == {"store": "redis"}
    assert not (live.data_dir / "threads.db").exists()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("CITEWELL_TOP_K", "many", "CITEWELL_TOP_K"),
        ("CITEWELL_TOPK", "3", "did you mean CITEWELL_TOP_K"),
        ("CITEWELL_CHUNK_OVERLAP", "900", "chunk_overlap"),
        ("CITEWELL_WORKERS", "2", "Chroma server"),
        ("CITEWELL_CHAT_MODEL", "openai:gpt-5-mini", "OPENAI_API_KEY"),
        ("CITEWELL_EMBEDDING_MODEL", "no-such-model", "CITEWELL_EMBEDDING_MODEL"),
        ("CITEWELL_REDIS_URL", "mysql://x", "redis"),
        ("CITEWELL_SIMPLE_MODEL", "extractive", "CITEWELL_SIMPLE_MODEL"),
    ],
)
def test_a_setting_that_cannot_be_stops_the_start_with_a_sentence(tmp_path: Path, setting: str, value: str, says: str) -> None:  # fmt: skip
    kept = {name: text for name, text in environment(tmp_path / "data").items() if name not in ("OPENAI_API_KEY",)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "server.py")], env=kept | {setting: value, "CITEWELL_PORT": "0", "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("where", [{}, {"CITEWELL_HOST": "203.0.113.1", "CITEWELL_KEYLESS": "anywhere"}])
def test_an_address_that_is_not_to_be_had_stops_the_start_with_a_sentence(
    live: Live, tmp_path: Path, where: dict[str, str]
) -> None:
    taken = live.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, str(ROOT / "server.py")], env=environment(tmp_path / "data", CITEWELL_PORT=taken, **where),
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"Nothing can listen at {where.get('CITEWELL_HOST', '127.0.0.1')}:{taken}" in done.stderr
    assert "CITEWELL_PORT" in done.stderr
    assert "answers at" not in done.stderr
    assert "Traceback" not in done.stderr


def test_several_workers_that_cannot_start_end_the_service_as_one_would(tmp_path: Path, chroma_server: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "server.py")], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env=environment(
            tmp_path / "data", CITEWELL_PORT="0", CITEWELL_WORKERS="2", CITEWELL_VECTOR_STORE=f"chroma+{chroma_server}",
            CITEWELL_REDIS_URL=f"redis://127.0.0.1:{free_port()}",
        ),
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert _seconds_to_stop(done.stdout) < WORKER_STARTS_WITHIN_S
    assert "answers at" not in done.stderr


def test_a_worker_for_one_that_died_is_not_waited_for_when_it_cannot_start(
    tmp_path: Path, chroma_server: str, own_redis: Server
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    settings = {"CITEWELL_VECTOR_STORE": f"chroma+{chroma_server}", "CITEWELL_NAMESPACE": "replaced-workers"}
    with running(data_dir, CITEWELL_WORKERS="2", CITEWELL_REDIS_URL=own_redis.url, **settings) as live:
        _until_written(live.log, "answers at")
        own_redis.kill()
        worker = next(
            child
            for child in psutil.Process(live.process.pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        )
        worker.kill()
        assert live.process.wait(200) == 3
        assert _seconds_to_stop(live.log.read_text()) < WORKER_STARTS_WITHIN_S


def _until_written(log: Path, text: str) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _seconds_to_stop(log: str) -> float:
    """From the first worker that cannot start to the end of the process that started it."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    failed, *_, ended = [
        datetime.fromisoformat(line["timestamp"])
        for line in lines
        if line["event"].endswith("cannot be reached.") or "Stopping" in line["event"]
    ]
    return (ended - failed).total_seconds()


def test_the_command_line_answers_with_citations(indexed: Path, tmp_path: Path) -> None:
    citewell = str(Path(sys.executable).with_name("citewell"))
    done = subprocess.run(
        [citewell, "ask", QUESTION], env=environment(indexed), cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "42 metres" in done.stdout
    assert "✓ verified" in done.stdout
    assert "library/lighthouse.md" in done.stdout


def citewell_ask(data_dir: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    told = "import sys; sys.argv[0] = 'citewell'; from citewell.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", told, "ask", *arguments], env=environment(data_dir), cwd=data_dir.parent, capture_output=True,
        timeout=200, **({"text": True} | more),
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def test_the_command_line_takes_a_question_in_words_or_from_a_pipe(indexed: Path) -> None:
    for done in (citewell_ask(indexed, *QUESTION.split()), citewell_ask(indexed, "-", input=QUESTION + "\n")):
        assert done.returncode == 0, done.stderr
        assert "42 metres" in done.stdout
    latin = citewell_ask(indexed, "-", input="Wie hoch ist der höchste Turm?", encoding="latin-1")
    assert (latin.returncode, latin.stderr) == (1, "citewell: What came from standard input is not UTF-8 text.\n")


def test_the_command_line_says_where_it_looked_for_documents_and_found_none(tmp_path: Path) -> None:
    done = citewell_ask(tmp_path / "data", QUESTION)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no documents in {tmp_path / 'data'}: add some with `python ingest.py DOCS/`" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [str(ROOT / "server.py")],
        [str(ROOT / "ingest.py"), str(LIBRARY)],
        ["-c", "from citewell.cli import main; main()", "ask", QUESTION],
    ],
)
def test_a_data_directory_that_cannot_be_made_is_named_in_a_sentence(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, *command], env=environment(tmp_path / "file" / "data", CITEWELL_PORT="0"), cwd=tmp_path,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"CITEWELL_DATA_DIR: {tmp_path / 'file' / 'data'} cannot be made: Not a directory" in done.stderr.replace(
        "\n", " "
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_a_data_directory_that_cannot_be_written_is_named_in_a_sentence() -> None:
    code = (
        "import os, sys; from pathlib import Path; from citewell.settings import Settings; os.getuid() or os.setuid(65534); "
        "Settings(_env_file=None, data_dir=Path(sys.argv[1])).make_data_dir()"
    )  # root may write anywhere, so it becomes somebody else
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=200, cwd=ROOT
        )
    assert f"CITEWELL_DATA_DIR: {folder} cannot be written" in done.stderr


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_command_line_asks_within_a_filter(live: Live, tmp_path: Path, elsewhere: bool) -> None:
    def ask(given: str) -> subprocess.CompletedProcess[str]:
        citewell = str(Path(sys.executable).with_name("citewell"))
        where = ["--url", live.url] if elsewhere else []
        return subprocess.run(
            [citewell, "ask", QUESTION, "--json", "--filter", given, *where], env=environment(live.data_dir), cwd=tmp_path,
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip

    within = json.loads(ask('{"source": "library/ferry.txt"}').stdout)
    assert "42 metres" not in within["answer"]
    assert {citation["source"] for citation in within["citations"]} <= {"library/ferry.txt"}
    for wrong, says in (("{type: pdf}", "--filter must be a JSON object"), ('["pdf"]', "JSON object"), ('{"colour": 1}', "colour")):  # fmt: skip
        refused = ask(wrong)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9", "The service at http://127.0.0.1:9 cannot be reached."),
        ("127.0.0.1:8000", "'127.0.0.1:8000' is no address of a service"),
        ("http://127.0.0.1:port", "'http://127.0.0.1:port' is no address of a service"),
    ],
)
def test_the_command_line_names_the_address_that_does_not_answer(tmp_path: Path, url: str, says: str) -> None:
    citewell = str(Path(sys.executable).with_name("citewell"))
    done = subprocess.run(
        [citewell, "ask", QUESTION, "--url", url], env=environment(tmp_path / "data"), cwd=tmp_path,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["citewell-server", "--help"], 0, "CITEWELL_"),
        (["citewell-ingest", "-h"], 0, "--rebuild"),
        (["citewell.threads", "-h"], 0, "export"),
        (["citewell.retrieval", "why", "-h"], 0, "--where"),
        (["citewell.identity", "new", "-h"], 0, "--caller"),
        (["citewell.ui", "--help"], 0, "--server.port"),
        (["citewell-server", "--port", "9"], 2, "No such option: --port"),
        (["citewell", "-h"], 0, "serve"),
        (["citewell", "--version"], 0, f"citewell {__version__}"),
    ],
)
def test_a_command_that_is_asked_what_it_does_says_so_and_does_nothing(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    name, *rest = arguments
    entry = {"citewell-server": "server", "citewell-ingest": "ingest", "citewell": "citewell.cli"}.get(name)
    told = f"import sys; sys.argv[0] = {name!r}; from {entry} import main; main()"
    done = subprocess.run(
        [sys.executable, *(["-c", told] if entry else ["-m", name]), *rest], cwd=tmp_path,
        env=environment(tmp_path / "data") | {"COLUMNS": "100"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "command", [[str(ROOT / "server.py")], [str(ROOT / "ingest.py")], ["-c", "from citewell.cli import main; main()"]]
)
def test_ctrl_c_while_packages_are_loaded_ends_a_program_without_a_word(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=200, cwd=tmp_path,
        env=environment(tmp_path / "data", PYTHONPATH=f"{tmp_path}:{ROOT}"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background job ignores it
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_command_line_imports_what_answers_only_to_answer(tmp_path: Path) -> None:
    """Asking a service that runs elsewhere, or for help, begins at once."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, citewell.terminal; print(*sys.modules)"], env=environment(tmp_path / "data"),
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    assert {"langchain_core", "langgraph", "fastapi", "onnxruntime", "numpy"}.isdisjoint(done.stdout.split())


def test_the_command_line_shows_a_passage_once_and_who_answered(capsys: pytest.CaptureFixture[str]) -> None:
    citation = {
        "marker": 1, "sentence": "The tower is 42 metres high.", "quote": "Its tower is 42 metres high.", "status": "verified",
        "score": 1.0, "source": "library/lighthouse.md", "title": "The lighthouse", "page": None, "start": 10, "end": 38,
        "chunk_id": "1",
    }  # fmt: skip
    calls = {"answer": {"asked": "openai:a", "answered": "openai:b", "why": "model_unavailable", "tries": []}}
    for citations, metadata, says in (
        ([citation, citation], {"answerer": "model", "model": "b", "calls": calls}, "answered by b in place of openai:a (model unavailable)"),
        ([], {"answerer": "none"}, "nothing in the documents supports an answer"),
        ([], {"answerer": "guard", "blocked": "injection"}, "refused by the rule “injection”"),
    ):  # fmt: skip
        whole = {"answer": "", "citations": citations, "thread_id": "t", "usage": {}, "metadata": metadata}
        _show(Console(highlight=False, soft_wrap=True), whole)
        written = capsys.readouterr().out
        assert f"{says}\nthread t\n" in written
        assert written.count("✓ verified") == min(1, len(citations))


def test_importing_a_module_does_nothing(tmp_path: Path) -> None:
    """No file, no environment, no network: every module imports in an empty folder with an empty environment."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ("graph", "chains", "citewell")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "__main__.py" and "ui" not in path.parts
    ]
    script = "import sys, socket\nsocket.socket.connect = None\n" + "\n".join(f"import {name}" for name in modules)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = {path.name for path in tmp_path.iterdir()} - {".cache"}  # ONNX Runtime makes itself a folder there
    assert not made


def test_deleting_a_conversation_leaves_nothing_in_redis(start: Callable[..., Live], redis_url: str) -> None:
    live = start(CITEWELL_REDIS_URL=redis_url)
    for message in (QUESTION, "And when was it first lit?"):
        httpx.post(f"{live.url}/chat", json={"message": message, "conversation_id": "t"}, timeout=60).raise_for_status()
    with redis.Redis.from_url(redis_url) as server:
        assert list(server.scan_iter())
        assert httpx.delete(f"{live.url}/conversation/t").status_code == 204
        assert set(server.scan_iter()) <= {b"citewell:ready"}, "readiness writes that one, of no conversation"


def test_a_busy_conversation_can_be_refused_or_taken_over(start: Callable[..., Live], paced: Paced) -> None:
    live = start(**paced.model(1) | {"CITEWELL_CHAT_MODEL": "openai:endless"})
    body = {"message": QUESTION, "conversation_id": "t"}
    before = paced.calls()["started"]
    with ThreadPoolExecutor(1) as asking:
        first = asking.submit(httpx.post, f"{live.url}/chat", json=body, timeout=60)
        while paced.calls()["started"] == before:
            time.sleep(0.05)
        second = body | {"chat_model": "extractive"}
        refused = httpx.post(f"{live.url}/chat", json=second | {"thread_policy": "reject"}, timeout=60)
        problem(refused, "thread_busy", 409)
        taken = httpx.post(f"{live.url}/chat", json=second | {"thread_policy": "replace"}, timeout=60)
        assert "42 metres" in taken.raise_for_status().json()["response"]
        problem(first.result(), "run_replaced", 409)


def test_what_people_write_does_not_reach_the_log(start: Callable[..., Live]) -> None:
    live = start()
    for message in ("What did ada.lovelace@example.org say about the Zyxwian lighthouse?", "x" * 5001):
        httpx.post(f"{live.url}/chat", json={"message": message, "conversation_id": "ada.lovelace@example.org"}, timeout=60)  # fmt: skip
    log = live.log.read_text()
    assert "turn.finished" in log
    assert "ada.lovelace" not in log
    assert "Zyxwian" not in log


def test_a_service_killed_in_mid_answer_loses_no_question_and_frees_its_thread(
    start: Callable[..., Live], redis_url: str, paced: Paced
) -> None:
    live = start(CITEWELL_REDIS_URL=redis_url, **paced.model(1) | {"CITEWELL_CHAT_MODEL": "openai:endless"})
    body = {"message": QUESTION, "conversation_id": "t"}
    events = {"accept": "text/event-stream"}
    with (
        suppress(httpx.TransportError),
        httpx.stream("POST", f"{live.url}/chat", json=body, headers=events, timeout=60) as answer,
    ):
        for line in answer.iter_lines():
            if "42" in line:  # some words into the answer
                live.process.kill()
    assert live.process.wait(STOP_WITHIN_S) < 0
    with running(live.data_dir, CITEWELL_REDIS_URL=redis_url) as again:
        history = httpx.get(f"{again.url}/conversation/t").json()["history"]
        assert [message["content"] for message in history] == [QUESTION]
        reply = httpx.post(f"{again.url}/chat", json=body, timeout=60).raise_for_status().json()
        assert "42 metres" in reply["response"]
        assert len(httpx.get(f"{again.url}/conversation/t").json()["history"]) == 3
