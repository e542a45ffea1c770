"""``tiergate completion``: what a shell needs to complete tiergate's words."""

from __future__ import annotations

import click

from tiergate.commands.options import examples


@click.command(
    "completion",
    epilog=examples(
        "completion",
        ("bash >> ~/.bash_completion", "for bash with bash-completion, from now on"),
        ("zsh > ~/.zfunc/_tiergate", "for zsh, with ~/.zfunc in fpath before compinit"),
        ("fish > ~/.config/fish/completions/tiergate.fish", "for fish, from now on"),
        exits=("it was printed", "", "the command line is wrong"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print a script that completes commands, options and the ids of criteria."""
    from click.shell_completion import get_completion_class

    from tiergate.cli import tiergate

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(tiergate, {}, "tiergate", "_TIERGATE_COMPLETE")
    # Not source(): it starts bash to look at its version.
    click.echo(completion.source_template % completion.source_vars())
    return 0
