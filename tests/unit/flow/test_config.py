"""Configuration keys (SPEC K8)."""

from __future__ import annotations

from typing import Any

import pytest

from sage.common.errors import ConfigError, PipelineError
from sage.core.api import LocalEnvironment
from sage.core.api.config import parse_config
from sage.core.api.units import parse_duration, parse_size
from sage.core.graph.origin import Origin

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

    @pytest.mark.parametrize("config", [HIGH_PERFORMANCE, FAULT_TOLERANCE])
    def test_the_blocks_of_the_documents_are_accepted(
        self, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Keys of later features are checked, and a warning says that they do nothing yet."""
        settings = parse_config(config, HERE)
        assert settings.parallelism == (16 if config is HIGH_PERFORMANCE else 1)
        warned = capsys.readouterr().err
        assert "without effect yet" in warned
        assert "pipeline.py:1" in warned

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
