"""CapHuman at a size that ships with the pack: networks, text encoder, evaluator and synthetic people."""
