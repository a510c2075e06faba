"""Models that other systems have saved, as versions of a store."""
