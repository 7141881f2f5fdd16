"""The stages that lead from photos to `idgen-tiny`."""
