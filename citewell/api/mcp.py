"""The MCP door: `/mcp` offers the tools `ask` and `search`, and the documents as resources, to assistants.

Streamable HTTP without sessions, so any worker answers any request. On with `CITEWELL_MCP=on`; needs the extra `mcp`,
so nothing may import this module otherwise.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote, unquote

import mcp_types as types
from fastapi import FastAPI, Request
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Route

from citewell import __version__
from citewell.api.problems import to_problem
from citewell.api.requests import identity_of, run_context
from citewell.api.sources import SearchHit, caller_may_read
from citewell.citations import Citation
from citewell.errors import SourceNotFound
from citewell.service import Service
from citewell.settings import Settings

PATH = "/mcp"
MOST_CHARS = 4_000_000
"""Longest text that is given as a resource: more than an assistant can read."""
SCHEME = "citewell://source/"
"""A resource's URI is this and the source's uri, percent-encoded."""
_INSTRUCTIONS = (
    "Answers from the owner's documents. `ask` returns an answer whose every sentence names a passage and says whether "
    "it was checked; `search` returns passages to read yourself; resources are the documents' texts."
)
Context = ServerRequestContext[Any]


class Ask(BaseModel):
    """Answer a question from the documents, with a checked citation behind every sentence."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(description="A question in plain words.")
    thread_id: str | None = Field(None, description="Conversation to go on with; null starts one.")
    filter: dict[str, Any] | None = Field(None, description="Only these documents, as {'type': 'pdf'}.")
    trace: bool = Field(False, description="Whether metadata.trace says why these passages.")


class Search(BaseModel):
    """Find passages of the documents by meaning and by words."""

    model_config = ConfigDict(extra="forbid")
    query: str = Field(description="A question, or words to look for.")
    limit: int = Field(5, ge=1, le=50, description="Most passages to return.")
    filter: dict[str, Any] | None = Field(None, description="Only these documents, as {'type': 'pdf'}.")


class Answered(BaseModel):
    answer: str
    citations: Sequence[Citation] = Field(
        description="The passage behind each [n], and whether it supports the sentence."
    )
    thread_id: str = Field(description="Give it back to go on with the conversation.")
    metadata: dict[str, Any] = Field(
        description="Who answered and how sure it is, whether it was cut or refused, usage."
    )


class Passages(BaseModel):
    passages: list[SearchHit] = Field(description="Best first.")


