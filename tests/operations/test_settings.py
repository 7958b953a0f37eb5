"""Settings: bounds, names, secrets, and what is written from them."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from citewell.errors import ConfigurationError
from citewell.settings import Settings
from tests.service import ROOT


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_environment_and_the_env_file_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('CITEWELL_TOP_K=7\n# CITEWELL_NOTHING=1\nCITEWELL_CHAT_MODELS=["openai:a"]\n')
    monkeypatch.setenv("REDIS_URL", "redis://:secret@localhost/0")
    settings = Settings.load()
    assert settings.top_k == 7
    assert settings.chat_models == ("openai:a",)
    assert settings.redis_url is not None
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CITEWELL_TOPK", "3", "CITEWELL_TOPK is not a setting; did you mean CITEWELL_TOP_K?"),
        ("CITEWELL_TEMPERATURE", "3", "CITEWELL_TEMPERATURE"),
        ("CITEWELL_THREAD_POLICY", "shout", "CITEWELL_THREAD_POLICY"),
        ("CITEWELL_TOP_N", "9", "top_n (9) must not exceed top_k (5)"),
        ("CITEWELL_WORKERS", "4", "Chroma server"),
        ("CITEWELL_NAMESPACE", "a b", "CITEWELL_NAMESPACE"),
        ("CITEWELL_VECTOR_STORE", "faiss", "no vector store is called 'faiss'"),
        ("CITEWELL_VECTOR_STORE", "pinecone", "no vector store is called 'pinecone'"),
        ("CITEWELL_VECTOR_STORE", "pinecone:x", "PINECONE_API_KEY"),
        ("CITEWELL_VECTOR_STORE", "chroma+http://", "host:port"),
        ("CITEWELL_VECTOR_STORE", "weaviate+https:host", "host:port"),
        ("CITEWELL_VECTOR_STORE", "chroma+http://host:99999", "host:port"),
        ("OPENAI_BASE_URL", "127.0.0.1:8080", "OPENAI_BASE_URL must be an address"),
        ("OPENAI_BASE_URL", "ftp://host/v1", "OPENAI_BASE_URL must be an address"),
        ("OPENAI_BASE_URL", "http://host:99999/v1", "OPENAI_BASE_URL must be an address"),
        ("CITEWELL_OTLP_ENDPOINT", "collector:4318", "CITEWELL_OTLP_ENDPOINT must be an address"),
    ],
)
def test_what_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert says in caught.value.detail


def test_a_fault_never_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_TOP_K", "hunter2")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "-m", "docs.generate", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_data_directory_is_its_owners_alone(tmp_path: Path) -> None:
    """Conversations lie there as they are. One that stands is left as whoever made it wanted it."""
    made, stands = tmp_path / "above" / "made", tmp_path / "stands"
    stands.mkdir(mode=0o750)
    for place in (made, stands):
        Settings(data_dir=place).make_data_dir()
    assert [stat.S_IMODE(place.stat().st_mode) for place in (made, stands)] == [0o700, 0o750]
