from sage.common.config.ports import SagePorts
if SagePorts.is_wsl():
    llm_port = SagePorts.LLM_WSL_FALLBACK # 8901
else:
    llm_port = SagePorts.LLM_DEFAULT # 8001
print("启动命令:", f"sage llm serve --port {llm_port} --embedding-port {SagePorts.EMBEDDING_DEFAULT}")
