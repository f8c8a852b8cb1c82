"""Beside PyTorch: score and gradient of a mask as one graph, its backward rules, and its runtime."""
