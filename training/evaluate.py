"""Held-out accuracy per skill: ``python -m training.evaluate FOLDER`` writes ``report.json`` and ``REPORT.md`` there.

Names, values and wordings of the test side never occur in training (see ``training.draw``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training import context_tasks, manual_tasks, plan, prose, skills
from training.corpus import stream_seed
from training.draw import Draw, held_out
from training.example import Example, dialogue
from training.export import load
from training.facts import load_facts
from training.handwritten import PROMPTS, right
from training.model import TinyLlama
from training.report import Skill, write_report
from training.scoring import Score, answer, score

SHOWN_FAILURES = 6


def context_test(unknown: float, facts: tuple[int, int], near: float = 0.25) -> Callable[[Draw], Example]:
    """A reading task as the product words it: chunks, then one to three questions."""

    def make(draw: Draw) -> Example:
        count = draw.number(*facts)
        return context_tasks.context_example(draw, count, draw.number(1, 3), draw.pick((60, 120, 240)), unknown, near)

    return make


def sage_questions() -> list[Example]:
    """Every held-out question about SAGE, and held-out topics, as written and typed in a hurry."""
    found = []
    for fact in load_facts():
        asked = [question for question in fact.questions if held_out(question)]
        for topic in filter(held_out, fact.topics):
            asked += [frame.format(t=topic) for frame in ("What is {t}?", "tell me {t}", "{t}?")]
        for text in asked:
            shapes = (text, text.rstrip("?."), text.lower())
            found += [dialogue("sage", [(shape, fact.answer)]) for shape in shapes]
    return found


def sage_phrasings(draw: Draw) -> Example:
    """A fact about SAGE in a held-out frame or a sloppy shape."""
    fact = draw.pick(load_facts())
    return dialogue("sage-frames", [(manual_tasks.ask_varied(draw, fact), fact.answer)])


TESTS: tuple[tuple[str, str, bool, bool, Callable[[Draw], Example]], ...] = (
    ("context", "a fact in the context, unseen names and values", True, False, context_test(0.0, (1, 8))),
    ("context, one fact", "the same with a single fact", True, False, context_test(0.0, (1, 1))),
    ("context, unseen wording", "and unseen wording of statement and question", True, True, context_test(0.0, (1, 8))),
    ("prose", "running prose: pronouns, synonyms, joined sentences", True, False,
     lambda draw: prose.prose_example(draw, draw.number(1, 4), draw.number(1, 2), 160, 0.0, near=0.25)),
    ("prose, absent", "the passage lacks the answer: says so", True, False,
     lambda draw: prose.prose_example(draw, draw.number(1, 4), draw.number(1, 2), 160, 1.0, near=0.25)),
    ("manual", "chunks of a manual about SAGE, swapped words", True, True,
     lambda draw: manual_tasks.from_manual(draw, 2, 240, 0.0)),
    ("manual, absent", "the chunks lack the answer: says so", True, True,
     lambda draw: manual_tasks.from_manual(draw, 2, 240, 1.0)),
    ("context, absent", "the context lacks the answer: says so", True, False, context_test(1.0, (1, 8))),
    ("context, near miss", "the context only tells something close: says so", True, False,
     context_test(1.0, (1, 8), near=1.0)),
    ("SAGE, other frames", "facts about SAGE from memory, unseen frames", True, True, sage_phrasings),
    ("beyond its knowledge", "no context, not about SAGE: says so", True, True, skills.unknowable),
    ("lookup", "key and value lists", True, False, context_tasks.lookup_example),
    ("echo", "repeats a text", True, False, skills.echo),
    ("classify", "positive or negative", True, False, skills.classify),
    ("classify, unseen wording", "the same, asked as never in training", True, True, skills.classify),
    ("JSON", "extracts named values as JSON", True, False, skills.extract),
    ("sort", "sorts three to five numbers or words", True, False, skills.sort_items),
    ("greeting", "hello, thanks, goodbye", True, True, skills.greeting),
)  # fmt: skip


def run_test(model: TinyLlama, tokenizer: Tokenizer, name: str, about: str, examples: list[Example]) -> Skill:
    """Score one skill."""
    scores = score(model, tokenizer, examples)
    failed = [item for item in scores if not item.exact]
    return Skill(name, about, len(scores), len(scores) - len(failed), tuple(failed[:SHOWN_FAILURES]))


def handwritten(model: TinyLlama, tokenizer: Tokenizer) -> Skill:
    """Score the prompts written by hand."""
    failed = []
    for prompt in PROMPTS:
        said = answer(model, tokenizer, prompt.turns())
        if not right(prompt, said):
            failed.append(Score(prompt.question, f"{prompt.accepted[0]} [said: {said}]", exact=False))
    return Skill(
        "handwritten", "prompts written by hand, any skill", len(PROMPTS), len(PROMPTS) - len(failed), tuple(failed)
    )


def evaluate(model: TinyLlama, tokenizer: Tokenizer, items: int) -> list[Skill]:
    """All skills; ``items`` conversations each."""
    results = []
    for index, (name, about, names, words, make) in enumerate(TESTS):
        draw = Draw(stream_seed(plan.SEED, 999, index), new_names=names, new_wording=words)
        results.append(run_test(model, tokenizer, name, about, [make(draw) for _ in range(items)]))
    results.append(
        run_test(model, tokenizer, "SAGE", "facts about SAGE from memory, unseen questions", sage_questions())
    )
    results.append(handwritten(model, tokenizer))
    return results


def report(folder: Path, run: Path | None, items: int = 300, failures: bool = False) -> None:
    """Evaluate a folder, print the accuracies and write its report."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    results = evaluate(load(folder), tokenizer, items)
    for skill in results:
        print(f"{skill.name:26} {skill.accuracy:.3f}  ({skill.right}/{skill.asked})")
        for item in skill.failed if failures else ():
            print("   ", json.dumps([item.prompt[-400:], item.expected], ensure_ascii=False))
    write_report(folder, results, run)


def main() -> None:
    """``python -m training.evaluate FOLDER``"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a Hugging Face folder with a tied Llama model")
    parser.add_argument("--items", type=int, default=300, help="conversations a skill (default %(default)s)")
    parser.add_argument("--run", type=Path, help="the training run's folder, for the number of steps and tokens")
    parser.add_argument("--failures", action="store_true", help="print failures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report(arguments.folder, arguments.run, arguments.items, arguments.failures)


if __name__ == "__main__":
    main()
