"""The commands, one file each; `earmark.cli.main` is where a command line begins."""

__all__: list[str] = []
