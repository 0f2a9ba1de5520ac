"""The ablations of the paper with the miniature: see README.md in this folder."""
