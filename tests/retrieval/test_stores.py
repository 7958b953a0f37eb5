"""One contract for every vector store: embedded Chroma, a real Chroma server, Pinecone and Weaviate.

Pinecone and Weaviate are stand-ins here (`stand_ins/`); with PINECONE_API_KEY or CITEWELL_TEST_WEAVIATE_URL set, the
real ones take the same tests besides.
"""

import inspect
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import chromadb.errors
import grpc
import httpx
import numpy as np
import pinecone.exceptions
import pytest
import weaviate.exceptions
from chromadb.utils.embedding_functions import known_embedding_functions

from citewell.documents import Source
from citewell.errors import ConfigurationError, MissingExtra, StoreError, StoreTimeout, StoreUnavailable
from citewell.retrieval import open_index, stores
from citewell.retrieval.filters import holds, parse
from citewell.retrieval.stores import VectorStore, open_store
from citewell.retrieval.stores import chroma as chroma_store
from citewell.retrieval.stores import pinecone as pinecone_store
from citewell.retrieval.stores import weaviate as weaviate_store
from tests.chroma_server import chroma_process
from tests.retrieval.samples import HashedWords, made, settings
from tests.retrieval.stand_ins.pinecone import PineconeStandIn
from tests.retrieval.stand_ins.proxy import Proxy
from tests.retrieval.stand_ins.weaviate import WeaviateStandIn

Opened = Callable[[str], VectorStore]
STORES = ["chroma", "chroma+http", "pinecone stand-in", "weaviate stand-in"]
if os.environ.get("PINECONE_API_KEY"):
    STORES.append("pinecone")
if os.environ.get("CITEWELL_TEST_WEAVIATE_URL"):
    STORES.append("weaviate")


@pytest.fixture(scope="module")
def pinecone_stand_in() -> Iterator[PineconeStandIn]:
    server = PineconeStandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def weaviate_stand_in() -> Iterator[WeaviateStandIn]:
    server = WeaviateStandIn()
    yield server
    server.close()


@pytest.fixture(params=STORES)
def described(request: pytest.FixtureRequest) -> dict[str, object]:
    """The settings that name the store."""
    match request.param:
        case "chroma":
            return {"vector_store": "chroma"}
        case "chroma+http":
            return {"vector_store": f"chroma+{request.getfixturevalue('chroma_server')}"}
        case "pinecone stand-in":
            server = request.getfixturevalue("pinecone_stand_in")
            return {"vector_store": f"pinecone:documents@http://{server.address}", "pinecone_api_key": server.api_key}
        case "weaviate stand-in":
            return {"vector_store": f"weaviate+{request.getfixturevalue('weaviate_stand_in').url}"}
        case "pinecone":
            return {"vector_store": "pinecone:citewell-tests", "pinecone_api_key": os.environ["PINECONE_API_KEY"]}
        case _:
            return {"vector_store": f"weaviate+{os.environ['CITEWELL_TEST_WEAVIATE_URL']}"}


@pytest.fixture
def opened(described: dict[str, object], tmp_path: Path) -> Iterator[Opened]:
    """Opens the store under a namespace; what was opened is emptied and closed."""
    run, all_opened = uuid.uuid4().hex[:8], []

    def opened(namespace: str) -> VectorStore:
        store = open_store(
            settings(tmp_path, **described), namespace=f"{namespace}-{run}", folder=tmp_path / namespace, dimension=384
        )
        all_opened.append(store)
        return store

    yield opened
    for store in all_opened:
        store.drop()
        store.close()


@pytest.fixture
def store(opened: Opened) -> VectorStore:
    return opened("store")


def eventually(search: Callable[[], list[tuple[int, float]]], keys: set[int]) -> list[tuple[int, float]]:
    """Real services show a write some time after it: wait for these keys, at most 30 seconds."""
    deadline = time.monotonic() + 30
    found = search()
    while {key for key, _ in found} != keys and time.monotonic() < deadline:
        time.sleep(0.2)
        found = search()
    assert {key for key, _ in found} == keys
    return found


def vectors(*texts: str) -> np.ndarray:
    return HashedWords().encode(texts).vectors


