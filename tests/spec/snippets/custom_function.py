# 函数开发示例
class CustomProcessingFunction(BaseFunction):
    def __init__(self, config: Dict):
        self.config = config
        self.model = None

    def open(self, context: FunctionContext):
        # 初始化资源
        self.model = load_model(self.config['model_path'])

    def process(self, value: Any) -> Any:
        # 处理逻辑
        result = self.model.predict(value)
        return {"input": value, "output": result}

    def close(self):
        # 清理资源
        self.model.release()
