"""The report that lies beside the weights, as JSON and as prose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from training.scoring import Score

LIMITS = """
- It is a demonstration model of a few million weights. It has no knowledge of the world, cannot reason, count,
  calculate, translate, summarise or write, and it speaks English only.
- It answers with a short span. It reads about four hundred tokens well; longer prompts were not trained on.
- It was trained on generated sentences. The further a text or a question is from them, the more often it picks a wrong
  span or says "I don't know" although the answer is there; see the prompts written by hand below.
- It may answer a question that the context does not answer with a span that only looks alike.
- Long invented words and long lists are sometimes copied with a slip.
- It did not learn to sort, and JSON with more than one field is mostly incomplete. It classifies only when asked in one
  of the ways that it was trained on.
- The aims were 90 % for facts in a context, 95 % for facts about SAGE and 80 % for "I don't know" when the context
  lacks the answer. Where the table shows less, they are missed; reading was better at the end of the run than at any
  checkpoint before, so longer training is the first thing to try.
"""


HISTORY = """
The mixes and the learning rate were set while the run was watched; `training/plan.py` records them, and a replay
follows them from the first step. Two faults were mended on the way: some phrases had doubled spaces until step 1,680
(also in the text that the tokenizer learned from), and the micro-batches were of uneven size until step 2,400; between
steps 2,000 and 2,160 the rate fell later than the plan says. A replay therefore gives like weights, not equal ones.
"""
PAGE = """# The built-in model

A small Llama, trained from a seed by `make train-model` on a corpus that `training/` generates.

## Training

{facts}
{history}
## Held-out exact match

Greedy answers, compared letter by letter; names, values and, where it says so, wordings that training never saw.

| skill | what is asked | questions | exact |
| --- | --- | --- | --- |
{rows}

## What it cannot do
{limits}
## Prompts written by hand that fail

{failures}
"""


@dataclass(frozen=True, slots=True)
class Skill:
    """How one skill went; ``failed`` holds a few failures."""

    name: str
    about: str
    asked: int
    right: int
    failed: tuple[Score, ...]

    @property
    def accuracy(self) -> float:
        """Share of exact answers."""
        return self.right / max(1, self.asked)


def training_facts(run: Path | None, folder: Path) -> dict[str, int | str]:
    """What the run's summary says, else what the folder's earlier report kept."""
    if run is not None and (run / "summary.json").exists():
        return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))
    earlier = folder / "report.json"
    return dict(json.loads(earlier.read_text(encoding="utf-8")).get("training", {})) if earlier.exists() else {}


def write_report(folder: Path, skills: list[Skill], run: Path | None) -> None:
    """Write ``report.json`` and ``REPORT.md`` into the folder."""
    training = training_facts(run, folder)
    data = {
        "training": training,
        "skills": {
            skill.name: {
                "about": skill.about,
                "asked": skill.asked,
                "right": skill.right,
                "accuracy": round(skill.accuracy, 4),
            }
            for skill in skills
        },
    }
    (folder / "report.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    rows = "\n".join(f"| {s.name} | {s.about} | {s.asked} | {s.accuracy:.1%} |" for s in skills)
    failures = "\n".join(
        f"- {item.prompt!r}: expected {item.expected!r}" for s in skills if s.name == "handwritten" for item in s.failed
    )
    facts = "\n".join(f"- {key}: {value}" for key, value in training.items())
    page = PAGE.format(facts=facts, history=HISTORY, rows=rows, limits=LIMITS, failures=failures or "None.")
    (folder / "REPORT.md").write_text(page, encoding="utf-8")
