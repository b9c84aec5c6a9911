from sage.core.api.local_environment import LocalEnvironment
from sage.core.api.function.base_function import BaseFunction
from sage.middleware.services.memory import MemoryService
from sage.middleware.services.vdb import VDBService

env = LocalEnvironment("gpu_flow_demo")
env.register_service("memory_service", lambda: MemoryService())
env.register_service("vdb_service", lambda: VDBService())

class RAGStep(BaseFunction):
    def execute(self, data):
        # 向量检索（VDB 后端可指向 SAGE-DB GPU）
        results = self.call_service["vdb_service"].search(
            query=data["query_vector"], top_k=10
        )
        # 长期记忆交互（Memory 内部编排 KV/VDB/Graph）
        self.call_service["memory_service"].store_memory(
            content=data["content"], vector=data["query_vector"],
            session_id=data.get("sid","default"), memory_type="conversation"
        )
        return {"hits": results}
