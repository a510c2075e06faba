"""How good least squares stays when a store is trained on in parts. Run ``python -m tools.quality_als --help``."""
