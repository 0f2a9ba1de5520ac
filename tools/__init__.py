"""Development tools: a real ComfyUI process, stand-in weights, the demo. The pack does not import them."""
