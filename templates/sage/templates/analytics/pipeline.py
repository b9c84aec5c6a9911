"""Count the clicks of each page in each minute, and find the visits of each user, by the clicks' own time.

sage run local pipeline.py
sage run local pipeline.py -- --clicks my-clicks.jsonl --out counted
sage run local --restore latest pipeline.py

clicks -> times -> by page -> windows of a minute -> results/pages
            |                         \\-> too late -> results/late
            \\-> by user -> sessions -> results/visits
"""

import argparse
from pathlib import Path
from typing import Any

from sage.common.errors import UsageError
from sage.core.api import (
    AggregateFunction,
    Collector,
    DataStream,
    EventTimeSessionWindows,
    LocalEnvironment,
    OutputTag,
    TimeWindow,
    TumblingEventTimeWindows,
    WatermarkStrategy,
)

HERE = Path(__file__).parent
MINUTE = "1m"
PAUSE = "2m"  # a longer one ends a visit
OUT_OF_ORDER = "10s"  # how much later than others a click may come
CONFIG = {"checkpointing": "exactly_once", "checkpoint.interval": "1s"}

Click = dict[str, Any]  # ms, user, page
LATE: OutputTag[Click] = OutputTag("late")


class Visit(AggregateFunction[Click, list[str], list[str]]):
    """The pages of a visit, in the order of the clicks."""

    def create_accumulator(self) -> list[str]:
        return []

    def add(self, click: Click, pages: list[str]) -> list[str]:
        return [*pages, click["page"]]

    def get_result(self, pages: list[str]) -> list[str]:
        return pages

    def merge(self, pages: list[str], more: list[str]) -> list[str]:
        """A late click can join two visits into one."""
        return [*pages, *more]


def with_user(user: str, window: TimeWindow, visits: list[list[str]], out: Collector[dict[str, Any]]) -> None:
    """A row for each visit."""
    for pages in visits:
        out.collect({"user": user, "start": window.start, "clicks": len(pages), "first": pages[0], "last": pages[-1]})


def build(clicks: DataStream[Click], out: Path) -> None:
    """The pipeline from the clicks to the files in `out`."""
    times = WatermarkStrategy.for_bounded_out_of_orderness(OUT_OF_ORDER).with_timestamp_assigner(lambda c: c["ms"])
    timed = clicks.assign_timestamps_and_watermarks(times, uid="times")

    minutes = timed.key_by(lambda click: click["page"]).window(TumblingEventTimeWindows.of(MINUTE))
    pages = minutes.side_output_late_data(LATE).count(name="pages", uid="pages")
    rows = pages.map(lambda seen: {"page": seen.key, "minute": seen.window.start, "clicks": seen.value})
    rows.write_jsonl(out / "pages", exactly_once=True, uid="write-pages")
    pages.get_side_output(LATE).write_jsonl(out / "late", exactly_once=True, uid="write-late")

    sessions = timed.key_by(lambda click: click["user"]).window(EventTimeSessionWindows.with_gap(PAUSE))
    visits = sessions.aggregate(Visit, with_user, name="visits", uid="visits")
    visits.write_jsonl(out / "visits", exactly_once=True, uid="write-visits")


def arguments() -> argparse.Namespace:
    """What the command line says, checked."""
    parser = argparse.ArgumentParser(description="Count clicks by page and minute, and visits by user.")
    parser.add_argument("--clicks", type=Path, default=HERE / "clicks.jsonl", help="a file of JSON lines")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the results go")
    args = parser.parse_args()
    if not args.clicks.is_file():
        hint = "sage run local pipeline.py -- --clicks FILE"
        raise UsageError(f"There is no file {args.clicks}", cause="it should hold a click a line, as JSON", hint=hint)
    return args


def main() -> None:
    args = arguments()
    env = LocalEnvironment("{{project_name}}", CONFIG)
    build(env.from_jsonl(args.clicks, name="clicks"), args.out)
    env.submit()
    for name in ("pages", "visits", "late"):
        lines = sum(path.read_text(encoding="utf-8").count("\n") for path in (args.out / name).glob("*.jsonl"))
        print(f"{lines:6,} {name}  in {args.out / name}")


if __name__ == "__main__":
    main()
