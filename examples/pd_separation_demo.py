"""Prompts on one process, answers on another: `python examples/pd_separation_demo.py`.

One process computes prompts (prefill), one gives answers token by token (decode); the keys and values of a prompt go
from the one to the other block by block, as they are computed. `--model` takes a folder or a name in the local Hugging
Face cache; without it the built-in model answers.
"""

import argparse
import asyncio
import os
import signal
import sys

from sage.common.errors import SageError
from sage.common.listening import report
from sagellm_core import DistributedRuntime, LLMEngineConfig, PDLayout
from sagellm_protocol.sampling import SamplingParams

STORY = "Once upon a time there was a small town by the sea. " * 20
PARAMS = SamplingParams(max_tokens=48, ignore_eos=True)


async def one_request(runtime: DistributedRuntime) -> list[int]:
    """Scene 1: where the time of a long prompt goes, and what travelled."""
    response = await runtime.generate(STORY, sampling_params=PARAMS)
    metrics = response.metrics
    print(f"{response.prompt_tokens} prompt tokens, first token after {metrics.ttft_ms:.0f} ms")
    print(
        f"{metrics.kv_transfer_count} blocks, {metrics.kv_transfer_bytes >> 10} KiB, in {metrics.kv_transfer_ms:.1f} ms"
    )
    return response.output_tokens


async def beside_running_answers(runtime: DistributedRuntime) -> None:
    """Scene 2: long prompts arrive while an answer is written; its tokens keep coming."""
    writing = asyncio.create_task(runtime.generate("The sea", sampling_params=PARAMS))
    prompts = [f"Chapter {number}. {STORY}" for number in range(4)]
    await asyncio.gather(*(runtime.generate(prompt, sampling_params=PARAMS) for prompt in prompts))
    gaps = sorted((await writing).metrics.itl_list)
    print(f"between two tokens: median {gaps[len(gaps) // 2]:.1f} ms, longest {gaps[-1]:.1f} ms")


async def death_of_a_node(runtime: DistributedRuntime, expected: list[int]) -> None:
    """Scene 3: the node that writes dies; prompt and answer so far are computed anew, and the answer goes on."""
    tokens: list[int] = []
    async for event in runtime.stream(STORY, sampling_params=PARAMS):
        if event.event == "delta" and not tokens:
            os.kill(runtime.executor.pids()["decode-0"], signal.SIGKILL)
        tokens += event.chunk_tokens
    print(f"{len(tokens)} tokens; the same as before: {tokens == expected}")
    print(f"begun again after the death: {runtime.get_metrics()['re_prefills_total']:.0f}")


async def main(model: str) -> None:
    config = LLMEngineConfig(model_path=model, backend_type="cpu", dtype="float32")
    runtime = DistributedRuntime(config, PDLayout(prefill_nodes=1, decode_nodes=1))
    await runtime.start()
    try:
        print("== one request ==")
        expected = await one_request(runtime)
        print("== beside running answers ==")
        await beside_running_answers(runtime)
        print("== death of a node ==")
        await death_of_a_node(runtime, expected)
    finally:
        await runtime.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sage-builtin", help="a folder or a name in the local Hugging Face cache")
    try:
        asyncio.run(main(parser.parse_args().model))
    except SageError as error:  # no such model, say: one message, and what to do next
        report(error)
        sys.exit(2)
