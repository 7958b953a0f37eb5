"""Identifies a caller by a key or token."""

from __future__ import annotations

import asyncio
from typing import Final

from citewell.errors import NotAuthenticated
from citewell.identity.caller import Identity
from citewell.identity.key_set import KeySet
from citewell.identity.keys import KeyFile
from citewell.identity.tokens import TokenVerifier
from citewell.settings import Settings

LONGEST: Final = 8192
"""Longest key or token that is checked, in characters."""


class Authenticator:
    """Identifies the caller to whom a credential belongs. Made by `open_identity`."""

    def __init__(self, keys: KeyFile | None, tokens: TokenVerifier | None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def identify(self, credential: str | None) -> Identity:
        """Identify a caller. Where neither keys nor tokens are set up, everybody is `local`, whatever they send.

        Raises:
            NotAuthenticated: The credential is missing or not valid.
            IdentityUnavailable: It cannot be checked right now.
        """
        if self._keys is None and self._tokens is None:
            return Identity()
        if not credential:
            raise NotAuthenticated("Send a key or token, as `Authorization: Bearer ...`.")
        if len(credential) > LONGEST:
            raise NotAuthenticated("The key or token is too long to be one.")
        if self._tokens is not None and (self._keys is None or credential.count(".") == 2):  # no key of ours has a dot
            return await self._tokens.identify(credential)
        if self._keys is None:
            raise NotAuthenticated("The token is not valid.")
        return await self._keys.identify(credential)


async def open_identity(settings: Settings) -> Authenticator:
    """Open the keys and tokens that the settings name.

    Raises:
        ConfigurationError: A file of keys cannot be used.
    """
    keys = tokens = None
    if settings.api_keys_file is not None:
        keys = KeyFile(settings.api_keys_file)
        await asyncio.to_thread(keys.load)
    if settings.jwt_jwks is not None:
        key_set = KeySet(settings.jwt_jwks)
        await key_set.open()
        tokens = TokenVerifier(settings, key_set)
    return Authenticator(keys, tokens)
