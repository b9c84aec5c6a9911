"""Find the nearest text: hash embeddings in this process, and the vector store as a service. No server is needed."""

from sage.common.components.sage_embedding import EmbeddingClientAdapter, EmbeddingFactory
from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction
from sage.middleware.services.vdb import VDBService

TEXTS = [
    "The pump runs at forty bar.",
    "The lamp in the hall is green.",
    "The library opens at nine in the morning.",
]
QUESTIONS = ["When does the library open?", "At which pressure does the pump run?"]

embedder = EmbeddingClientAdapter(EmbeddingFactory.create("hash", dim=384))


class Nearest(MapFunction[str, str]):
    """The stored text that is most like the question."""

    def process(self, question: str) -> str:
        [vector] = embedder.embed([question])
        [hit] = self.call_service["texts"].search(vector, top_k=1)
        return f"{question} -> {hit.metadata['text']}"


env = LocalEnvironment("nearest-text")
env.register_service("texts", VDBService)
env.call_service["texts"].add(embedder.embed(TEXTS), metadata=[{"text": text} for text in TEXTS])
env.from_collection(QUESTIONS).map(Nearest, name="nearest").print()
env.submit()
