"""Turns the exceptions of chat models' client libraries into our errors.

The tables name classes by `package.Class`, so that they need no vendor's library. The nearest base class that is in a table decides.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError

from citewell.errors import (
    BudgetExceeded,
    CircuitOpen,
    CitewellError,
    ContextOverflow,
    ModelError,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
)

Fault = type[CitewellError]

OPENAI: Mapping[str, Fault] = {
    "openai.APITimeoutError": ModelTimeout,
    "openai.APIConnectionError": ModelUnavailable,
    "openai.InternalServerError": ModelUnavailable,
    "openai.ConflictError": ModelUnavailable,
    "openai.RateLimitError": RateLimited,
    "openai.BadRequestError": ModelRefused,
    "openai.AuthenticationError": ModelRefused,
    "openai.OAuthError": ModelRefused,
    "openai.PermissionDeniedError": ModelRefused,
    "openai.NotFoundError": ModelRefused,
    "openai.UnprocessableEntityError": ModelRefused,
    "openai.ContentFilterFinishReasonError": ModelRefused,
    "openai.SubjectTokenProviderError": ModelRefused,
    "openai.APIStatusError": ModelError,
    "openai.APIResponseValidationError": ModelError,
    "openai.LengthFinishReasonError": ModelError,
    "openai.InvalidWebhookSignatureError": ModelError,
    "openai.WebSocketConnectionClosedError": ModelUnavailable,
    "openai.WebSocketQueueFullError": ModelUnavailable,
    "openai.APIError": ModelError,
    "openai.OpenAIError": ModelError,
    "langchain_openai.OpenAIRefusalError": ModelRefused,
}
ANTHROPIC: Mapping[str, Fault] = {
    "anthropic.APITimeoutError": ModelTimeout,
    "anthropic.DeadlineExceededError": ModelTimeout,
    "anthropic.GatewayTimeoutError": ModelTimeout,
    "anthropic.RequestTimeoutError": ModelTimeout,
    "anthropic.APIConnectionError": ModelUnavailable,
    "anthropic.InternalServerError": ModelUnavailable,
    "anthropic.ConflictError": ModelUnavailable,
    "anthropic.RateLimitError": RateLimited,
    "anthropic.ContentTooLargeError": ContextOverflow,
    "anthropic.RequestTooLargeError": ContextOverflow,
    "anthropic.BadRequestError": ModelRefused,
    "anthropic.AuthenticationError": ModelRefused,
    "anthropic.CredentialsError": ModelRefused,
    "anthropic.PaymentRequiredError": ModelRefused,
    "anthropic.PermissionDeniedError": ModelRefused,
    "anthropic.NotFoundError": ModelRefused,
    "anthropic.UnprocessableEntityError": ModelRefused,
    "anthropic.APIError": ModelError,
    "anthropic.AnthropicError": ModelError,
}
OTHERS: Mapping[str, Fault] = {
    "ollama.ResponseError": ModelError,  # a status decides, below
    "ollama.RequestError": ModelError,
    # langchain-core's own classes, which provider packages raise as well
    "langchain_core.ModelTimeoutError": ModelTimeout,
    "langchain_core.ModelConnectionError": ModelUnavailable,
    "langchain_core.ModelAPIError": ModelUnavailable,
    "langchain_core.ModelRateLimitError": RateLimited,
    "langchain_core.ModelAuthenticationError": ModelRefused,
    "langchain_core.ModelPermissionDeniedError": ModelRefused,
    "langchain_core.ModelInvalidRequestError": ModelRefused,
    "langchain_core.ModelNotFoundError": ModelRefused,
    "langchain_core.ModelError": ModelError,
    # transports; some SDKs use httpx, some its successor
    "httpx.TimeoutException": ModelTimeout,
    "httpx.HTTPError": ModelUnavailable,
    "httpx2.TimeoutException": ModelTimeout,
    "httpx2.HTTPError": ModelUnavailable,
    "ssl.SSLError": ModelUnavailable,
    "anyio.EndOfStream": ModelUnavailable,
    "builtins.TimeoutError": ModelTimeout,
    "builtins.ConnectionError": ModelUnavailable,
}
AIOHTTP: Mapping[str, Fault] = {
    "aiohttp.ServerTimeoutError": ModelTimeout,
    "aiohttp.ClientError": ModelUnavailable,
}
"""Exceptions of the transport under OpenAI's client, which are looked for among the causes: the layer in between reports a refused or
broken connection as a timeout, and passes some exceptions unchanged."""
_FAULTS: Mapping[str, Fault] = {**OPENAI, **ANTHROPIC, **OTHERS, **AIOHTTP}
_NEVER_REACHED = {
    "aiohttp.ClientConnectorError", "aiohttp.ConnectionTimeoutError",
    "httpx.ConnectError", "httpx.ConnectTimeout", "httpx.PoolTimeout",
    "httpx2.ConnectError", "httpx2.ConnectTimeout", "httpx2.PoolTimeout",
}  # fmt: skip
"""Exceptions by which no request was sent. If aiohttp's are among the causes, only those count, see above."""

