"""Where the time and the memory of a pipeline go.

stats = PipelineProfiler(env).analyze(pipeline)
print(stats.bottleneck, stats.memory_usage)
stats.flame.write_speedscope("profile.json")      # https://www.speedscope.app shows it
"""

from sage.utils.profiler.flame import Flame, StackFrame
from sage.utils.profiler.pipeline import PipelineProfiler
from sage.utils.profiler.stats import MemoryUsage, OperatorProfile, PipelineStats

__all__ = ["Flame", "MemoryUsage", "OperatorProfile", "PipelineProfiler", "PipelineStats", "StackFrame"]
