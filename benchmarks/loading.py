"""Compare the memory for loading CapFace from a 7 GB all-in-one checkpoint with the size of CapFace's own tensors.

    python tasks.py bench loading [--gigabytes 7] [--folder /tmp]

Writes a file in the released layout (CapFace at full size among other tensors) as a torch pickle and as safetensors, loads each
in a separate process, and prints the growth of that process's peak memory. Linux only. Needs disk space for one of the files.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from capface.models.diffusion.capface import CapFace, CapFaceConfig, IdentityTokens

parser = argparse.ArgumentParser()
parser.add_argument("--gigabytes", type=float, default=7)
parser.add_argument("--folder", default=None, help="folder of the file")
options = parser.parse_args()


def checkpoint(config, gigabytes):
    """Return CapFace's tensors after others that fill the file."""
    beside = {}
    if gigabytes:
        block = torch.zeros(int(2.5e8))  # 1 GB, stored once for each
        beside = {f"model.diffusion_model.{i}.weight": block.clone() for i in range(round(gigabytes - 1.45))}
    network = {f"control_model.{k}": torch.zeros(v.shape) for k, v in CapFace(config, device="meta").state_dict().items()}
    return beside | network | IdentityTokens().state_dict()


small = CapFaceConfig((1,), 1, (1,), model_channels=32)
with tempfile.TemporaryDirectory(dir=options.folder) as folder:
    for suffix, save in ((".ckpt", torch.save), (".safetensors", save_file)):
        whole, warm_up = Path(folder) / f"whole{suffix}", Path(folder) / f"small{suffix}"
        save(checkpoint(small, 0), warm_up)
        save(checkpoint(CapFaceConfig(), options.gigabytes), whole)
        start = time.perf_counter()
        command = [sys.executable, "-m", "capface.tools.loading_memory", str(whole), str(warm_up)]
        before, peak, own = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        grown, seconds = peak - before, time.perf_counter() - start
        print(
            f"{whole.stat().st_size / 1e9:.1f} GB {suffix}: CapFace's own {own / 1e9:.2f} GB, peak memory grew by "
            f"{grown / 1e9:.2f} GB ({grown / own:.2f} times), {seconds:.1f} s with start-up"
        )
        whole.unlink()
