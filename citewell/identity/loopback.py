"""What counts as this machine alone."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, leads to this machine only. Any other name counts as leading away."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or address).is_loopback
