"""HumanIPHC's shape as a benchmark for every method that runs in ComfyUI: see README.md in this folder."""
