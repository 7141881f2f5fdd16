"""Put one person's face into any Stable Diffusion picture."""

__version__ = "0.1.0"
