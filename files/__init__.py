"""The files that the pack uses: their catalogue, identification, safe reading, atomic writing, and the scan for them."""
