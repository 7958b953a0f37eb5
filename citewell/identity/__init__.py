"""Who asks, what they may read, and which conversations are theirs."""

from citewell.identity.caller import LOCAL, Identity, bind, given_id

__all__ = ["LOCAL", "Identity", "bind", "given_id"]
