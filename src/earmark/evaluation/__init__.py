"""Judging a learned encoder: frozen features, the linear probe, the field's metrics, whole tasks.

Where in the path of a sample: after training. Evaluation takes an encoder and labelled clips; it never imports the
training loop.
"""
