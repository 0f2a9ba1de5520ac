"""The files that the pack uses: which they are, what a file on disk is, safe reading, atomic writing. No ComfyUI."""
