"""slack test, preview."""

import typer

from pipeline.cli.context import CONFIG, DEPENDENCY, FAILURE, OK, Stop, options, say
from pipeline.cli.service import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Try the Slack sink.", no_args_is_help=True)
    group.command()(test)
    group.command()(preview)
    app.add_typer(group, name="slack")


def test() -> int:
    """Post the sample alert with the settings in force."""
    from pipeline.sinks import slack

    settings = options.load().settings
    try:
        delivery = slack.test(settings)
    except slack.SlackConfigError as error:
        raise Stop(CONFIG, f"wonted: {error}") from None
    if delivery.ok:
        say("slack: dry run, nothing posted" if settings.sinks.slack.dry_run else "slack: the sample alert is posted")
        return OK
    code = FAILURE if delivery.refused or delivery.state == "dead" else DEPENDENCY
    raise Stop(code, f"slack: not posted: {delivery.error or delivery.state}")


def preview(json: Json = False) -> int:
    """How an alert looks in Slack, as text; --json: the blocks themselves."""
    from pipeline.cli.out import emit, write
    from pipeline.sinks import render
    from pipeline.sinks.fake_slack import as_text
    from pipeline.sinks.sample import sample_alert

    alert = sample_alert()
    blocks = render.blocks(alert)
    if json:
        emit({"blocks": blocks, "text": render.headline(alert)})
    else:
        write(as_text(blocks).rstrip("\n") + "\n")
    return OK
