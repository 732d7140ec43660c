"""`llamacli completion SHELL`: the script that lets a shell complete commands, options and names of models."""

from __future__ import annotations

import typer

from llamacli.cli.context import Context
from llamacli.errors import UsageError

VARIABLE = "_LLAMACLI_COMPLETE"
"""Set when a shell asks what may come next; `app.main` looks at it."""

_ASK = f"{VARIABLE}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS"
"""Answers with a candidate a line, its description after a tab: a form that any shell can read."""

BASH = f"""\
_llamacli_completion() {{
    local line=${{COMP_LINE:0:COMP_POINT}} IFS=$'\\n'
    local word=${{line##*[[:space:]]}}
    COMPREPLY=($({_ASK}="$line" llamacli 2>/dev/null | cut -f1))
    # Bash takes only what follows the last colon for the word, and names of models have colons.
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local before=${{word%"${{word##*:}}"}}
        COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
    fi
}}
complete -o bashdefault -o default -F _llamacli_completion llamacli
"""

ZSH = f"""\
#compdef llamacli
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
_llamacli() {{
    local -a found
    found=("${{(@f)$({_ASK}="${{(j: :)words[1,CURRENT]}}" llamacli 2>/dev/null | cut -f1)}}")
    if [[ -n $found[1] ]]; then compadd -- $found; else _files; fi
}}
compdef _llamacli llamacli
"""

FISH = f"""\
function __llamacli_complete
    env {_ASK}=(commandline -cp) llamacli 2>/dev/null
end
complete --command llamacli --arguments '(__llamacli_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion_command(
    context: typer.Context,
    shell: str = typer.Argument(..., metavar="bash|zsh|fish|powershell", help="The shell to write for."),
) -> None:
    """Print what makes a shell complete commands, options and names of models.

    \b
    source <(llamacli completion bash)                                  in ~/.bashrc
    source <(llamacli completion zsh)                                   in ~/.zshrc
    llamacli completion fish > ~/.config/fish/completions/llamacli.fish
    llamacli completion powershell | Out-String | Invoke-Expression     in $PROFILE
    """
    here: Context = context.obj
    if shell not in (*SCRIPTS, "powershell", "pwsh"):
        raise UsageError(f"no completion for the shell {shell!r}", "there is one for bash, zsh, fish and powershell")
    here.console.write(SCRIPTS.get(shell) or _powershell())


def _powershell() -> str:
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name="llamacli", complete_var=VARIABLE, shell="powershell") + "\n"
