"""`formalgr completion SHELL`: a script with which bash, zsh or fish complete commands, options and their values.

In: Session. Out: the script on stdout. Trust: sound (it lists what argparse knows; nothing is run while completing).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Print a script with which your shell completes commands, options and their values (file names where a file is meant)."""

EPILOG = """
examples
  eval "$(formalgr completion bash)"                        # this shell; or into ~/.bashrc
  formalgr completion zsh > "${fpath[1]}/_formalgr"         # then a new shell
  formalgr completion fish > ~/.config/fish/completions/formalgr.fish"""

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Command:
    """A command as it is typed (one or two words), what it does, and its options."""

    words: str
    about: str
    actions: tuple[argparse.Action, ...]

    @property
    def names(self) -> list[str]:
        """Long and short options."""
        return [name for action in self.actions for name in action.option_strings]

    @property
    def choices(self) -> dict[str, list[str]]:
        """The values of options that take one of a few."""
        chosen = [action for action in self.actions if action.choices is not None]
        return {name: list(map(str, action.choices or ())) for action in chosen for name in action.option_strings}


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Print the script."""
    session.result({"bash": _bash, "zsh": _zsh, "fish": _fish}[session.args.shell](commands()))
    return 0


def commands() -> list[Command]:
    """Every command and experiment with its options."""
    from formalgr.cli import experiment
    from formalgr.cli.main import COMMANDS, parser_of

    named = {name: about for name, (_, about) in COMMANDS.items() if name != "experiment"}
    named |= {f"experiment {name}": about for name, about in experiment.NAMES.items()}
    return [Command(words, about, tuple(parser_of(words)._actions)) for words, about in named.items()]


def _firsts(known: Sequence[Command]) -> list[str]:
    return list(dict.fromkeys(command.words.split()[0] for command in known))


def _bash(known: Sequence[Command]) -> str:
    """Words by the command line so far; file names where no word fits."""
    experiments = " ".join(command.words.split()[1] for command in known if " " in command.words)
    names = "\n".join(f"        '{command.words}') words='{' '.join(command.names)}' ;;" for command in known)
    values = "\n".join(
        f"        '{command.words} {name}') COMPREPLY=($(compgen -W '{' '.join(found)}' -- \"$word\")); return ;;"
        for command in known
        for name, found in command.choices.items()
    )
    return f"""# bash completion of formalgr; made by: formalgr completion bash
_formalgr() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{' '.join([*_firsts(known), "--version", "--help"])}' -- "$word")); return
    fi
    if [ "$command" = experiment ]; then
        if [ "$COMP_CWORD" -eq 2 ]; then
            COMPREPLY=($(compgen -W '{experiments}' -- "$word")); return
        fi
        command="experiment ${{COMP_WORDS[2]}}"
    fi
    case "$command $before" in
{values}
    esac
    case "$command" in
{names}
    esac
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _formalgr formalgr"""


def _zsh(known: Sequence[Command]) -> str:
    """zsh runs the functions of bash."""
    return f"#compdef formalgr\nautoload -U +X bashcompinit && bashcompinit\n{_bash(known)}"


def _fish(known: Sequence[Command]) -> str:
    """One line a command and an option, with what it does."""
    lines = ["# fish completion of formalgr; made by: formalgr completion fish"]
    about = {command.words: command.about for command in known} | {"experiment": "experiments of the source papers"}
    for first in _firsts(known):
        lines.append(f"complete -c formalgr -n __fish_use_subcommand -f -a {first} -d {_quoted(about[first])}")
    for command in known:
        condition = " ; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words.split())
        if " " in command.words:
            name = command.words.split()[1]
            place = "__fish_seen_subcommand_from experiment"
            lines.append(f"complete -c formalgr -n '{place}' -f -a {name} -d {_quoted(command.about)}")
        for action in command.actions:
            lines += _fish_option(condition, action)
    return "\n".join(lines)


def _fish_option(condition: str, action: argparse.Action) -> list[str]:
    if not action.option_strings:
        return []
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings]
    takes = " -r" if action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction) else ""
    values = "" if action.choices is None else f" -f -a {_quoted(' '.join(map(str, action.choices)))}"
    told = (action.help or "").split(";")[0].split("(")[0].replace("%%", "%").strip()
    return [f"complete -c formalgr -n '{condition}' {' '.join(names)}{takes}{values} -d {_quoted(told[:70])}"]


def _quoted(text: str) -> str:
    """A word of fish in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
