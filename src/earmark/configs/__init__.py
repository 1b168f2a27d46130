"""The configuration tree: yaml data only; `earmark.config` checks what is composed from it."""
