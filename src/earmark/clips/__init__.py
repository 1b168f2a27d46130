"""Prepared videos to batches."""
