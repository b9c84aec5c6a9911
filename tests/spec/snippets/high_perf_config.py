# 高性能配置模板
high_perf_config = {
    "execution": {
        "parallelism": 16,
        "buffer.timeout": 50,
        "object.reuse": True
    },
    "state": {
        "backend": "rocksdb",
        "checkpoint.interval": "30s",
        "incremental": True
    },
    "resources": {
        "taskmanager.memory.process.size": "4gb",
        "taskmanager.cpu.cores": "4"
    }
}
