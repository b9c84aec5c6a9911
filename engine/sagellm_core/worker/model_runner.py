"""Builds tensors from a step's plan, runs the model over the paged cache, decodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagellm_core.backends.base import Backend, StepCapture, attention_for
from sagellm_core.comm import ALONE, Place
from sagellm_core.decoding.decoder import StepDecoder
from sagellm_core.decoding.grammar import GrammarCompiler
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.models.base import CausalLM
from sagellm_core.models.lora import LoraModel
from sagellm_core.worker.adapters import AdapterRoutes
from sagellm_core.worker.blocks import BlockStore
from sagellm_core.worker.draft import DraftModel
from sagellm_core.worker.pieces import in_pieces


@dataclass(slots=True)
class Known:
    """What a worker knows of the sequences that run: how they decode, which adapters they have. Outlives a sleep."""

    decoder: StepDecoder
    routes: AdapterRoutes = field(default_factory=AdapterRoutes)


class ModelRunner:
    """One model on one device. Nothing of the plan is computed again here."""

    def __init__(
        self,
        model: CausalLM,
        backend: Backend,
        num_blocks: int,
        block_size: int,
        place: Place = ALONE,
        draft: CausalLM | None = None,
        grammars: GrammarCompiler | None = None,
        known: Known | None = None,
    ) -> None:
        self.place = place
        config = model.config
        self.model = model
        self.device = backend.device
        self.attention = attention_for(backend, config, block_size)
        shape = (2, num_blocks + backend.spare_blocks, block_size, model.num_kv_heads, config.head_dim)
        self.caches = [backend.new_cache(shape, model.dtype) for _ in range(model.num_layers)]
        self.blocks = BlockStore(self.caches)
        self.known = known or Known(StepDecoder(grammars, answers=place.answers))
        self.decoder = self.known.decoder
        self.draft = None if draft is None else DraftModel(draft, backend, num_blocks, block_size)
        self._backend = backend
        self._piece_tokens = backend.token_budget // 4
        self._recorded: StepCapture | None = None

    def capture(self, max_batch: int, max_model_len: int) -> None:
        """Let the backend record decode steps, where the whole model is here. Called after a first step."""
        if self.place.alone and self.model.config.plain_attention:
            self._recorded = self._backend.capture(self.model, self.attention, self.caches, max_batch, max_model_len)
        self.decoder.forces = self._recorded is None or self._recorded.general

    @torch.inference_mode()
    def run(self, plan: SchedulerOutput) -> StepOutput:
        """One step. Sequences that are finished are forgotten, new ones are remembered until they finish."""
        if plan.copies:
            self.blocks.copy(plan.copies)
        self.decoder.begin(plan)
        if isinstance(self.model, LoraModel):
            self.known.routes.begin(plan)
        taken = self._replay(plan)
        if taken is not None:
            return self._propose(plan, taken)
        pieces = min(2 * self.place.stage.count, plan.num_tokens // self._piece_tokens)
        if self.place.stage.count > 1 and pieces > 1:
            parts = [self._pass(piece) for piece in in_pieces(plan, pieces)]
            hidden = torch.cat(parts) if self.place.is_last else parts[-1]
        else:
            hidden = self._pass(plan)
        if not self.place.is_last:
            return StepOutput(plan.step, {})
        return self._propose(plan, self.decoder.decode(plan, hidden, self.model.logits))

    def _propose(self, plan: SchedulerOutput, output: StepOutput) -> StepOutput:
        """Let the draft model, where there is one, follow the step and propose tokens for the next."""
        if self.draft is not None:
            self.draft.begin(plan)
            output.drafts.update(self.draft.propose(plan, self.decoder, output))
        return output

    def _replay(self, plan: SchedulerOutput) -> StepOutput | None:
        """The step as one that is recorded; None where it is none such."""
        steps = self._recorded
        if steps is None:
            return None
        found = self.decoder.select(plan)
        masks = self.decoder.masks(found) if steps.general else None
        recorded = steps.run(plan, found.rows, masks)
        if recorded is None:
            return None
        return self.decoder.take(plan, found, recorded, self.model.logits, masked=steps.general)

    def _pass(self, plan: SchedulerOutput) -> Tensor:
        """This stage's layers; the stage after gets what comes out."""
        hidden = self._forward(plan)
        if not self.place.is_last:
            self.place.stage.send(hidden)
        return hidden

    def _forward(self, plan: SchedulerOutput) -> Tensor:
        if isinstance(self.model, LoraModel):
            self.model.step.groups = self.known.routes.groups(plan, self.device)
        meta = self.attention.prepare(plan, self.model.dtype)
        positions = torch.tensor(plan.positions, device=self.device)
        return self.model.forward(self._inputs(plan), positions, self.caches, self.attention, meta)

    def _inputs(self, plan: SchedulerOutput) -> Tensor:
        """Token ids (tokens,), or the hidden states that the stage before made of them."""
        if self.place.is_first:
            return torch.tensor(plan.token_ids, device=self.device)
        width = self.model.config.hidden_size
        return self.place.stage.receive(plan.num_tokens, width, self.model.dtype, self.device)
