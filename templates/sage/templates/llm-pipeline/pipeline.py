"""Answer questions from a folder of Markdown documents, and say where each answer stands.

    sage llm serve
    sage run local pipeline.py
    sage run local pipeline.py -- --docs ~/notes --questions my-questions.txt

Two pipelines share one vector store:

    documents -> split -> embed -> store
    questions -> retrieve -> answer -> print
"""

import argparse
import os
import re
import statistics
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sage.common.errors import UsageError
from sage.core.api import LocalEnvironment
from sage.core.api.function import FunctionContext, MapFunction, SinkFunction
from sage.llm import UnifiedInferenceClient
from sage.middleware.services.vdb import VDBService

HERE = Path(__file__).parent
PASSAGE = 240  # characters
TOP_K = 3  # passages that the model sees
SYSTEM = "Answer the question from the context. If the answer is not there, say: I don't know."


@dataclass(slots=True, frozen=True)
class Passage:
    """A piece of a document, and where it stands."""

    text: str
    source: str
    heading: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} ({self.heading})"


@dataclass(slots=True)
class Question:
    """A question on its way through the pipeline."""

    text: str
    passages: list[Passage] = field(default_factory=list)
    answer: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"Q: {self.text}\nA: {self.answer}\n   source: {self.source() or 'none of the passages'}\n"

    def source(self) -> Passage | None:
        """The passage that holds the answer, else the one that shares most words with it; None for "I don't know"."""
        if not self.passages or words(self.answer)[:4] == ["i", "don", "t", "know"]:
            return None
        answer = " ".join(words(self.answer))
        holding = [passage for passage in self.passages if f" {answer} " in f" {' '.join(words(passage.text))} "]
        shared = {passage: len({*words(answer)} & {*words(passage.text)}) for passage in self.passages}
        return holding[0] if holding else max(self.passages, key=shared.__getitem__)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def split(path: Path) -> list[Passage]:
    """The passages of a Markdown file: prose is cut between sentences; code, lists and tables between lines."""
    return [
        Passage(text, f"{path.parent.name}/{path.name}", heading, line)
        for heading, line, units, glue in blocks(path.read_text(encoding="utf-8").splitlines(), path.stem)
        for text in pack(units, glue)
    ]


def blocks(lines: list[str], heading: str) -> Iterator[tuple[str, int, list[str], str]]:
    """Each paragraph, code block, list or table: its heading, its first line's number, its units, what joins them."""
    block: list[str] = []
    fenced = False
    for number, line in enumerate([*lines, ""], 1):
        fence = line.startswith("```")
        title = line.startswith("#") and not fenced
        if fence or title or not (line.strip() or fenced):
            if fenced or all(row.startswith(("|", "- ", "* ")) for row in block):
                yield heading, number - len(block), block, "\n"
            else:
                yield heading, number - len(block), re.split(r"(?<=[.!?:]) ", " ".join(block)), " "
            block, fenced = [], fenced != fence
            heading = line.strip("# ") if title else heading
        else:
            block.append(line)


def pack(units: list[str], glue: str) -> Iterator[str]:
    """Units joined into texts of at most PASSAGE characters; a longer unit is cut between words."""
    text = ""
    for unit in (piece for unit in units for piece in textwrap.wrap(unit, PASSAGE, drop_whitespace=False)):
        if text and len(text) + len(glue) + len(unit) > PASSAGE:
            yield text
            text = ""
        text = f"{text}{glue}{unit}" if text else unit
    if text.strip():
        yield text


class Embed(MapFunction):
    """All passages of a document become vectors in one request to the gateway."""

    def open(self, context: FunctionContext) -> None:
        self.client = UnifiedInferenceClient.create()

    def process(self, passages: list[Passage]) -> tuple[list[Passage], list[list[float]]]:
        return passages, self.client.embed([f"{passage.heading}\n{passage.text}" for passage in passages])


class Store(SinkFunction):
    def process(self, record: tuple[list[Passage], list[list[float]]]) -> None:
        passages, vectors = record
        self.call_service["vectors"].add(vectors, metadata=[{"passage": passage} for passage in passages])


class Retrieve(MapFunction):
    """The passages nearest to the question."""

    def open(self, context: FunctionContext) -> None:
        self.client = UnifiedInferenceClient.create()

    def process(self, question: Question) -> Question:
        started = time.perf_counter()
        [vector] = self.client.embed([question.text])
        hits = self.call_service["vectors"].search(vector, top_k=TOP_K)
        question.passages = [hit.metadata["passage"] for hit in hits]
        question.seconds = time.perf_counter() - started
        return question


class Ask(MapFunction):
    """The model's answer from these passages."""

    def open(self, context: FunctionContext) -> None:
        self.client = UnifiedInferenceClient.create()

    def process(self, question: Question) -> Question:
        started = time.perf_counter()
        context = "\n".join(f"[{rank}] {passage.text}" for rank, passage in enumerate(question.passages, 1))
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"Context:\n{context}\n\nQuestion: {question.text}"},
        ]
        question.answer = self.client.chat(messages, temperature=0, max_tokens=48).strip()
        question.seconds += time.perf_counter() - started
        return question


def arguments() -> tuple[list[Path], list[str]]:
    """The documents and the questions that the command line names."""
    parser = argparse.ArgumentParser(description="Answer questions from a folder of Markdown documents.")
    parser.add_argument("--docs", type=Path, default=Path(os.environ.get("SAGE_DOCS", HERE / "docs")))
    parser.add_argument("--questions", type=Path, default=HERE / "questions.txt")
    args = parser.parse_args()
    documents = sorted(path for ending in ("md", "txt") for path in args.docs.rglob(f"*.{ending}"))
    if not documents:
        raise UsageError(f"No documents in {args.docs}", cause="no .md or .txt file there", hint="pass --docs FOLDER")
    if not args.questions.is_file():
        raise UsageError(f"There is no file {args.questions}", cause="one question a line", hint="pass --questions FILE")
    return documents, [line for line in args.questions.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    documents, questions = arguments()
    vectors = VDBService()
    answered: list[Question] = []

    indexing = LocalEnvironment("index-documents")
    indexing.register_service("vectors", lambda: vectors)
    indexing.from_collection(documents).map(split).map(Embed, name="embed").sink(Store, name="store")
    indexing.submit()

    asking = LocalEnvironment("answer-questions")
    asking.register_service("vectors", lambda: vectors)
    stream = asking.from_collection([Question(text) for text in questions])
    stream.map(Retrieve, name="retrieve").map(Ask, name="ask").map(lambda q: answered.append(q) or q).print()
    asking.submit()