_BY_STATUS: Mapping[int, tuple[Fault, str]] = {
    401: (ModelRefused, "The model's provider does not accept this service's key."),
    402: (ModelRefused, "The account at the model's provider has no credit left."),
    403: (ModelRefused, "This service's key may not use the model."),
    404: (ModelRefused, "The model's provider has no such model, or its address is wrong."),
    408: (ModelTimeout, ""),
    413: (ContextOverflow, ""),
    429: (RateLimited, "The model's provider takes no more requests just now."),
    504: (ModelTimeout, ""),
}

_LIBRARY = re.compile(r"(?:langchain\w*|openai|anthropic|ollama|httpx2?|pydantic|json)(?:\.|\Z)")
"""Modules that parse answers."""
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (window|size|length)|prompt is too long"
    r"|input tokens exceed",
    re.IGNORECASE,
)
"""Messages of OpenAI, llama.cpp, vLLM, Anthropic and Ollama for a prompt that is too long, for which none has a status."""


@contextmanager
def map_model_errors() -> Iterator[None]:
    """Turn what a chat model's client raises into our errors; also usable around an `async for` over a stream.

    Raises:
        ContextOverflow: The prompt does not fit.
        RateLimited: With the provider's `retry_after_s`.
        ModelTimeout, ModelUnavailable: Another attempt may succeed.
        ModelRefused: The key, the model's name or the request is at fault.
        ModelError: Anything else that a provider's library raises, deliberately or because it cannot parse the answer.
    """
    try:
        yield
    except Exception as exc:  # those that are not a client library's pass unchanged
        error = translate(exc)
        if error is None:
            raise
        raise error from exc


def translate(exc: Exception) -> CitewellError | None:
    """Our error for a client library's exception; None for any other exception."""
    if isinstance(exc, CitewellError):
        return None
    fault = _fault(exc, _FAULTS) or (ModelError if _is_stumble(exc) else None)
    if fault is None:
        return None
    fault = next((found for cause in _causes(exc) if (found := _fault(cause, AIOHTTP))), fault)
    status = getattr(exc, "status_code", None)
    status = status if isinstance(status, int) else None
    if isinstance(exc, ContextOverflowError) or (status in (400, 413, 422, 500) and _OVERFLOW.search(str(exc))):
        return ContextOverflow()
    detail = ""
    if status is not None and status in _BY_STATUS:
        fault, detail = _BY_STATUS[status]
    elif status is not None and status >= 500:
        fault = ModelUnavailable
    if fault is not RateLimited:
        return fault(detail)
    if getattr(exc, "code", None) == "insufficient_quota":  # not a rate limit: waiting does not help
        return ModelRefused("The quota at the model's provider is used up.")
    asked_s = _retry_after_s(exc)
    return RateLimited(detail or _BY_STATUS[429][1], retry_after_s=1.0 if asked_s is None else min(asked_s, 3600.0))


def is_models(error: CitewellError) -> bool:
    """Whether the model, its account or the connection failed, so that another model may answer instead.

    False where the request or our own limits are the reason.
    """
    if isinstance(error, CircuitOpen | ModelTimeout | ModelUnavailable):
        return True
    status = _status(error)
    if isinstance(error, ModelRefused):
        return status in (401, 402, 403, 404, 429)
    if isinstance(error, RateLimited):
        return not isinstance(error, BudgetExceeded) and error.__cause__ is not None
    return type(error) is ModelError


def is_free(error: CitewellError) -> bool:
    """Whether the provider cannot have charged for the call: it refused, or was never reached.

    One that timed out or broke off, or whose gateway timed out, may have worked nevertheless.
    """
    if isinstance(error, CircuitOpen):
        return True
    if (status := _status(error)) is not None:
        return status >= 400 and status not in (408, 504)
    causes = list(_causes(error))
    carried = [cause for cause in causes if _fault(cause, AIOHTTP)]
    return any(name in _NEVER_REACHED for cause in carried or causes for name in map(_name, type(cause).__mro__))


def asked_pause_s(error: CitewellError) -> float | None:
    """How long the provider asks to wait before the next try, in seconds; None where it says nothing."""
    return _retry_after_s(error.__cause__)


def _status(error: CitewellError) -> int | None:
    status = getattr(error.__cause__, "status_code", None)
    return status if isinstance(status, int) else None


def _fault(exc: BaseException, table: Mapping[str, Fault]) -> Fault | None:
    return next((table[name] for name in map(_name, type(exc).__mro__) if name in table), None)


def _is_stumble(exc: BaseException) -> bool:
    """Whether a library failed to parse an answer, such as `"choices": null`, and raised one of Python's own exceptions."""
    if not isinstance(exc, ValueError | TypeError | LookupError | AttributeError):
        return False
    *_, raised = traceback.walk_tb(exc.__traceback__)
    return _LIBRARY.match(raised[0].f_globals.get("__name__", "")) is not None


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The causes of an exception, the nearest first."""
    cause = exc.__cause__ or exc.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _name(cls: type) -> str:
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def _retry_after_s(exc: BaseException | None) -> float | None:
    headers: Mapping[str, str] = getattr(getattr(exc, "response", None), "headers", {})
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (said := _number(headers.get(name, ""))) is not None:
            return max(0.0, said * unit_s)
    return None


def _number(text: str) -> float | None:
    """The number in a text, or None. A date, which is useless where clocks differ, is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
