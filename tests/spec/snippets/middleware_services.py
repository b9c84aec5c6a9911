# 中间件服务集成示例
from sage.middleware.service import ModelService, VectorDBService

# 集成模型服务
model_service = ModelService(
    endpoint="localhost:8080",
    timeout=30000,
    retry_policy={"max_attempts": 3}
)

# 集成向量数据库
vector_db = VectorDBService(
    host="vector-db-cluster",
    port=6333,
    collection="document_embeddings"
)

# 在流水线中使用
pipeline = (env
    .from_source(input_source)
    .map(model_service.embedding)
    .map(vector_db.retrieve)
    .sink(output_sink)
)
