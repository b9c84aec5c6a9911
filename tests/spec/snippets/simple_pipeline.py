# simple_pipeline.py
from sage.core.api import LocalEnvironment

env = LocalEnvironment("hello-sage")

# 创建简单流水线
(env
 .from_collection(["Hello", "World", "SAGE"])
 .map(lambda x: f"Processed: {x}")
 .print()
)

env.submit()
