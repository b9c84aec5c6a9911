# 调试配置示例
env.configure_debug(
    enable_tracing=True,
    metrics_interval="10s",
    log_level="DEBUG"
)

# 性能分析工具
from sage.utils.profiler import PipelineProfiler

profiler = PipelineProfiler(env)
stats = profiler.analyze(pipeline)
print(f"瓶颈算子: {stats.bottleneck}")
print(f"内存使用: {stats.memory_usage}")
