"""slack test, preview."""

import typer


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Try the Slack sink.", no_args_is_help=True)
    app.add_typer(group, name="slack")
