from sage.common.config.ports import SagePorts
# 统一端口常量(不要硬编码)
PORT_MAP = {
"Gateway": (SagePorts.GATEWAY_DEFAULT, "OpenAI 兼容 API"),
"LLM": (SagePorts.LLM_DEFAULT, "主推理服务"),
"Embedding": (SagePorts.EMBEDDING_DEFAULT, "Embedding Server"),
"Benchmark": (SagePorts.BENCHMARK_LLM, "WSL2 fallback / benchmark"),
}
recommended = SagePorts.get_recommended_llm_port()
print(f"LLM 在此机器使用端口: {recommended}")
if SagePorts.is_wsl():
    # 8001 在 WSL2 可能出现监听但拒绝连接 → 回退 8901
    recommended = SagePorts.LLM_WSL_FALLBACK
