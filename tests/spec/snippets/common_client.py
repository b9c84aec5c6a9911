from sage.llm import UnifiedInferenceClient
# 默认:使用本地 Gateway 端口(SagePorts.GATEWAY_DEFAULT)
client = UnifiedInferenceClient.create()
# 显式指定 Control Plane / Gateway
client = UnifiedInferenceClient.create(control_plane_url="http://localhost:8889/v1")
# 按模型名绑定(仍经由 Control Plane)
model_bound = UnifiedInferenceClient.create_for_model("Qwen/Qwen2.5-7B-Instruct")
resp = client.chat([{ "role": "user", "content": "写一份日报" }])
