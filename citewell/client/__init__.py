"""A small client of the service, blocking (`Client`) and asynchronous (`AsyncClient`).

    with Client("http://127.0.0.1:8000") as citewell:
        for event in citewell.stream("How high is the tower?"):
            print(event.text if isinstance(event, Answer) else event, end="")

It uses only HTTP and imports nothing of the server, so this folder can be copied elsewhere; it needs httpx.
Every failure raises `ServiceError`.
"""

from .awaited import AsyncClient
from .blocking import Client
from .values import (
    Answer,
    Citation,
    Conversation,
    Feedback,
    Found,
    Hit,
    Ingested,
    Message,
    Options,
    Passage,
    Progress,
    Rating,
    ServiceError,
    Source,
    Statistics,
    Status,
    Thread,
    ThreadList,
)  # fmt: skip

__all__ = [
    "Answer",
    "AsyncClient",
    "Citation",
    "Client",
    "Conversation",
    "Feedback",
    "Found",
    "Hit",
    "Ingested",
    "Message",
    "Options",
    "Passage",
    "Progress",
    "Rating",
    "ServiceError",
    "Source",
    "Statistics",
    "Status",
    "Thread",
    "ThreadList",
]
