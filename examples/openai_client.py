"""The official OpenAI client on SAGE's gateway: models, a streamed answer, embeddings. Needs ``sage llm serve``."""

import sys

from openai import APIConnectionError, OpenAI

from sage.llm import UnifiedInferenceClient

gateway = UnifiedInferenceClient.create()
client = OpenAI(base_url=gateway.base_url, api_key="local")

try:
    models = [model.id for model in client.models.list()]
except APIConnectionError:
    print(f"error: Nobody answers at {gateway.base_url}\nnext: sage llm serve", file=sys.stderr)
    sys.exit(2)
print("models:", ", ".join(models))

messages = [{"role": "user", "content": "Which port does the gateway use?"}]
for chunk in client.chat.completions.create(model="default", messages=messages, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
print()

vectors = client.embeddings.create(model="hash", input=["Hello", "World"], encoding_format="float").data
print(len(vectors), "vectors with", len(vectors[0].embedding), "numbers each")
