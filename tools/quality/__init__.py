"""How good recommendations stay when a store is trained on in parts. Run ``python -m tools.quality --help``."""
