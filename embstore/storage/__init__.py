"""The only folder that knows zarr and icechunk."""
