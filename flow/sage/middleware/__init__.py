"""Services that pipelines call: vector stores and what follows."""

__all__: list[str] = []
