"""Train the built-in model: ``python -m training.train`` replays ``training.plan`` from its seed, exports, evaluates.

Single-threaded processes, one a core, average their gradients over gloo. Every few minutes a checkpoint (weights,
optimiser, step) replaces the last one; ``--resume`` continues from it. A file named ``stop`` in the folder ends the run
after the current step, with a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from training import plan
from training.batches import IGNORED, Batch, stream
from training.corpus import BROAD, draw_example, stream_seed
from training.draw import Draw
from training.evaluate import report
from training.export import export_run
from training.model import TinyLlama
from training.optimizer import Optimizer
from training.tokenizer import save_tokenizer, train_tokenizer

CHECKPOINT_SECONDS = 240.0
LOG_STEPS = 20


def make_tokenizer(folder: Path) -> None:
    """Train the tokenizer on a sample of the corpus and save it, unless it is there."""
    if (folder / "tokenizer.json").exists():
        return
    draw = Draw(stream_seed(plan.SEED))
    examples = [draw_example(draw, BROAD) for _ in range(plan.TOKENIZER_EXAMPLES)]
    texts = [turn.text for example in examples for turn in example.turns]
    tokenizer = train_tokenizer(texts, plan.SHAPE.vocab_size, plan.COMMON_WORDS)
    save_tokenizer(tokenizer, folder, plan.SHAPE.max_position_embeddings)


def loss_of(model: TinyLlama, batch: Batch) -> Tensor:
    """Mean cross-entropy of the tokens asked; products in bf16."""
    hidden = model.hidden(batch.ids, torch.bfloat16).flatten(0, 1)[batch.places]
    logits = model.logits(hidden.bfloat16()).float()
    return functional.cross_entropy(logits, batch.targets, ignore_index=IGNORED)


class Run:
    """One process of the run: its model, optimiser, place in the plan and log."""

    def __init__(self, folder: Path, rank: int, resume: bool) -> None:
        torch.manual_seed(plan.SEED)
        self.folder, self.rank = folder, rank
        self.model = TinyLlama(plan.SHAPE)
        self.optimizer = Optimizer(self.model, plan.MUON_LR, plan.ADAM_LR)
        self.step, self.tokens = 0, 0
        if resume:
            self._load()
        self.parameters = list(self.model.parameters())
        self.saved = self.logged = time.monotonic()
        self.tokens_logged = self.tokens
        self.losses: list[float] = []

    @property
    def checkpoint(self) -> Path:
        """Where the last state stands."""
        return self.folder / "checkpoint.pt"

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load(state["optimizer"])
        self.step, self.tokens = state["step"], state["tokens"]

    def save(self) -> None:
        """Replace the checkpoint (first process only)."""
        self.saved = time.monotonic()
        if self.rank:
            return
        fresh = self.checkpoint.with_suffix(".new")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state(), "step": self.step,
                 "tokens": self.tokens}  # fmt: skip
        torch.save(state, fresh)
        fresh.replace(self.checkpoint)

    def update(self, batch: Batch) -> bool:
        """One step over all processes' batches; true where the run was asked to stop."""
        loss = loss_of(self.model, batch)
        torch.autograd.backward(loss)
        stop = float(self.rank == 0 and (self.folder / "stop").exists())
        flat = torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None]
                         + [torch.tensor([loss.item(), float(batch.tokens), stop])])  # fmt: skip
        dist.all_reduce(flat)
        flat, extra = flat[:-3] / dist.get_world_size(), flat[-3:]
        for parameter, gradient in zip(
            self.parameters, torch.split(flat, [p.numel() for p in self.parameters]), strict=True
        ):
            parameter.grad = gradient.view_as(parameter)
        self.optimizer.step(plan.rate(self.step))
        for parameter in self.parameters:
            parameter.grad = None
        self.step += 1
        self.tokens += int(extra[1])
        self.losses.append(float(extra[0]) / dist.get_world_size())
        return bool(extra[2])

    def log(self) -> None:
        """A line to the log and to stdout, from the first process."""
        now = time.monotonic()
        speed = (self.tokens - self.tokens_logged) / (now - self.logged)
        self.logged, self.tokens_logged = now, self.tokens
        row = {"step": self.step, "tokens": self.tokens, "loss": round(sum(self.losses) / len(self.losses), 4),
               "rate": round(plan.rate(self.step - 1), 3), "tokens_per_s": round(speed)}  # fmt: skip
        self.losses.clear()
        if self.rank == 0:
            print(json.dumps(row), flush=True)

    def train(self) -> None:
        """Go through the plan from where this run stands."""
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        total = plan.total_steps()
        while self.step < total:
            index, first = plan.position(self.step)
            phase = plan.PHASES[index]
            seed = (plan.SEED, index, self.rank)
            for batch in stream(tokenizer, phase.mix, seed, first, phase.steps, phase.budget, phase.longest):
                if self.update(batch):
                    self.save()
                    return
                if self.step % LOG_STEPS == 0:
                    self.log()
                if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                    self.save()
        self.save()
        if self.rank == 0:
            write_summary(self.folder, self.step, self.tokens)


def write_summary(folder: Path, step: int, tokens: int) -> None:
    """What the report tells about the run."""
    phases = ", ".join(f"{phase.name} {phase.steps}" for phase in plan.PHASES)
    model = TinyLlama(plan.SHAPE)
    summary = {
        "seed": plan.SEED, "processes": plan.WORKERS, "steps": step, "steps by phase": phases, "tokens seen": tokens,
        "parameters": sum(p.numel() for p in model.parameters()), "vocabulary": plan.SHAPE.vocab_size,
        "optimiser": f"Muon {plan.MUON_LR}, AdamW {plan.ADAM_LR}, times {plan.RATE_POINTS}",
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def work(rank: int, folder: str, workers: int, resume: bool) -> None:
    """The life of one process."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers)
    Run(Path(folder), rank, resume).train()
    dist.destroy_process_group()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/train-model"), help="run folder (default %(default)s)")
    parser.add_argument("--export", type=Path, help="where the finished model goes (default: model/ in the run folder)")
    parser.add_argument(
        "--workers", type=int, default=plan.WORKERS, help="processes; the shipped weights used %(default)s"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the folder's checkpoint")
    return parser.parse_args()


def main() -> None:
    """Train in all processes, then export and evaluate."""
    arguments = parse()
    folder: Path = arguments.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("stop", "rendezvous"):
        (folder / name).unlink(missing_ok=True)
    make_tokenizer(folder)
    spawn(work, (str(folder), arguments.workers, arguments.resume), nprocs=arguments.workers)  # type: ignore[no-untyped-call]
    if not (folder / "stop").exists():
        target: Path = arguments.export or folder / "model"
        export_run(folder, target)
        report(target, folder)


if __name__ == "__main__":
    main()
