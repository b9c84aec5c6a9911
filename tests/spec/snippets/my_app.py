from sage.core.api.local_environment import LocalEnvironment

# 创建本地环境
env = LocalEnvironment("my_app")

# 创建数据流管道
stream = env.from_batch([1, 2, 3, 4, 5])
result = stream.map(lambda x: x * 2).sink(print)

# 提交执行
env.submit()
