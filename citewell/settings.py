"""The settings, which are all that is read from the environment.

They are read once in `main()` and passed down. `.env.example` and `docs/settings.md` are generated from this
class, so a description here is what users read.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from citewell.errors import ConfigurationError

PREFIX = "CITEWELL_"
EXTRACTIVE = "extractive"
"""Stands for a chat model: quotes sentences of the documents. Needs no key and costs nothing."""
_SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms with a public key. HS256 and its kind would take the public key for the secret; `none` accepts anything."""

Language = Literal[
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian", "norwegian",
    "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish", "none",
]  # fmt: skip
"""Languages that the keyword index can stem, which are those of tantivy's stemmers, or none."""


class Settings(BaseSettings):
    """All settings. Each field is `CITEWELL_<NAME>` in the environment or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True,
        frozen=True, extra="ignore", populate_by_name=True, validate_default=True,
    )  # fmt: skip

    # --- models -------------------------------------------------------------------------------
    chat_model: str = Field(
        EXTRACTIVE,
        description="What answers: `extractive` (quotes the best sentences, needs no key) or `provider:model`, such as "
        "`openai:gpt-5-mini`, `anthropic:claude-sonnet-5`, `ollama:llama3.2`.",
    )
    chat_models: tuple[str, ...] = Field(
        (),
        description="Further models that a caller may choose per call (JSON list); the one above and `extractive` always may be.",
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_OPENAI_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_BASE"),
        description="Address of any OpenAI-compatible server, for models named `openai:...`.",
    )
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_OPENAI_API_KEY", "OPENAI_API_KEY"),
        description="Key for models named `openai:...`; a server behind the base URL may need none.",
    )
    anthropic_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        description="Key for models named `anthropic:...`.",
    )
    ollama_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_OLLAMA_BASE_URL", "OLLAMA_HOST"),
        description="Where Ollama listens. Unset: `http://127.0.0.1:11434`.",
    )
    instructions: str = Field(
        "", max_length=4000,
        description="Words of your own in every prompt: whom the model speaks for, to whom, and how (`You answer for the town "
        "library. Speak plainly.`). They cannot lift the rules about sources.",
    )  # fmt: skip
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature of the chat model.")
    max_tokens: int = Field(500, ge=1, le=32_000, description="Longest answer, in tokens.")
    model_timeout_s: float = Field(60, gt=0, le=600, description="Deadline for one call to a chat model, in seconds.")
    model_retries: int = Field(
        2, ge=0, le=10, description="Retries after a transient failure of a chat model, before the first token."
    )
    fallback_models: tuple[str, ...] = Field(
        (),
        description="Models that answer in place of one that fails before its first token, in this order (JSON list of "
        "`provider:model`, or `extractive`). The answer's metadata says so.",
    )
    circuit_failures: int = Field(
        5, ge=0, le=1000, description="Failures in a row after which a chat model is left alone for a while; 0: never."
    )
    circuit_window_s: float = Field(60, gt=0, le=3600, description="Time within which these failures fall, in seconds.")
    circuit_pause_s: float = Field(30, gt=0, le=3600, description="How long the model is then left alone, in seconds.")
    simple_model: str | None = Field(
        None,
        description="A cheaper `provider:model` for simple questions (docs/models.md says which those are) where the caller chose no "
        "model. Unset: one model answers all.",
    )
    embedding_model: str = Field(
        "minilm",
        description="Embedding model: `minilm` (built in), any sentence-transformers name (extra `sentence-transformers`), or "
        "`openai:text-embedding-3-small`. A change needs `ingest.py --rebuild`.",
    )
    reranker: str = Field(
        "maxsim",
        description="What puts candidates in their final order: `maxsim` (built in, late interaction), a cross-encoder such as "
        "`cross-encoder/ms-marco-MiniLM-L-6-v2` (extra `sentence-transformers`), or `none`.",
    )

    # --- documents and retrieval --------------------------------------------------------------
    data_dir: Path = Field(
        Path(".citewell"), description="Folder for the index, uploads and, without Redis, conversations and ratings."
    )
    vector_store: str = Field(
        "chroma",
        description="Where vectors are kept: `chroma` (embedded, one process), `chroma+http://host:port`, `pinecone:INDEX` "
        "(`?cloud=aws&region=eu-west-1`) or `weaviate+http://host:port` (extras `pinecone`, `weaviate`).",
    )
    pinecone_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_PINECONE_API_KEY", "PINECONE_API_KEY"),
        description="Key for Pinecone, if that is the vector store.",
    )
    weaviate_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_WEAVIATE_API_KEY", "WEAVIATE_API_KEY"),
        description="Key for Weaviate, if that is the vector store and asks for one.",
    )
    namespace: str = Field("citewell", min_length=3, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*[A-Za-z0-9]$",
                           description="Keeps several indexes apart in one vector store or Redis.")  # fmt: skip
    language: Language = Field(
        "english",
        description="Language of the documents, whose word endings and filler words keyword search ignores; `none` for mixed or "
        "other languages. A change needs `ingest.py --rebuild`.",
    )
    chunk_size: int = Field(
        500, ge=100, le=4000, description="Longest chunk, in characters. A change needs `ingest.py --rebuild`."
    )
    chunk_overlap: int = Field(
        50,
        ge=0,
        le=1000,
        description="Characters that neighbouring chunks share. A change needs `ingest.py --rebuild`.",
    )
    max_source_bytes: int = Field(
        200_000_000, ge=1_000, le=2_000_000_000, description="Largest file that is ingested or uploaded, in bytes."
    )
    parse_timeout_s: float = Field(120, gt=0, le=3600, description="Longest time to read one file, in seconds.")
    candidates: int = Field(50, ge=5, le=500, description="Chunks that each search hands to the reranker.")
    query_variants: int = Field(
        0, ge=0, le=5,
        description="How many other wordings of each question the chat model is asked for, to search for them too; one more call "
        "a turn. 0: none.",
    )  # fmt: skip
    top_k: int = Field(5, ge=1, le=50, description="Chunks kept after ranking.")
    top_n: int = Field(3, ge=1, le=20, description="How many of those the answer is made from.")
    neighbour_chars: int = Field(
        4000, ge=0, le=200_000,
        description="A chat model is also given the chunks before and after those, up to this many characters in all; 0: never.",
    )  # fmt: skip
    answer_from: float | None = Field(
        None, ge=0, le=1,
        description="Confidence that the documents hold an answer from which one is tried; 0: always. Unset: as calibrated on "
        "English questions (docs/citations.md).",
    )  # fmt: skip
    review_below: float = Field(
        0, ge=0, le=1,
        description="Marks answers that a person should look at: those below this confidence, and those that say what no source "
        "bears out, were made without a quarantined passage, or were cut (docs/citations.md). 0 marks none.",
    )  # fmt: skip
    retrieval_timeout_s: float = Field(10, gt=0, le=120, description="Deadline for retrieval, in seconds.")

    # --- threads ------------------------------------------------------------------------------
    redis_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_REDIS_URL", "REDIS_URL"),
        description="Keeps threads in Redis >= 6 or Valkey (`redis://`, `rediss://`, `redis+cluster://`, "
        "`redis+sentinel://`). Unset: SQLite in the data directory.",
    )
    thread_ttl_s: int = Field(
        86_400, ge=0, description="How long an unused thread is kept, in seconds; 0 keeps it for good."
    )
    thread_policy: Literal["queue", "reject", "replace"] = Field(
        "queue",
        description="What happens to a message to a thread that is being answered: it waits (`queue`), is refused with 409 (`reject`), or "
        "takes the place of the answer under way (`replace`).",
    )
    thread_wait_s: float = Field(120, gt=0, le=3600, description="Longest wait of a queued message, in seconds.")
    history_messages: int = Field(
        10,
        ge=0,
        le=200,
        description="How many of the newest messages go to the model as they are; a summary stands for older ones.",
    )
    history_tokens: int = Field(
        2000,
        ge=0,
        le=100_000,
        description="Most tokens those messages may have together, estimated at four characters each.",
    )

    # --- limits at the door -------------------------------------------------------------------
    max_question_chars: int = Field(5000, ge=1, le=100_000, description="Longest question, in characters.")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Largest request body or WebSocket frame, in bytes.")
    turn_timeout_s: float = Field(120, gt=0, le=3600, description="Deadline for a whole turn, in seconds.")

    # --- limits and money ---------------------------------------------------------------------
    requests_per_minute: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Questions, searches and uploads that a caller may send in any 60 seconds; 0 sets no limit.",
    )
    tokens_per_day: int = Field(
        0,
        ge=0,
        le=10**12,
        description="Tokens of chat models and hosted embeddings that a caller may use in a day (UTC); 0 sets no limit.",
    )
    budget_usd_per_day: float = Field(
        0, ge=0, le=1_000_000, description="Dollars that a caller may spend on both in a day (UTC); 0 sets no limit."
    )
    budget_model: str | None = Field(
        None,
        description="A cheaper `provider:model` that takes over when the chosen one no longer fits what is left of the day, or "
        "`extractive`, which quotes.",
    )
    prices: dict[str, tuple[float, float]] = Field(
        {},
        description='Dollars per million tokens, `{"provider:model": [input, output]}` (JSON), beside the list that ships.',
    )

    # --- answers given before ---------------------------------------------------------------------
    answer_cache_s: int = Field(
        0, ge=0, le=604_800,
        description="How long an answer is kept for others who ask the same of the same documents, in seconds; 0 keeps none.",
    )  # fmt: skip
    answer_cache_entries: int = Field(1000, ge=1, le=1_000_000, description="Most answers kept; the oldest goes first.")

    # --- who may ask --------------------------------------------------------------------------
    api_keys_file: Path | None = Field(
        None, description="File of API keys, one a line, as `python -m citewell.identity new --file` writes them."
    )
    jwt_jwks: str | None = Field(
        None, description="Public keys of the issuer of tokens (JWKS): an `https://` URL or a file. Unset: no tokens."
    )
    jwt_issuer: str | None = Field(None, description="What a token's `iss` must be.")
    jwt_audience: str | None = Field(None, description="What a token's `aud` must hold.")
    jwt_algorithms: tuple[str, ...] = Field(
        ("RS256", "ES256"), min_length=1, description="Algorithms a token may be signed with (JSON list)."
    )
    jwt_leeway_s: float = Field(30, ge=0, le=300, description="How far clocks may be apart, in seconds.")
    jwt_caller_claim: str = Field(
        "sub", min_length=1, description="Claim that names the caller; dots lead into objects."
    )
    jwt_access_claim: str = Field(
        "access",
        min_length=1,
        description="Claim that holds the caller's access labels: a list, or words with spaces between.",
    )
    wrong_keys_per_minute: int = Field(
        60,
        ge=0,
        le=100_000,
        description="Wrong keys or tokens from one address in any 60 seconds, in each worker, after which unknown ones from there "
        "get 429; 0 sets no limit.",
    )
    keyless: Literal["loopback", "anywhere"] = Field(
        "loopback",
        description="Who may ask while neither keys nor tokens are set: this machine only (`loopback`), or whoever reaches the "
        "service (`anywhere`).",
    )
    metrics_access: Literal["key", "open"] = Field(
        "key",
        description="Whether `/metrics` needs a key or token like other paths (`key`) or is open to all (`open`).",
    )
    api_key: SecretStr | None = Field(
        None,
        description="Key or token with which `citewell ask --url`, `citewell.client` and the chat page call a service.",
    )

    # --- guards -------------------------------------------------------------------------------
    injection_guard: Literal["on", "off"] = Field(
        "on", description="Scans questions and retrieved chunks for instructions aimed at the assistant."
    )
    pii_policy: Literal["allow", "redact", "refuse"] = Field(
        "allow",
        description="Personal data in questions, answers and quotes: let it through (`allow`), replace it by its kind, as `[email]` "
        "(`redact`), or refuse (`refuse`). Logs and traces are redacted whatever this says.",
    )
    pii_names: str = Field(
        "off",
        description="Whether names of people and places count as personal data too: `off`, or the name of an installed spaCy "
        "pipeline that finds them, such as `en_core_web_sm` (extra `names`).",
    )

    moderation: str = Field(
        "off",
        description="Judges the harm in questions and answers: `off`, or `openai:omni-moderation-latest` through "
        "`OPENAI_BASE_URL` and `OPENAI_API_KEY`. Answers are then shown only once they are complete.",
    )

    # --- the server ---------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="Address the service listens on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port the service listens on; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes. More than one needs a vector store server.")
    on_disconnect: Literal["cancel", "continue"] = Field(
        "cancel",
        description="When a client's connection drops, the answer under way ends (`cancel`), or goes on and can be resumed "
        "(`continue`).",
    )
    resume_s: float = Field(
        120,
        ge=1,
        le=86_400,
        description="With `continue`, an answer can be resumed for at least this long after its end, in seconds.",
    )
    drain_notice_s: float = Field(
        2,
        ge=0,
        le=300,
        description="After SIGTERM, readiness fails this long before new turns are refused, in seconds.",
    )
    drain_s: float = Field(
        20, ge=0, le=3600, description="How long turns under way may then go on before they are cut, in seconds."
    )
    uploads: Literal["on", "off"] = Field(
        "on", description="Whether callers may add documents through the service (`POST /uploads`)."
    )
    mcp: Literal["on", "off"] = Field(
        "off", description="Serves tools and documents to MCP clients at `/mcp` (extra `mcp`)."
    )
    cors_origins: tuple[str, ...] = Field((), description="Origins whose pages may call the service from a browser (JSON list).")  # fmt: skip
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Log lines as JSON or as text; `auto` is text on a terminal and JSON elsewhere."
    )
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("CITEWELL_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Sends OpenTelemetry traces (OTLP over HTTP) to `<this>/v1/traces`; for example `http://collector:4318` (extra `otel`).",
    )

    # --- the chat page ------------------------------------------------------------------------
    ui_service_url: str = Field(
        "http://127.0.0.1:8000", description="Where the chat page (`make ui`) finds the service."
    )
    ui_public_url: str | None = Field(
        None, description="Where a reader's browser finds the service, for opening documents. Unset: the same address."
    )
    ui_api_key: SecretStr | None = Field(
        None, description="Key or token with which the chat page calls the service. Unset: `CITEWELL_API_KEY`."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.chunk_overlap >= self.chunk_size:
            raise ValueError(
                f"chunk_overlap ({self.chunk_overlap}) must be smaller than chunk_size ({self.chunk_size})"
            )
        if self.top_n > self.top_k:
            raise ValueError(f"top_n ({self.top_n}) must not exceed top_k ({self.top_k})")
        if self.workers > 1 and self.vector_store == "chroma":
            raise ValueError(
                f"workers is {self.workers}, but the embedded Chroma belongs to one process: set CITEWELL_VECTOR_STORE "
                "to a Chroma server (chroma+http://host:port), Pinecone or Weaviate, or CITEWELL_WORKERS to 1"
            )
        if self.simple_model == EXTRACTIVE:
            raise ValueError("CITEWELL_SIMPLE_MODEL must be a provider:model; extractive is no model to ask")
        if self.moderation != "off" and not re.fullmatch(r"openai:\S+", self.moderation):
            raise ValueError("CITEWELL_MODERATION must be off or openai:MODEL, as openai:omni-moderation-latest")
        for name, url in (("OPENAI_BASE_URL", self.openai_base_url), ("CITEWELL_OTLP_ENDPOINT", self.otlp_endpoint)):
            if url and not _is_address(url):
                raise ValueError(
                    f"{name} must be an address that begins with http:// or https://, as http://127.0.0.1:8080"
                )
        self._check_store()
        self._check_tokens()
        return self

    @property
    def offered_models(self) -> tuple[str, ...]:
        """The models that a caller may choose, the one that answers unless told otherwise first, `extractive` among them."""
        return tuple(dict.fromkeys((self.chat_model, *self.chat_models, EXTRACTIVE)))

    @property
    def called_models(self) -> frozenset[str]:
        """All chat models that may be called, whether a caller chooses them or the settings do."""
        named = {*self.offered_models, self.budget_model, self.simple_model, *self.fallback_models}
        return frozenset(name for name in named if name and name != EXTRACTIVE)

    @property
    def is_keyless(self) -> bool:
        """Whether callers need neither a key nor a token."""
        return self.api_keys_file is None and self.jwt_jwks is None

    def _check_store(self) -> None:
        kind, _, place = self.vector_store.partition(":")
        if kind == "pinecone" and place:
            if self.pinecone_api_key is None:
                raise ValueError("CITEWELL_VECTOR_STORE names Pinecone: set PINECONE_API_KEY too")
        elif kind in ("chroma+http", "chroma+https", "weaviate+http", "weaviate+https"):
            if not _is_address(self.vector_store.partition("+")[2]):
                raise ValueError(f"CITEWELL_VECTOR_STORE: {kind}:// must be followed by host:port")
        elif self.vector_store != "chroma":
            raise ValueError(
                f"CITEWELL_VECTOR_STORE: no vector store is called {kind!r}; use chroma, chroma+http://host:port, "
                "pinecone:INDEX or weaviate+http://host:port"
            )

    def _check_tokens(self) -> None:
        if self.jwt_jwks is None:
            return
        if not self.jwt_issuer or not self.jwt_audience:
            raise ValueError("CITEWELL_JWT_JWKS needs CITEWELL_JWT_ISSUER and CITEWELL_JWT_AUDIENCE beside it")
        if unfit := [name for name in self.jwt_algorithms if name not in _SIGNATURES]:
            raise ValueError(
                f"jwt_algorithms: {unfit[0]} cannot be used with public keys; these can: {', '.join(_SIGNATURES)}"
            )
        if "://" in self.jwt_jwks and not _is_address(self.jwt_jwks):
            raise ValueError("CITEWELL_JWT_JWKS must be a file, or an address that begins with https://")
        url = urlsplit(self.jwt_jwks)
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("jwt_jwks: public keys that come over http could be anybody's; use https")

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Read the environment and `.env`.

        Raises:
            ConfigurationError: A value is out of range, or a `CITEWELL_` name is unknown; the message names it.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields}
        names = set(os.environ) | _names_in(Path(".env"))
        for name in sorted(names):
            if (
                name.upper().startswith(PREFIX)
                and name.upper() not in known
                and not name.startswith(("CITEWELL_TEST_", "CITEWELL_EVAL_"))
            ):
                near = difflib.get_close_matches(name.upper(), known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigurationError(f"{name} is not a setting{hint}")
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # validated by pydantic
        except ValidationError as exc:
            faults = "; ".join(
                f"{_setting(error['loc'])}{error['msg'].removeprefix('Value error, ')}" for error in exc.errors()
            )
            raise ConfigurationError(faults) from None  # pydantic's own text would repeat the values, secrets included

    def make_data_dir(self) -> None:
        """Make the data directory if there is none yet. Blocking.

        Raises:
            ConfigurationError: It cannot be made or written.
        """
        where = self.data_dir.absolute()
        try:
            where.mkdir(mode=0o700, parents=True, exist_ok=True)  # conversations lie there as they are
        except OSError as exc:
            raise ConfigurationError(f"CITEWELL_DATA_DIR: {where} cannot be made: {exc.strerror}") from None
        if not os.access(where, os.W_OK):
            raise ConfigurationError(f"CITEWELL_DATA_DIR: {where} cannot be written, not even to read the index in it")


def _is_address(url: str) -> bool:
    """Whether this is an http or https URL with a host and a port that a service can have."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number from 0 to 65535
        return False


def _setting(loc: tuple[int | str, ...]) -> str:
    if not loc:
        return ""
    name = str(loc[0])
    return f"{name if name.isupper() else PREFIX + name.upper()}: "


def _names_in(env_file: Path) -> set[str]:
    if not env_file.is_file():
        return set()
    lines = env_file.read_text(encoding="utf-8").splitlines()
    return {line.split("=", 1)[0].removeprefix("export ").strip() for line in lines if "=" in line and not line.lstrip().startswith("#")}  # fmt: skip
