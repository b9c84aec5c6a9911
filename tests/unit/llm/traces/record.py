"""Record a trace: `python tests/unit/llm/traces/record.py > skewed.csv` (12 s).

A gateway process serves four clients, each with a key of its own, in front of a server that takes its time for each
token. What was sent and answered is written down, one line a request, as the clients saw it. The load is drawn from
fixed distributions: Poisson arrivals, one client drawn at five times the rate of the others; log-normal lengths.
"""

import asyncio
import random
import socket
import sys
import time

import aiohttp
from aiohttp import web

RATES = {"heavy": 50.0, "light-1": 10.0, "light-2": 10.0, "light-3": 10.0}
SECONDS = 10.0
SECONDS_PER_TOKEN = 0.0001


async def answer(request: web.Request) -> web.Response:
    """Answer with as many tokens as were asked for, after the time that so many take."""
    body = await request.json()
    asked = len(body["prompt"]) // 4
    await asyncio.sleep((asked + body["max_tokens"]) * SECONDS_PER_TOKEN)
    usage = {"prompt_tokens": asked, "completion_tokens": body["max_tokens"]}
    return web.json_response({"choices": [{"text": "x"}], "usage": usage})


async def client(name: str, rate: float, url: str, session: aiohttp.ClientSession, began: float) -> list[str]:
    """Send one client's requests at their times and return their lines."""
    rng = random.Random(name)
    pending = []

    async def one(prompt: int, tokens: int) -> str:
        sent = time.perf_counter() - began
        body = {"prompt": "word" * prompt, "max_tokens": tokens}
        headers = {"authorization": f"Bearer {name}"}
        async with session.post(url + "/v1/completions", json=body, headers=headers) as response:
            usage = (await response.json())["usage"]
        took = time.perf_counter() - began - sent
        return f"{sent:.4f},{name},{usage['prompt_tokens']},{usage['completion_tokens']},{took:.4f}"

    while time.perf_counter() - began < SECONDS:
        await asyncio.sleep(rng.expovariate(rate))
        size = min(2000, int(rng.lognormvariate(5.0, 1.0)) + 1), min(500, int(rng.lognormvariate(4.0, 0.8)) + 1)
        pending.append(asyncio.create_task(one(*size)))
    return list(await asyncio.gather(*pending))


async def record() -> None:
    """Start server and gateway, let the clients run, and write their lines in the order of sending."""
    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener, gate = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    engine, port = f"http://127.0.0.1:{listener.getsockname()[1]}", gate.getsockname()[1]
    gate.close()
    await web.SockSite(runner, listener).start()
    command = ("-m", "sage.llm.gateway", "--port", str(port), "--engine", engine, "--log-level", "ERROR")
    process = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        await asyncio.sleep(2.0)
        async with aiohttp.ClientSession() as session:
            began = time.perf_counter()
            url = f"http://127.0.0.1:{port}"
            lines = await asyncio.gather(*(client(name, rate, url, session, began) for name, rate in RATES.items()))
    finally:
        process.terminate()
        await process.wait()
        await runner.cleanup()
    print("seconds,key,prompt_tokens,answer_tokens,took")
    print("\n".join(sorted((line for each in lines for line in each), key=lambda line: float(line.split(",")[0]))))


if __name__ == "__main__":
    asyncio.run(record())
