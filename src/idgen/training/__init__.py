"""Training of identity adapters: batches → losses → steps → checkpoints."""
