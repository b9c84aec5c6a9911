from sagellm_core import LLMEngine, LLMEngineConfig
# 创建配置
config = LLMEngineConfig(
    model_path="sshleifer/tiny-gpt2", # HuggingFace 模型名或本地路径
    backend_type="cpu", # 自动选择 cpu/cuda/ascend
    max_new_tokens=20
)
# 初始化引擎
engine = LLMEngine(config)
# 异步运行
import asyncio
async def main():
    await engine.start()
    # 同步生成(完整输出)
    response = await engine.generate("Hello, world!")
    print(response.output_text)
    # 流式生成(逐 token 返回)
    async for event in engine.stream("Once upon a time"):
        if event.event == "delta":
            print(event.chunk, end="", flush=True)
    await engine.stop()
asyncio.run(main())
