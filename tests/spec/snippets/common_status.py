from sage.llm import UnifiedInferenceClient
from sage.common.config.ports import SagePorts
# 推荐:自动检测(Control Plane First)
client = UnifiedInferenceClient.create()
# 显式连接本地 Gateway(如 UnifiedAPIServer)
gateway = UnifiedInferenceClient.create(control_plane_url=f"http://localhost:{SagePorts.GATEWAY_DEFAULT}/v1")
# 内嵌模式适合批处理脚本
embedded = "(deprecated)"
status = client.get_status()
print(f"LLM available: {status['llm_available']}")
print(f"Embedding available: {status['embedding_available']}")