class Door:
    """Answers the protocol's requests."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.service  # opened by the lifespan
        return service

    async def list_tools(self, _: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool("ask", Ask, Answered), _tool("search", Search, Passages)])

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Run a tool. A fault is a result too, which the assistant can read and react to."""
        try:
            match params.name:
                case "ask":
                    return await self._ask(context, Ask.model_validate(params.arguments or {}))
                case "search":
                    return await self._search(context, Search.model_validate(params.arguments or {}))
        except Exception as exc:  # noqa: BLE001  # to_problem logs what is not ours; the assistant gets words
            problem = to_problem(exc)
            return _result(f"{problem.title}: {problem.detail} ({problem.code})", None, is_error=True)
        raise MCPError(code=types.INVALID_PARAMS, message=f"There is no tool {params.name!r}.")

    async def _ask(self, context: Context, call: Ask) -> types.CallToolResult:
        turn = self._service.prepare(
            call.question,
            thread_id=call.thread_id,
            context=run_context({"filter": call.filter, "trace": call.trace}, identity_of(_request(context))),
        )
        result = await self._service.ask(turn)
        answered = Answered(
            answer=result.answer, citations=result.citations, thread_id=result.thread_id,
            metadata=result.metadata | {"usage": result.usage},
        )  # fmt: skip
        sources = [
            f"[{citation['marker']}] {citation['status']}: “{citation['quote']}” ({citation['title']}, {citation['source']}"
            + (f", page {citation['page']}" if citation["page"] else "")
            + "".join(f"; also in {uri}" for uri in citation.get("also_in", ()))
            + ")"
            for citation in result.citations
        ]
        cut = ["(The answer was cut: it had reached its longest length.)"] if result.metadata.get("truncated") else []
        # many assistants are shown the text alone
        thread = f"thread_id, to go on with the conversation: {result.thread_id}"
        parts = ("\n".join([result.answer, *cut]), "\n".join(sources), thread)
        return _result("\n\n".join(filter(None, parts)), answered)

    async def _search(self, context: Context, call: Search) -> types.CallToolResult:
        chosen = run_context({"filter": call.filter, "top_k": call.limit}, identity_of(_request(context)))
        found = await self._service.search(self._service.prepare(call.query, context=chosen, history=()))
        if found.blocked:
            return _result(f"The question was refused by a guard: {found.blocked}.", None, is_error=True)
        passages = Passages(passages=[SearchHit.of(one) for one in found.chunks])
        text = "\n\n".join(f"{hit.title} ({hit.source}), {hit.score:.2f}:\n{hit.text}" for hit in passages.passages)
        return _result(text or "Nothing was found.", passages)

    async def list_resources(
        self, context: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        resources = [
            types.Resource(
                uri=SCHEME + quote(source.uri), name=source.uri, title=source.title, mime_type="text/plain",
                description=f"The extracted text of a {source.type} document.",
            )
            for source in await self._service.index.sources()
            if caller_may_read(_request(context), source)
        ]  # fmt: skip
        return types.ListResourcesResult(resources=resources, cache_scope="private")

    async def list_resource_templates(
        self, _: Context, __: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        """None: every document is listed. Programs ask for both lists, and show a fault where there is no second one."""
        return types.ListResourceTemplatesResult(resource_templates=[])

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        name = unquote(str(params.uri).removeprefix(SCHEME))
        try:
            source = await self._service.index.source(name)
            if not caller_may_read(_request(context), source):
                raise SourceNotFound
            text = await self._service.index.text(name, 0, MOST_CHARS + 1)
        except SourceNotFound:
            raise MCPError(code=types.INVALID_PARAMS, message=f"No document is called {name!r:.200}.") from None
        if len(text) > MOST_CHARS:
            raise MCPError(
                code=types.INVALID_PARAMS,
                message=f"The document has more than {MOST_CHARS:,} characters, too many to be read whole. Search it.",
            )
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=params.uri, mime_type="text/plain", text=text)],
            cache_scope="private",
        )


def install(app: FastAPI, settings: Settings) -> AbstractAsyncContextManager[None]:
    """Add the route. The returned context must be open while the application serves."""
    door = Door(app)
    server: Server[Any] = Server(
        "citewell", title="Citewell", version=__version__, instructions=_INSTRUCTIONS,
        on_list_tools=door.list_tools, on_call_tool=door.call_tool,
        on_list_resources=door.list_resources, on_list_resource_templates=door.list_resource_templates, on_read_resource=door.read_resource,
    )  # fmt: skip
    server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=settings.max_body_bytes,
        # Who may call, from where and by which name, is found out for all doors alike.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    # Without sessions nothing is ever sent on the stream that a GET would open, and a shutdown would have to cut it.
    app.router.routes.append(Route(PATH, StreamableHTTPASGIApp(server.session_manager), methods=["POST"]))
    return server.session_manager.run()


def _request(context: Context) -> Request:
    assert isinstance(context.request, Request), "every request of this door comes over HTTP"
    return context.request


def _tool(name: str, takes: type[BaseModel], gives: type[BaseModel]) -> types.Tool:
    return types.Tool(
        name=name,
        title=f"{name.capitalize()} the documents",
        description=takes.__doc__,
        input_schema=takes.model_json_schema(),
        output_schema=gives.model_json_schema(),
        annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _result(text: str, structured: BaseModel | None, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        structured_content=structured.model_dump(mode="json") if structured else None,
        is_error=is_error,
    )
