"""How services are run (SPEC K9): batches, replicas, shards, health, retries, timeouts, fallbacks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from sage.common.errors import ConfigError, ServiceError
from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction
from sage.core.api.function.retry import RetryPolicy
from sage.core.api.service_options import ServiceOptions
from sage.core.runtime.services import ServiceRegistry

pytestmark = pytest.mark.spec("K9")


class ManualClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def services(clock: ManualClock) -> Iterator[ServiceRegistry]:
    registry = ServiceRegistry(clock)
    yield registry
    registry.close()


class Embedder:
    """Takes texts in batches; the first batch waits until the test lets it go."""

    batch_methods: ClassVar[dict[str, str]] = {"embed": "embed_batch"}

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.batches: list[list[Any]] = []
        self.gate = gate
        self.inside = threading.Event()

    def embed_batch(self, texts: list[Any]) -> list[Any]:
        self.batches.append(texts)
        self.inside.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        return [ValueError("poison") if text == "poison" else len(text) for text in texts]


class TestBatches:
    def test_what_comes_while_a_batch_runs_is_the_next_one(self, services: ServiceRegistry) -> None:
        gate = threading.Event()
        service = Embedder(gate)
        services.register("embed", lambda: service, (), {}, ServiceOptions(max_batch=3))
        first = services.submit("embed", "embed", ("a",), {}, None)
        assert service.inside.wait(10)
        rest = [services.submit("embed", "embed", ("b" * n,), {}, None) for n in range(2, 7)]
        _until(lambda: len(services._groups["embed"].first._batchers["embed"]._waiting) == 5)
        gate.set()
        assert [first.result(10), *(answer.result(10) for answer in rest)] == [1, 2, 3, 4, 5, 6]
        assert [len(batch) for batch in service.batches] == [1, 3, 2]

    def test_calls_of_parallel_tasks_and_of_async_functions_are_collected(self) -> None:
        class Ask(MapFunction[str, int]):
            async def execute(self, value: str) -> int:
                return int(await self.call_service_async["embed"].embed(value))

        service, out = Embedder(), []  # type: ignore[var-annotated]
        with LocalEnvironment("batches") as env:
            env.register_service("embed", lambda: service)
            env.from_collection(["x" * (n % 7) for n in range(500)]).map(Ask).sink(out.append)
            env.submit()
        assert out == [n % 7 for n in range(500)]
        assert len(service.batches) < 400

    def test_one_item_may_fail_alone_and_a_batch_as_a_whole(self, services: ServiceRegistry) -> None:
        services.register("embed", Embedder, (), {})
        with pytest.raises(ValueError, match="poison"):
            services.call("embed", "embed", ("poison",), {})
        assert services.get("embed").embed("four") == 4
        with pytest.raises(TypeError):
            services.call("embed", "embed", (3,), {})

        class Short(Embedder):
            def embed_batch(self, texts: list[Any]) -> list[Any]:
                return []

        services.register("short", Short, (), {})
        with pytest.raises(ServiceError, match="gave 0 results for 1 items"):
            services.call("short", "embed", ("x",), {})

    def test_the_batch_method_itself_can_be_called(self, services: ServiceRegistry) -> None:
        services.register("embed", Embedder, (), {})
        assert services.get("embed").embed_batch(["a", "bb"]) == [1, 2]


class Numbered:
    def __init__(self, replica: int = 0, shard: int = 0) -> None:
        self.number = (shard, replica)
        self.calls = 0
        self.well = True
        self.broken = False

    def ask(self, key: Any = None) -> tuple[int, int]:
        self.calls += 1
        if self.broken:
            raise ConnectionError("down")
        return self.number

    def health_check(self) -> bool:
        return self.well


class TestInstances:
    def test_replicas_share_the_calls(self, services: ServiceRegistry) -> None:
        services.register("n", Numbered, (), {"replicas": 3})
        assert {services.call("n", "ask", (), {}) for _ in range(6)} == {(0, 0), (0, 1), (0, 2)}

    def test_a_busy_replica_gets_fewer(self, services: ServiceRegistry) -> None:
        gate, waiting = threading.Event(), threading.Event()

        class Slow(Numbered):
            def ask(self, key: Any = None) -> tuple[int, int]:
                if key == "wait":
                    waiting.set()
                    assert gate.wait(10)
                return super().ask()

        services.register("n", Slow, (), {"replicas": 2})
        busy = services.submit("n", "ask", ("wait",), {}, None)
        assert waiting.wait(10)
        others = {services.call("n", "ask", (), {}) for _ in range(4)}
        gate.set()
        assert others == {(0, 0), (0, 1)} - {busy.result(10)}

    def test_shards_by_key(self, services: ServiceRegistry) -> None:
        services.register("n", Numbered, (), {"shards": 4, "shard_by": "key"})
        homes = {key: services.call("n", "ask", (), {"key": key}) for key in ["ada", "bob", 3, ("a", 1), "eve", "x"]}
        assert len(set(homes.values())) > 1
        assert all(services.call("n", "ask", (), {"key": key}) == home for key, home in homes.items())
        with pytest.raises(ServiceError, match="has no shard"):
            services.call("n", "ask", (), {})

    def test_a_failing_replica_is_out_until_its_health_is_back(
        self, services: ServiceRegistry, clock: ManualClock
    ) -> None:
        made: list[Numbered] = []

        def make(replica: int) -> Numbered:
            made.append(Numbered(replica))
            return made[-1]

        options = ServiceOptions(replicas=2, failures=2, retry=RetryPolicy(5, delay=0), recovery="5s")
        services.register("n", make, (), {}, options)
        services.call("n", "ask", (), {})
        services.call("n", "ask", (), {})
        bad = made[0]
        bad.broken, bad.well = True, False
        for _ in range(8):
            assert services.call("n", "ask", (), {}) == made[1].number
        asked = bad.calls
        assert [row["healthy"] for row in services.health()] == [made.index(bad) != 0, True]
        clock.seconds += 6
        services.call("n", "ask", (), {})
        assert bad.calls == asked
        bad.broken, bad.well = False, True
        clock.seconds += 6
        assert {services.call("n", "ask", (), {}) for _ in range(4)} == {(0, 0), (0, 1)}

    def test_health_is_looked_after(self, services: ServiceRegistry) -> None:
        made: list[Numbered] = []

        def make(replica: int) -> Numbered:
            made.append(Numbered(replica))
            return made[-1]

        services.register("n", make, (), {"replicas": 2})
        for _ in range(2):
            services.call("n", "ask", (), {})
        made[1].well = False
        services.check_health()
        assert [row["healthy"] for row in services.health()] == [True, False]

    def test_only_the_first_caller_makes_an_instance_and_all_are_closed(self, services: ServiceRegistry) -> None:
        closed: list[int] = []

        class Closing(Numbered):
            def close(self) -> None:
                closed.append(self.number[1])

        services.register("n", Closing, (), {"replicas": 2})
        for _ in range(4):
            services.call("n", "ask", (), {})
        services.close()
        assert sorted(closed) == [0, 1]

    def test_a_ready_object_is_one(self, services: ServiceRegistry) -> None:
        with pytest.raises(ServiceError, match="ready object"):
            services.register("n", {"a": 1}, (), {"replicas": 2})


class TestFailures:
    def test_a_call_is_made_again(self, services: ServiceRegistry) -> None:
        calls: list[int] = []

        def flaky(value: int) -> int:
            calls.append(value)
            if len(calls) < 3:
                raise ConnectionError
            return value

        services.register("f", lambda: flaky, (), {"retry": {"max_attempts": 3, "delay": 0}})
        assert services.call("f", None, (7,), {}) == 7
        assert calls == [7, 7, 7]

    def test_what_the_service_does_not_have_is_not_retried(self, services: ServiceRegistry) -> None:
        services.register("n", Numbered, (), {"retry": RetryPolicy(10**6, delay="1h")})
        with pytest.raises(ServiceError, match="has no method"):
            services.call("n", "aks", (), {})
        assert services.health()[0]["failures"] == 0

    def test_a_timeout_is_for_each_call(self, services: ServiceRegistry) -> None:
        never = threading.Event()
        services.register("slow", lambda: never.wait, (), {"timeout": "20ms"})
        with pytest.raises(ServiceError, match=r"did not answer within 0\.02 s"):
            services.call("slow", None, (30,), {})
        never.set()

    def test_the_fallback_answers_when_the_first_cannot_be_made(self, services: ServiceRegistry) -> None:
        tried: list[int] = []

        def no_gpu() -> Any:
            tried.append(1)
            raise RuntimeError("no GPU")

        services.register("cpu", lambda: str.lower, (), {})
        services.register("gpu", no_gpu, (), {"fallback": "cpu", "failures": 1})
        assert [services.call("gpu", None, ("A",), {}) for _ in range(5)] == ["a"] * 5
        assert len(tried) == 1

    def test_fallbacks_are_tried_in_order_and_the_last_error_is_told(self, services: ServiceRegistry) -> None:
        def broken(name: str) -> Any:
            def fail() -> None:
                raise ConnectionError(name)

            return lambda: fail

        services.register("second", broken("second"), (), {})
        services.register("third", broken("third"), (), {})
        services.register("first", broken("first"), (), {"fallback": ["second", "third"]})
        with pytest.raises(ConnectionError, match="third"):
            services.call("first", None, (), {})

    def test_async_methods_run_in_the_services_loop(self, services: ServiceRegistry) -> None:
        class Async:
            async def ask(self, value: int) -> tuple[int, str]:
                await asyncio.sleep(0)
                return value, threading.current_thread().name

        services.register("a", Async, (), {})
        assert services.get("a").ask(3) == (3, "sage-services")
        assert services.submit("a", "ask", (4,), {}, 10).result()[0] == 4


class TestOptions:
    def test_keywords_of_the_factory_stay_its_own(self) -> None:
        class Client:
            def __init__(self, timeout: int = 0, **more: Any) -> None:
                self.timeout, self.more = timeout, more

        env = LocalEnvironment("options")
        env.register_service("mine", Client, timeout=5, replicas=1, color="red")
        client = env.call_service["mine"]
        assert (client.timeout, client.more) == (5, {"color": "red"})
        env.register_service("all", Client, replicas=7, service_options=ServiceOptions())
        assert env.call_service["all"].more == {"replicas": 7}
        env.close()

    @pytest.mark.parametrize(
        "options", [{"replicas": 0}, {"timeout": "soon"}, {"recovery": 0}, {"retry": {"tries": 1}}, {"max_batch": True}]
    )
    def test_wrong_options_are_refused_at_once(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            LocalEnvironment("options").register_service("n", Numbered, **options)

    def test_health_is_shown(self) -> None:
        env = LocalEnvironment("health")
        env.register_service("n", Numbered, replicas=2)
        assert [(row["service"], row["replica"], row["made"]) for row in env.service_health()] == [
            ("n", 0, False),
            ("n", 1, False),
        ]


def _until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen within 10 s")
