"""Earmark: state-aware video representations learned from audible interactions."""

__version__ = "0.1.0.dev0"
