"""ldm: conditional and latent diffusion models, trained with Lightning on WebDataset shards."""

__version__ = "0.1.0"
