"""For those who stay with the loop they have: its net and optimizers, kept as versions of a store."""
