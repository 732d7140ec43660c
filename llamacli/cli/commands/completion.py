"""`llamacli completion SHELL`: the script that lets a shell complete commands, flags and models."""

from __future__ import annotations

import typer

from llamacli.cli.context import Context
from llamacli.errors import UsageError

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def completion_command(
    context: typer.Context,
    shell: str = typer.Argument(..., metavar="|".join(SHELLS[:4]), help="For which shell."),
) -> None:
    """Print the completion script of a shell, to be evaluated when it starts.

    \b
    eval "$(llamacli completion bash)"                             in ~/.bashrc
    eval "$(llamacli completion zsh)"                              in ~/.zshrc, after compinit
    llamacli completion fish > ~/.config/fish/completions/llamacli.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    here: Context = context.obj
    if shell not in SHELLS:
        raise UsageError(f"completion {shell}: one of {', '.join(SHELLS[:4])}")
    script = get_completion_script(prog_name="llamacli", complete_var="_LLAMACLI_COMPLETE", shell=shell)
    here.console.write(script.strip("\n") + "\n")
