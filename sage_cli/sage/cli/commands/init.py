"""``sage init``: a project from a template."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sage.cli.output import emit_json, result, say, table
from sage.common.errors import UsageError

_DEFAULT = "llm-pipeline"


def init(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The folder to make.", show_default=False)] = None,
    template: Annotated[str, typer.Option("--template", "-t", help="What the project looks like.")] = _DEFAULT,
    list_: Annotated[bool, typer.Option("--list", help="List the templates.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also write into a folder that is not empty.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --list, or for the files made: print JSON.")] = False,
) -> None:
    """Create a project that runs at once, with its own README and tests."""
    from sage import templates

    if list_:
        found = templates.list_templates()
        if json:
            emit_json([{"name": info.name, "description": info.description} for info in found])
        else:
            for line in table([(info.name, info.description) for info in found], ("TEMPLATE", "WHAT IT IS")):
                result(line)
        return
    if name is None:
        raise UsageError("The project needs a name", hint=f"sage init my-project --template={_DEFAULT}")
    folder = Path(name)
    files = templates.render(template, folder, folder.resolve().name, force)
    if json:
        emit_json({"project": str(folder), "template": template, "files": [str(path) for path in files]})
        return
    result(str(folder))
    say(f"Made {folder} from the template {template}: {len(files)} files.")
    [steps] = [info.first_steps for info in templates.list_templates() if info.name == template]
    say("Next:  " + "  &&  ".join((f"cd {shlex.quote(str(folder))}", *steps)))
