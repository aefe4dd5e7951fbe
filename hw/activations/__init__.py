"""Activations: row reader, RLC decoder, token maker, RLC encoder, row writer."""
