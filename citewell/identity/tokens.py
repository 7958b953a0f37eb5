"""JSON Web Tokens of one issuer (RFC 7519, checked as RFC 8725 advises)."""

from __future__ import annotations

import re
from typing import Any, Final

import jwt
from jwt.exceptions import ExpiredSignatureError, InvalidAudienceError, InvalidIssuerError, PyJWTError

from citewell.documents import PUBLIC
from citewell.errors import NotAuthenticated
from citewell.identity.caller import OWN, Identity
from citewell.identity.key_set import KeySet
from citewell.settings import Settings

PREFIX: Final = "jwt:"
"""Prefix of the names of tokens' callers, which keys' callers cannot have."""
_LABEL: Final = re.compile(rf"(?!{OWN})[\w.:@/-]{{1,64}}")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}")


class TokenVerifier:
    """Checks tokens against the settings `jwt_*`."""

    def __init__(self, settings: Settings, keys: KeySet) -> None:
        self._settings = settings
        self._keys = keys

    async def identify(self, token: str) -> Identity:
        """Identify the caller whom a token names.

        Raises:
            NotAuthenticated: It is not the issuer's, not for this service, not valid now, or names nobody.
            IdentityUnavailable: The issuer's keys cannot be fetched.
        """
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            # The header may only choose among the algorithms of the settings.
            if algorithm not in settings.jwt_algorithms:
                raise NotAuthenticated("The token's algorithm is not one of those accepted.")
            claims = jwt.decode(
                token,
                await self._keys.key(kid, algorithm),
                algorithms=[algorithm],
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                leeway=settings.jwt_leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except ExpiredSignatureError:
            raise NotAuthenticated("The token has expired.") from None
        except InvalidAudienceError:
            raise NotAuthenticated("The token is for another audience.") from None
        except InvalidIssuerError:
            raise NotAuthenticated("The token is from another issuer.") from None
        except (PyJWTError, ValueError, TypeError, RecursionError):
            raise NotAuthenticated("The token is not valid.") from None
        name = _claim(claims, settings.jwt_caller_claim)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise NotAuthenticated(f"The token's claim {settings.jwt_caller_claim} names nobody.")
        return Identity(caller=PREFIX + name, access=frozenset({PUBLIC, *_labels(claims, settings.jwt_access_claim)}))


def _claim(claims: dict[str, Any], name: str) -> Any:
    """A claim by name, or by a path with dots, as `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _labels(claims: dict[str, Any], name: str) -> list[str]:
    """Labels from a list of words, or from words separated by spaces, as in `scope`; words that cannot be labels are left out."""
    value = _claim(claims, name)
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [word for word in words if isinstance(word, str) and _LABEL.fullmatch(word)]
