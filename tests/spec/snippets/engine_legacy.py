# 配置加载(Legacy)
from sagellm_core import load_config
config = load_config("config.yaml") # 支持 YAML/JSON
# 后端创建(Legacy)
from sagellm_core import create_backend, BackendConfig
backend = create_backend(BackendConfig(kind="cpu"))
# 工厂方法(Legacy)
from sagellm_core import EngineFactory
factory = EngineFactory()
engine = factory.create("cpu") # 支持自动发现
print(config.engine.model, backend.kind, type(engine).__name__)
