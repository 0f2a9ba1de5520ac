"""A photo becomes a face, an aligned portrait, identity features and a head. Knows nothing of ComfyUI."""
