from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction, FilterFunction
from sage.core.api.datastream import DataStream

# 创建优化后的数据处理流水线
def create_optimized_pipeline():
    # 初始化环境
    env = LocalEnvironment(
        name="llm-inference-pipeline",
        config={
            "parallelism": 8,
            "buffer.timeout": 100,
            "object.reuse": True
        }
    )

    # 构建数据处理流水线
    pipeline = (env
        .from_source(KafkaSource("input-topic"))
        .map(InputParser(), name="input-parser")
        .filter(QualityFilter(), name="quality-filter")
        .key_by(lambda x: x["session_id"])
        .map(EmbeddingGenerator(), name="embedding-generator")
        .map(ContextRetriever(), name="context-retriever")
        .map(LLMInference(), name="llm-inference")
        .map(OutputFormatter(), name="output-formatter")
        .sink(KafkaSink("output-topic"))
    )

    return pipeline

# 提交执行
if __name__ == "__main__":
    pipeline = create_optimized_pipeline()
    env.submit(pipeline)
