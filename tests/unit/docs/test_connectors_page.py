"""The page on connectors: its example works, through failures too, and its tables leave nothing out (SPEC K10)."""

from __future__ import annotations

import inspect
import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.flow.connectors.harness import read, reader

from sage.common.home import SageHome
from sage.core.api.reading import ReadingMixin
from sage.core.api.writing import WritingMixin
from sage.core.runtime import session

pytestmark = pytest.mark.spec("K10")
PAGE = (Path(__file__).parents[3] / "docs" / "connectors.md").read_text(encoding="utf-8")
MAILS = [f"mail {n}\n".encode() * (n + 1) for n in range(60)]


@pytest.fixture
def example() -> dict[str, Any]:
    """The names that the page's programs define."""
    names: dict[str, Any] = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/connectors.md", "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def archives(tmp_path: Path) -> list[str]:
    paths = []
    for part in range(4):
        path = tmp_path / f"{part}.tar"
        with tarfile.open(path, "w") as archive:
            archive.addfile(_member("folder", tarfile.DIRTYPE, 0))
            for number, mail in enumerate(MAILS[part::4]):
                archive.addfile(_member(f"{number}", tarfile.REGTYPE, len(mail)), io.BytesIO(mail))
        paths.append(str(path))
    return paths


def _member(name: str, kind: bytes, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member


def test_the_source_goes_on_where_it_was(example: dict[str, Any], archives: list[str]) -> None:
    source = example["Archives"](tuple(archives))
    mails: list[bytes] = []
    stored = None
    for count in (5, 11, 30, None):
        made = reader(source, stored)
        mails += read(made, count, limit=4)
        stored = made.snapshot()
        made.close()
    assert mails == [mail for part in range(4) for mail in MAILS[part::4]]


def test_the_pipeline_delivers_each_mail_once_though_it_fails(
    example: dict[str, Any], archives: list[str], tmp_path: Path
) -> None:
    seen = 0

    def fails_sometimes(mail: bytes) -> bytes:
        nonlocal seen
        seen += 1
        if seen in (10, 40):
            raise RuntimeError("fails")
        return mail

    config = {"checkpoint.interval": "5ms", "restart.strategy": "fixed-delay", "restart.delay": 1, "buffer.size": 2}
    with session.use(session.Session(home=SageHome(tmp_path / ".sage"))):
        handle = example["deliver"](archives, str(tmp_path / "mailbox"), fails_sometimes, **config)
    assert handle.restarts == 2
    assert sorted(path.read_bytes() for path in (tmp_path / "mailbox" / "new").iterdir()) == sorted(MAILS)
    assert list((tmp_path / "mailbox" / "tmp").iterdir()) == []


@pytest.mark.parametrize("mixin", [ReadingMixin, WritingMixin])
def test_every_method_is_on_the_page(mixin: type) -> None:
    own = [name for name in vars(mixin) if re.match(r"from_|write_", name)]
    assert own
    assert [name for name in own if f"`{name}`" not in PAGE] == []
    assert all(inspect.getdoc(getattr(mixin, name)) for name in own)


def test_what_the_page_says_about_attempts_is_so() -> None:
    from sage.core.connectors.backoff import Retry

    assert (Retry().attempts, Retry().first, Retry().most) == (10, 0.1, 30.0)
    assert "ten attempts in a row, at growing distances (0.1 s to 30 s)" in PAGE
