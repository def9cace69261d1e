"""Trains image classifiers with `torch.distributed`: recipes as data, sample-exact resume, the node contract obeyed.

Runs under torchrun, with or without `orch`; shares with it only the node contract (docs/node-contract.md), and
imports nothing of it. torch is imported where training begins and nowhere else, so that `describe`, `digits` and bad
flags answer at once.
"""
