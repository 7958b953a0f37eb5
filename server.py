"""Front door: the service."""

from citewell.api.serve import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