def test_what_was_added_is_found_nearest_first_with_scores_of_cosine(store: VectorStore) -> None:
    texts = ["red green blue", "red green", "red", "yellow"]
    store.add([1, 2, 3, 4], vectors(*texts), made("a.txt", texts).chunks)
    query = vectors("red green blue")[0]
    found = eventually(lambda: store.search(query, 10), {1, 2, 3, 4})
    expected = (1 + vectors(*texts) @ query) / 2
    assert [key for key, _ in found] == [1 + int(n) for n in np.argsort(-expected)]
    assert [score for _, score in found] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
    assert all(0 <= score <= 1 for _, score in found)
    assert [key for key, _ in store.search(query, 2)] == [1, 2]


def test_opposite_vectors_score_nought_and_equal_ones_one(store: VectorStore) -> None:
    vector = vectors("anything")
    store.add([1, 2], np.concatenate([vector, -vector]), made("a.txt", ["one", "two"]).chunks)
    found = eventually(lambda: store.search(vector[0], 5), {1, 2})
    assert [score for _, score in found] == pytest.approx([1, 0], abs=1e-4)


def test_a_store_that_is_there_can_be_reached(store: VectorStore) -> None:
    store.ping()


def test_adding_again_overwrites(store: VectorStore) -> None:
    chunks = made("a.txt", ["old", "new"]).chunks
    store.add([7], vectors("old"), chunks[:1])
    eventually(lambda: store.search(vectors("old")[0], 5), {7})
    store.add([7], vectors("new"), chunks[1:])
    deadline = time.monotonic() + 30
    while (found := store.search(vectors("new")[0], 5))[0][1] < 0.99 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == [(7, pytest.approx(1, abs=1e-4))]


def test_deleting_leaves_the_rest_and_unknown_keys_are_no_error(store: VectorStore) -> None:
    store.delete([99])
    texts = [f"word{n}" for n in range(5)]
    store.add(range(5), vectors(*texts), made("a.txt", texts).chunks)
    query = vectors("word0 word1 word2 word3 word4")[0]
    eventually(lambda: store.search(query, 10), {0, 1, 2, 3, 4})
    store.delete([1, 3, 99])
    eventually(lambda: store.search(query, 10), {0, 2, 4})
    store.delete([])


