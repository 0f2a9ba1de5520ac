"""From a photo to a face, an aligned portrait, identity features and a head. Independent of ComfyUI."""
