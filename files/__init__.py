"""What files the pack can use, what a file on disk is, reading it safely and writing it atomically. Knows nothing of ComfyUI."""
