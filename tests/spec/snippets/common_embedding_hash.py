from sage.common.components.sage_embedding import (
EmbeddingFactory,
EmbeddingClientAdapter,
list_embedding_models,
)
for method, info in list_embedding_models().items():
    print(f"{method}: {info['description']}")
embedder = EmbeddingFactory.create("hash", dim=384)
client = EmbeddingClientAdapter(embedder) # 获得批量接口
vectors = client.embed(["Hello", "World"])
single_vector = embedder.embed("single-text") # 仍可按需单条调用
# 离线模式:配合 UnifiedInferenceClient 只负责 embedding,LLM 仍可走 Control Plane
