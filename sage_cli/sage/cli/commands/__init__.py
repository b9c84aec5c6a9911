"""One module a command, found through :mod:`sage.cli.manifest`; importing this package imports none of them."""

__all__: list[str] = []
