"""Training recipes of the shipped networks: `networks.training.digits` and `networks.training.mnist`, run with -m.

Trust: heuristic. Nothing here proves anything; a badly trained network is still verified soundly.
"""
