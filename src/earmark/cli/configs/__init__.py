"""The configuration tree: yaml data only; `earmark.cli.config` checks what is composed from it."""
