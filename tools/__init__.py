"""What runs around the pack: a real ComfyUI process, stand-in weights, the demo. The pack itself imports none of it."""
