# 容错配置示例
fault_tolerance_config = {
    "restart.strategy": "exponential-delay",
    "restart.attempts": 10,
    "restart.delay": "10s",
    "restart.max_delay": "5m",
    "checkpointing": "exactly_once",
    "checkpoint.timeout": "5m"
}
