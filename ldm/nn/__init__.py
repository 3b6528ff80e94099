"""Layers: attention, embeddings, residual blocks, and the moving average of weights."""
