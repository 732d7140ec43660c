"""`llamacli doctor`: what this machine has, what the engine was built for, and what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.diagnosis import Problem, Section, examine
from llamacli.cli.models import places
from llamacli.errors import LlamacliError

HURRIED, PATIENT = 3.0, 10.0
"""Seconds that the Hub has for its answer."""


def doctor_command(
    context: typer.Context,
    hub: bool = typer.Option(False, "--hub", help="Count it as a problem if the Hub cannot be reached."),
) -> None:
    """Examine this machine and this installation; exit 0 if all is well, 1 if there are problems.

    \b
    llamacli doctor                  a report to read, or to paste into a bug report
    llamacli doctor --json           the same for scripts
    llamacli doctor --hub            also a problem: no way to the Hub
    llamacli doctor --offline        the Hub is not asked

    The Hub is asked whether it is there, and whether it knows your token if you have one; nothing else is sent.
    """
    here: Context = context.obj
    sections = [*examine(here), _hub_section(here, needed=hub)]
    problems = [problem for section in sections for problem in section.problems]
    _show(here, sections, problems)
    raise typer.Exit(1 if problems else 0)


def _hub_section(here: Context, *, needed: bool) -> Section:
    """One question to the Hub; offline none."""
    from llamacli.library.http import BadStatus, Client, Session, Timeouts, Unreachable

    if here.offline:
        return Section("hub", (("reachable", "not asked: offline"),))
    where = places(here)
    client = Client(where, Timeouts(*[PATIENT if needed else HURRIED] * 2))
    session = Session(client)
    question = "/api/whoami-v2" if client.has_token else "/api/models?limit=1"
    try:
        answer = session.get_json(where.endpoint + question)
        name = str(answer.get("name", "")) if isinstance(answer, dict) else ""
        return Section("hub", (("reachable", "yes"), ("token", "valid" if name else "none")))
    except BadStatus as error:
        if error.status in (401, 403):
            fix = f"make a new one at {where.endpoint}/settings/tokens, then export HF_TOKEN=hf_…"
            return Section("hub", (("reachable", "yes"),), (Problem("the Hub does not accept your token", fix),))
        return Section("hub", (("reachable", f"yes, but it answers {error.status}"),))
    except (Unreachable, LlamacliError) as error:
        fix = "check the network, HTTPS_PROXY and HF_ENDPOINT"
        reason = client.redact(str(error))
        return Section("hub", (("reachable", f"no: {reason}"),), (Problem(reason, fix),) if needed else ())
    finally:
        session.close()


def _show(here: Context, sections: Sequence[Section], problems: Sequence[Problem]) -> None:
    console = here.console
    if console.json_output:
        data = {
            "ok": not problems,
            "sections": {
                section.name: [{"name": name, "value": value} for name, value in section.facts] for section in sections
            },
            "problems": [{"message": problem.message, "fix": problem.fix} for problem in problems],
        }
        console.result("", data)
        return
    width = max(len(name) for section in sections for name, _ in section.facts)
    for section in sections:
        lines = [f"  {name:<{width}}  {value}" for name, value in section.facts]
        console.write(clean("\n".join((section.name, *lines))) + "\n")
    console.write("\n")
    for number, problem in enumerate(problems, 1):
        console.write(clean(f"{number}. {problem.message}\n   fix: {problem.fix}") + "\n")
    if not problems:
        console.write("ok\n")
