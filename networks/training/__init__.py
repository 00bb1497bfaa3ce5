"""Training recipes of the shipped networks: `python -m networks.training.digits` and `python -m networks.training.mnist`.

Trust: heuristic. Nothing here proves anything; a badly trained network is still verified soundly.
"""
