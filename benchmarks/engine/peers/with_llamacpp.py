"""llama.cpp through the C interface of llama-cpp-python: one context, a sequence a request, all in one batch a step."""

from __future__ import annotations

import ctypes

import llama_cpp as llama
import numpy
import wire

_CHUNK = 512
_CONTEXT = 16_384


class LlamaCpp:
    """Prompts are read in batches of 512 tokens; then every step decodes one token of every sequence."""

    def load(self, model: str, precision: str, threads: int) -> str:
        llama.llama_backend_init()
        quiet = llama.llama_log_callback(lambda level, text, data: None)
        llama.llama_log_set(quiet, None)
        self.quiet = quiet
        self.model = llama.llama_model_load_from_file(model.encode(), llama.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        options = llama.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch, options.n_seq_max = _CONTEXT, _CHUNK, _CHUNK, 16
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        self.context = llama.llama_init_from_model(self.model, options)
        self.batch = llama.llama_batch_init(_CHUNK, 0, 1)
        return precision

    def run(self, prompts: list[list[int]], max_tokens: int) -> int:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), False)
        latest = self._read(prompts)
        positions = [len(prompt) for prompt in prompts]
        for _ in range(max_tokens - 1):
            rows = [(latest[seq], positions[seq], seq, True) for seq in range(len(prompts))]
            latest = [self._choose(row) for row in self._decode(rows)]
            positions = [position + 1 for position in positions]
        return len(prompts) * max_tokens

    def _read(self, prompts: list[list[int]]) -> list[int]:
        """Every prompt into the cache; the first token of each answer."""
        rows = [
            (token, at, seq, at == len(prompt) - 1)
            for seq, prompt in enumerate(prompts)
            for at, token in enumerate(prompt)
        ]
        latest: list[int] = []
        for first in range(0, len(rows), _CHUNK):
            latest += [self._choose(row) for row in self._decode(rows[first : first + _CHUNK])]
        return latest

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """One batch; the indices of the rows that have logits."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (token, position, seq, wanted) in enumerate(rows):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, wanted
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = seq
        if llama.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        return [index for index, row in enumerate(rows) if row[3]]

    def _choose(self, row: int) -> int:
        values = llama.llama_get_logits_ith(self.context, row)
        array = numpy.ctypeslib.as_array(ctypes.cast(values, ctypes.POINTER(ctypes.c_float)), (self.vocabulary,))
        return int(array.argmax())


if __name__ == "__main__":
    wire.serve(LlamaCpp())
