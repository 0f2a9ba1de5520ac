"""The networks and their checkpoints, in plain torch. Weights live in ComfyUI's models folder, never here."""
