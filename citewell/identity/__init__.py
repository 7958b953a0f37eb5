"""Callers: who they are, what they may read, and which conversations are theirs."""

from citewell.identity.attempts import Attempts
from citewell.identity.authenticator import Authenticator, open_identity
from citewell.identity.caller import LOCAL, Identity, bind, given_id
from citewell.identity.loopback import is_loopback

__all__ = ["LOCAL", "Attempts", "Authenticator", "Identity", "bind", "given_id", "is_loopback", "open_identity"]
