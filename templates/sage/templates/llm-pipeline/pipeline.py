"""Answer questions from a folder of Markdown documents, and say where each answer stands.

    sage llm serve
    sage run local pipeline.py
    sage run local pipeline.py -- --docs ~/notes --questions my-questions.txt

Two pipelines share one vector store:

    documents -> split -> embed -> store
    questions -> retrieve -> answer -> print
"""

import argparse
import itertools
import json
import math
import os
import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sage.common.errors import UsageError
from sage.core.api import LocalEnvironment
from sage.core.api.function import AsyncFunction, MapFunction, SinkFunction
from sage.llm import UnifiedInferenceClient
from sage.middleware.services.vdb import VDBService

HERE = Path(__file__).parent
PASSAGE = 240  # characters
IN_FLIGHT = 4  # questions that are asked at the same time; answers keep the order of the questions
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

    def row(self) -> str:
        """The answer as a line of JSON."""
        source = self.source()
        place = {"source": source.source, "line": source.line, "heading": source.heading} if source else {"source": ""}
        return json.dumps({"question": self.text, "answer": self.answer, **place, "seconds": round(self.seconds, 3)})

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


def split(path: Path, root: Path) -> list[Passage]:
    """The passages of a Markdown file: prose is cut between sentences; code, lists and tables between lines."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [
        Passage(text, path.relative_to(root).as_posix(), heading, number)
        for heading, number, units, glue in blocks(lines, path.stem)
        for text in pack(units, glue)
    ]


def blocks(lines: list[str], heading: str) -> Iterator[tuple[str, int, list[str], str]]:
    """Each paragraph, code block, list or table: its heading, its first line's number, its units, what joins them."""
    block: list[str] = []
    fenced = False
    for number, line in enumerate([*lines, ""], 1):
        fence = line.lstrip().startswith("```")
        title = line.startswith("#") and not fenced
        if fence or title or not (line.strip() or fenced):
            if fenced or all(row.lstrip().startswith(("|", "- ", "* ")) for row in block):
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
    cut = (textwrap.wrap(unit, PASSAGE) if len(unit) > PASSAGE else [unit] for unit in units)
    for piece in itertools.chain.from_iterable(cut):
        if text and len(text) + len(glue) + len(piece) > PASSAGE:
            yield text
            text = ""
        text = f"{text}{glue}{piece}" if text else piece
    if text.strip():
        yield text


class Embed(MapFunction[list[Passage], tuple[list[Passage], list[list[float]]]]):
    """All passages of a document become vectors in one request."""

    def process(self, passages: list[Passage]) -> tuple[list[Passage], list[list[float]]]:
        texts = [f"{passage.heading}\n{passage.text}" for passage in passages]
        return passages, self.call_service["gateway"].embed(texts)


class Store(SinkFunction[tuple[list[Passage], list[list[float]]]]):
    """Passages and vectors go into the vector store."""

    def process(self, record: tuple[list[Passage], list[list[float]]]) -> None:
        passages, vectors = record
        self.call_service["vectors"].add(vectors, metadata=[asdict(passage) for passage in passages])


class Retrieve(AsyncFunction[Question, Question]):
    """The passages nearest to the question."""

    async def async_invoke(self, question: Question) -> Question:
        started = time.perf_counter()
        [vector] = await self.call_service_async["gateway"].embed([question.text])
        hits = self.call_service["vectors"].search(vector, top_k=TOP_K)
        question.passages = [Passage(**hit.metadata) for hit in hits]
        question.seconds = time.perf_counter() - started
        return question


class Answer(AsyncFunction[Question, Question]):
    """What the model says, given these passages."""

    async def async_invoke(self, question: Question) -> Question:
        started = time.perf_counter()
        context = "\n".join(f"[{rank}] {passage.text}" for rank, passage in enumerate(question.passages, 1))
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"Context:\n{context}\n\nQuestion: {question.text}"},
        ]
        answer = await self.call_service_async["gateway"].chat(messages, temperature=0, max_tokens=48)
        question.answer = answer.strip()
        question.seconds += time.perf_counter() - started
        return question


def arguments() -> argparse.Namespace:
    """What the command line says, checked."""
    parser = argparse.ArgumentParser(description="Answer questions from a folder of Markdown documents.")
    parser.add_argument("--docs", type=Path, default=os.environ.get("SAGE_DOCS", HERE / "docs"))
    parser.add_argument("--questions", type=Path, default=HERE / "questions.txt")
    parser.add_argument("--answers", type=Path, default=HERE / "answers.jsonl", help="where they are kept")
    args = parser.parse_args()
    args.docs = args.docs.resolve()
    args.files = sorted(path for path in args.docs.rglob("*") if path.suffix in (".md", ".txt") and path.is_file())
    again = "sage run local pipeline.py --"
    if not args.files:
        raise UsageError(
            f"No documents in {args.docs}", cause="no .md or .txt file is there", hint=f"{again} --docs FOLDER"
        )
    if not args.questions.is_file():
        cause = "it should hold one question a line"
        raise UsageError(f"There is no file {args.questions}", cause=cause, hint=f"{again} --questions FILE")
    return args


def main() -> None:
    args = arguments()
    questions = [Question(line) for line in args.questions.read_text(encoding="utf-8").splitlines() if line.strip()]
    answered: list[Question] = []
    env = LocalEnvironment("llm-pipeline")
    env.register_service("gateway", UnifiedInferenceClient.create)
    env.register_service("vectors", VDBService)

    documents = env.from_collection(args.files, name="documents")
    passages = documents.map(lambda path: split(path, args.docs.parent), name="split").filter(bool, name="not-empty")
    passages.map(Embed, name="embed").sink(Store, name="store")
    env.submit()

    asked = env.from_collection(questions, name="questions")
    found = asked.async_map(Retrieve, capacity=IN_FLIGHT, name="retrieve")
    answers = found.async_map(Answer, capacity=IN_FLIGHT, timeout="5m", name="answer")
    answers.print()
    answers.sink(answered.append, name="keep")
    env.submit()

    args.answers.write_text("".join(question.row() + "\n" for question in answered), encoding="utf-8")
    middle, slow = (quantile([question.seconds for question in answered], q) for q in (0.5, 0.95))
    print(f"{len(args.files)} documents, {env.call_service['vectors'].count()} passages, {len(answered)} questions")
    print(f"seconds per answer: {middle:.2f} at the median, {slow:.2f} at the 95th percentile")


def quantile(values: list[float], q: float) -> float:
    """The smallest value that a share q of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)] if values else 0.0


if __name__ == "__main__":
    main()
