"""Quality on random splits of MovieLens-100k, beside RecBole: ``python -m tools.quality_random``."""