def test_more_than_a_batch_at_once_is_taken(store: VectorStore) -> None:
    count = 1100
    drawn = np.random.default_rng(0).standard_normal((count, 384)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    chunks = made("a.txt", ["same"]).chunks * count
    store.add(range(count), drawn, chunks)
    for key in (0, 550, 1099):
        deadline = time.monotonic() + 30
        while (found := store.search(drawn[key], 1)) and found[0][0] != key and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found[0] == (key, pytest.approx(1, abs=1e-3))
    store.delete(range(count))
    eventually(lambda: store.search(drawn[0], 10), set())


FILTERS: list[dict[str, object]] = [
    {"source": "b.md"}, {"source": {"$ne": "b.md"}}, {"source": {"$in": ["a.md", "c.md"]}},
    {"source": {"$nin": ["a.md", "c.md"]}}, {"title": "Title with 'quotes' and spaces"}, {"type": ["pdf", "txt"]},
    {"date": "2024-02-29"}, {"date": {"$gte": "2024"}}, {"date": {"$lt": "2024"}}, {"date": {"$exists": False}},
    {"date": {"$in": ["2023", "2025"]}}, {"date": {"$nin": ["2023", "2025"]}},
    {"tags": "legal"}, {"tags": {"$ne": "legal"}}, {"tags": {"$in": ["draft", "ä"]}}, {"tags": {"$nin": ["draft", "ä"]}},
    {"type": "md", "tags": "legal"}, {"$or": [{"type": "pdf"}, {"$not": {"tags": "legal"}}]},
    {"$not": {"$and": [{"type": "md"}, {"date": {"$gt": "2023-06"}}]}},
]  # fmt: skip


def test_every_filter_finds_exactly_what_it_says(store: VectorStore) -> None:
    known: dict[int, Source] = {}
    chunks = []
    tags, dates = [(), ("legal",), ("draft", "legal"), ("ä",)], [None, "2023", "2024-02-29", "2025"]
    for key in range(24):
        new = made(
            ["a.md", "b.md", "c.md"][key % 3], ["evidence"], type=["md", "pdf", "txt"][key // 8], date=dates[key % 4],
            tags=tags[(key // 3) % 4], title=["Plain", "Title with 'quotes' and spaces"][key % 2],
        )  # fmt: skip
        known[key] = new.source
        chunks.append(new.chunks[0])
    store.add(list(known), vectors(*["evidence"] * len(known)), chunks)
    query = vectors("evidence")[0]
    eventually(lambda: store.search(query, 100), set(known))
    for where in FILTERS:
        tree = parse(where)
        assert tree is not None
        expected = {key for key, source in known.items() if holds(tree, source)}
        assert 0 < len(expected) < len(known), where
        assert {key for key, _ in store.search(query, 100, tree)} == expected, where


def test_namespaces_do_not_see_each_other_and_one_can_be_dropped(opened: Opened) -> None:
    one, other = opened("one"), opened("other")
    chunks = made("a.txt", ["same", "same"]).chunks
    one.add([1], vectors("same"), chunks[:1])
    other.add([1, 2], vectors("same", "same"), chunks)
    eventually(lambda: one.search(vectors("same")[0], 10), {1})
    eventually(lambda: other.search(vectors("same")[0], 10), {1, 2})
    one.drop()
    again = opened("one")
    eventually(lambda: again.search(vectors("same")[0], 10), set())
    eventually(lambda: other.search(vectors("same")[0], 10), {1, 2})


async def test_the_whole_index_works_over_it(described: dict[str, object], tmp_path: Path) -> None:
    chosen = settings(tmp_path, namespace=f"tests-{uuid.uuid4().hex[:8]}", **described)
    async with open_index(chosen, HashedWords()) as index:
        async with index.writing():
            await index.replace_sources([made("a.txt", ["cats sleep", "dogs bark"]), made("b.txt", ["moon shines"])])
        async with index.writing():
            await index.replace_sources([made("a.txt", ["cats sleep long", "birds sing"])])
        found = await index.search("cats sleep dogs birds", where={"source": "a.txt"}, access=frozenset({"public"}))
        assert {one.chunk.text for one in found} == {"cats sleep long", "birds sing"}
        ranked = await index.rerank("cats sleep", await index.search("cats sleep"), top_k=1)
        assert ranked[0].chunk.text == "cats sleep long"
        async with index.rebuilding() as fresh:
            await fresh.replace_sources([made("c.txt", ["only this"])])
        assert {one.chunk.text for one in await index.search("cats only this")} == {"only this"}
        async with index.rebuilding() as fresh:
            pass
        async with index.writing():
            pass


# --- faults ---------------------------------------------------------------------------------------


def public_exceptions(module: ModuleType) -> list[type[BaseException]]:
    found = [each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, Exception)]
    return [each for each in found if each.__module__.split(".")[0] == module.__name__.split(".")[0]]


@pytest.mark.parametrize(
    ("module", "table"),
    [
        (chromadb.errors, chroma_store.FAULTS), (pinecone.exceptions, pinecone_store.FAULTS),
        (weaviate.exceptions, weaviate_store.FAULTS),
    ],
    ids=["chroma", "pinecone", "weaviate"],
)  # fmt: skip
def test_every_public_exception_of_the_vendor_is_in_the_table(module: ModuleType, table: Any) -> None:
    exceptions = public_exceptions(module)
    assert len(exceptions) > 8
    assert [each for each in exceptions if not issubclass(each, tuple(table))] == []


def test_chroma_finds_nearly_all_that_an_exact_search_finds(tmp_path: Path) -> None:
    """Each build gives another graph: what is found is the same again only as far as it is what an exact search finds."""
    count, limit = 3000, 50
    drawn = np.random.default_rng(0).standard_normal((count, 384)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    store = open_store(settings(tmp_path), namespace="namespace", folder=tmp_path, dimension=384)
    store.add(range(count), drawn, made("a.txt", ["same"]).chunks * count)
    found = [{key for key, _ in store.search(query, limit)} for query in drawn[:100]]
    exact = [set(np.argsort(-(drawn @ query))[:limit].tolist()) for query in drawn[:100]]
    store.close()
    assert sum(len(a & b) for a, b in zip(found, exact, strict=True)) > 0.98 * 100 * limit


def test_a_chroma_server_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    chosen = settings(tmp_path, vector_store="chroma+http://127.0.0.1:9")
    with pytest.raises(StoreError) as caught:
        open_store(chosen, namespace="namespace", folder=tmp_path, dimension=384)
    assert "127.0.0.1" not in caught.value.detail


def test_no_embedding_function_is_built_that_a_chroma_server_names(
    chroma_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[dict[str, Any]] = []

    class Named:
        build_from_config = built.append

    monkeypatch.setitem(known_embedding_functions, "named", Named)
    name = f"named-{uuid.uuid4().hex[:8]}"
    function = {"type": "known", "name": "named", "config": {"trust_remote_code": True}}
    database = f"{chroma_server}/api/v2/tenants/default_tenant/databases/default_database"
    made_there = {"name": name, "configuration": {"embedding_function": function, "hnsw": {"space": "cosine"}}}
    assert httpx.post(f"{database}/collections", json=made_there).is_success
    store = open_store(
        settings(tmp_path, vector_store=f"chroma+{chroma_server}"), namespace=name, folder=tmp_path, dimension=384
    )
    store.add([1, 2], vectors("red", "blue"), made("a.txt", ["red", "blue"]).chunks)
    assert store.search(vectors("blue")[0], 1) == [(2, pytest.approx(1, abs=1e-4))]
    store.delete([1])
    store.drop()
    store.close()
    assert not built


def test_a_chroma_server_that_dies_later_is_unavailable(tmp_path: Path) -> None:
    with chroma_process(tmp_path / "server") as (url, process):
        chosen = settings(tmp_path, vector_store=f"chroma+{url}")
        store = open_store(chosen, namespace="mortal", folder=tmp_path, dimension=384)
        store.add([1], vectors("red"), made("a.txt", ["red"]).chunks)
        store.ping()
        process.kill()
        process.wait()
        for call in (store.ping, lambda: store.search(vectors("red")[0], 1), lambda: store.delete([1]), store.drop):
            with pytest.raises(StoreUnavailable):
                call()
        with pytest.raises(StoreUnavailable):
            open_store(chosen, namespace="mortal", folder=tmp_path, dimension=384)


@pytest.fixture
def proxy(chroma_server: str) -> Iterator[Proxy]:
    proxy = Proxy(chroma_server)
    yield proxy
    proxy.close()


def test_a_proxys_refusals_are_faults_of_the_store_and_reads_are_tried_again(proxy: Proxy, tmp_path: Path) -> None:
    chosen = settings(tmp_path, vector_store=f"chroma+{proxy.url}")

    def opened() -> VectorStore:
        return open_store(chosen, namespace=f"proxied-{proxy.url[-4:]}", folder=tmp_path, dimension=384)

    def search() -> list[tuple[int, float]]:
        return store.search(vectors("red")[0], 1)

    store = opened()
    store.add([1], vectors("red"), made("a.txt", ["red"]).chunks)
    for status, ours in (
        (502, StoreUnavailable),
        (503, StoreUnavailable),
        (403, ConfigurationError),
        (404, StoreError),
    ):
        proxy.status = status
        for call in (
            lambda: store.add([2], vectors("green"), made("a.txt", ["green"]).chunks),
            lambda: store.delete([2]), store.drop, store.ping, opened, search,
        ):  # fmt: skip
            proxy.refusals = 3
            with pytest.raises(ours) as caught:
                call()
            assert type(caught.value) is ours
            assert "secret" not in str(caught.value)
    proxy.status, proxy.refusals = 503, 2
    assert [key for key, _ in search()] == [1]
    proxy.refusals = 0
    store.drop()
    store.close()


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        (400, StoreError),
        (401, ConfigurationError),
        (403, ConfigurationError),
        (404, StoreError),
        (501, StoreUnavailable),
    ],
)
def test_pinecone_refusals_become_our_errors_without_its_words(
    pinecone_stand_in: PineconeStandIn, tmp_path: Path, status: int, ours: type[Exception]
) -> None:
    chosen = settings(
        tmp_path,
        vector_store=f"pinecone:documents@http://{pinecone_stand_in.address}",
        pinecone_api_key=pinecone_stand_in.api_key,
    )
    store = open_store(chosen, namespace="faults", folder=tmp_path, dimension=384)
    pinecone_stand_in.refuse_with = status
    try:
        with pytest.raises(ours) as caught:
            store.search(vectors("x")[0], 5)
    finally:
        pinecone_stand_in.refuse_with = None
    assert type(caught.value) is ours
    assert "secret" not in str(caught.value)


def test_a_pinecone_index_of_another_dimension_is_refused(pinecone_stand_in: PineconeStandIn, tmp_path: Path) -> None:
    chosen = settings(
        tmp_path,
        vector_store=f"pinecone:narrow@http://{pinecone_stand_in.address}",
        pinecone_api_key=pinecone_stand_in.api_key,
    )
    open_store(chosen, namespace="narrow", folder=tmp_path, dimension=128)
    with pytest.raises(ConfigurationError, match="128 dimensions"):
        open_store(chosen, namespace="narrow", folder=tmp_path, dimension=384)


def test_a_pinecone_index_is_made_where_the_settings_say(pinecone_stand_in: PineconeStandIn, tmp_path: Path) -> None:
    def opened(place: str) -> None:
        value = f"pinecone:{place.replace('@', f'@http://{pinecone_stand_in.address}')}"
        chosen = settings(tmp_path, vector_store=value, pinecone_api_key=pinecone_stand_in.api_key)
        open_store(chosen, namespace="place", folder=tmp_path, dimension=384)

    opened("usual@")
    opened("elsewhere@?cloud=gcp&region=europe-west4")
    made = {name: index["spec"]["serverless"] for name, index in pinecone_stand_in.indexes.items()}
    assert (made["usual"]["cloud"], made["usual"]["region"]) == ("aws", "us-east-1")
    assert (made["elsewhere"]["cloud"], made["elsewhere"]["region"]) == ("gcp", "europe-west4")
    for wrong in ("odd@?zone=b", "odd@?region"):
        with pytest.raises(ConfigurationError, match="only cloud and region"):
            opened(wrong)


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        (grpc.StatusCode.INTERNAL, StoreError),
        (grpc.StatusCode.PERMISSION_DENIED, ConfigurationError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StoreError),
    ],
)
def test_weaviate_refusals_become_our_errors_without_its_words(
    weaviate_stand_in: WeaviateStandIn, tmp_path: Path, status: grpc.StatusCode, ours: type[Exception]
) -> None:
    chosen = settings(tmp_path, vector_store=f"weaviate+{weaviate_stand_in.url}")
    store = open_store(chosen, namespace="faults", folder=tmp_path, dimension=384)
    weaviate_stand_in.refuse_with = status
    try:
        with pytest.raises(ours) as caught:
            store.search(vectors("x")[0], 5)
    finally:
        weaviate_stand_in.refuse_with = None
    assert "secret" not in str(caught.value)
    store.close()


def test_vectors_that_weaviate_did_not_take_are_an_error(weaviate_stand_in: WeaviateStandIn, tmp_path: Path) -> None:
    chosen = settings(tmp_path, vector_store=f"weaviate+{weaviate_stand_in.url}")
    store = open_store(chosen, namespace="dropped", folder=tmp_path, dimension=384)
    weaviate_stand_in.drop_objects = True
    try:
        with pytest.raises(StoreError, match="did not take 1 of 1"):
            store.add([1], vectors("x"), made("a.txt", ["x"]).chunks)
    finally:
        weaviate_stand_in.drop_objects = False
    store.close()


async def test_a_store_whose_extra_is_missing_names_it_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    chosen = settings(tmp_path, vector_store="weaviate+http://127.0.0.1:1")
    with pytest.raises(MissingExtra, match=r"citewell\[weaviate\]"):
        async with open_index(chosen, HashedWords()):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_timeout_is_told_apart_from_a_store_that_is_gone() -> None:
    with pytest.raises(StoreTimeout), chroma_store.mapped(chroma_store.FAULTS, "Chroma"):
        raise httpx.ReadTimeout("slow")


def test_numpy_is_whole_before_a_store_brings_parts_of_it(tmp_path: Path) -> None:
    """A thread that loads the embedding model at the same time would come upon it half made."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom citewell.retrieval.stores import open_store\n"
        "from citewell.settings import Settings\n"
        "class Watch:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n            print('chromadb' in sys.modules)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "open_store(Settings(_env_file=None), namespace='numbers', folder=Path(sys.argv[1]), dimension=3).close()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]
