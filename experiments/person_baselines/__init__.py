"""The paper's table 1 in miniature: CapFace against per-person training, with people held out from all training."""
