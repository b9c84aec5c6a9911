"""Configuration keys (SPEC K8)."""

from __future__ import annotations

import pytest

from sage.common.errors import ConfigError, PipelineError
from sage.core.api import LocalEnvironment
from sage.core.api.config import parse_config
from sage.core.api.units import parse_duration, parse_size
from sage.core.graph.origin import Origin
from sage.core.runtime.settings import CheckpointMode, RestartKind

HERE = Origin("pipeline.py", 1)

HIGH_PERFORMANCE = {
    "execution": {"parallelism": 16, "buffer.timeout": 50, "object.reuse": True},
    "state": {"backend": "rocksdb", "checkpoint.interval": "30s", "incremental": True},
    "resources": {"taskmanager.memory.process.size": "4gb", "taskmanager.cpu.cores": "4"},
}
FAULT_TOLERANCE = {
    "restart.strategy": "exponential-delay",
    "restart.attempts": 10,
    "restart.delay": "10s",
    "restart.max_delay": "5m",
    "checkpointing": "exactly_once",
    "checkpoint.timeout": "5m",
}


@pytest.mark.spec("K8")
class TestKeys:
    def test_dotted_and_nested(self) -> None:
        for config in (
            {"parallelism": 8, "buffer.timeout": 100},
            {"execution.parallelism": "8", "execution": {"buffer": {"timeout": "100ms"}}},
            {"execution": {"parallelism": 8, "buffer.timeout": 100}},
        ):
            settings = parse_config(config, HERE)
            assert settings.parallelism == 8
            assert settings.buffer_timeout == pytest.approx(0.1)

    def test_the_high_performance_block_of_the_documents(self, capsys: pytest.CaptureFixture[str]) -> None:
        settings = parse_config(HIGH_PERFORMANCE, HERE)
        assert (settings.parallelism, settings.buffer_timeout, settings.object_reuse) == (16, 0.05, True)
        assert (settings.state.backend, settings.state.incremental) == ("rocksdb", True)
        assert (settings.state.memory, settings.cores) == (4 * 2**30, 4.0)
        assert settings.checkpoint.mode is CheckpointMode.EXACTLY_ONCE
        assert settings.checkpoint.interval == 30.0
        assert capsys.readouterr().err == ""

    def test_the_fault_tolerance_block_of_the_documents(self) -> None:
        settings = parse_config(FAULT_TOLERANCE, HERE)
        restart = settings.restart
        assert restart.kind is RestartKind.EXPONENTIAL_DELAY
        assert (restart.attempts, restart.delay, restart.max_delay) == (10, 10.0, 300.0)
        assert settings.checkpoint.mode is CheckpointMode.EXACTLY_ONCE
        assert settings.checkpoint.timeout == 300.0
        assert settings.checkpoint.interval is not None

    def test_checkpoints_are_made_only_where_they_are_asked_for(self) -> None:
        assert not parse_config({}, HERE).checkpoint.enabled
        assert not parse_config({"checkpoint.timeout": "5m"}, HERE).checkpoint.enabled
        assert not parse_config({"checkpointing": "none", "checkpoint.interval": "1s"}, HERE).checkpoint.enabled
        assert parse_config({"checkpoint.interval": "1s"}, HERE).checkpoint.enabled

    def test_values_of_flink(self) -> None:
        settings = parse_config(
            {"state.backend.type": "hashmap", "execution.checkpointing.interval": "2 minutes"}, HERE
        )
        assert (settings.state.backend, settings.checkpoint.interval) == ("memory", 120.0)

    @pytest.mark.parametrize(
        ("flink", "ours", "value"),
        [
            ("execution.checkpointing.interval", "checkpoint.interval", "7s"),
            ("execution.checkpointing.min-pause", "checkpoint.min_pause", 250),
            ("state.checkpoints.num-retained", "checkpoint.retained", 5),
            ("execution.checkpointing.unaligned.enabled", "checkpoint.unaligned", True),
            ("restart-strategy.type", "restart.strategy", "failure-rate"),
            ("restart-strategy.failure-rate.max-failures-per-interval", "restart.failures_per_interval", 4),
            ("parallelism.default", "parallelism", 3),
        ],
    )
    def test_flinks_names(self, flink: str, ours: str, value: object) -> None:
        assert parse_config({flink: value}, HERE) == parse_config({ours: value}, HERE) != parse_config({}, HERE)

    def test_one_setting_under_two_names_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="given twice"):
            parse_config({"parallelism": 1, "execution": {"parallelism": 2}}, HERE)

    def test_a_number_of_attempts_asks_for_restarts(self) -> None:
        assert parse_config({"restart.attempts": 3}, HERE).restart.kind is RestartKind.FIXED_DELAY
        assert parse_config({"restart.attempts": "unlimited"}, HERE).restart.attempts is None

    @pytest.mark.parametrize(
        ("key", "nearest"),
        [("paralelism", "parallelism"), ("buffer.timeuot", "buffer.timeout"), ("state.backnd", "state.backend")],
    )
    def test_an_unknown_key_names_the_nearest(self, key: str, nearest: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_config({key: 1}, HERE)
        assert nearest in caught.value.hint

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("parallelism", 0),
            ("parallelism", "many"),
            ("parallelism", True),
            ("buffer.timeout", "soon"),
            ("buffer.timeout", "10 parsecs"),
            ("buffer.size", -1),
            ("chaining", "maybe"),
            ("object.reuse", 7),
            ("state.backend", "redis"),
            ("resources.taskmanager.memory.process.size", "4 elephants"),
            ("resources.taskmanager.cpu.cores", "none"),
            ("restart.strategy", "hope"),
            ("restart.attempts", -1),
            ("state.dir", 1),
            ("checkpointing", "twice"),
            ("checkpoint.interval", 0),
            ("checkpoint.retained", 0),
            ("restart.jitter", 2),
            ("on_error", "cry"),
        ],
    )
    def test_a_wrong_value_names_its_key(self, key: str, value: object) -> None:
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
            parse_config({key: value}, HERE)

    def test_a_configuration_is_a_mapping(self) -> None:
        with pytest.raises(ConfigError, match="no mapping"):
            parse_config([1], HERE)  # type: ignore[arg-type]

    def test_an_environment_needs_a_name(self) -> None:
        with pytest.raises(PipelineError, match="needs a name"):
            LocalEnvironment(" ")

    def test_the_users_line_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"test_config\.py:"):
            LocalEnvironment("x", {"nonsense": 1})


@pytest.mark.spec("K8")
def test_durations_and_sizes() -> None:
    assert [parse_duration(text) for text in ("50ms", "1.5s", "2 min", "1h", "1d", "250", 250)] == [
        0.05,
        1.5,
        120.0,
        3600.0,
        86400.0,
        0.25,
        0.25,
    ]
    assert [parse_size(text) for text in ("4gb", "512m", "1KiB", "7", 7, "1tb")] == [
        4 * 2**30,
        512 * 2**20,
        1024,
        7,
        7,
        2**40,
    ]
    for parse in (parse_duration, parse_size):
        for wrong in ("", "x", "-1s", None, True, [1]):
            with pytest.raises(ValueError, match=r"number|duration|size"):
                parse(wrong)
