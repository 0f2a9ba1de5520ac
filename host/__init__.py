"""What the pack needs of ComfyUI. Besides nodes/, no other code knows the host."""
