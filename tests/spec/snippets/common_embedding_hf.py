from sage.common.components.sage_embedding import (
EmbeddingFactory,
EmbeddingClientAdapter,
)
# EmbeddingFactory 返回单文本接口 → 通过 Adapter 获得批量 embed(list[str])
raw_embedder = EmbeddingFactory.create("hf", model="BAAI/bge-small-zh-v1.5")
client = EmbeddingClientAdapter(raw_embedder)
vectors = client.embed(["Hello", "World"])
# 直接消费 BaseEmbedding 时需逐条调用:raw_embedder.embed("only-one-text")
